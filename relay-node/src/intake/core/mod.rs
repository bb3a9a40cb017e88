//! What a node does with its share of a lane: which jobs run, what is committed, when a partition is given up. Pure: it
//! takes what happened and answers with what to do; time is passed in.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use relay_log::planted::{Bug, is_planted};
use relay_log::port::{Assignment, CommitOffset, TopicPartition};
use relay_protocol::JobId;
use relay_protocol::hand_over::KeptEnd;
use relay_protocol::record::{CancelRequest, StartedJob, StartedJobs};

mod aside;
mod begin;
mod hand_over;
mod poison;
mod settle;

#[cfg(test)]
pub(crate) use poison::AT_SLOTS_MAX;

use super::cancels::Cancels;
use super::dedup::{Body, DedupIndex, EndedJob, Scope};
use super::earlier::{Earlier, Life, PoisonLimits};
use super::keeping::{Keeping, KeptKey};
use super::remote::Remotes;
use super::room::{Shares, Waiting};
use super::rooms::Rooms;
use super::same::{Admission, Identities, Identity};
use super::side::{SideKey, Sides};
use super::tracker::{Delivery, Tracker};
use crate::fair::Weights;
use crate::job::aside::Side;
use crate::job::delivered::{Delivered, Duplicate, Receipt};
use crate::job::retry::Tiers;
use crate::tenants::RuleBook;

/// Bounds of a lane on one node.
#[derive(Debug, Clone, Copy)]
pub struct LaneLimits {
    /// Jobs that run at a time.
    pub running_max: usize,
    /// Jobs that are read ahead and wait.
    pub waiting_max: usize,
    /// Shares of the turns among waiting jobs.
    pub weights: Weights,
    /// Jobs of one tenant or model among those that wait.
    pub shares: Shares,
    /// Jobs that may be set aside; beyond it partitions that have their equal part of it are not read on.
    pub set_aside_max: usize,
    /// How long jobs wait in each delay tier.
    pub tiers: Tiers,
    /// How long after its last report a job that another node keeps running is run anew, in milliseconds.
    pub handover_timeout_ms: u64,
    /// When jobs count as what nodes die of.
    pub poison: PoisonLimits,
}

/// Names a delivered job: partition and offset.
pub type Key = (u32, u64);

/// What to do.
#[derive(Debug)]
pub enum Effect<P> {
    /// Write the receipt of a job that came from outside.
    Accept(Box<Receipt>),
    /// End this record: it is a job that is known already, and that job's events are its own.
    EndSame(Box<Delivered>),
    /// End this job as failed: its key is that of the job named, which does something else.
    EndReused(Box<Delivered>),
    /// Begin to run this job.
    Run(Box<Delivered>),
    /// End this job, which never ran, as cancelled.
    EndCancelled(Box<Delivered>),
    /// End this job, which never ran, as expired.
    EndExpired(Box<Delivered>),
    /// Set this job aside at a side, until a time in milliseconds since the Unix epoch: commit it as finished there.
    SetAside(Box<Delivered>, Side, u64),
    /// Read these jobs of the sides of a partition under an epoch; answered by [`Core::fetched`] for each.
    Fetch(u32, u64, Vec<SideKey>),
    /// Read these offsets of the lane again under an epoch, though they were committed as finished: each is delivered, or
    /// [`Core::is_gone`].
    Reread(u32, u64, Vec<u64>),
    /// Commit that this job goes back from its side to its lane: [`Core::left_side`].
    Return(Box<Delivered>, SideKey),
    /// End this job, which is set aside, as cancelled (`true`) or expired: [`Core::left_side`].
    EndAside(Box<Delivered>, SideKey, bool),
    /// Tell the run of this job that it is cancelled; it ends in its own time.
    Cancel(Key),
    /// Drop the run of this job: it is somebody else's now.
    Abandon(Key),
    /// Go on with the runs of these jobs of a partition under an epoch, which goes to another node, and announce that:
    /// [`Core::announced`]. At the end of each: [`Core::kept_over`].
    Keep(u32, u64, Vec<StartedJob>),
    /// Tell a kept run that its job is cancelled.
    CancelKept(KeptKey),
    /// Drop a kept run: the job's owner does not wait for it.
    AbandonKept(KeptKey),
    /// End this job as it ended at the node that kept it; [`Core::untaken`] if that is not possible.
    TakeEnd(Box<Delivered>, Box<KeptEnd>),
    /// Other jobs may end in a moment and share the commit: call [`Core::gathered`] then.
    Gather,
    /// Commit; answered by [`Core::committed`] or [`Core::not_committed`]. One at a time.
    Commit(Batch<P>),
    /// Stop or go on reading a partition.
    Pause(u32, bool),
    /// The partition is settled: let the rebalance have it.
    Release(u32),
}

