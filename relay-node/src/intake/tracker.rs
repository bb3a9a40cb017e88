//! Which jobs of one partition are finished: jobs finish in any order, the committed offset is the lowest unfinished
//! one, and the set finished beyond it travels in the commit's metadata, so that a new owner redoes exactly what is not done.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use relay_log::port::Committed;

use crate::job::aside::SIDES;

/// Offsets between the lowest unfinished job and the newest read one, at most: their bitmap in base64 and the head fit
/// the 4096 bytes of a commit's metadata.
pub const WINDOW_OFFSETS_MAX: u64 = 23_000;

/// First characters of the metadata, naming its format.
const FORMAT: &str = "b2";
/// The format without what is set aside.
const FORMAT_WITHOUT_SIDES: &str = "b1";

/// What a commit's metadata holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// The next offset that is not finished.
    pub next: u64,
    /// Since when the oldest unfinished job is known, in milliseconds since the Unix epoch: whoever takes over reads the
    /// control topic from here. That of the newest finished job if none is unfinished; 0 if unknown.
    pub oldest_ms: u64,
    /// Number of the commit: no two of a partition say the same.
    pub serial: u64,
    /// Where the parked topic and the delay tiers must be read from, in the order of their sides.
    pub sides: [u64; SIDES],
    /// Bit `n` is set if offset `next + n` is finished.
    bits: Vec<u8>,
}

impl Progress {
    /// Reads what was committed; metadata that is not ours counts as "nothing finished beyond".
    pub fn unpack(committed: &Committed) -> Self {
        let plain = Self { next: committed.next, ..Self::default() };
        Self { next: committed.next, ..Self::parse(&committed.metadata).unwrap_or(plain) }
    }

    /// Whether a commit has metadata that is none of ours, or damaged: [`Progress::unpack`] ignores it.
    pub fn is_foreign(committed: &Committed) -> bool {
        !committed.metadata.is_empty() && Self::parse(&committed.metadata).is_none()
    }

    fn parse(metadata: &str) -> Option<Self> {
        let (format, rest) = metadata.split_once(':')?;
        let read = match format {
            FORMAT => Self::with_sides(rest),
            FORMAT_WITHOUT_SIDES => Self::without_sides(rest),
            _ => None,
        };
        // More than a window was never committed.
        read.filter(|progress| progress.bits.len() as u64 <= WINDOW_OFFSETS_MAX.div_ceil(8))
    }

    fn with_sides(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, ':');
        let (oldest, serial, sides, bits) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let sides: Vec<u64> = sides.split('.').map(|next| next.parse().ok()).collect::<Option<_>>()?;
        let (oldest_ms, serial) = (oldest.parse().ok()?, serial.parse().ok()?);
        Some(Self {
            next: 0,
            oldest_ms,
            serial,
            sides: sides.try_into().ok()?,
            bits: STANDARD_NO_PAD.decode(bits).ok()?,
        })
    }

    fn without_sides(text: &str) -> Option<Self> {
        let (oldest, bits) = text.split_once(':')?;
        Some(Self { oldest_ms: oldest.parse().ok()?, bits: STANDARD_NO_PAD.decode(bits).ok()?, ..Self::default() })
    }

    /// The metadata.
    pub fn pack(&self) -> String {
        let sides: Vec<String> = self.sides.iter().map(ToString::to_string).collect();
        let bits = STANDARD_NO_PAD.encode(&self.bits);
        format!("{FORMAT}:{}:{}:{}:{bits}", self.oldest_ms, self.serial, sides.join("."))
    }

    /// Whether `offset` is finished.
    pub fn is_finished(&self, offset: u64) -> bool {
        let Some(n) = offset.checked_sub(self.next) else { return true };
        let byte = usize::try_from(n / 8).ok().and_then(|index| self.bits.get(index));
        byte.is_some_and(|byte| byte >> (n % 8) & 1 == 1)
    }

    fn set(&mut self, offset: u64) {
        let n = offset - self.next;
        let index = (n / 8) as usize;
        if self.bits.len() <= index {
            self.bits.resize(index + 1, 0);
        }
        if let Some(byte) = self.bits.get_mut(index) {
            *byte |= 1 << (n % 8);
        }
    }

    fn finished_beyond(&self) -> impl Iterator<Item = u64> + '_ {
        (self.next..).take(self.bits.len() * 8).filter(|offset| self.is_finished(*offset))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Unfinished { since_ms: u64 },
    Finished,
}

