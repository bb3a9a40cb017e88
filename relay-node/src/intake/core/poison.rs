//! Jobs that a node may have died of: they begin one at a time.

use relay_protocol::hand_over::KeptJobs;

use super::{Core, Effect, Ends, Key, Partition};
use crate::intake::earlier::{Life, PoisonLimits, Verdict};
use crate::job::delivered::Delivered;

/// Suspects of a lane that run and have not made room, most of them waiting for a slot or their turn: a few, so that whoever waits for a
/// slot holds up no other, and few slots wait for turns.
pub(crate) const AT_SLOTS_MAX: usize = 4;

/// The suspects that run.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Those that did not make room, and how long each is the only one while others wait, in milliseconds.
    ahead: Vec<(Key, u64)>,
    /// Those that made room.
    beside: Vec<Key>,
    /// The most that waited at a time since none did.
    most: usize,
}

impl Turns {
    fn keep(&mut self, runs: impl Fn(&Key) -> bool) {
        self.ahead.retain(|(key, _)| runs(key));
        self.beside.retain(runs);
    }
}

impl Partition {
    /// Puts to `job`, which is admitted, what earlier owners did with it; returns the highest number of an attempt that they began.
    pub(super) fn remember(&mut self, job: &mut Delivered, me: &Life, limits: &PoisonLimits) -> u32 {
        let (attempts, crashes) = self.earlier.take(job.place.offset, me).unwrap_or_default();
        job.attempts_before = job.attempts_before.max(attempts);
        job.crashes = job.crashes.and(crashes);
        job.verdict = job.crashes.verdict(limits);
        attempts
    }
}

impl<P: Ends> Core<P> {
    /// Says which life of which node this is: what it began itself is no crash.
    #[must_use]
    pub fn of_life(mut self, node: &str, incarnation: u64) -> Self {
        self.life = Life { node: node.to_owned(), incarnation };
        self
    }

    /// A node says that it lives on without these jobs of a partition, or with them: that they began there is no crash.
    pub(super) fn outlived(&mut self, partition: u32, jobs: &KeptJobs) {
        if let Some(owned) = self.partitions.get_mut(&partition).filter(|owned| !owned.control_read) {
            jobs.jobs.iter().for_each(|job| owned.earlier.given_up(&jobs.node, jobs.incarnation, job.offset));
        }
    }

    /// Jobs that wait and are suspects.
    pub fn suspects(&self) -> usize {
        self.room.suspects()
    }

    /// The job whose turn it is; a suspect only if few are at slots.
    pub(super) fn next_job(&mut self, now_ms: u64) -> Option<Delivered> {
        self.suspects.keep(|key| self.running.contains_key(key));
        self.suspects.most = self.suspects.most.max(self.room.suspects());
        let weight = |tenant: &str| self.tenants.of(tenant).weight;
        let job = self.room.pop(now_ms, self.suspects.ahead.len() < AT_SLOTS_MAX, weight)?;
        if job.verdict == Verdict::Suspect {
            let turn_ms = self.limits.poison.turn_ms(job.crashes, self.suspects.most);
            self.suspects.ahead.push(((job.at.partition, job.place.offset), turn_ms));
        }
        if self.room.suspects() == 0 {
            self.suspects.most = 0;
        }
        Some(job)
    }

    /// Suspects of which one may be the only one while there are others, here or (`wanted`) in other lanes, and how long it may, in
    /// milliseconds from when its attempt began. After that: [`Core::made_room`]. Those that made room count: the last one of
    /// many is no more to blame for what happens late than they are.
    pub fn suspects_in_the_way(&self, wanted: bool) -> Vec<(Key, u64)> {
        let runs = |key: &Key| self.running.contains_key(key);
        let ahead: Vec<_> = self.suspects.ahead.iter().filter(|(key, _)| runs(key)).copied().collect();
        let beside = self.suspects.beside.iter().any(runs);
        let has_others = wanted || self.room.suspects() > 0 || ahead.len() > 1 || beside;
        if has_others { ahead } else { Vec::new() }
    }

    /// It is written down that this suspect, which runs under an epoch, is not the only one any more.
    pub fn made_room(&mut self, key: Key, epoch: u64, now_ms: u64) -> Vec<Effect<P>> {
        if self.epoch(key.0) == Some(epoch) && self.running.contains_key(&key) {
            let before = self.suspects.ahead.len();
            self.suspects.ahead.retain(|(ahead, _)| *ahead != key);
            if self.suspects.ahead.len() < before {
                self.suspects.beside.push(key);
            }
        }
        self.go_on(now_ms)
    }
}