/// What is committed together.
#[derive(Debug)]
pub struct Batch<P> {
    /// The jobs that end: place, epoch, and what goes with it.
    pub jobs: Vec<(Key, u64, P)>,
    /// The jobs that leave the sides of partitions.
    pub aside: Vec<((u32, SideKey), u64, P)>,
    /// Where the group stands after it.
    pub offsets: Vec<CommitOffset>,
}

/// What is committed with a job's end.
pub trait Ends {
    /// What is known of the job from then on; `None` of a record that was no job of its own.
    fn ended(&self) -> Option<(Scope, EndedJob)>;
    /// Whether the job has not ended but is set aside.
    fn is_set_aside(&self) -> bool {
        false
    }
    /// Of a record that is moved to another partition: until when doing that once more does no harm, in milliseconds since the Unix
    /// epoch. The job's own end is remembered there for longer.
    fn moved_until_ms(&self) -> Option<u64> {
        None
    }
}

#[derive(Debug)]
struct Partition {
    at: TopicPartition,
    epoch: u64,
    tracker: Tracker,
    control_read: bool,
    dedup_read: bool,
    sides: Sides,
    sides_read: bool,
    /// Jobs that were written back to the lane and were not read there yet.
    returning: usize,
    /// Jobs that did not run and are to be set aside by a commit.
    leaving: usize,
    serial: u64,
    /// Read before the control and dedup topics were; they wait for them.
    held: Option<VecDeque<Delivered>>,
    /// Records are read again that must be done again: nothing is admitted before.
    rereading: bool,
    same: Identities,
    /// Jobs that wait for the end of another with their key, by offset.
    followers: BTreeMap<u64, Delivered>,
    /// What earlier owners did with the jobs that were not admitted yet.
    earlier: Earlier,
    /// Jobs that earlier owners began, and that hold a key, by offset.
    key_holders: BTreeMap<u64, Identity>,
    cancels: Cancels,
    /// Jobs that earlier owners keep running.
    remotes: Remotes<Delivered, Box<KeptEnd>>,
    paused: bool,
    revoking: bool,
    /// The runs that are kept of it are not announced yet.
    announcing: bool,
}

/// A node's share of one lane. `P` is what is committed with a job's end.
#[derive(Debug)]
pub struct Core<P> {
    limits: LaneLimits,
    tenants: RuleBook,
    partitions: BTreeMap<u32, Partition>,
    /// The life of the node that this is.
    life: Life,
    room: Rooms<Delivered>,
    suspects: poison::Turns,
    running: BTreeMap<Key, JobId>,
    running_jobs: HashMap<JobId, (Key, String)>,
    finished: Vec<(Key, u64, P)>,
    finished_aside: Vec<((u32, SideKey), u64, P)>,
    committing: bool,
    gathering: bool,
    in_commit: BTreeSet<u32>,
    keeping: Keeping,
    silences: u64,
    draining: bool,
}

impl<P: Ends> Core<P> {
    /// A share without partitions.
    pub fn new(limits: LaneLimits) -> Self {
        Self {
            limits,
            tenants: RuleBook::default(),
            partitions: BTreeMap::new(),
            life: Life { node: String::new(), incarnation: 0 },
            room: Rooms::new(limits.weights),
            suspects: poison::Turns::default(),
            running: BTreeMap::new(),
            running_jobs: HashMap::new(),
            finished: Vec::new(),
            finished_aside: Vec::new(),
            committing: false,
            gathering: false,
            in_commit: BTreeSet::new(),
            keeping: Keeping::new(limits.handover_timeout_ms),
            silences: 0,
            draining: false,
        }
    }

    /// The same with these rules of the tenants, whose weights count.
    #[must_use]
    pub fn with_tenants(self, tenants: RuleBook) -> Self {
        Self { tenants, ..self }
    }

    /// Jobs that run, those that are kept for other owners included.
    pub fn running(&self) -> usize {
        self.running.len() + self.keeping.len()
    }

