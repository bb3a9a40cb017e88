//! Jobs that run while their partition moves: this node keeps those of a partition that is taken from it, and waits for those
//! that earlier owners of a partition of ours keep.

use std::collections::BTreeMap;

use relay_protocol::JobId;
use relay_protocol::record::{CancelRequest, ControlRecord, StartedJob};

use super::{Core, Effect, Ends, Key};
use crate::intake::keeping::{Keeping, KeptKey, KeptRun};
use crate::intake::remote::Admitted;
use crate::intake::same::Admission;
use crate::job::delivered::Delivered;

impl<P: Ends> Core<P> {
    /// A rebalance takes these partitions: their waiting jobs go back. Runs whose attempt, in `at_backend`, is a backend's go on
    /// and are announced ([`Effect::Keep`], answered by [`Core::announced`]); others are dropped. What has ended is committed
    /// before a partition is given up.
    pub fn hand_over(&mut self, partitions: &[u32], at_backend: &BTreeMap<Key, u32>) -> Vec<Effect<P>> {
        let mut effects = Vec::new();
        for number in partitions {
            let Some(owned) = self.partitions.get_mut(number) else { continue };
            owned.remotes.clear();
            let epoch = owned.epoch;
            let mut kept = Vec::new();
            for key in self.running.keys().filter(|key| key.0 == *number).copied().collect::<Vec<_>>() {
                let run = self.forget_running(key);
                if let (Some((job_id, tenant)), Some(attempt)) = (run, at_backend.get(&key).copied()) {
                    self.keeping.keep((key.0, key.1, epoch), KeptRun { job_id, tenant, attempt });
                    kept.push(StartedJob { offset: key.1, attempt, alone: false });
                } else {
                    effects.push(Effect::Abandon(key));
                }
            }
            if !kept.is_empty() {
                kept.sort_unstable_by_key(|job| job.offset);
                if let Some(owned) = self.partitions.get_mut(number) {
                    owned.announcing = true;
                }
                effects.push(Effect::Keep(*number, epoch, kept));
            }
        }
        effects.extend(self.revoking(partitions));
        effects
    }

    /// A rebalance takes these partitions: what waits of them goes back.
    fn revoking(&mut self, partitions: &[u32]) -> Vec<Effect<P>> {
        let mut effects = Vec::new();
        for number in partitions {
            self.room.drop_partition(*number);
            match self.partitions.get_mut(number) {
                Some(owned) => {
                    owned.revoking = true;
                    owned.held = None;
                    owned.followers.clear();
                }
                // What is not ours must not hold the rebalance up.
                None => effects.push(Effect::Release(*number)),
            }
        }
        effects.extend(self.settle());
        effects
    }

    /// A job runs no more, or not for its owner here; its id and tenant.
    pub(super) fn forget_running(&mut self, at: Key) -> Option<(JobId, String)> {
        let job_id = self.running.remove(&at)?;
        // Another tenant may have given a job of its own the same id.
        let mine = self.running_jobs.get(&job_id).is_some_and(|(key, _)| *key == at);
        let (_, tenant) = if mine { self.running_jobs.remove(&job_id) } else { None }?;
        Some((job_id, tenant))
    }

    /// The runs that are kept of a partition were announced at `sent_ms`, or, `None`, could not be: they are dropped.
    pub fn announced(&mut self, partition: u32, epoch: u64, sent_ms: Option<u64>) -> Vec<Effect<P>> {
        let new = self.keeping.unannounced(partition, epoch);
        if let Some(owned) = self.partitions.get_mut(&partition).filter(|owned| owned.epoch == epoch) {
            owned.announcing = false;
        }
        let mut effects = match sent_ms {
            Some(sent_ms) => {
                self.keeping.told(&new, sent_ms);
                Vec::new()
            }
            None => self.drop_kept(&new),
        };
        effects.extend(self.settle());
        effects
    }

    /// Drops the kept runs of a partition that was lost before they were announced.
    pub(super) fn lose_unannounced(&mut self, partition: u32) -> Vec<Effect<P>> {
        let Some(epoch) = self.epoch(partition) else { return Vec::new() };
        let new = self.keeping.unannounced(partition, epoch);
        self.drop_kept(&new)
    }

    fn drop_kept(&mut self, keys: &[KeptKey]) -> Vec<Effect<P>> {
        keys.iter().filter(|key| self.keeping.remove(**key)).map(|key| Effect::AbandonKept(*key)).collect()
    }

    /// A kept run is over and its end told; another job may run.
    pub fn kept_over(&mut self, key: KeptKey, now_ms: u64) -> Vec<Effect<P>> {
        self.keeping.remove(key);
        self.go_on(now_ms)
    }

    /// The kept runs that somebody's request cancels.
    pub fn cancel_kept(&self, partition: u32, request: &CancelRequest) -> Vec<Effect<P>> {
        self.keeping.cancelled(partition, request).into_iter().map(Effect::CancelKept).collect()
    }

