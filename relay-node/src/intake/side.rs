//! The jobs of one lane partition that are set aside, parked and in delay tiers alike: which there are, what is due, what
//! has left. Pure: time is passed in. Jobs themselves stay in the log; what is kept of each tells it apart.
//!
//! Each side is a log of jobs and of marks of those that left. A new owner reads it from the lowest job that had not left.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use relay_protocol::Task;

use super::dedup::Scope;
use super::same::Identity;
use crate::job::aside::{PARKED, SIDES, Side};
use crate::job::delivered::Delivered;

/// Jobs of a partition that are on their way back at a time: only they are in memory.
pub const IN_HAND_MAX: usize = 64;

/// Names a job that is set aside: side and offset.
pub type SideKey = (Side, u64);

/// Parked jobs that go on together.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Class {
    /// Whose.
    pub tenant: String,
    /// What is to be done.
    pub task: Task,
    /// With which model.
    pub model: Option<String>,
}

/// What is kept of a job that is set aside.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What tells it apart.
    pub identity: Identity,
    /// Where it lay in its lane when it was set aside.
    pub from: Option<u64>,
    /// One for all that are alike: there may be very many.
    class: Arc<Class>,
    /// When it must be looked at, in milliseconds since the Unix epoch.
    wake_ms: Option<u64>,
    since_ms: u64,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waits,
    InHand,
}

impl Entry {
    /// Of a job at `side`.
    pub fn new(job: &Delivered, side: Side) -> Self {
        let due_ms = job.aside.as_ref().map_or(0, |aside| aside.due_ms);
        let due = (side != PARKED).then_some(due_ms);
        let class = Class { tenant: job.job.tenant.clone(), task: job.job.task, model: job.job.model.clone() };
        Self {
            identity: job.identity,
            from: job.aside.as_ref().and_then(|aside| aside.from),
            class: Arc::new(class),
            wake_ms: due.into_iter().chain(job.job.deadline).min(),
            since_ms: job.record.timestamp_ms,
            state: State::Waits,
        }
    }

    /// Whose job it is.
    pub fn tenant(&self) -> &str {
        &self.class.tenant
    }
}

/// What is set aside of one partition.
#[derive(Debug, Default)]
pub struct Sides {
    jobs: [BTreeMap<u64, Entry>; SIDES],
    read_to: [u64; SIDES],
    by_id: HashMap<Scope, SideKey>,
    timed: BTreeSet<(u64, SideKey)>,
    parked: BTreeMap<Arc<Class>, BTreeSet<u64>>,
    since: BTreeMap<u64, usize>,
    in_hand: usize,
}

impl Sides {
    /// Nothing was read; reading begins at these offsets.
    pub fn new(starts: [u64; SIDES]) -> Self {
        Self { read_to: starts, ..Self::default() }
    }

    /// Jobs that are set aside.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Parked ones.
    pub fn parked(&self) -> usize {
        self.jobs[PARKED].len()
    }

    /// Those whose records are on their way to memory or there.
    pub fn in_hand(&self) -> usize {
        self.in_hand
    }

    /// Whether any waits for a backend or a share.
    pub fn has_parked(&self) -> bool {
        !self.parked.is_empty()
    }

    /// Since when the oldest of them is known, in milliseconds since the Unix epoch.
    pub fn oldest_ms(&self) -> Option<u64> {
        self.since.first_key_value().map(|(ms, _)| *ms)
    }

    /// Where a new owner must begin to read each side: not beyond a job whose leaving is being committed, for the owner must
    /// see for itself that it has left.
    pub fn nexts(&self) -> [u64; SIDES] {
        std::array::from_fn(|side| self.jobs[side].first_key_value().map_or(self.read_to[side], |(offset, _)| *offset))
    }

