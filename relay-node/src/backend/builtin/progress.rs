//! How far a task is, and the point where it can be called off.

use std::time::{Duration, Instant};

use super::error::Cancelled;

/// Shortest time between two reports from a decoding loop.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// Hears how far a task is, and calls it off.
pub trait Progress {
    /// `fraction` of the work is done, from 0.0 to 1.0, never falling. Called once at the start, once at the end, and
    /// at most ten times a second between.
    ///
    /// # Errors
    /// [`Cancelled`] ends the task at once; it then returns [`MediaError::Cancelled`](super::MediaError::Cancelled).
    fn report(&mut self, fraction: f32) -> Result<(), Cancelled>;
}

impl<F: FnMut(f32) -> Result<(), Cancelled>> Progress for F {
    fn report(&mut self, fraction: f32) -> Result<(), Cancelled> {
        self(fraction)
    }
}

/// Thins the reports of a tight loop out and keeps them rising.
pub(super) struct Throttle<'a> {
    progress: &'a mut dyn Progress,
    last: Instant,
    highest: f32,
}

impl<'a> Throttle<'a> {
    /// Reports 0.0.
    pub(super) fn start(progress: &'a mut dyn Progress) -> Result<Self, Cancelled> {
        progress.report(0.0)?;
        Ok(Self { progress, last: Instant::now(), highest: 0.0 })
    }

    /// `done` of `total` is behind us; heard only if the last report is old enough.
    pub(super) fn tick(&mut self, done: u64, total: u64) -> Result<(), Cancelled> {
        if self.last.elapsed() < REPORT_EVERY {
            return Ok(());
        }
        self.last = Instant::now();
        self.at(done as f32 / total.max(1) as f32)
    }

    /// Reports `fraction` now.
    pub(super) fn at(&mut self, fraction: f32) -> Result<(), Cancelled> {
        self.highest = fraction.clamp(self.highest, 1.0);
        self.progress.report(self.highest)
    }
}
