//! How long the slots that a leader lent may be used by a node that it does not answer. Pure: time comes in as milliseconds of
//! a monotonic clock.
//!
//! The leader counts a node as gone after the lease's time without a heartbeat, and lends its slots to others; so a node counts from
//! *sending* the last heartbeat that was answered. But while nobody leads nobody can lend, and nothing that runs needs
//! to stop. Whoever leads, or begins to, writes to the election topic. So a node that hears from no leader looks at the end of
//! that topic: once nothing was written for half a lease, whoever led has stopped, for good, and a later leader waits one lease from
//! its beginning before it lends what nobody reports. Each further look that finds nothing new puts the lease's end off by so much.

/// The lease of everything that a node was lent.
#[derive(Debug, Default)]
pub struct Lease {
    held: Option<Held>,
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

/// The election topic has had the same end for a while.
#[derive(Debug)]
struct Quiet {
    next: u64,
    since_ms: u64,
}

impl Lease {
    /// A heartbeat sent at `sent_ms` was answered with slots for `ttl_ms`.
    pub fn answered(&mut self, sent_ms: u64, ttl_ms: u64) {
        self.held = Some(Held { ttl_ms, from_ms: sent_ms, sent_ms, quiet: None });
    }

    /// Whether to look at the election topic: no answer came for longer than usual.
    pub fn wants_look(&self, now_ms: u64) -> bool {
        self.held.as_ref().is_some_and(|held| now_ms.saturating_sub(held.sent_ms) >= held.ttl_ms / 5)
    }

    /// A look that lasted from `began_ms` to `ended_ms` found that the topic's next record will have the offset `next`.
    pub fn looked(&mut self, (began_ms, ended_ms): (u64, u64), next: u64) {
        let Some(held) = &mut self.held else { return };
        match &held.quiet {
            Some(quiet) if quiet.next == next => {
                if began_ms.saturating_sub(quiet.since_ms) >= held.ttl_ms / 2 {
                    held.from_ms = held.from_ms.max(began_ms);
                }
            }
            _ => held.quiet = Some(Quiet { next, since_ms: ended_ms }),
        }
    }

    /// Whether the lease is over, a tenth early: told once.
    pub fn ends(&mut self, now_ms: u64) -> bool {
        let is_over = |held: &mut Held| now_ms >= held.from_ms.saturating_add(held.ttl_ms - held.ttl_ms / 10);
        self.held.take_if(is_over).is_some()
    }
}

#[cfg(test)]
#[path = "lease_test.rs"]
mod tests;
