//! The most slots that a holder may believe to have on one backend.

use std::collections::VecDeque;

/// Heartbeats of one node that arrive within this time of each other may arrive in the wrong order (the coordinator was
/// stopped for a moment, and a heartbeat that its node gave up on lay in a socket), in milliseconds. What a node
/// may hold shrinks only by a heartbeat that comes at least this long after the last sign of more.
pub const LATE_HEARTBEAT_MS: u64 = 250;

/// Highest number among the newest sign and all signs that are too young to be overruled.
#[derive(Debug, Clone, Default)]
pub(super) struct Ceiling {
    /// (when, slots), falling in slots from front to back: never more entries than slots.
    signs: VecDeque<(u64, u32)>,
}

impl Ceiling {
    /// A heartbeat of `now_ms` and its answer: the node has, uses or is given up to `slots`.
    pub(super) fn sign(&mut self, now_ms: u64, slots: u32) {
        while self.signs.front().is_some_and(|&(at, _)| at.saturating_add(LATE_HEARTBEAT_MS) <= now_ms) {
            self.signs.pop_front();
        }
        self.raise(now_ms, slots);
    }

    /// The answer to the heartbeat of `now_ms` gives up to `slots`.
    pub(super) fn raise(&mut self, now_ms: u64, slots: u32) {
        while self.signs.back().is_some_and(|&(_, lower)| lower <= slots) {
            self.signs.pop_back();
        }
        self.signs.push_back((now_ms, slots));
    }

    /// The most that the holder may believe to have.
    pub(super) fn slots(&self) -> u32 {
        self.signs.front().map_or(0, |&(_, slots)| slots)
    }
}

#[cfg(test)]
mod tests {
    use super::{Ceiling, LATE_HEARTBEAT_MS};

    #[test]
    fn a_late_heartbeat_does_not_lower_it() {
        let mut ceiling = Ceiling::default();
        ceiling.sign(1_000, 2);
        ceiling.sign(1_000 + LATE_HEARTBEAT_MS - 1, 0);
        assert_eq!(ceiling.slots(), 2, "the heartbeat may be older than the one before");
        ceiling.sign(1_000 + LATE_HEARTBEAT_MS, 0);
        assert_eq!(ceiling.slots(), 0);
    }

    #[test]
    fn an_answer_raises_it_at_once() {
        let mut ceiling = Ceiling::default();
        ceiling.sign(0, 0);
        ceiling.raise(0, 3);
        assert_eq!(ceiling.slots(), 3);
    }
}