    /// Jobs that wait.
    pub fn waiting(&self) -> usize {
        let of_one = |one: &Partition| one.followers.len() + one.held.as_ref().map_or(0, VecDeque::len);
        self.room.len() + self.partitions.values().map(of_one).sum::<usize>()
    }

    /// The epoch under which a partition is this node's.
    pub fn epoch(&self, partition: u32) -> Option<u64> {
        self.partitions.get(&partition).map(|owned| owned.epoch)
    }

    /// Ended jobs that are remembered, and how many were forgotten before their time, of the partitions that are ours.
    pub fn remembered(&self) -> (usize, u64) {
        let indexes = self.partitions.values().map(|owned| owned.same.index());
        indexes.fold((0, 0), |(len, forgotten), index| (len + index.len(), forgotten + index.forgotten()))
    }

    /// The job of `partition` that an idempotency key stands for, and whether it does the same; `None` if there is none, or
    /// the partition is not ours.
    pub fn of_key(&self, partition: u32, scope: Scope, body: Body, now_ms: u64) -> Option<(JobId, bool)> {
        self.partitions.get(&partition)?.same.of_key(scope, body, now_ms)
    }

    /// Partitions that are this node's.
    pub fn partitions(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        self.partitions.iter().map(|(number, partition)| (*number, partition.epoch))
    }

    /// Nothing runs, nothing waits to be committed.
    pub fn is_settled(&self) -> bool {
        let is_idle = self.running.is_empty() && self.keeping.is_empty();
        is_idle && self.finished.is_empty() && self.finished_aside.is_empty() && !self.committing
    }

    /// A partition is this node's now. Its jobs wait until [`Core::control_read`] and [`Core::dedup_read`]; returns since when (milliseconds since
    /// the Unix epoch) the control topic must be read, `None` for from its start, and what to do: a full room reads nothing
    /// of a new partition either.
    pub fn assigned(&mut self, assignment: Assignment, now_ms: u64) -> (Option<u64>, Vec<Effect<P>>) {
        let tracker = Tracker::new(assignment.committed.as_ref(), assignment.next, now_ms);
        let since = Some(tracker.inherited().oldest_ms).filter(|ms| *ms > 0);
        let number = assignment.at.partition;
        let (sides, serial) = (Sides::new(tracker.inherited().sides), tracker.inherited().serial);
        let partition = Partition {
            sides,
            sides_read: false,
            returning: 0,
            leaving: 0,
            serial,
            at: assignment.at,
            epoch: assignment.epoch,
            tracker,
            control_read: false,
            dedup_read: is_planted(Bug::EndedNotRead),
            held: Some(VecDeque::new()),
            rereading: false,
            same: Identities::new(DedupIndex::new(0)),
            followers: BTreeMap::new(),
            earlier: Earlier::default(),
            key_holders: BTreeMap::new(),
            cancels: Cancels::default(),
            remotes: Remotes::new(self.limits.handover_timeout_ms),
            paused: false,
            revoking: false,
            announcing: false,
        };
        self.partitions.insert(number, partition);
        (since, self.go_on(now_ms))
    }

    /// Attempts that somebody begins, in a partition's control topic.
    fn started(&mut self, partition: u32, started: StartedJobs) {
        // Once the topic was read, new attempts are our own.
        let Some(owned) = self.partitions.get_mut(&partition).filter(|owned| !owned.control_read) else { return };
        // Of jobs that ended nobody will ask.
        let Partition { tracker, key_holders, earlier, .. } = owned;
        for holder in started.holders.iter().filter(|holder| !tracker.is_done(holder.offset)) {
            key_holders.extend(Identity::of_holder(holder).map(|job| (holder.offset, job)));
        }
        for job in started.jobs.into_iter().filter(|job| !tracker.is_done(job.offset)) {
            earlier.started(&started.node, started.incarnation, job);
        }
    }

    /// A request to cancel in a partition's control topic.
    fn cancel_asked(&mut self, partition: u32, request: CancelRequest) -> Vec<Effect<P>> {
        let Some(owned) = self.partitions.get_mut(&partition) else { return Vec::new() };
        let job_id = request.job_id;
        owned.sides.hurry(Scope::of_id(&request.tenant, job_id));
        owned.cancels.add(job_id, request.tenant);
        self.cancel(partition, job_id)
    }

