//! Room on the disk: before it is full the log takes nothing new, so that what was taken can be brought to its end, and so that no
//! write fails half-way: after that nobody knows what the file holds, and only a restart helps.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::port::{CommitError, LogError, NewRecord};

/// Bytes that are free on the disk; `None` if that cannot be told.
pub type Free = Arc<dyn Fn() -> Option<u64> + Send + Sync>;

/// Bytes that a record may take on the disk, for each of its own: the store writes whole pages, and some anew.
const BYTES_EACH: u64 = 3;
/// Bytes that a command takes beside its records.
const COMMAND_BYTES: u64 = 16_384;
/// The part of what is kept free that commits may use: jobs that run must be able to end.
const COMMITS_PART: u64 = 4;

/// What the disk of a folder has free.
pub(super) fn free_of(folder: &Path) -> Free {
    let folder = PathBuf::from(folder);
    Arc::new(move || {
        let found = rustix::fs::statvfs(&folder).ok()?;
        Some(found.f_bavail.saturating_mul(found.f_frsize))
    })
}

/// How much of the disk may be used.
pub(super) struct Space {
    free: Free,
    free_bytes_min: u64,
}

impl Space {
    pub(super) fn new(free: Free, free_bytes_min: u64) -> Self {
        Self { free, free_bytes_min }
    }

    /// What may be written now.
    pub(super) fn now(&self) -> Budget {
        let free = (self.free)();
        if let Some(free) = free {
            metrics::gauge!("relay_local_log_free_bytes").set(free as f64);
        }
        Budget { free, left: free.unwrap_or(u64::MAX), free_bytes_min: self.free_bytes_min }
    }
}

/// What one group of commands may write.
pub(super) struct Budget {
    free: Option<u64>,
    left: u64,
    free_bytes_min: u64,
}

impl Budget {
    /// Takes what these records need, if then as much is free as must be.
    pub(super) fn append(&mut self, records: &[NewRecord]) -> Result<(), LogError> {
        self.take(records, self.free_bytes_min).map_err(LogError::Unavailable)
    }

    /// Takes what a commit needs; it may go deeper.
    pub(super) fn commit(&mut self, records: &[NewRecord]) -> Result<(), CommitError> {
        self.take(records, self.free_bytes_min / COMMITS_PART).map_err(CommitError::Aborted)
    }

    /// Whether an append of next to nothing is taken.
    pub(super) fn health(&mut self) -> Result<(), LogError> {
        self.append(&[])
    }

    fn take(&mut self, records: &[NewRecord], must_stay: u64) -> Result<(), String> {
        let cost = COMMAND_BYTES + BYTES_EACH * records.iter().map(size).sum::<u64>();
        match self.left.checked_sub(cost).filter(|left| *left >= must_stay) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                metrics::counter!("relay_local_log_refused_total").increment(1);
                let free = self.free.unwrap_or_default() >> 20;
                let kept = self.free_bytes_min >> 20;
                Err(format!(
                    "the disk of the data folder is nearly full: {free} MiB are free, and {kept} MiB must stay free; make room on it, \
                     the relay goes on by itself"
                ))
            }
        }
    }
}

fn size(record: &NewRecord) -> u64 {
    let headers: usize = record.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    let of = |part: &Option<bytes::Bytes>| part.as_ref().map_or(0, bytes::Bytes::len);
    (of(&record.key) + of(&record.value) + headers) as u64
}
