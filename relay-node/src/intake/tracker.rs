//! Which jobs of one partition are finished: jobs finish in any order, and what is committed lets a new owner redo exactly what
//! is not done. Pure.
//!
//! What the last commit finished counts for a new owner only once it has seen that commit's records: brokers have kept the
//! offsets of a transaction whose records they dropped.

use std::collections::{BTreeMap, BTreeSet};

use relay_log::planted::{Bug, is_planted};
use relay_log::port::Committed;

use super::fresh::Fresh;
use super::progress::{Progress, WINDOW_OFFSETS_MAX};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Unfinished { since_ms: u64 },
    Finished,
}

/// What is finished by the next commit or the one under way, which has records of it that are there until a time.
#[derive(Debug, Clone, Copy)]
struct FreshEnd {
    since_ms: u64,
    until_ms: u64,
}

impl State {
    fn is_finished(self) -> bool {
        matches!(self, Self::Finished)
    }
}

/// Tracks one partition under one assignment.
#[derive(Debug)]
pub struct Tracker {
    /// Finished before this assignment began.
    inherited: Progress,
    /// Delivered offsets at and above the lowest unfinished one, and inherited finished ones.
    offsets: BTreeMap<u64, State>,
    /// Of the finished ones those that a new owner must find proof of. Beside the others, so that a commit costs no more than what
    /// it finishes while one long job holds the window open.
    fresh: BTreeMap<u64, FreshEnd>,
    /// Inherited ones that count as unfinished until the records of their commit are seen.
    doubted: BTreeSet<u64>,
    /// Those whose records are not there: they must be read again.
    reopened: BTreeSet<u64>,
    /// Whether there were any: then what was inherited as done is not, until a commit of our own says so.
    is_redone: bool,
    /// One after the newest delivered offset.
    read_to: u64,
    /// Since when the newest delivered job is known.
    newest_ms: u64,
}

/// What to do with a delivered record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Do it.
    New,
    /// It was finished under an earlier assignment.
    AlreadyFinished,
}

impl Tracker {
    /// Begins where the group's last commit left off; `start` is where delivery begins.
    pub fn new(committed: Option<&Committed>, start: u64, now_ms: u64) -> Self {
        let inherited = committed.map_or(Progress::at(start), Progress::unpack);
        // What records would say is forgotten by now: nobody would have come back to it but long ago.
        let is_told = inherited.fresh.until_ms() > now_ms && !is_planted(Bug::OffsetsProve);
        let doubted: BTreeSet<u64> = inherited.fresh.iter().filter(|_| is_told).collect();
        // The next commit may have to go back to the first in doubt. The window of the last commit reached down to it.
        let below = doubted.first().map_or(inherited.next, |first| *first)..inherited.next;
        let mut offsets: BTreeMap<u64, State> =
            below.chain(inherited.finished_beyond()).map(|offset| (offset, State::Finished)).collect();
        offsets.extend(doubted.iter().map(|offset| (*offset, State::Unfinished { since_ms: inherited.oldest_ms })));
        let (read_to, newest_ms) = (start.max(inherited.next), inherited.oldest_ms);
        Self {
            inherited,
            offsets,
            fresh: BTreeMap::new(),
            doubted,
            reopened: BTreeSet::new(),
            is_redone: false,
            read_to,
            newest_ms,
        }
    }

    /// Whether an earlier owner finished `offset`, beyond doubt.
    pub fn is_done(&self, offset: u64) -> bool {
        self.inherited.is_finished(offset) && !self.doubted.contains(&offset) && !self.reopened.contains(&offset)
    }

    /// Whether all that earlier owners finished is finished indeed. Never where something must be done again, even once it was: only
    /// a commit tells.
    pub fn is_proven(&self) -> bool {
        self.doubted.is_empty() && !self.is_redone
    }

    /// Inherited offsets of whose ends nothing was seen yet.
    pub fn doubted(&self) -> &BTreeSet<u64> {
        &self.doubted
    }

    /// What the last owner's last commit wrote about this offset was seen: it is finished indeed.
    pub fn prove(&mut self, offset: u64) {
        if self.doubted.remove(&offset) {
            self.offsets.insert(offset, State::Finished);
        }
    }

