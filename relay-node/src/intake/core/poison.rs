//! Jobs that a node may have died of: they run one at a time.

use relay_protocol::hand_over::KeptJobs;

use super::{Core, Effect, Ends, Key, Partition};
use crate::intake::earlier::{Life, PoisonLimits, Verdict};
use crate::job::delivered::Delivered;

/// Whose turn it is among suspects.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// The one that runs as the only one, and how long it does while others wait, in milliseconds.
    only: Option<(Key, u64)>,
    /// The most that waited at a time since none did.
    most: usize,
    /// Those that made room.
    beside: Vec<Key>,
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

    /// The job whose turn it is; a suspect only if none runs as the only one.
    pub(super) fn next_job(&mut self, now_ms: u64) -> Option<Delivered> {
        let is_free = self.suspects.only.is_none_or(|(key, _)| !self.running.contains_key(&key));
        self.suspects.most = self.suspects.most.max(self.room.suspects());
        let job = self.room.pop(now_ms, is_free)?;
        if job.verdict == Verdict::Suspect {
            let turn_ms = self.limits.poison.turn_ms(job.crashes, self.suspects.most);
            self.suspects.only = Some(((job.at.partition, job.place.offset), turn_ms));
        }
        if self.room.suspects() == 0 {
            self.suspects.most = 0;
        }
        Some(job)
    }

    /// The suspect that runs as the only one while there are others, here or (`wanted`) in other lanes, and how long it may, in
    /// milliseconds from when its attempt began. After that: [`Core::made_room`]. Those that made room count: the last one of
    /// many is no more to blame for what happens late than they are.
    pub fn suspect_in_the_way(&self, wanted: bool) -> Option<(Key, u64)> {
        let runs = |key: &Key| self.running.contains_key(key);
        let has_others = wanted || self.room.suspects() > 0 || self.suspects.beside.iter().any(runs);
        self.suspects.only.filter(|(key, _)| has_others && runs(key))
    }

    /// It is written down that this suspect, which runs under an epoch, is not the only one any more.
    pub fn made_room(&mut self, key: Key, epoch: u64, now_ms: u64) -> Vec<Effect<P>> {
        if self.epoch(key.0) == Some(epoch) && self.suspects.only.is_some_and(|(only, _)| only == key) {
            self.suspects.only = None;
            self.suspects.beside.retain(|key| self.running.contains_key(key));
            self.suspects.beside.push(key);
        }
        self.go_on(now_ms)
    }
}
