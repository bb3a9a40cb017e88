//! The one place of suspects on a node. Whoever has it is charged if the node dies; with its turn over it makes room for the next.
//! A suspect that waited for long begins beside it: that the others are slow to leave must not keep it from its backend.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::intake::earlier::{Crashes, PoisonLimits};

/// The place, for all lanes of a node.
#[derive(Debug)]
pub struct SuspectPlace {
    place: Arc<Semaphore>,
    wanting: AtomicUsize,
    limits: PoisonLimits,
}

impl SuspectPlace {
    /// A free one.
    pub fn new(limits: PoisonLimits) -> Self {
        Self { place: Arc::new(Semaphore::new(1)), wanting: AtomicUsize::new(0), limits }
    }

    /// Returns once no other suspect has the place, or with `None` after the patience of one with these crashes.
    async fn enter(&self, crashes: Crashes) -> Option<OwnedSemaphorePermit> {
        let _wanting = Wanting::one_more(&self.wanting);
        let patience = Duration::from_millis(self.limits.patience_ms(crashes));
        timeout(patience, self.place.clone().acquire_owned()).await.ok()?.ok()
    }

    /// Whether a run waits for it.
    pub fn is_wanted(&self) -> bool {
        self.wanting.load(Ordering::Relaxed) > 0
    }
}

/// One run that waits, until it has the place or is dropped.
struct Wanting<'a>(&'a AtomicUsize);

impl<'a> Wanting<'a> {
    fn one_more(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Wanting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a run has of the place.
#[derive(Debug, Default)]
pub struct Suspicion(Mutex<State>);

#[derive(Debug, Default)]
enum State {
    /// It was not there yet, or is no suspect.
    #[default]
    Outside,
    /// It is the only one, since its first attempt of this number began at this time.
    Alone(OwnedSemaphorePermit, Option<(u32, Instant)>),
    /// What says that it is not the only one any more is being written.
    Leaving(#[expect(dead_code, reason = "its drop lets the next one in")] OwnedSemaphorePermit),
    /// It made room, or never was there.
    Beside,
}

impl Suspicion {
    /// The run, of a job with these crashes, is the only suspect from when this returns, unless it was already, or waited in
    /// vain.
    pub(super) async fn enter(&self, place: &SuspectPlace, crashes: Crashes) {
        if matches!(*self.state(), State::Outside) {
            let entered = place.enter(crashes).await;
            *self.state() = entered.map_or(State::Beside, |permit| State::Alone(permit, None));
        }
    }

    /// Whether an attempt that begins now is that of the only suspect.
    pub(super) fn is_alone(&self) -> bool {
        matches!(*self.state(), State::Alone(..))
    }

    /// Whether it made room, or went on without the place.
    pub fn is_beside(&self) -> bool {
        matches!(*self.state(), State::Beside)
    }

    /// An attempt is about to call its backend.
    pub(super) fn began(&self, attempt: u32, now: Instant) {
        if let State::Alone(_, began) = &mut *self.state() {
            began.get_or_insert((attempt, now));
        }
    }

    /// No attempt began there after all: the next suspect may have the place, and this one waits for it anew.
    pub(super) fn not_begun(&self) {
        let mut state = self.state();
        if matches!(*state, State::Alone(_, None)) {
            *state = State::Outside;
        }
    }

    /// Begins to leave the place if an attempt began there at least `turn` ago; returns its number, to be written down as not
    /// alone before [`Suspicion::left`].
    pub fn leave_after(&self, turn: Duration, now: Instant) -> Option<u32> {
        let mut state = self.state();
        match std::mem::take(&mut *state) {
            State::Alone(place, Some((attempt, since))) if now.saturating_duration_since(since) >= turn => {
                *state = State::Leaving(place);
                Some(attempt)
            }
            same => {
                *state = same;
                None
            }
        }
    }

    /// The next suspect may have the place.
    pub fn left(&self) {
        *self.state() = State::Beside;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "suspicion_test.rs"]
mod tests;
