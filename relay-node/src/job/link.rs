//! What a lane and the run of one of its jobs tell each other while it runs.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::suspicion::Suspicion;

/// Shared by a lane and one run.
#[derive(Debug, Default)]
pub struct RunLink {
    /// Fires when the job is cancelled.
    pub cancel: CancellationToken,
    /// The attempt that a backend works on, or worked on if the run is about to end; 0: none.
    attempt: AtomicU32,
    is_kept: AtomicBool,
    /// Its part in the one place of suspects.
    pub suspicion: Suspicion,
}

impl RunLink {
    /// The attempt whose work would be lost if the run were dropped.
    pub fn attempt(&self) -> Option<u32> {
        Some(self.attempt.load(Ordering::SeqCst)).filter(|attempt| *attempt > 0)
    }

    /// The job is another node's now: the run brings its attempt to an end, and begins no other.
    pub fn keep(&self) {
        self.is_kept.store(true, Ordering::SeqCst);
    }

    /// Whether the job is another node's.
    pub(super) fn is_kept(&self) -> bool {
        self.is_kept.load(Ordering::SeqCst)
    }

    /// A backend is about to be called.
    pub(super) fn began(&self, attempt: u32) {
        self.attempt.store(attempt, Ordering::SeqCst);
        self.suspicion.began(attempt, Instant::now());
    }

    /// The attempt failed, and the run waits for its next.
    pub(super) fn waits(&self) {
        self.attempt.store(0, Ordering::SeqCst);
    }
}