/// Tracks one partition under one assignment.
#[derive(Debug)]
pub struct Tracker {
    /// Finished before this assignment began.
    inherited: Progress,
    /// Delivered offsets at and above the lowest unfinished one, and inherited finished ones.
    offsets: BTreeMap<u64, State>,
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
    pub fn new(committed: Option<&Committed>, start: u64) -> Self {
        let inherited = committed.map_or(Progress { next: start, ..Progress::default() }, Progress::unpack);
        let offsets = inherited.finished_beyond().map(|offset| (offset, State::Finished)).collect();
        Self { read_to: start.max(inherited.next), newest_ms: inherited.oldest_ms, inherited, offsets }
    }

    /// What was inherited.
    pub fn inherited(&self) -> &Progress {
        &self.inherited
    }

    /// Takes note of a delivered record that exists since `since_ms` at the latest.
    pub fn deliver(&mut self, offset: u64, since_ms: u64) -> Delivery {
        self.read_to = self.read_to.max(offset + 1);
        self.newest_ms = since_ms;
        if self.inherited.is_finished(offset) {
            return Delivery::AlreadyFinished;
        }
        self.offsets.entry(offset).or_insert(State::Unfinished { since_ms });
        Delivery::New
    }

    /// Counts `offset` as finished in the next proposal. Its outcome must be in the same commit.
    pub fn finish(&mut self, offset: u64) {
        if let Some(state) = self.offsets.get_mut(&offset) {
            *state = State::Finished;
        }
    }

    /// What to commit: everything finished so far.
    pub fn proposal(&self) -> Progress {
        let oldest = self.offsets.iter().find_map(|(offset, state)| match state {
            State::Unfinished { since_ms } => Some((*offset, *since_ms)),
            State::Finished => None,
        });
        // What an earlier owner finished is behind us too, though it was not delivered again yet.
        let is_done = |offset: &u64| self.offsets.get(offset) == Some(&State::Finished);
        let (next, oldest_ms) = oldest
            .unwrap_or_else(|| (self.read_to + (self.read_to..).take_while(is_done).count() as u64, self.newest_ms));
        let mut progress = Progress { next, oldest_ms, ..Progress::default() };
        for (offset, state) in self.offsets.range(next..) {
            if *state == State::Finished {
                progress.set(*offset);
            }
        }
        progress
    }

    /// Forgets what lies below a committed proposal's offset.
    pub fn committed(&mut self, next: u64) {
        self.offsets = self.offsets.split_off(&next);
        self.read_to = self.read_to.max(next);
    }

    /// Whether another record may be read: the window still fits the metadata.
    pub fn has_room(&self) -> bool {
        // Nearly always: all of it fits, whatever is finished.
        let first = self.offsets.first_key_value().map_or(self.read_to, |(offset, _)| *offset);
        if self.highest() - first < WINDOW_OFFSETS_MAX {
            return true;
        }
        let lowest =
            self.offsets.iter().find(|(_, state)| **state != State::Finished).map_or(self.read_to, |(o, _)| *o);
        self.highest() - lowest < WINDOW_OFFSETS_MAX
    }

    /// One after the newest offset that is known.
    fn highest(&self) -> u64 {
        self.offsets.last_key_value().map_or(self.read_to, |(offset, _)| offset + 1).max(self.read_to)
    }

    /// Unfinished jobs that were delivered.
    pub fn unfinished(&self) -> usize {
        self.offsets.values().filter(|state| **state != State::Finished).count()
    }
}
