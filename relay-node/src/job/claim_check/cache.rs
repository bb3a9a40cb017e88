//! The node's cache: files of inputs that do not lie in a shared folder, while their jobs run.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::StoreError;

/// Bytes that one permit stands for.
const UNIT_BYTES: u64 = 1_024;
/// Begin of the names of cache folders.
const FOLDER_PREFIX: &str = "media-relay-cache-";
/// Age at which an untouched cache folder is taken for one that a killed node left.
const LEFT_AFTER: Duration = Duration::from_secs(24 * 3_600);

/// The cache. Whoever needs more than is free waits until files of other jobs are dropped.
#[derive(Debug, Clone)]
pub struct Cache {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    space: Arc<Semaphore>,
    bytes_max: u64,
    files: AtomicU64,
}

/// A file of the cache; it is removed when the last one who knows it has dropped it.
#[derive(Debug)]
pub struct CacheFile {
    path: PathBuf,
    bytes: u64,
    _space: OwnedSemaphorePermit,
}

impl Cache {
    /// A cache of at most `bytes_max` bytes in a folder of its own below `parent` (empty: the machine's folder for
    /// temporary files). Folders that killed nodes left there are removed.
    pub fn new(parent: &str, name: &str, bytes_max: u64) -> Self {
        let parent = if parent.is_empty() { std::env::temp_dir() } else { PathBuf::from(parent) };
        remove_left(&parent);
        let space = Arc::new(Semaphore::new((bytes_max / UNIT_BYTES) as usize));
        let folder = parent.join(format!("{FOLDER_PREFIX}{name}"));
        Self { inner: Arc::new(Inner { folder, space, bytes_max, files: AtomicU64::new(0) }) }
    }

    /// A new, empty file with room for `bytes`; waits for the room.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] if the whole cache is smaller; the file cannot be made.
    pub async fn file(&self, bytes: u64) -> Result<(CacheFile, tokio::fs::File), StoreError> {
        let inner = &self.inner;
        let too_large = || StoreError::TooLarge { bytes, limit: inner.bytes_max };
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).map_err(|_| too_large())?;
        if u64::from(units) * UNIT_BYTES > inner.bytes_max {
            return Err(too_large());
        }
        let space = match inner.space.clone().try_acquire_many_owned(units) {
            Ok(space) => space,
            Err(_) => {
                metrics::counter!("relay_store_cache_waits_total").increment(1);
                inner.space.clone().acquire_many_owned(units).await.map_err(std::io::Error::other)?
            }
        };
        tokio::fs::create_dir_all(&inner.folder).await?;
        let path = inner.folder.join(inner.files.fetch_add(1, Ordering::Relaxed).to_string());
        let opened = tokio::fs::File::create(&path).await?;
        metrics::gauge!("relay_store_cache_bytes").increment(bytes as f64);
        Ok((CacheFile { path, bytes, _space: space }, opened))
    }
}

impl CacheFile {
    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl PartialEq for CacheFile {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}

impl Eq for CacheFile {}

impl Drop for CacheFile {
    fn drop(&mut self) {
        metrics::gauge!("relay_store_cache_bytes").decrement(self.bytes as f64);
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "a file of the cache could not be removed");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // It is empty, or was never made; a killed node's is removed by a later start.
        _ = std::fs::remove_dir(&self.folder);
    }
}

/// Removes the cache folders that nobody has touched for long. A node that lives and is idle makes its own again.
fn remove_left(parent: &Path) {
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(FOLDER_PREFIX));
        let touched = entry.metadata().and_then(|facts| facts.modified());
        let old = touched.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age > LEFT_AFTER));
        if ours
            && old
            && let Err(error) = std::fs::remove_dir_all(entry.path())
        {
            tracing::warn!(%error, path = %entry.path().display(), "an old cache folder could not be removed");
        }
    }
}
