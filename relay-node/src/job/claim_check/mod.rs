//! The claim check: inputs and results too large for a record lie in the object store, the record carries the claim.
//!
//! Nodes share one folder. The folder's identity lies in a file of it and in the cluster topic, so that a node whose
//! folder is another one refuses to start instead of losing inputs.

use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload, WriteMultipart};
use relay_log::port::{Log, LogError, NewRecord, ReadEvent, Start, TopicPartition};
use relay_protocol::job::StoredObject;
use relay_protocol::{ErrorCode, Input, JobError, topics};
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;

use super::media::{Media, MediaBody};

/// Key of the store's identity in the cluster topic.
const STORE_KEY: &str = "object-store";
/// File of the shared folder that holds its identity.
const STORE_FILE: &str = "store-id";
/// Bytes of one part of a written object, in flight at a time: one.
const PART_BYTES: usize = 5 * 1024 * 1024;
/// Bytes read at a time when a digest is checked.
const DIGEST_CHUNK_BYTES: usize = 256 * 1024;

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// It cannot be read or written now.
    #[error("the object store cannot be used: {0}")]
    Unavailable(#[from] object_store::Error),
    /// A file of it cannot be read.
    #[error("the object store cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// The object is not what its claim says.
    #[error("object {path} does not match its claim: {reason}")]
    Mismatch {
        /// Where it lies.
        path: String,
        /// How it differs.
        reason: String,
    },
    /// More bytes than allowed.
    #[error("{bytes} bytes are over the limit of {limit}")]
    TooLarge {
        /// Bytes that came.
        bytes: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// The node's folder is not the one that the cluster uses.
    #[error(
        "the object store folder {} is another one than the cluster's (its identity is {found}, the cluster's {expected}): mount the shared folder there, or set store.folder",
        folder.display()
    )]
    OtherFolder {
        /// This node's folder.
        folder: PathBuf,
        /// Its identity.
        found: String,
        /// The cluster's.
        expected: String,
    },
    /// The cluster's word on the store cannot be read or written.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl StoreError {
    /// The error as clients see it.
    pub fn to_job_error(&self) -> JobError {
        let code = match self {
            Self::Mismatch { .. } => ErrorCode::DigestMismatch,
            Self::TooLarge { .. } => ErrorCode::TooLarge,
            Self::Unavailable(object_store::Error::NotFound { .. }) => ErrorCode::InputUnavailable,
            _ => ErrorCode::StoreUnavailable,
        };
        JobError::new(code, self.to_string())
    }
}

/// The cluster's object store.
#[derive(Debug, Clone)]
pub struct ClaimCheck {
    store: Arc<LocalFileSystem>,
    folder: PathBuf,
}

impl ClaimCheck {
    /// Opens the shared folder, making it if there is none.
    ///
    /// # Errors
    /// It cannot be made or read.
    pub fn open(folder: &FsPath) -> Result<Self, StoreError> {
        std::fs::create_dir_all(folder)?;
        let folder = folder.canonicalize()?;
        let store = LocalFileSystem::new_with_prefix(&folder)?.with_automatic_cleanup(true);
        Ok(Self { store: Arc::new(store), folder })
    }

    /// Checks that this folder is the one that the cluster uses; the first node's folder becomes it.
    ///
    /// # Errors
    /// [`StoreError::OtherFolder`], or the log cannot be used.
    pub async fn check_shared(&self, log: &dyn Log, new_id: &str, now_ms: u64) -> Result<(), StoreError> {
        let found = self.identity(new_id)?;
        let at = TopicPartition::new(topics::CLUSTER, 0);
        let expected = match first_identity(log, &at).await? {
            Some(expected) => expected,
            None => {
                let record = NewRecord {
                    to: at.clone(),
                    key: Some(Bytes::from_static(STORE_KEY.as_bytes())),
                    value: Some(Bytes::from(found.clone())),
                    headers: Vec::new(),
                    timestamp_ms: now_ms,
                };
                log.append(vec![record]).await?;
                // Two nodes may have come at once: the first record decides.
                first_identity(log, &at).await?.unwrap_or_else(|| found.clone())
            }
        };
        if found == expected {
            return Ok(());
        }
        Err(StoreError::OtherFolder { folder: self.folder.clone(), found, expected })
    }