    /// A record of a partition's control topic, written at `written_ms`.
    pub fn told(&mut self, partition: u32, record: ControlRecord, written_ms: u64, now_ms: u64) -> Vec<Effect<P>> {
        match record {
            ControlRecord::Cancel(request) => {
                if let Some(owned) = self.partitions.get_mut(&partition) {
                    let asked = |job: &Delivered| job.job_id == request.job_id && job.job.tenant == request.tenant;
                    owned.remotes.hurry(now_ms, asked);
                }
                self.cancel_asked(partition, request)
            }
            ControlRecord::Started(started) => {
                self.started(partition, started);
                Vec::new()
            }
            ControlRecord::Kept(kept) => {
                self.outlived(partition, &kept);
                if let Some(owned) = self.partitions.get_mut(&partition).filter(|owned| !owned.revoking) {
                    let inherited = owned.tracker.inherited();
                    for job in kept.jobs.into_iter().filter(|job| !inherited.is_finished(job.offset)) {
                        owned.remotes.kept(job.offset, job.attempt, written_ms, now_ms);
                    }
                }
                Vec::new()
            }
            ControlRecord::KeptEnd(end) => {
                let owned = self.partitions.get_mut(&partition);
                let ended = owned.and_then(|owned| owned.remotes.ended(end.offset, end.attempt, end));
                ended.map(|(job, end)| Effect::TakeEnd(Box::new(job), end)).into_iter().collect()
            }
            ControlRecord::GivenUp(given_up) => {
                self.outlived(partition, &given_up);
                let Some(owned) = self.partitions.get_mut(&partition) else { return Vec::new() };
                let jobs: Vec<_> =
                    given_up.jobs.iter().filter_map(|job| owned.remotes.given_up(job.offset, job.attempt)).collect();
                let mut effects = self.run_anew(jobs, now_ms);
                effects.extend(self.go_on(now_ms));
                effects
            }
        }
    }

    /// What an owner does with a job that is admitted: `None` if another node runs it, or did.
    pub(super) fn admit_remote(
        &mut self,
        mut job: Delivered,
        admission: Admission,
        begun: u32,
        now_ms: u64,
        effects: &mut Vec<Effect<P>>,
    ) -> Option<Delivered> {
        let runs = matches!(admission, Admission::New | Admission::Repeats(_));
        let Some(owned) = self.partitions.get_mut(&job.at.partition).filter(|_| runs) else { return Some(job) };
        let is_cancelled = owned.cancels.has(job.job_id, &job.job.tenant);
        let (offset, deadline) = (job.place.offset, job.job.deadline);
        job.attempts_before = job.attempts_before.max(owned.remotes.reported(offset));
        match owned.remotes.admit(offset, job, begun, deadline, is_cancelled, now_ms) {
            Admitted::Here(job) => Some(job),
            Admitted::Elsewhere => None,
            Admitted::Ended(job, end) => {
                effects.push(Effect::TakeEnd(Box::new(job), end));
                None
            }
        }
    }

    /// The end of a job that ran elsewhere cannot be read: it runs once more.
    pub fn untaken(&mut self, job: Box<Delivered>, now_ms: u64) -> Vec<Effect<P>> {
        let mut effects = self.run_anew(vec![*job], now_ms);
        effects.extend(self.go_on(now_ms));
        effects
    }

    /// Time has passed: what was silent for too long.
    pub(super) fn silent(&mut self, now_ms: u64) -> Vec<Effect<P>> {
        let mut effects: Vec<_> = self.keeping.take_silent(now_ms).into_iter().map(Effect::AbandonKept).collect();
        let jobs: Vec<_> = self.partitions.values_mut().flat_map(|owned| owned.remotes.take_silent(now_ms)).collect();
        self.silences += jobs.len() as u64;
        effects.extend(self.run_anew(jobs, now_ms));
        effects
    }

    /// Jobs that nobody runs any more: they run here, if nothing ends them.
    fn run_anew(&mut self, jobs: Vec<Delivered>, now_ms: u64) -> Vec<Effect<P>> {
        let mut effects = Vec::new();
        for job in jobs {
            let owned = self.partitions.get(&job.at.partition);
            if owned.is_none_or(|owned| owned.epoch != job.epoch || owned.revoking) {
                continue;
            }
            if owned.is_some_and(|owned| owned.cancels.has(job.job_id, &job.job.tenant)) {
                effects.push(Effect::EndCancelled(Box::new(job)));
            } else if job.job.deadline.is_some_and(|deadline| deadline <= now_ms) {
                effects.push(Effect::EndExpired(Box::new(job)));
            } else {
                self.room.push(now_ms, job);
            }
        }
        effects
    }

    /// Jobs that are kept running for other owners.
    pub fn keeping(&self) -> &Keeping {
        &self.keeping
    }

    /// As [`Core::keeping`], to take note of reports.
    pub fn keeping_mut(&mut self) -> &mut Keeping {
        &mut self.keeping
    }

    /// Jobs of ours that other nodes run, and how many were run anew because nothing was heard of them.
    pub fn elsewhere(&self) -> (usize, u64) {
        (self.partitions.values().map(|owned| owned.remotes.len()).sum(), self.silences)
    }
}
