//! Who leads, decided by what lies in the election topic and by silence. Pure: time comes in as milliseconds of a
//! monotonic clock, records as they are read, and what comes out is the next record to append.
//!
//! The topic has one partition, so all coordinators read the same records in the same order, and judge alike:
//!
//! - A *claim* names the offset that its writer read up to. It counts only if that is its own offset: nobody wrote anything
//!   in between. So of several claims one counts, and none counts that was decided on an old picture. Its offset is the
//!   incarnation of the leadership that it begins.
//! - A *beat* says that the leadership of this incarnation goes on; beats of lower incarnations count for nothing.
//! - *Resign* ends it, so that the next one need not wait for silence.
//!
//! A standby claims after `silence_ms` without a beat. A leader leads only for `confirm_ms` from *writing* the last beat
//! (or the claim) that it has read back. The standby heard of that beat later than it was written, and `confirm_ms` is
//! shorter than `silence_ms`: the leader has stopped before anyone claims, whatever froze or was cut off. A leader that
//! stopped so begins a new incarnation if it leads again.

use std::collections::VecDeque;

use relay_protocol::record::ElectionRecord;

/// Times of an election.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ElectionRules {
    /// Silence of the leader after which others claim, in milliseconds. 0: this is the only coordinator there ever is; it leads
    /// from its first claim on, without beats.
    pub silence_ms: u64,
    /// How long a beat that was read back proves leadership, from its writing, in milliseconds. Less than `silence_ms`.
    pub confirm_ms: u64,
    /// Time between two beats, and between two claims, in milliseconds.
    pub beat_ms: u64,
}

/// What happens to an election.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Reading begins here or anew: what was not heard of until now is no silence.
    Opened,
    /// A record was read; `None` is one that is no record of an election.
    Read {
        /// Its offset.
        offset: u64,
        /// What it says.
        record: Option<ElectionRecord>,
    },
    /// Everything was read; the next record will have this offset.
    End {
        /// Offset of the next record.
        next: u64,
    },
    /// The append that was asked for last ended; it may have succeeded or not, and may even succeed later.
    AppendEnded,
    /// Time passed.
    Tick,
}

/// The leader as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// Offset of the claim that made it leader.
    pub incarnation: u64,
    /// The life of a coordinator that leads.
    pub candidate: String,
    /// Where nodes reach it, if it says so.
    pub url: Option<String>,
}

/// How a leadership of ours, or an attempt at one, went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It begins.
    Won,
    /// Somebody wrote before our claim.
    Beaten,
    /// A higher leader is there.
    Displaced,
    /// No beat was read back in time.
    Unconfirmed,
    /// It was given up.
    Resigned,
}

/// Records whose writing is remembered until they are read back; older ones prove nothing any more.
const SENT_MAX: usize = 16;

/// A record that was asked to be appended.
#[derive(Debug, Clone, Copy)]
struct Sent {
    number: u64,
    at_ms: u64,
}

/// One coordinator's part in the election.
#[derive(Debug)]
pub struct Election {
    rules: ElectionRules,
    candidate: String,
    url: Option<String>,
    /// Offset of the next record, as far as is read.
    next: u64,
    /// Whether all that there was is read.
    at_end: bool,
    /// The highest leader that was read of.
    leader: Option<Leader>,
    /// When it was last heard of; without one, since when there was silence.
    heard_ms: u64,
    /// It resigned, or there was none ever.
    vacant: bool,
    /// Until when we lead, if we do.
    until_ms: Option<u64>,
    /// The newest last; never empty.
    sent: VecDeque<Sent>,
    in_flight: bool,
    turns: Vec<Turn>,
}

impl Election {
    /// A standby that begins to listen at `now_ms`. `candidate` names this life of a coordinator and no other one.
    pub fn new(rules: ElectionRules, candidate: String, url: Option<String>, now_ms: u64) -> Self {
        Self {
            rules,
            candidate,
            url,
            next: 0,
            at_end: false,
            leader: None,
            heard_ms: now_ms,
            vacant: false,
            until_ms: None,
            // The first claim need not wait for an earlier one.
            sent: VecDeque::from([Sent { number: 0, at_ms: now_ms.saturating_sub(rules.beat_ms) }]),
            in_flight: false,
            turns: Vec::new(),
        }
    }

    /// Takes what happened; returns the record to append now, if any. One append runs at a time: the next record comes only
    /// after [`Input::AppendEnded`].
    pub fn on(&mut self, now_ms: u64, input: Input) -> Option<ElectionRecord> {
        match input {
            Input::Opened => (self.heard_ms, self.at_end) = (now_ms, false),
            Input::Read { offset, .. } if offset < self.next => {}
            Input::Read { offset, record } => {
                (self.next, self.at_end) = (offset + 1, false);
                if let Some(record) = record {
                    self.read(now_ms, offset, record);
                }
            }
            Input::End { next } => (self.next, self.at_end) = (self.next.max(next), true),
            Input::AppendEnded => self.in_flight = false,
            Input::Tick => {}
        }
        if self.until_ms.is_some_and(|until| now_ms >= until) {
            self.stop(Turn::Unconfirmed);
        }
        let record = self.wanted(now_ms)?;
        self.in_flight = true;
        Some(record)
    }

