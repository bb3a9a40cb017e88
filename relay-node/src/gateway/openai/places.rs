//! How many calls may wait on a node: those that wait for a backend, and those whose job is waited for.

use tokio::sync::{Semaphore, SemaphorePermit};

use super::OpenAiSettings;

/// What the calls of a node share.
pub struct Calls {
    /// Of calls whose answer has not begun.
    pub(super) direct: Places,
    /// Of durable ones.
    pub(super) durable: Places,
}

impl Calls {
    /// No calls yet.
    pub fn new(settings: &OpenAiSettings) -> Self {
        Self {
            direct: Places::new(settings.waiting_max, "relay_openai_waiting_calls"),
            durable: Places::new(settings.durable_max, "relay_openai_durable_calls"),
        }
    }
}

/// A bounded number of places.
pub(super) struct Places {
    free: Semaphore,
    max: usize,
    gauge: &'static str,
}

impl Places {
    fn new(max: usize, gauge: &'static str) -> Self {
        let max = max.min(Semaphore::MAX_PERMITS);
        Self { free: Semaphore::new(max), max, gauge }
    }

    /// A place, if one is free.
    pub(super) fn take(&self) -> Option<Place<'_>> {
        let permit = self.free.try_acquire().ok()?;
        let place = Place { places: self, permit: Some(permit) };
        self.show();
        Some(place)
    }

    pub(super) fn max(&self) -> usize {
        self.max
    }

    fn show(&self) {
        metrics::gauge!(self.gauge).set((self.max - self.free.available_permits()) as f64);
    }
}

/// The place of a call; free again when it is dropped.
pub(super) struct Place<'a> {
    places: &'a Places,
    permit: Option<SemaphorePermit<'a>>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        drop(self.permit.take());
        self.places.show();
    }
}
