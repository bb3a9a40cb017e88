//! Whether the slots that a leader lent may still be used. What runs on one asks at every step: a process that stood still wakes with
//! answers in its sockets, and must not use them before it has seen that its time is over.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use relay_log::planted::{Bug, is_planted};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::BackendError;

/// The lease of all slots of a node.
#[derive(Debug)]
pub(super) struct Lent {
    /// Zero of its clock.
    began: Instant,
    /// When the lease is over, in milliseconds; `u64::MAX` where slots are the node's own.
    until_ms: AtomicU64,
    /// Leases that have ended.
    ended: AtomicU64,
    over: Notify,
}

/// The right to use one slot, for as long as the lease goes on that it was given under.
#[derive(Debug, Clone)]
pub struct Hold {
    lent: Arc<Lent>,
    ended: u64,
}

impl Lent {
    /// Slots that nobody lent: they are the node's own until [`Self::until`] says otherwise.
    pub(super) fn own() -> Arc<Self> {
        let (until_ms, ended, over) = (AtomicU64::new(u64::MAX), AtomicU64::default(), Notify::new());
        Arc::new(Self { began: Instant::now(), until_ms, ended, over })
    }

    /// The lease goes on until `at`.
    pub(super) fn until(&self, at: Instant) {
        let until_ms = at.saturating_duration_since(self.began).as_millis() as u64;
        self.until_ms.store(until_ms, Ordering::SeqCst);
    }

    /// Whether its time is over.
    pub(super) fn is_past(&self) -> bool {
        let until_ms = self.until_ms.load(Ordering::SeqCst);
        until_ms != u64::MAX && self.began.elapsed().as_millis() as u64 >= until_ms
    }

    /// Ends it: whoever holds a slot under it is told, for good.
    pub(super) fn end(&self) {
        self.ended.fetch_add(1, Ordering::SeqCst);
        self.over.notify_waiters();
    }

    /// The right to a slot that is handed out now; `None` for one that is the node's own.
    pub(super) fn hold(self: &Arc<Self>) -> Option<Hold> {
        if is_planted(Bug::RunsOnAfterLease) {
            return None;
        }
        let is_lent = self.until_ms.load(Ordering::SeqCst) != u64::MAX;
        is_lent.then(|| Hold { lent: self.clone(), ended: self.ended.load(Ordering::SeqCst) })
    }
}

impl Hold {
    /// Whether the slot may not be used any more. A later lease does not bring it back: others may have had the slot meanwhile.
    fn is_over(&self) -> bool {
        self.lent.ended.load(Ordering::SeqCst) != self.ended || self.lent.is_past()
    }

    /// What comes of `work`, unless the lease ends before it does: then `work` is dropped, and whatever has come for it is not looked at.
    ///
    /// # Errors
    /// [`BackendError::LeaseOver`].
    pub async fn during<T>(&self, work: impl Future<Output = T>) -> Result<T, BackendError> {
        let (mut over, mut work) = (pin!(self.lent.over.notified()), pin!(work));
        let outcome = poll_fn(|cx| {
            // Listens first: an end between the question and the listening would never be heard of.
            if over.as_mut().poll(cx).is_ready() || self.is_over() {
                return Poll::Ready(Err(BackendError::LeaseOver));
            }
            work.as_mut().poll(cx).map(Ok)
        });
        let outcome = outcome.await;
        if outcome.is_err() {
            metrics::counter!("relay_backend_requests_cut_off_total").increment(1);
        }
        outcome
    }
}

#[cfg(test)]
#[path = "lent_test.rs"]
mod tests;