    /// Gives leadership up, at once; returns the record that tells the others.
    pub fn resign(&mut self) -> Option<ElectionRecord> {
        let incarnation = self.leading()?;
        self.stop(Turn::Resigned);
        Some(ElectionRecord::Resign { incarnation })
    }

    /// The incarnation that we lead under, until [`until_ms`](Self::until_ms).
    pub fn leading(&self) -> Option<u64> {
        self.until_ms.and(self.leader.as_ref()).map(|leader| leader.incarnation)
    }

    /// Until when we lead; `None` if we do not.
    pub fn until_ms(&self) -> Option<u64> {
        self.until_ms
    }

    /// The highest leader that is known and has not resigned, ourselves included.
    pub fn leader(&self) -> Option<&Leader> {
        self.leader.as_ref().filter(|_| !self.vacant)
    }

    /// What became of leaderships and claims since the last call.
    pub fn turns(&mut self) -> Vec<Turn> {
        std::mem::take(&mut self.turns)
    }

    fn read(&mut self, now_ms: u64, offset: u64, record: ElectionRecord) {
        match record {
            ElectionRecord::Claim { candidate, url, number, next } => {
                let is_ours = candidate == self.candidate;
                if next != offset {
                    if is_ours {
                        self.turns.push(Turn::Beaten);
                    }
                    return;
                }
                self.follow(now_ms, Leader { incarnation: offset, candidate, url });
                if is_ours {
                    self.confirm(now_ms, number, Some(Turn::Won));
                }
            }
            ElectionRecord::Beat { candidate, url, number, incarnation } => {
                let known = self.leader.as_ref().map(|leader| leader.incarnation);
                if known.is_some_and(|known| incarnation < known) {
                    return;
                }
                let is_ours = candidate == self.candidate && self.leading() == Some(incarnation);
                self.follow(now_ms, Leader { incarnation, candidate, url });
                if is_ours {
                    self.confirm(now_ms, number, None);
                }
            }
            ElectionRecord::Resign { incarnation } => {
                if self.leader.as_ref().is_none_or(|leader| leader.incarnation <= incarnation) {
                    self.vacant = true;
                }
            }
        }
    }

    /// `leader` lives; whoever led under a lower incarnation stops.
    fn follow(&mut self, now_ms: u64, leader: Leader) {
        if self.leading().is_some_and(|ours| ours != leader.incarnation) {
            self.stop(Turn::Displaced);
        }
        self.leader = Some(leader);
        self.heard_ms = now_ms;
        self.vacant = false;
    }

    /// Our claim or beat was read back and counts. One that was on its way for too long proves nothing.
    fn confirm(&mut self, now_ms: u64, number: u64, turn: Option<Turn>) {
        let Some(sent) = self.sent.iter().find(|sent| sent.number == number) else { return };
        let until_ms = match self.rules.silence_ms {
            0 => u64::MAX,
            _ => sent.at_ms.saturating_add(self.rules.confirm_ms),
        };
        if now_ms < until_ms {
            self.until_ms = Some(until_ms);
            self.turns.extend(turn);
        }
    }

    fn stop(&mut self, turn: Turn) {
        self.until_ms = None;
        self.turns.push(turn);
    }

    fn wanted(&mut self, now_ms: u64) -> Option<ElectionRecord> {
        let last = *self.sent.back()?;
        if self.in_flight || now_ms < last.at_ms.saturating_add(self.rules.beat_ms) {
            return None;
        }
        let (candidate, url, number) = (self.candidate.clone(), self.url.clone(), last.number + 1);
        let record = match self.leading() {
            Some(_) if self.rules.silence_ms == 0 => return None,
            Some(incarnation) => ElectionRecord::Beat { candidate, url, number, incarnation },
            None if self.may_claim(now_ms) => ElectionRecord::Claim { candidate, url, number, next: self.next },
            None => return None,
        };
        if self.sent.len() == SENT_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back(Sent { number, at_ms: now_ms });
        Some(record)
    }

    fn may_claim(&self, now_ms: u64) -> bool {
        // Nobody ever led where nobody ever wrote; and what led under our name has stopped.
        let none = self.next == 0 || self.leader.as_ref().is_some_and(|leader| leader.candidate == self.candidate);
        let silent = now_ms.saturating_sub(self.heard_ms) >= self.rules.silence_ms;
        self.at_end && (self.vacant || none || silent)
    }
}