    /// All was read that the last owner's last commit wrote: what it did not write of is not finished, though its offset says so.
    /// Returns what is to be read again, in order.
    pub fn reopen(&mut self) -> Vec<u64> {
        self.reopened = std::mem::take(&mut self.doubted);
        self.is_redone |= !self.reopened.is_empty();
        self.reopened.iter().copied().collect()
    }

    /// The record of a reopened offset is gone: nothing can be done about it any more.
    pub fn is_gone(&mut self, offset: u64) {
        if self.reopened.remove(&offset) {
            self.offsets.insert(offset, State::Finished);
        }
    }

    /// What was inherited.
    pub fn inherited(&self) -> &Progress {
        &self.inherited
    }

    /// Takes note of a delivered record that exists since `since_ms` at the latest.
    pub fn deliver(&mut self, offset: u64, since_ms: u64) -> Delivery {
        if self.reopened.remove(&offset) {
            // Out of turn: those before it may not have been read yet.
            return Delivery::New;
        }
        self.read_to = self.read_to.max(offset + 1);
        self.newest_ms = since_ms;
        if self.inherited.is_finished(offset) {
            return Delivery::AlreadyFinished;
        }
        self.offsets.entry(offset).or_insert(State::Unfinished { since_ms });
        Delivery::New
    }

    /// Counts `offset` as finished in the next proposal. Its outcome must be in the same commit; a new owner can see it there until
    /// `seen_until_ms`, in milliseconds since the Unix epoch, or not at all.
    pub fn finish(&mut self, offset: u64, seen_until_ms: Option<u64>) {
        let Some(state) = self.offsets.get_mut(&offset) else { return };
        if let State::Unfinished { since_ms } = *state {
            *state = State::Finished;
            self.fresh.extend(seen_until_ms.map(|until_ms| (offset, FreshEnd { since_ms, until_ms })));
        }
    }

    /// What to commit: everything finished so far.
    pub fn proposal(&self) -> Progress {
        let oldest = self.offsets.iter().find_map(|(offset, state)| match state {
            State::Unfinished { since_ms } => Some((*offset, *since_ms)),
            State::Finished => None,
        });
        // What an earlier owner finished is behind us too, though it was not delivered again yet.
        let is_done = |offset: &u64| self.offsets.get(offset).is_some_and(|state| state.is_finished());
        let (next, oldest_ms) = oldest
            .unwrap_or_else(|| (self.read_to + (self.read_to..).take_while(is_done).count() as u64, self.newest_ms));
        // Whoever redoes one must know of its attempts.
        let oldest_ms = self.fresh.values().map(|end| end.since_ms).fold(oldest_ms, u64::min);
        let until_ms = self.fresh.values().map(|end| end.until_ms).fold(u64::MAX, u64::min);
        let fresh = Fresh::of(self.fresh.keys().copied(), until_ms);
        let mut progress = Progress::at(next);
        (progress.oldest_ms, progress.fresh) = (oldest_ms, fresh);
        for (offset, state) in self.offsets.range(next..) {
            if state.is_finished() {
                progress.set(*offset);
            }
        }
        progress
    }

    /// A proposal with this offset was committed: what lies below it is forgotten, what it finished needs no proof any more.
    pub fn committed(&mut self, next: u64) {
        self.offsets = self.offsets.split_off(&next);
        self.read_to = self.read_to.max(next);
        self.fresh.clear();
    }

    /// Whether another record may be read: the window still fits the metadata.
    pub fn has_room(&self) -> bool {
        // Nearly always: all of it fits, whatever is finished.
        let first = self.offsets.first_key_value().map_or(self.read_to, |(offset, _)| *offset);
        if self.highest() - first < WINDOW_OFFSETS_MAX {
            return true;
        }
        let lowest = self.offsets.iter().find(|(_, state)| !state.is_finished()).map_or(self.read_to, |(o, _)| *o);
        self.highest() - lowest < WINDOW_OFFSETS_MAX
    }

    /// One after the newest offset that is known.
    fn highest(&self) -> u64 {
        self.offsets.last_key_value().map_or(self.read_to, |(offset, _)| offset + 1).max(self.read_to)
    }

    /// Unfinished jobs that were delivered.
    pub fn unfinished(&self) -> usize {
        self.offsets.values().filter(|state| !state.is_finished()).count()
    }
}