    fn identity(&self, new_id: &str) -> Result<String, StoreError> {
        let file = self.folder.join(STORE_FILE);
        match std::fs::read_to_string(&file) {
            Ok(id) => Ok(id.trim().to_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let draft = self.folder.join(format!("{STORE_FILE}.{new_id}"));
                std::fs::write(&draft, new_id)?;
                // A link never replaces: of two nodes that make the file at once, one wins and both read the same.
                let linked = std::fs::hard_link(&draft, &file);
                std::fs::remove_file(&draft)?;
                match linked {
                    Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error.into()),
                    _ => Ok(std::fs::read_to_string(&file)?.trim().to_owned()),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Writes bytes under `path` and returns their claim.
    ///
    /// # Errors
    /// The store cannot be written.
    pub async fn put(&self, path: &str, bytes: Bytes, named: Named) -> Result<StoredObject, StoreError> {
        let claim = claim(path, bytes.len() as u64, &Sha256::digest(&bytes), named);
        self.store.put(&Path::from(path), PutPayload::from_bytes(bytes)).await?;
        Ok(claim)
    }

    /// Begins to write an object of at most `bytes_max` bytes, part by part.
    ///
    /// # Errors
    /// The store cannot be written.
    pub async fn writer(&self, path: String, bytes_max: u64) -> Result<ObjectWriter, StoreError> {
        let upload = self.store.put_multipart(&Path::from(path.as_str())).await?;
        let parts = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        Ok(ObjectWriter { path, parts, digest: Sha256::new(), bytes: 0, bytes_max })
    }

    /// Removes an object that no job will ask for. What cannot be removed stays, and is logged.
    pub async fn discard(&self, object: &StoredObject) {
        if let Err(error) = self.store.delete(&Path::from(object.path.as_str())).await {
            tracing::warn!(%error, path = object.path, "an unused object could not be removed");
        }
    }

    /// The file of a stored object.
    ///
    /// # Errors
    /// Its path leads out of the store.
    pub fn file(&self, object: &StoredObject) -> Result<PathBuf, StoreError> {
        Ok(self.store.path_to_filesystem(&Path::parse(&object.path).map_err(object_store::Error::from)?)?)
    }

    /// A job's input, its size and digest checked.
    ///
    /// # Errors
    /// [`StoreError::Mismatch`] if it is not what the claim says; the store cannot be read.
    pub async fn open_input(&self, input: &Input) -> Result<Media, StoreError> {
        match input {
            Input::Inline(media) => Ok(Media::memory(media.data.clone(), media.name.clone(), media.media_type.clone())),
            Input::Text(text) | Input::Url(text) => {
                Ok(Media::memory(Bytes::copy_from_slice(text.as_bytes()), None, Some("text/plain".to_owned())))
            }
            Input::Object(object) => {
                let file = self.file(object)?;
                check_digest(&file, object).await?;
                Ok(Media {
                    name: object.name.clone(),
                    media_type: object.media_type.clone(),
                    bytes: object.bytes,
                    body: MediaBody::File(file),
                })
            }
        }
    }
}

/// What is known of an object beside its bytes.
#[derive(Debug, Clone, Default)]
pub struct Named {
    /// Name of the file.
    pub name: Option<String>,
    /// Media type.
    pub media_type: Option<String>,
}

/// An object that is being written; dropped before [`ObjectWriter::finish`], it never was.
pub struct ObjectWriter {
    path: String,
    parts: WriteMultipart,
    digest: Sha256,
    bytes: u64,
    bytes_max: u64,
}

impl ObjectWriter {
    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds bytes; waits while the store is behind.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`], or the store cannot be written.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.bytes += bytes.len() as u64;
        if self.bytes > self.bytes_max {
            return Err(StoreError::TooLarge { bytes: self.bytes, limit: self.bytes_max });
        }
        self.parts.wait_for_capacity(1).await?;
        self.digest.update(&bytes);
        self.parts.put(bytes);
        Ok(())
    }

    /// Makes the object visible and returns its claim.
    ///
    /// # Errors
    /// The store cannot be written.
    pub async fn finish(self, named: Named) -> Result<StoredObject, StoreError> {
        self.parts.finish().await?;
        Ok(claim(&self.path, self.bytes, &self.digest.finalize(), named))
    }

    /// SHA-256 of what was written so far.
    pub fn sha256(&self) -> [u8; 32] {
        self.digest.clone().finalize().into()
    }

    /// Gives the object up.
    pub async fn abort(self) {
        if let Err(error) = self.parts.abort().await {
            tracing::warn!(%error, path = self.path, "an unfinished object could not be removed");
        }
    }
}

fn claim(path: &str, bytes: u64, digest: &[u8], named: Named) -> StoredObject {
    StoredObject {
        path: path.to_owned(),
        bytes,
        sha256: hex::encode(digest),
        name: named.name,
        media_type: named.media_type,
    }
}

async fn first_identity(log: &dyn Log, at: &TopicPartition) -> Result<Option<String>, LogError> {
    let mut reader = log.read(vec![(at.clone(), Start::Earliest)]).await?;
    loop {
        match reader.next().await? {
            ReadEvent::End { .. } => return Ok(None),
            ReadEvent::Record(record) => {
                let ours = record.key.as_deref() == Some(STORE_KEY.as_bytes());
                if let Some(value) = record.value.filter(|_| ours) {
                    return Ok(Some(String::from_utf8_lossy(&value).into_owned()));
                }
            }
        }
    }
}

async fn check_digest(file: &FsPath, object: &StoredObject) -> Result<(), StoreError> {
    let mismatch = |reason| StoreError::Mismatch { path: object.path.clone(), reason };
    let mut opened = match tokio::fs::File::open(file).await {
        Ok(opened) => opened,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(object_store::Error::NotFound { path: object.path.clone(), source: error.into() }.into());
        }
        Err(error) => return Err(error.into()),
    };
    let (mut digest, mut bytes) = (Sha256::new(), 0_u64);
    let mut chunk = vec![0; DIGEST_CHUNK_BYTES];
    loop {
        let read = opened.read(&mut chunk).await?;
        if read == 0 {
            break;
        }
        bytes += read as u64;
        digest.update(&chunk[..read]);
    }
    if bytes != object.bytes {
        return Err(mismatch(format!("it has {bytes} bytes instead of {}", object.bytes)));
    }
    if hex::encode(digest.finalize()) != object.sha256 {
        return Err(mismatch("its SHA-256 is another one".to_owned()));
    }
    Ok(())
}
