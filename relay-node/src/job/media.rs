//! A job's input as a backend reads it: in memory, or a file of the node's cache or of the shared folder.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::claim_check::CacheFile;

/// Input media.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// Name of the file, if it has one.
    pub name: Option<String>,
    /// Media type, if known.
    pub media_type: Option<String>,
    /// Size in bytes.
    pub bytes: u64,
    /// Where the bytes are.
    pub body: MediaBody,
    /// Keeps a file of the cache until the last reader is done.
    pub held: Option<Arc<CacheFile>>,
}

/// Where media's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediaBody {
    /// In memory.
    Memory(Bytes),
    /// In a file that only this job reads, or that never changes; its digest was checked.
    File(PathBuf),
}

impl Media {
    /// Media in memory.
    pub fn memory(data: Bytes, name: Option<String>, media_type: Option<String>) -> Self {
        Self { name, media_type, bytes: data.len() as u64, body: MediaBody::Memory(data), held: None }
    }

    /// All bytes in memory, if they are at most `bytes_max`.
    ///
    /// # Errors
    /// The file cannot be read, or is larger (`FileTooLarge`).
    pub async fn read(&self, bytes_max: u64) -> std::io::Result<Bytes> {
        if self.bytes > bytes_max {
            return Err(std::io::Error::new(
                std::io::ErrorKind::FileTooLarge,
                format!("{} bytes are over the limit of {bytes_max}", self.bytes),
            ));
        }
        match &self.body {
            MediaBody::Memory(bytes) => Ok(bytes.clone()),
            MediaBody::File(path) => tokio::fs::read(path).await.map(Bytes::from),
        }
    }
}