    /// All of them.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.jobs.iter().flat_map(BTreeMap::values)
    }

    /// One of them.
    pub fn get(&self, (side, offset): SideKey) -> Option<&Entry> {
        self.jobs.get(side)?.get(&offset)
    }

    /// A job was read at a side.
    pub fn put(&mut self, key: SideKey, mut entry: Entry) {
        self.passed(key);
        if let Some((known, _)) = self.parked.get_key_value(&entry.class) {
            entry.class = known.clone();
        }
        self.by_id.insert(entry.identity.by_id, key);
        *self.since.entry(entry.since_ms).or_default() += 1;
        self.line_up(key, &entry);
        self.jobs[key.0].insert(key.1, entry);
    }

    /// A record at this place was read, whatever it is.
    pub fn passed(&mut self, (side, offset): SideKey) {
        self.read_to[side] = self.read_to[side].max(offset + 1);
    }

    fn line_up(&mut self, key: SideKey, entry: &Entry) {
        self.timed.extend(entry.wake_ms.map(|at| (at, key)));
        if key.0 == PARKED {
            self.parked.entry(entry.class.clone()).or_default().insert(key.1);
        }
    }

    fn step_out(&mut self, key: SideKey, entry: &Entry) {
        if let Some(at) = entry.wake_ms {
            self.timed.remove(&(at, key));
        }
        if let Some(of_class) = self.parked.get_mut(&entry.class).filter(|_| key.0 == PARKED) {
            of_class.remove(&key.1);
            if of_class.is_empty() {
                self.parked.remove(&entry.class);
            }
        }
    }

    /// A job has left its side.
    pub fn taken(&mut self, key: SideKey) -> Option<Entry> {
        let entry = self.jobs.get_mut(key.0)?.remove(&key.1)?;
        if self.by_id.get(&entry.identity.by_id) == Some(&key) {
            self.by_id.remove(&entry.identity.by_id);
        }
        if let Some(count) = self.since.get_mut(&entry.since_ms) {
            *count -= 1;
            if *count == 0 {
                self.since.remove(&entry.since_ms);
            }
        }
        if entry.state == State::Waits {
            self.step_out(key, &entry);
        } else {
            self.in_hand -= 1;
        }
        Some(entry)
    }

    /// A job is to be looked at as soon as possible.
    pub fn hurry(&mut self, by_id: Scope) {
        let Some(key) = self.by_id.get(&by_id).copied() else { return };
        let Some(entry) = self.jobs[key.0].get_mut(&key.1).filter(|entry| entry.state == State::Waits) else { return };
        if let Some(at) = entry.wake_ms.replace(0) {
            self.timed.remove(&(at, key));
        }
        self.timed.insert((0, key));
    }

    /// What is to be read now, at most [`IN_HAND_MAX`] at a time: whose time has come, then of the parked ones as many of
    /// each class as `places` says. Answered by [`Sides::taken`], or [`Sides::put_back`].
    pub fn due(&mut self, now_ms: u64, mut places: impl FnMut(&Class) -> usize) -> Vec<SideKey> {
        let room = IN_HAND_MAX.saturating_sub(self.in_hand);
        let woken = self.timed.iter().take_while(|(at, _)| *at <= now_ms).map(|(_, key)| *key);
        let mut due: Vec<SideKey> = woken.take(room).collect();
        for (class, offsets) in &self.parked {
            if due.len() >= room {
                break;
            }
            let fresh = offsets.iter().map(|offset| (PARKED, *offset)).filter(|key| !due.contains(key));
            let places = places(class).min(room - due.len());
            let more: Vec<SideKey> = fresh.take(places).collect();
            due.extend(more);
        }
        for key in &due {
            if let Some(mut entry) = self.jobs[key.0].get(&key.1).cloned() {
                self.step_out(*key, &entry);
                entry.state = State::InHand;
                self.in_hand += 1;
                self.jobs[key.0].insert(key.1, entry);
            }
        }
        due
    }

    /// A job could not be read: it waits again.
    pub fn put_back(&mut self, key: SideKey) {
        let Some(mut entry) = self.get(key).filter(|entry| entry.state == State::InHand).cloned() else { return };
        self.in_hand -= 1;
        entry.state = State::Waits;
        self.line_up(key, &entry);
        self.jobs[key.0].insert(key.1, entry);
    }
}