    fn cancel(&mut self, partition: u32, job_id: JobId) -> Vec<Effect<P>> {
        let Some(owned) = self.partitions.get(&partition) else { return Vec::new() };
        match self.running_jobs.get(&job_id) {
            Some((key, tenant)) if key.0 == partition && owned.cancels.has(job_id, tenant) => {
                return vec![Effect::Cancel(*key)];
            }
            _ => {}
        }
        let asked = |job: &Delivered| job.at.partition == partition && owned.cancels.has(job_id, &job.job.tenant);
        let follower = owned.followers.iter().find(|(_, job)| job.job_id == job_id && asked(job));
        let ends = match follower.map(|(offset, _)| *offset) {
            Some(offset) => self.partitions.get_mut(&partition).and_then(|owned| owned.followers.remove(&offset)),
            None if self.room.get(job_id).is_some_and(asked) => self.room.remove(job_id),
            None => None,
        };
        ends.map(|job| Effect::EndCancelled(Box::new(job))).into_iter().collect()
    }

    /// A record of a partition came. `false`: it was finished before, or the partition is not ours under that epoch.
    pub fn read(&mut self, at: Key, epoch: u64, since_ms: u64) -> bool {
        match self.partitions.get_mut(&at.0) {
            Some(owned) if owned.epoch == epoch && !owned.revoking => {
                owned.tracker.deliver(at.1, since_ms) == Delivery::New
            }
            _ => false,
        }
    }

    /// A record that [`Core::read`] wanted is a job.
    pub fn job(&mut self, job: Delivered, now_ms: u64) -> Vec<Effect<P>> {
        let Some(owned) = self.partitions.get_mut(&job.at.partition) else { return Vec::new() };
        let mut effects = Vec::new();
        match &mut owned.held {
            Some(held) => held.push_back(job),
            None => self.admit(job, now_ms, &mut effects),
        }
        effects.extend(self.go_on(now_ms));
        effects
    }

    fn admit(&mut self, mut job: Delivered, now_ms: u64, effects: &mut Vec<Effect<P>>) {
        let Some(owned) = self.partitions.get_mut(&job.at.partition) else { return };
        let offset = job.place.offset;
        let orphans: Vec<_> = owned.same.never_came(offset, &job.identity);
        let orphans: Vec<_> = orphans.into_iter().filter_map(|offset| owned.followers.remove(&offset)).collect();
        for orphan in orphans {
            self.admit(orphan, now_ms, effects);
        }
        let Some(owned) = self.partitions.get_mut(&job.at.partition) else { return };
        let begun = owned.remember(&mut job, &self.life, &self.limits.poison);
        let is_back = job.aside.is_some() && owned.same.is_back(offset, &job.identity);
        owned.returning = owned.returning.saturating_sub(usize::from(is_back));
        let admission = if is_back { Admission::New } else { owned.same.admit(offset, &job.identity, now_ms) };
        job.duplicate = match admission {
            Admission::Same if is_planted(Bug::CancelAfterCommit) && owned.cancels.has(job.job_id, &job.job.tenant) => {
                return effects.push(Effect::EndCancelled(Box::new(job)));
            }
            Admission::Same => return effects.push(Effect::EndSame(Box::new(job))),
            Admission::New => None,
            Admission::Follows(of) | Admission::Reused(of) => Some(Duplicate { of, ended_at_ms: None }),
            Admission::Repeats(ended) => Some(Duplicate::of(&ended)),
        };
        effects.extend(job.receipt().map(Effect::Accept));
        let Some(job) = self.admit_remote(job, admission, begun, now_ms, effects) else { return };
        let Some(owned) = self.partitions.get_mut(&job.at.partition) else { return };
        if matches!(admission, Admission::Reused(_)) {
            effects.push(Effect::EndReused(Box::new(job)));
        } else if owned.cancels.has(job.job_id, &job.job.tenant) {
            effects.push(Effect::EndCancelled(Box::new(job)));
        } else if matches!(admission, Admission::Follows(_)) {
            owned.followers.insert(offset, job);
        } else if let (Admission::New, Some((side, due_ms))) = (admission, self.beside(&job, now_ms)) {
            if let Some(owned) = self.partitions.get_mut(&job.at.partition) {
                owned.leaving += 1;
            }
            effects.push(Effect::SetAside(Box::new(job), side, due_ms));
        } else {
            self.room.push(now_ms, job);
        }
    }

