//! Virtual wall time: tokio's paused clock, and how far a node's own clock is off.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use relay_runtime::clock::Clock;
use tokio::time::Instant;

/// When every simulation begins, in milliseconds since the Unix epoch.
pub(super) const BEGIN_MS: u64 = 1_800_000_000_000;

/// The clock of one node; its lives share how far it is off.
#[derive(Debug, Clone)]
pub(super) struct VirtualClock {
    began: Instant,
    off_ms: Arc<AtomicI64>,
}

impl VirtualClock {
    /// A clock that is right.
    pub(super) fn new(began: Instant) -> Self {
        Self { began, off_ms: Arc::default() }
    }

    /// Sets it right.
    pub(super) fn set_right(&self) {
        self.off_ms.store(0, Ordering::Relaxed);
    }

    /// Moves it.
    pub(super) fn jump(&self, by_ms: i64) {
        self.off_ms.fetch_add(by_ms, Ordering::Relaxed);
    }
}

impl Clock for VirtualClock {
    fn now_ms(&self) -> u64 {
        let now = BEGIN_MS + self.began.elapsed().as_millis() as u64;
        now.saturating_add_signed(self.off_ms.load(Ordering::Relaxed))
    }
}
