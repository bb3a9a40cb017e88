//! The body of a call, kept so that it can be sent more than once: small ones in memory, larger ones in a file without a name.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use actix_web::web;
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use relay_protocol::{ErrorCode, JobError};
use tokio::io::AsyncWriteExt;

use super::OpenAiSettings;
use crate::gateway::body::Pace;

/// Bytes that are read from the file at once.
const CHUNK_BYTES: usize = 65_536;

/// A whole body. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) enum Spool {
    Memory(Bytes),
    File(Arc<File>, u64),
}

impl Spool {
    /// Takes `payload` to its end; `folder` is for files, empty for the machine's.
    ///
    /// # Errors
    /// [`ErrorCode::TooLarge`], [`ErrorCode::RequestTimeout`], [`ErrorCode::BadRequest`], [`ErrorCode::StoreUnavailable`].
    pub(super) async fn fill(
        mut payload: web::Payload,
        settings: &OpenAiSettings,
        folder: &str,
        mut pace: Pace,
    ) -> Result<Self, JobError> {
        let (mut memory, mut file, mut bytes) = (BytesMut::new(), None, 0);
        while let Some(chunk) = pace.wait(payload.next()).await? {
            let chunk = chunk
                .map_err(|error| JobError::new(ErrorCode::BadRequest, format!("the body cannot be read: {error}")))?;
            pace.came(chunk.len());
            bytes += chunk.len() as u64;
            if bytes > settings.body_bytes_max {
                let limit = settings.body_bytes_max;
                return Err(JobError::new(ErrorCode::TooLarge, format!("the body has more than {limit} bytes")));
            }
            memory.extend_from_slice(&chunk);
            if file.is_some() || memory.len() > settings.memory_bytes_max {
                let file = match &mut file {
                    Some(file) => file,
                    none => none.insert(create(folder).map_err(|error| unusable(&error))?),
                };
                file.write_all(&memory).await.map_err(|error| unusable(&error))?;
                memory.clear();
            }
        }
        match file {
            None => Ok(Self::Memory(memory.freeze())),
            Some(mut file) => {
                file.flush().await.map_err(|error| unusable(&error))?;
                Ok(Self::File(Arc::new(file.into_std().await), bytes))
            }
        }
    }

    /// Size in bytes.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File(_, bytes) => *bytes,
        }
    }

    /// The body as a request to a backend sends it.
    pub(super) fn body(&self) -> reqwest::Body {
        match self {
            Self::Memory(bytes) => bytes.clone().into(),
            Self::File(..) => reqwest::Body::wrap_stream(self.chunks()),
        }
    }

    /// The bytes from the first one on.
    pub(super) fn chunks(&self) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
        let spool = self.clone();
        futures_util::stream::try_unfold((spool, 0_u64), |(spool, at)| async move {
            let chunk = match &spool {
                Self::Memory(bytes) => bytes.slice((at as usize).min(bytes.len())..),
                Self::File(file, _) => {
                    let file = file.clone();
                    let read = tokio::task::spawn_blocking(move || read_at(&file, at)).await;
                    read.map_err(std::io::Error::other)??
                }
            };
            let next = at + chunk.len() as u64;
            Ok((!chunk.is_empty()).then_some((chunk, (spool, next))))
        })
    }

    /// The bytes for a parser that blocks.
    pub(super) fn reader(&self) -> impl Read + Send + 'static {
        std::io::BufReader::with_capacity(CHUNK_BYTES, Reader { spool: self.clone(), at: 0 })
    }
}

/// Reads at a place of its own: other readers of the same file go on where they were.
struct Reader {
    spool: Spool,
    at: u64,
}

impl Read for Reader {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let count = match &self.spool {
            Spool::Memory(bytes) => (&bytes[(self.at as usize).min(bytes.len())..]).read(into)?,
            Spool::File(file, _) => file.read_at(into, self.at)?,
        };
        self.at += count as u64;
        Ok(count)
    }
}

fn read_at(file: &File, at: u64) -> std::io::Result<Bytes> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let count = file.read_at(&mut chunk, at)?;
    chunk.truncate(count);
    Ok(chunk.into())
}

fn create(folder: &str) -> std::io::Result<tokio::fs::File> {
    let file = if folder.is_empty() { tempfile::tempfile() } else { tempfile::tempfile_in(folder) };
    file.map(tokio::fs::File::from_std)
}

fn unusable(error: &std::io::Error) -> JobError {
    let message = format!("the body cannot be kept in the folder for temporary files: {error}");
    JobError::new(ErrorCode::StoreUnavailable, message)
}