    /// A job (or a record that is none) ended, with what is to be committed for it.
    pub fn finished(&mut self, at: Key, epoch: u64, payload: P, now_ms: u64) -> Vec<Effect<P>> {
        // Under another epoch it is another owner's job, or this one's once more.
        if self.partitions.get(&at.0).is_some_and(|owned| owned.epoch == epoch) {
            self.forget_running(at);
            self.finished.push((at, epoch, payload));
        }
        let mut effects = self.go_on(now_ms);
        effects.extend(self.settle());
        effects
    }

    /// These partitions were lost: nothing can be committed for them.
    pub fn lost(&mut self, partitions: &[u32]) -> Vec<Effect<P>> {
        let mut effects = Vec::new();
        for number in partitions {
            effects.extend(self.abandon(*number));
            effects.extend(self.lose_unannounced(*number));
            self.room.drop_partition(*number);
            self.finished.retain(|(at, _, _)| at.0 != *number);
            self.finished_aside.retain(|((of, _), _, _)| of != number);
            self.partitions.remove(number);
        }
        effects
    }

    fn abandon(&mut self, number: u32) -> Vec<Effect<P>> {
        let keys: Vec<Key> = self.running.keys().filter(|key| key.0 == number).copied().collect();
        for key in &keys {
            self.forget_running(*key);
        }
        keys.into_iter().map(Effect::Abandon).collect()
    }

    /// Starts no more jobs.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Time has passed: deadlines, `not_before`.
    pub fn tick(&mut self, now_ms: u64) -> Vec<Effect<P>> {
        let mut expired = self.room.take_expired(now_ms);
        for owned in self.partitions.values_mut() {
            owned.same.tick(now_ms);
            let late = |_: &u64, job: &mut Delivered| job.job.deadline.is_some_and(|at| at <= now_ms);
            expired.extend(owned.followers.extract_if(.., late).map(|(_, job)| job));
        }
        let mut effects: Vec<_> = expired.into_iter().map(|job| Effect::EndExpired(Box::new(job))).collect();
        effects.extend(self.silent(now_ms));
        effects.extend(self.go_on(now_ms));
        effects
    }

    /// Waiting jobs for whose sake nothing more is read, if they are many. What waits for the end of another job is in nobody's way while
    /// nothing else is there to run: that other one may have come back to the lane further on.
    pub fn in_the_way(&self) -> usize {
        let leaving: usize = self.partitions.values().map(|owned| owned.leaving).sum();
        let followers: usize = self.partitions.values().map(|owned| owned.followers.len()).sum();
        let is_idle = self.room.is_empty() && self.running() < self.limits.running_max;
        let passed_over = if is_idle { followers } else { 0 };
        (self.waiting() - self.room.suspects() - passed_over + leaving).max(self.room.suspects())
    }

    /// Starts what may start, and stops or goes on reading.
    fn go_on(&mut self, now_ms: u64) -> Vec<Effect<P>> {
        let mut effects = Vec::new();
        while !self.draining && self.running() < self.limits.running_max {
            let Some(job) = self.next_job(now_ms) else { break };
            let key = (job.at.partition, job.place.offset);
            self.running.insert(key, job.job_id());
            self.running_jobs.insert(job.job_id(), (key, job.job.tenant.clone()));
            effects.push(Effect::Run(Box::new(job)));
        }
        let waiting = self.in_the_way();
        // Reading goes on only when half of the room is free, so that it does not stop and go with each job.
        let (full, half_full) = (waiting >= self.limits.waiting_max, waiting > self.limits.waiting_max / 2);
        // One partition may take what the others leave, and none is stopped below its own part because of another one.
        let aside: usize = self.partitions.values().map(|owned| owned.sides.len()).sum();
        let part = (self.limits.set_aside_max / self.partitions.len().max(1)).max(1);
        let is_over = |len: usize| aside >= self.limits.set_aside_max && len >= part;
        for (number, owned) in &mut self.partitions {
            let pause = full || (owned.paused && half_full) || !owned.tracker.has_room();
            let pause = pause || is_over(owned.sides.len());
            if pause != owned.paused {
                owned.paused = pause;
                effects.push(Effect::Pause(*number, pause));
            }
        }
        effects
    }
}
