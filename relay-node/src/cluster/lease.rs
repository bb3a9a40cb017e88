//! How long the slots that a leader lent may be used by a node that it does not answer. Pure: time comes in as milliseconds of
//! a monotonic clock.
//!
//! The leader counts a node as gone after the lease's time without a heartbeat, and lends its slots to others; so a node counts from
//! *sending* the last heartbeat that was answered, and ends what runs on the slots a tenth of that time early: the margin is for
//! requests to end at their backends. But while nobody leads nobody can lend, and nothing that runs needs
//! to stop. Whoever leads, or begins to, writes to the election topic. So a node that hears from no leader looks at the end of
//! that topic: once nothing was written for half a lease, whoever led has stopped, for good, and a later leader waits one lease from
//! its beginning before it lends what nobody reports. Each further look that finds nothing new puts the lease's end off by so much.

use relay_log::planted::{Bug, is_planted};

/// The lease of everything that a node was lent.
#[derive(Debug, Default)]
pub struct Lease {
    held: Option<Held>,
}

/// What became of the lease with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// The one before was over: what ran on it ends, even where the new one lends the same slots.
    pub ended: bool,
    /// The answer came in time to be one: what it lends may be used.
    pub counts: bool,
}

#[derive(Debug)]
struct Held {
    ttl_ms: u64,
    /// The lease counts from here.
    from_ms: u64,
    /// When the heartbeat was sent that was answered last.
    sent_ms: u64,
    quiet: Option<Quiet>,
}

impl Held {
    /// A tenth early.
    fn over_at(&self) -> u64 {
        if is_planted(Bug::LeaseNotObeyed) {
            return u64::MAX;
        }
        self.from_ms.saturating_add(self.ttl_ms - self.ttl_ms / 10)
    }
}

/// The election topic has had the same end for a while.
#[derive(Debug)]
struct Quiet {
    next: u64,
    since_ms: u64,
}

impl Lease {
    /// A heartbeat sent at `sent_ms` was answered with slots for `ttl_ms`; the answer is taken at `now_ms`. Where the node stood still
    /// for long meanwhile it lends nothing any more.
    pub fn answered(&mut self, now_ms: u64, sent_ms: u64, ttl_ms: u64) -> Taken {
        let ended = self.ends(now_ms);
        let held = Held { ttl_ms, from_ms: sent_ms, sent_ms, quiet: None };
        let counts = now_ms < held.over_at();
        if counts {
            self.held = Some(held);
        }
        Taken { ended, counts }
    }

    /// Whether to look at the election topic: no answer came for longer than usual.
    pub fn wants_look(&self, now_ms: u64) -> bool {
        self.held.as_ref().is_some_and(|held| now_ms.saturating_sub(held.sent_ms) >= held.ttl_ms / 5)
    }

    /// A look that lasted from `began_ms` to `ended_ms` found that the topic's next record will have the offset `next`. One that ends
    /// after the lease is too late.
    pub fn looked(&mut self, (began_ms, ended_ms): (u64, u64), next: u64) {
        let Some(held) = self.held.as_mut().filter(|held| ended_ms < held.over_at()) else { return };
        match &held.quiet {
            Some(quiet) if quiet.next == next => {
                if began_ms.saturating_sub(quiet.since_ms) >= held.ttl_ms / 2 {
                    held.from_ms = held.from_ms.max(began_ms);
                }
            }
            _ => held.quiet = Some(Quiet { next, since_ms: ended_ms }),
        }
    }

    /// When the slots may not be used any more, unless an answer or a look puts it off; `None` if none is lent.
    pub fn over_at(&self) -> Option<u64> {
        self.held.as_ref().map(Held::over_at)
    }

    /// Whether the lease is over: told once.
    pub fn ends(&mut self, now_ms: u64) -> bool {
        self.held.take_if(|held| now_ms >= held.over_at()).is_some()
    }
}

#[cfg(test)]
#[path = "lease_test.rs"]
mod tests;
