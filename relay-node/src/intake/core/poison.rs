//! Jobs that a node may have died of: they run one at a time.

use relay_protocol::hand_over::KeptJobs;

use super::{Core, Ends, Partition};
use crate::intake::earlier::{Life, PoisonLimits, Verdict};
use crate::job::delivered::Delivered;

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

    /// The job whose turn it is; a suspect only if none runs.
    pub(super) fn next_job(&mut self, now_ms: u64) -> Option<Delivered> {
        let is_free = self.suspect.is_none_or(|key| !self.running.contains_key(&key));
        let job = self.room.pop(now_ms, is_free)?;
        if job.verdict == Verdict::Suspect {
            self.suspect = Some((job.at.partition, job.place.offset));
        }
        Some(job)
    }
}
