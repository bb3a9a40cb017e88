//! The claim check: inputs and results too large for a record lie in the object store, the record carries the claim.
//!
//! Nodes share one store: a folder, or a bucket. Its identity lies in an object of it and in the cluster topic, so that a
//! node whose store is another one refuses to start instead of losing inputs.

mod cache;
mod chain;
mod connect;
mod error;
mod parts;
mod paths;
mod quota;
mod settings;
mod sweep;
mod writer;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use relay_log::port::{Log, LogError, NewRecord, ReadEvent, Start, TopicPartition};
use relay_protocol::job::StoredObject;
use relay_protocol::{Input, topics};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio_util::io::StreamReader;

use super::media::{Media, MediaBody};

pub use cache::{Cache, CacheFile};
pub use error::StoreError;
pub use parts::{PART_BYTES, PartWriter, UploadEnd, UploadLimits, UploadName, UploadState};
pub use settings::{StoreKind, StoreSettings};
pub use sweep::{Sweeper, Swept, keep_swept};
pub use writer::ObjectWriter;

/// Key of the store's identity in the cluster topic.
const STORE_KEY: &str = "object-store";
/// Bytes read at a time when a digest is checked.
const DIGEST_CHUNK_BYTES: usize = 256 * 1024;

/// The bytes of an object.
pub type ObjectBytes = Box<dyn AsyncRead + Send + Unpin>;

/// The cluster's object store.
#[derive(Debug, Clone)]
pub struct ClaimCheck {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Arc<dyn ObjectStore>,
    folder: Option<connect::Folder>,
    place: String,
    advice: &'static str,
    cache: Cache,
    quota: Arc<quota::Quota>,
    finishes: Semaphore,
    ages: sweep::Ages,
}

impl ClaimCheck {
    /// Opens the store. A folder is made if there is none; nothing is asked of an S3 server yet. Inputs that do not lie in a
    /// folder go through `cache` while their jobs run.
    ///
    /// # Errors
    /// A folder that cannot be made or read; [`StoreError::Setting`].
    pub fn open(settings: &StoreSettings, cache: Cache) -> Result<Self, StoreError> {
        Ok(Self::connected(connect::connect(settings)?, settings, cache))
    }

    /// Uses a store that is open.
    pub fn on(store: Arc<dyn ObjectStore>, settings: &StoreSettings, cache: Cache) -> Self {
        let (place, advice) = (store.to_string(), "give every node the same store");
        Self::connected(connect::Connected { store, folder: None, place, advice }, settings, cache)
    }

    fn connected(connected: connect::Connected, settings: &StoreSettings, cache: Cache) -> Self {
        let connect::Connected { store, folder, place, advice } = connected;
        let quota = Arc::new(quota::Quota::new(store.clone(), settings.tenant_bytes_max));
        let finishes = Semaphore::new(parts::FINISHES_MAX);
        let ages = sweep::Ages::of(settings);
        Self { inner: Arc::new(Inner { store, folder, place, advice, cache, quota, finishes, ages }) }
    }

    fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.inner.store
    }

    fn quota(&self) -> &Arc<quota::Quota> {
        &self.inner.quota
    }

    fn finishes(&self) -> &Semaphore {
        &self.inner.finishes
    }

    /// Checks that this store is the one that the cluster uses; the first node's store becomes it.
    ///
    /// # Errors
    /// [`StoreError::OtherStore`], or store or log cannot be used.
    pub async fn check_shared(&self, log: &dyn Log, new_id: &str, now_ms: u64) -> Result<(), StoreError> {
        let found = self.identity(new_id).await?;
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
        let Inner { place, advice, .. } = &*self.inner;
        Err(StoreError::OtherStore { place: place.clone(), advice, found, expected })
    }

    async fn identity(&self, new_id: &str) -> Result<String, StoreError> {
        let path = Path::from(paths::IDENTITY);
        if self.head(paths::IDENTITY).await?.is_none() {
            // It is never replaced: of two nodes that make it at once, one wins and both read the same.
            let put = self.store().put_opts(&path, new_id.to_owned().into(), PutMode::Create.into()).await;
            if let Err(error) = put
                && !matches!(error, object_store::Error::AlreadyExists { .. })
            {
                return Err(error.into());
            }
        }
        let bytes = self.store().get(&path).await?.bytes().await?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// Writes bytes under `path` and returns their claim.
    ///
    /// # Errors
    /// The store cannot be written.
    pub async fn put(&self, path: &str, bytes: Bytes, named: Named) -> Result<StoredObject, StoreError> {
        let claim = claim(path, bytes.len() as u64, &Sha256::digest(&bytes), named);
        self.store().put(&Path::from(path), PutPayload::from_bytes(bytes)).await?;
        Ok(claim)
    }

    /// Removes an input that no job will ask for. One whose id a client made stays until the sweep takes it: another job may
    /// name it. What cannot be removed stays, and is logged.
    pub async fn discard(&self, object: &StoredObject) {
        if paths::is_named(&object.path) {
            return;
        }
        let objects = [Some(object.path.clone()), paths::used(&object.path)].into_iter().flatten().collect();
        if let Err(error) = self.delete(objects).await {
            tracing::warn!(%error, path = object.path, "an unused object could not be removed");
        }
    }

    /// Keeps a job's input from the orphan sweep; its retention begins now. Inputs that are no uploads need nothing.
    ///
    /// # Errors
    /// [`StoreError::Gone`] if the upload is not there, or so old that the sweep may be taking it; the store cannot be used.
    pub async fn keep(&self, input: &Input, now_ms: u64) -> Result<(), StoreError> {
        let Input::Object(object) = input else { return Ok(()) };
        let Some(mark) = paths::used(&object.path) else { return Ok(()) };
        let gone = || StoreError::Gone(object.path.clone());
        let upload = self.head(&object.path).await?.ok_or_else(gone)?;
        if self.inner.ages.is_orphan(&upload, now_ms) {
            let marked = self.head(&mark).await?.ok_or_else(gone)?;
            if self.inner.ages.is_past_retention(&marked, now_ms) {
                return Err(gone());
            }
        }
        self.store().put(&Path::from(mark), PutPayload::new()).await?;
        Ok(())
    }

    /// The bytes of an object from `offset` on, not checked.
    ///
    /// # Errors
    /// It is not there; the store cannot be read.
    pub async fn read(&self, object: &StoredObject, offset: u64) -> Result<ObjectBytes, StoreError> {
        let path = Path::parse(&object.path).map_err(object_store::Error::from)?;
        if let Some(folder) = &self.inner.folder {
            let file = folder.files.path_to_filesystem(&path)?;
            let mut file = tokio::fs::File::open(file).await.map_err(|error| error::file_error(&object.path, error))?;
            file.seek(std::io::SeekFrom::Start(offset)).await?;
            return Ok(Box::new(file));
        }
        if offset >= object.bytes {
            return Ok(Box::new(tokio::io::empty()));
        }
        let options = GetOptions::default().with_range((offset > 0).then_some(GetRange::Offset(offset)));
        let bytes = self.store().get_opts(&path, options).await?.into_stream();
        Ok(Box::new(StreamReader::new(bytes.map_err(std::io::Error::other))))
    }

    /// A job's input, its size and digest checked. What does not lie in a folder is brought to the cache.
    ///
    /// # Errors
    /// [`StoreError::Mismatch`] if it is not what the claim says; the store cannot be read.
    pub async fn open_input(&self, input: &Input) -> Result<Media, StoreError> {
        let object = match input {
            Input::Inline(media) => {
                return Ok(Media::memory(media.data.clone(), media.name.clone(), media.media_type.clone()));
            }
            Input::Text(text) | Input::Url(text) => {
                let bytes = Bytes::copy_from_slice(text.as_bytes());
                return Ok(Media::memory(bytes, None, Some("text/plain".to_owned())));
            }
            Input::Object(object) => object,
        };
        let (body, held) = match &self.inner.folder {
            Some(folder) => {
                self.check(object).await?;
                let path = Path::parse(&object.path).map_err(object_store::Error::from)?;
                (folder.files.path_to_filesystem(&path)?, None)
            }
            None => {
                let (held, file) = self.inner.cache.file(object.bytes).await?;
                self.copy_checked(object, Some(file)).await?;
                (held.path().to_owned(), Some(Arc::new(held)))
            }
        };
        Ok(Media {
            name: object.name.clone(),
            media_type: object.media_type.clone(),
            bytes: object.bytes,
            body: MediaBody::File(body),
            held,
        })
    }

    /// Reads an object and compares it with its claim.
    async fn check(&self, object: &StoredObject) -> Result<(), StoreError> {
        self.copy_checked(object, None).await
    }

    /// The same, and writes its bytes to a file.
    async fn copy_checked(&self, object: &StoredObject, mut to: Option<tokio::fs::File>) -> Result<(), StoreError> {
        let mut from = self.read(object, 0).await?;
        let (mut digest, mut bytes) = (Sha256::new(), 0_u64);
        let mut chunk = vec![0; DIGEST_CHUNK_BYTES];
        loop {
            let read = from.read(&mut chunk).await?;
            if read == 0 {
                break;
            }
            bytes += read as u64;
            if bytes > object.bytes {
                return Err(StoreError::mismatch(&object.path, format!("it has more than {} bytes", object.bytes)));
            }
            digest.update(&chunk[..read]);
            if let Some(file) = &mut to {
                file.write_all(&chunk[..read]).await?;
            }
        }
        if let Some(file) = &mut to {
            file.flush().await?;
        }
        if bytes != object.bytes {
            let reason = format!("it has {bytes} bytes instead of {}", object.bytes);
            return Err(StoreError::mismatch(&object.path, reason));
        }
        if hex::encode(digest.finalize()) != object.sha256 {
            return Err(StoreError::mismatch(&object.path, "its SHA-256 is another one"));
        }
        Ok(())
    }

    /// An object's facts; `None` if it is not there.
    async fn head(&self, path: &str) -> Result<Option<ObjectMeta>, StoreError> {
        match self.store().head(&Path::from(path)).await {
            Ok(object) => Ok(Some(object)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes objects, those that are gone already included; returns how many there were.
    async fn delete(&self, objects: Vec<String>) -> Result<usize, StoreError> {
        let objects = stream::iter(objects.into_iter().map(|object| Ok(Path::from(object)))).boxed();
        let mut deleted = self.store().delete_stream(objects);
        let mut count = 0;
        while let Some(one) = deleted.next().await {
            match one {
                Ok(_) => count += 1,
                Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(count)
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
