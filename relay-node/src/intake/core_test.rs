//! A lane's promises under any order of reads, ends, commits, rebalances, deadlines, stops and crashes: every job ends
//! exactly once in the log, nothing runs twice at a time, limits hold, nothing waits that could run or be read, and of the
//! jobs with one key or one id only one runs.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use proptest::prelude::*;
use relay_log::port::{Assignment, Committed, LogRecord, TopicPartition};
use relay_protocol::record::{CancelRequest, ControlRecord, KeyHolder, StartedJob, StartedJobs};
use relay_protocol::{JobId, Priority, topics};

use super::core::{AT_SLOTS_MAX, Batch, Core, Effect, Ends, Key, LaneLimits};
use super::dedup::{Body, DedupIndex, EndedJob, Scope};
use super::earlier::{Crashes, PoisonLimits, Verdict};
use super::room::Shares;
use crate::fair::Weights;
use crate::job::delivered::Delivered;
use crate::job::retry::Tiers;

const PARTITIONS: u32 = 3;
const JOBS: u64 = 12;
const LIMITS: LaneLimits = LaneLimits {
    running_max: 5,
    waiting_max: 6,
    weights: WEIGHTS,
    shares: SHARES,
    set_aside_max: 100,
    tiers: TIERS,
    handover_timeout_ms: 10 * STEP_MS,
    poison: PoisonLimits { suspect_after: 1, crashes_max: 2, turns_ms: 1_000 },
};
/// Nothing is set aside.
const SHARES: Shares = Shares { tenant_jobs_max: usize::MAX, model_jobs_max: usize::MAX };
const TIERS: Tiers = Tiers::new([u64::MAX; 5]);
const WEIGHTS: Weights = Weights { interactive: 16, normal: 4, batch: 1 };
const NOW_MS: u64 = 1_700_000_000_000;
/// Distance between the deadlines, and between the `not_before` times, of jobs.
const STEP_MS: u64 = 1_000;
/// The record at this offset is that of another one's job once more.
const SAME: (u64, u64) = (7, 3);
/// The job at this offset has a key.
const KEYED: u64 = 4;
/// Those at these offsets have the same key and body.
const FOLLOWERS: [u64; 2] = [8, 9];
/// The one at this offset has the same key and another body.
const REUSED: u64 = 10;
/// Longer than any history.
const WINDOW_MS: u64 = 1_000_000_000;

#[derive(Debug, Clone)]
enum Step {
    /// The next record of a partition, if it is read now.
    Read(u32),
    ControlRead(u32),
    DedupRead(u32),
    /// The suspect that runs makes room, if another one waits.
    MakeRoom,
    /// The n-th running job ends.
    End(usize),
    /// A run that was abandoned ends all the same, the n-th of them.
    EndLate(usize),
    /// The time to gather is over.
    Gathered,
    /// What becomes of the commit under way.
    Settle(Fate),
    Assign(u32),
    Revoke(u32),
    Lose(u32),
    Cancel(u32, u64),
    /// This many milliseconds pass.
    Wait(u64),
    /// The node ends in order: what runs ends, what ended is committed.
    Stop,
    /// The node dies, and with it whatever is not in the log.
    Crash,
}

/// What becomes of a commit, and whether the node hears of it or has to look.
#[derive(Debug, Clone, Copy)]
struct Fate {
    succeeds: bool,
    in_doubt: bool,
    /// The log keeps the offsets and drops the records, which the node finds out.
    splits: bool,
}

const COMMITTED: Fate = Fate { succeeds: true, in_doubt: false, splits: false };

fn step() -> impl Strategy<Value = Step> {
    let partition = 0..PARTITIONS;
    prop_oneof![
        8 => partition.clone().prop_map(Step::Read),
        2 => partition.clone().prop_map(Step::ControlRead),
        2 => partition.clone().prop_map(Step::DedupRead),
        6 => any::<usize>().prop_map(Step::End),
        2 => Just(Step::MakeRoom),
        2 => any::<usize>().prop_map(Step::EndLate),
        4 => Just(Step::Gathered),
        5 => (prop::bool::weighted(0.8), prop::bool::weighted(0.3), prop::bool::weighted(0.2))
            .prop_map(|(succeeds, in_doubt, splits)| Step::Settle(Fate { succeeds, in_doubt, splits })),
        2 => partition.clone().prop_map(Step::Assign),
        1 => partition.clone().prop_map(Step::Revoke),
        1 => partition.clone().prop_map(Step::Lose),
        1 => (partition, 0..JOBS).prop_map(|(partition, offset)| Step::Cancel(partition, offset)),
        2 => (1..STEP_MS * 2).prop_map(Step::Wait),
        1 => prop_oneof![Just(Step::Stop), Just(Step::Crash)],
    ]
}

/// What one life of the node knows of a partition.
struct Owned {
    epoch: u64,
    next: u64,
    paused: bool,
    revoking: bool,
    control_read: bool,
    dedup_read: bool,
}

/// What is committed with a job's end: the epoch that it ran under, and what is known of it.
struct End {
    epoch: u64,
    ended: Option<(Scope, EndedJob)>,
}

impl Ends for End {
    fn ended(&self) -> Option<(Scope, EndedJob)> {
        self.ended
    }
}

/// A job that was read and neither runs nor ended.
struct Waits {
    not_before: Option<u64>,
    deadline: Option<u64>,
}

/// The log, the group and one node.
struct World {
    now_ms: u64,
    draining: bool,
    core: Core<End>,
    owned: BTreeMap<u32, Owned>,
    /// What runs; `true`: it repeats another one's end.
    running: BTreeMap<Key, bool>,
    waiting: BTreeMap<Key, Waits>,
    /// Runs that were abandoned, under which epoch.
    abandoned: Vec<(Key, u64)>,
    /// Jobs that ran under the current epoch of their partition.
    ran: BTreeSet<Key>,
    batch: Option<Batch<End>>,
    gathering: bool,
    epochs: u64,
    committed: HashMap<u32, Committed>,
    ended: BTreeSet<Key>,
    /// Jobs whose offsets were committed without their ends.
    unproven: BTreeSet<Key>,
    /// Jobs that ended, in the dedup topic.
    dedup: Vec<(u32, (Scope, EndedJob))>,
    /// Registered attempts, in the control topic.
    control: Vec<(u32, ControlRecord)>,
    attempts: HashMap<Key, u32>,
    /// This life of the node.
    incarnation: u64,
    /// What this life began, and whether as the only suspect.
    begun: BTreeMap<Key, bool>,
    /// Crashes that jobs were part of.
    crashes: HashMap<Key, Crashes>,
    suspects: BTreeSet<Key>,
    /// Suspects that run and wait for the place of the only one, with their attempts.
    queue: Vec<(Key, u32)>,
}

fn job_id((partition, offset): Key) -> JobId {
    let offset = if offset == SAME.0 { SAME.1 } else { offset };
    JobId::new(NOW_MS, 0, u64::from(partition) << 32 | offset)
}

fn at(partition: u32) -> TopicPartition {
    TopicPartition::new(topics::jobs(topics::DEFAULT_LANE), partition)
}

fn delivered(key: Key, epoch: u64) -> Delivered {
    let id = job_id(key);
    let text = if key.1 == REUSED { "y" } else { "x" };
    let has_key = key.1 == KEYED || key.1 == REUSED || FOLLOWERS.contains(&key.1);
    let idempotency_key = has_key.then_some("one");
    let value = serde_json::json!({
        "id": id, "task": "probe", "input": { "text": text }, "idempotency_key": idempotency_key,
    });
    let record = LogRecord {
        at: at(key.0),
        offset: key.1,
        key: None,
        value: Some(Bytes::from(value.to_string())),
        headers: Vec::new(),
        timestamp_ms: NOW_MS + key.1,
    };
    let mut delivered = Delivered::read(topics::DEFAULT_LANE, record, epoch).expect("a job");
    delivered.job.priority = [Priority::Batch, Priority::Normal, Priority::Interactive][key.1 as usize % 3];
    // Most jobs have neither.
    delivered.job.deadline = (key.1 % 4 == 1).then_some(NOW_MS + (key.1 + 1) * STEP_MS);
    delivered.job.not_before = (key.1 % 5 == 2).then_some(NOW_MS + key.1 * STEP_MS);
    delivered
}

impl World {
    fn new() -> Self {
        Self {
            now_ms: NOW_MS,
            draining: false,
            core: Core::new(LIMITS).of_life("node", 1),
            owned: BTreeMap::new(),
            running: BTreeMap::new(),
            waiting: BTreeMap::new(),
            abandoned: Vec::new(),
            ran: BTreeSet::new(),
            batch: None,
            gathering: false,
            epochs: 0,
            committed: HashMap::new(),
            ended: BTreeSet::new(),
            unproven: BTreeSet::new(),
            dedup: Vec::new(),
            control: Vec::new(),
            attempts: HashMap::new(),
            incarnation: 1,
            begun: BTreeMap::new(),
            crashes: HashMap::new(),
            suspects: BTreeSet::new(),
            queue: Vec::new(),
        }
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Read(partition) => self.read(partition),
            Step::ControlRead(partition) => self.control_read(partition),
            Step::DedupRead(partition) => self.dedup_read(partition),
            Step::End(index) => {
                if let Some(index) = index.checked_rem(self.running.len()) {
                    let key = *self.running.keys().nth(index).expect("it runs");
                    self.end(key);
                }
            }
            Step::MakeRoom => self.make_room(),
            Step::EndLate(index) => {
                if let Some(index) = index.checked_rem(self.abandoned.len()) {
                    let (key, epoch) = self.abandoned.swap_remove(index);
                    let late = self.end_of(key, epoch, false);
                    let effects = self.core.finished(key, epoch, late, self.now_ms);
                    self.carry_out(effects);
                }
            }
            Step::Gathered => self.gathered(),
            Step::Settle(fate) => self.settle(fate),
            Step::Assign(partition) => self.assign(partition),
            Step::Revoke(partition) => {
                if let Some(owned) = self.owned.get_mut(&partition).filter(|owned| !owned.revoking) {
                    owned.revoking = true;
                    self.waiting.retain(|key, _| key.0 != partition);
                    let effects = self.core.hand_over(&[partition], &BTreeMap::new());
                    self.carry_out(effects);
                }
            }
            Step::Lose(partition) => {
                if self.owned.contains_key(&partition) {
                    self.waiting.retain(|key, _| key.0 != partition);
                    let effects = self.core.lost(&[partition]);
                    self.carry_out(effects);
                    assert!(self.running.keys().all(|key| key.0 != partition), "what was lost is abandoned");
                    self.owned.remove(&partition);
                }
            }
            Step::Cancel(partition, offset) => self.cancel((partition, offset)),
            Step::Wait(ms) => {
                self.now_ms += ms;
                self.tick();
            }
            Step::Stop => {
                self.stop();
                self.crash();
            }
            Step::Crash => self.crash(),
        }
    }

    fn make_room(&mut self) {
        let in_the_way = self.core.suspects_in_the_way(false);
        let alone = self.suspects.first().copied();
        let Some((key, turn_ms)) = in_the_way.into_iter().find(|(key, _)| alone == Some(*key)) else { return };
        let beside = self.running.keys().any(|other| *other != key && self.is_suspect(*other));
        assert!(self.core.suspects() > 0 || beside, "{key:?} is in nobody's way");
        assert!(turn_ms > 0);
        self.register(key, self.attempts[&key], false);
        self.leave_place(key);
        let effects = self.core.made_room(key, self.owned[&key.0].epoch, self.now_ms);
        self.carry_out(effects);
    }

    /// As the run registers it before it calls a backend.
    fn register(&mut self, key: Key, attempt: u32, alone: bool) {
        self.begun.insert(key, alone);
        self.attempts.insert(key, attempt);
        let jobs = vec![StartedJob { offset: key.1, attempt, alone }];
        let started = StartedJobs { node: "node".to_owned(), incarnation: self.incarnation, jobs, holders: Vec::new() };
        self.control.push((key.0, ControlRecord::Started(started)));
    }

    /// A suspect ended, was dropped or made room: the next that waits for the place begins.
    fn leave_place(&mut self, key: Key) {
        self.queue.retain(|(waits, _)| *waits != key);
        self.suspects.remove(&key);
        self.enter_place();
    }

    fn enter_place(&mut self) {
        if self.suspects.is_empty() && !self.queue.is_empty() {
            let (next, attempt) = self.queue.remove(0);
            self.suspects.insert(next);
            self.register(next, attempt, true);
        }
    }

    fn tick(&mut self) {
        let effects = self.core.tick(self.now_ms);
        self.carry_out(effects);
        let late = |waits: &Waits| waits.deadline.is_some_and(|at| at <= self.now_ms);
        let forgotten: Vec<_> =
            self.waiting.iter().filter(|(key, waits)| late(waits) && self.is_admitted(**key)).map(|(k, _)| k).collect();
        assert!(forgotten.is_empty(), "{forgotten:?} wait beyond their deadlines");
    }

    fn stop(&mut self) {
        self.draining = true;
        self.core.drain();
        while let Some(key) = self.running.keys().next().copied() {
            self.end(key);
        }
        self.gathered();
        while self.batch.is_some() {
            self.settle(COMMITTED);
        }
        assert!(self.core.is_settled(), "all that ran was committed");
    }

    fn crash(&mut self) {
        for (key, alone) in std::mem::take(&mut self.begun) {
            if !self.ended.contains(&key) {
                let more = Crashes { seen: 1, charged: u32::from(alone) };
                let crashes = self.crashes.entry(key).or_default();
                *crashes = crashes.and(more);
            }
        }
        self.incarnation += 1;
        self.core = Core::new(LIMITS).of_life("node", self.incarnation);
        self.suspects.clear();
        self.queue.clear();
        self.draining = false;
        self.owned.clear();
        self.running.clear();
        self.waiting.clear();
        self.abandoned.clear();
        self.batch = None;
        self.gathering = false;
    }

    fn gathered(&mut self) {
        if std::mem::take(&mut self.gathering) {
            let effects = self.core.gathered();
            self.carry_out(effects);
        }
    }

    fn is_admitted(&self, key: Key) -> bool {
        self.owned.get(&key.0).is_some_and(|owned| owned.control_read && owned.dedup_read && !owned.revoking)
    }

    fn is_suspect(&self, key: Key) -> bool {
        self.crashes.get(&key).is_some_and(|crashes| crashes.verdict(&LIMITS.poison) == Verdict::Suspect)
    }

    /// Jobs in the fuller of the two rooms, that of ordinary jobs and that of suspects.
    fn fuller_room(&self) -> usize {
        self.core.in_the_way()
    }

    /// Waits for the end of the job with its key.
    fn follows(&self, (partition, offset): Key) -> bool {
        FOLLOWERS.contains(&offset) && !self.ended.contains(&(partition, KEYED))
    }

    fn end_of(&self, key: Key, epoch: u64, repeats: bool) -> End {
        let identity = delivered(key, epoch).identity;
        let by_key = identity.by_key.filter(|_| !repeats && key.1 == KEYED);
        let job = EndedJob {
            job_id: identity.job_id,
            body: by_key.map(|(_, body): (Scope, Body)| body),
            ended_at_ms: self.now_ms,
            expires_at_ms: self.now_ms + WINDOW_MS,
        };
        End { epoch, ended: Some((by_key.map_or(identity.by_id, |(scope, _)| scope), job)) }
    }

    fn assign(&mut self, partition: u32) {
        if self.owned.contains_key(&partition) {
            return;
        }
        self.epochs += 1;
        self.ran.retain(|key| key.0 != partition);
        let committed = self.committed.get(&partition).cloned();
        let next = committed.as_ref().map_or(0, |committed| committed.next);
        let owned =
            Owned { epoch: self.epochs, next, paused: false, revoking: false, control_read: false, dedup_read: false };
        self.owned.insert(partition, owned);
        let assignment = Assignment { at: at(partition), epoch: self.epochs, committed, next };
        let (_, effects) = self.core.assigned(assignment, self.now_ms);
        self.carry_out(effects);
    }

    fn control_read(&mut self, partition: u32) {
        let Some(owned) = self.owned.get_mut(&partition).filter(|owned| !owned.control_read && !owned.revoking) else {
            return;
        };
        owned.control_read = true;
        for (_, record) in self.control.clone().into_iter().filter(|(of, _)| *of == partition) {
            let effects = self.core.told(partition, record, self.now_ms, self.now_ms);
            self.carry_out(effects);
        }
        let effects = self.core.control_read(partition, self.now_ms);
        self.carry_out(effects);
    }

    fn dedup_read(&mut self, partition: u32) {
        let unread = |owned: &&mut Owned| !owned.dedup_read && !owned.revoking;
        let Some(owned) = self.owned.get_mut(&partition).filter(unread) else { return };
        owned.dedup_read = true;
        let mut index = DedupIndex::new(1_000);
        for (_, (scope, job)) in self.dedup.iter().filter(|(of, _)| *of == partition) {
            index.insert(*scope, *job);
        }
        let doubted = self.core.doubted(partition).into_iter();
        let proven: Vec<u64> = doubted.filter(|offset| self.ended.contains(&(partition, *offset))).collect();
        let effects = self.core.dedup_read(partition, index, &proven, self.now_ms);
        self.carry_out(effects);
        let effects = self.core.sides_read(partition, self.now_ms);
        self.carry_out(effects);
    }

    fn read(&mut self, partition: u32) {
        let readable = |owned: &&mut Owned| !owned.paused && !owned.revoking && owned.next < JOBS;
        let Some(owned) = self.owned.get_mut(&partition).filter(readable) else { return };
        let (key, epoch) = ((partition, owned.next), owned.epoch);
        owned.next += 1;
        if self.core.read(key, epoch, NOW_MS) {
            self.deliver(key, epoch);
        } else {
            let comes_again = self.unproven.contains(&key);
            assert!(self.ended.contains(&key) || comes_again, "an unfinished job is not passed over");
        }
    }

    fn reread(&mut self, partition: u32, epoch: u64, offsets: Vec<u64>) {
        for key in offsets.into_iter().map(|offset| (partition, offset)) {
            assert!(self.unproven.contains(&key), "{key:?} is done again though its end is there");
            assert!(self.core.read(key, epoch, NOW_MS), "{key:?} is wanted");
            self.deliver(key, epoch);
        }
        let effects = self.core.reread(partition, self.now_ms);
        self.carry_out(effects);
    }

    fn deliver(&mut self, key: Key, epoch: u64) {
        assert!(!self.ended.contains(&key), "a finished job is not read as a new one");
        let job = delivered(key, epoch);
        self.waiting.insert(key, Waits { not_before: job.job.not_before, deadline: job.job.deadline });
        let effects = self.core.job(job, self.now_ms);
        self.carry_out(effects);
    }

    fn end(&mut self, key: Key) {
        let repeats = self.running.remove(&key).expect("it runs");
        self.leave_place(key);
        let epoch = self.owned[&key.0].epoch;
        let end = self.end_of(key, epoch, repeats);
        let effects = self.core.finished(key, epoch, end, self.now_ms);
        self.carry_out(effects);
    }

    /// The broker takes a commit only if every partition in it is still the member's.
    fn settle(&mut self, fate: Fate) {
        let Some(batch) = self.batch.take() else { return };
        let is_owned =
            |partition: u32, epoch: u64| self.owned.get(&partition).is_some_and(|owned| owned.epoch == epoch);
        let ours = batch.offsets.iter().all(|offset| is_owned(offset.at.partition, offset.epoch));
        // Where there are no records, none can be dropped.
        let has_records = batch.jobs.iter().any(|(_, _, end)| end.ended.is_some());
        let happens = fate.succeeds && ours && !(fate.splits && has_records);
        if fate.succeeds && ours {
            for (key, _, end) in &batch.jobs {
                if happens || end.ended.is_none() {
                    assert!(self.ended.insert(*key) || end.ended.is_none(), "{key:?} ended twice");
                    self.unproven.remove(key);
                    self.dedup.extend(end.ended.map(|ended| (key.0, ended)));
                } else {
                    self.unproven.insert(*key);
                }
            }
            for offset in &batch.offsets {
                let committed = Committed { next: offset.next, metadata: offset.metadata.clone() };
                self.committed.insert(offset.at.partition, committed);
                let below = (0..offset.next).map(|number| (offset.at.partition, number));
                let has_end = |key: &Key| self.ended.contains(key) || self.unproven.contains(key);
                let missing: Vec<Key> = below.filter(|key| !has_end(key)).collect();
                assert!(missing.is_empty(), "the offset passed {missing:?}, which did not end");
            }
        }
        // A node in doubt acts on what it finds.
        // Offsets that lost their records once tell nothing of the same jobs; the records do.
        let looks = fate.in_doubt && batch.jobs.iter().all(|(key, _, _)| !self.unproven.contains(key));
        let believed = if looks { Core::was_committed(&batch, &self.committed) } else { happens };
        assert_eq!(believed, happens, "what is found is what happened");
        let effects = if believed {
            self.core.committed(&batch, self.now_ms)
        } else {
            self.core.not_committed(batch, self.now_ms)
        };
        self.carry_out(effects);
    }

    fn cancel(&mut self, key: Key) {
        let request =
            CancelRequest { job_id: job_id(key), tenant: "default".to_owned(), subject: "test".to_owned(), at: NOW_MS };
        self.control.push((key.0, ControlRecord::Cancel(request.clone())));
        if self.owned.get(&key.0).is_some_and(|owned| owned.control_read) {
            let effects = self.core.told(key.0, ControlRecord::Cancel(request), self.now_ms, self.now_ms);
            self.carry_out(effects);
        }
    }

    fn carry_out(&mut self, effects: Vec<Effect<End>>) {
        for effect in effects {
            match effect {
                Effect::Accept(receipt) => assert_ne!(receipt.place.offset, SAME.0, "one job, one receipt"),
                Effect::EndSame(job) => {
                    assert_eq!(job.place.offset, SAME.0, "only that record is a job once more");
                    let end = End { epoch: job.epoch, ended: None };
                    self.end_with(&job, end);
                }
                Effect::EndReused(job) => {
                    assert_eq!(job.place.offset, REUSED, "only that job has the key of another");
                    self.end_waiting(&job);
                }
                Effect::Run(job) => self.run(&job),
                Effect::EndCancelled(job) => self.end_waiting(&job),
                Effect::EndExpired(job) => {
                    assert!(job.job.deadline.is_some_and(|at| at <= self.now_ms), "its deadline has passed");
                    self.end_waiting(&job);
                }
                Effect::Reread(partition, epoch, offsets) => self.reread(partition, epoch, offsets),
                Effect::SetAside(..) | Effect::Fetch(..) | Effect::Return(..) | Effect::EndAside(..) => {
                    panic!("nothing is set aside in this world")
                }
                Effect::Cancel(key) => assert!(self.running.contains_key(&key), "only a running job is told"),
                Effect::Abandon(key) => {
                    assert!(self.running.remove(&key).is_some(), "only a running job is abandoned");
                    self.leave_place(key);
                    self.abandoned.push((key, self.owned[&key.0].epoch));
                }
                Effect::Keep(..) | Effect::CancelKept(_) | Effect::AbandonKept(_) | Effect::TakeEnd(..) => {
                    panic!("no run is at a backend when its partition is taken in this world")
                }
                Effect::Gather => {
                    assert!(self.core.running() > 0 && !self.draining, "nothing else can end");
                    assert!(!self.gathering && self.batch.is_none(), "one commit at a time");
                    self.gathering = true;
                }
                Effect::Commit(batch) => {
                    assert!(self.batch.is_none(), "one commit at a time");
                    assert!(!self.gathering, "it waits for others");
                    for (key, epoch, end) in &batch.jobs {
                        assert_eq!(end.epoch, *epoch, "the outcome of {key:?} is of another epoch");
                        assert_eq!(*epoch, self.owned[&key.0].epoch, "the outcome of {key:?} is of an earlier epoch");
                    }
                    self.batch = Some(batch);
                }
                Effect::Pause(partition, paused) => {
                    let half_free = self.fuller_room() <= LIMITS.waiting_max / 2;
                    assert!(paused || half_free, "reading goes on before half of the room is free");
                    self.owned.get_mut(&partition).expect("it is ours").paused = paused;
                }
                Effect::Release(partition) => {
                    let released = self.owned.remove(&partition).expect("it was ours");
                    assert!(released.revoking, "only what is being taken is released");
                    assert!(self.running.keys().all(|key| key.0 != partition), "nothing of it runs any more");
                }
            }
        }
    }

    /// A job that waits is cancelled or expires.
    fn end_waiting(&mut self, job: &Delivered) {
        let key = (job.at.partition, job.place.offset);
        let end = self.end_of(key, job.epoch, job.duplicate.is_some());
        self.end_with(job, end);
    }

    fn end_with(&mut self, job: &Delivered, end: End) {
        let key = (job.at.partition, job.place.offset);
        assert!(!self.running.contains_key(&key), "a running job is told, not ended");
        assert!(self.waiting.remove(&key).is_some(), "{key:?} waits");
        let effects = self.core.finished(key, job.epoch, end, self.now_ms);
        self.carry_out(effects);
    }

    fn run(&mut self, job: &Delivered) {
        let key = (job.at.partition, job.place.offset);
        let owned = &self.owned[&key.0];
        assert_eq!(job.epoch, owned.epoch);
        assert!(owned.control_read && owned.dedup_read, "its control and dedup topics were read first");
        let repeats = FOLLOWERS.contains(&key.1);
        assert!(![SAME.0, REUSED].contains(&key.1), "{key:?} is not work of its own");
        assert_eq!(job.duplicate.map(|first| first.of), repeats.then(|| job_id((key.0, KEYED))), "{key:?}");
        assert!(!self.follows(key), "{key:?} runs before the job with its key ended");
        assert!(!self.draining, "{key:?} starts while the node ends");
        let mine = self.waiting.remove(&key).expect("it waited");
        assert!(mine.not_before.is_none_or(|at| at <= self.now_ms), "{key:?} starts too early");
        assert!(self.ran.insert(key), "{key:?} runs twice under one assignment");
        let crashes = self.crashes.get(&key).copied().unwrap_or_default();
        assert_eq!(job.crashes, crashes, "crashes of {key:?}");
        if crashes.charged >= LIMITS.poison.crashes_max {
            assert_eq!(job.verdict, Verdict::Poison, "{key:?} runs again");
            self.running.insert(key, repeats);
            return;
        }
        let is_suspect = crashes.seen > 0;
        assert_eq!(job.verdict, if is_suspect { Verdict::Suspect } else { Verdict::Ordinary });
        let attempt = job.attempts_before + 1;
        let before = self.attempts.get(&key).copied().unwrap_or(0);
        assert!(attempt > before, "attempt {attempt} of {key:?} after {before}");
        if is_suspect {
            self.queue.push((key, attempt));
        } else {
            self.register(key, attempt, false);
        }
        self.running.insert(key, repeats);
        self.enter_place();
        let ahead = self.queue.len() + self.suspects.len();
        assert!(ahead <= AT_SLOTS_MAX, "{ahead} suspects are at slots");
    }

    fn check(&self) {
        assert!(self.running.len() <= LIMITS.running_max, "{} run", self.running.len());
        let ordinary = self.core.waiting() - self.core.suspects();
        let followers = self.waiting.keys().filter(|key| self.follows(**key)).count();
        assert!(ordinary <= LIMITS.waiting_max + followers, "{ordinary} wait, {followers} of them for others' ends");
        assert!(self.core.waiting() <= 2 * LIMITS.waiting_max, "{} wait", self.core.waiting());
        assert_eq!((self.core.running(), self.core.waiting()), (self.running.len(), self.waiting.len()));
        for (number, owned) in &self.owned {
            assert!(
                owned.paused || self.fuller_room() < LIMITS.waiting_max,
                "{number} is read though the room is full"
            );
        }
    }

    /// After each look at the clock: nobody waits beside a free place, nothing is unread beside a free room.
    fn check_at_rest(&mut self) {
        self.tick();
        self.check();
        let ready = |key: Key, waits: &Waits| {
            let is_kept = self.queue.len() + self.suspects.len() >= AT_SLOTS_MAX && self.is_suspect(key);
            self.is_admitted(key)
                && !self.follows(key)
                && !is_kept
                && waits.not_before.is_none_or(|at| at <= self.now_ms)
        };
        let idle = self.running.len() < LIMITS.running_max && !self.draining;
        let held_up = self.waiting.iter().find(|(key, waits)| idle && ready(**key, waits));
        assert_eq!(held_up.map(|(key, _)| key), None, "waits beside a free place");
        let half_free = self.fuller_room() <= LIMITS.waiting_max / 2;
        let unread = self.owned.iter().find(|(_, owned)| half_free && owned.paused);
        assert_eq!(unread.map(|(number, _)| number), None, "is not read though half of the room is free");
    }

    /// Everything goes well from now on.
    fn finish(&mut self) {
        // Beyond every deadline and `not_before`.
        self.apply(Step::Wait((JOBS + 2) * STEP_MS));
        for _ in 0..PARTITIONS as u64 * JOBS * 4 {
            for partition in 0..PARTITIONS {
                self.apply(Step::Assign(partition));
                self.apply(Step::ControlRead(partition));
                self.apply(Step::DedupRead(partition));
                self.apply(Step::Read(partition));
            }
            self.apply(Step::End(0));
            self.apply(Step::Gathered);
            self.apply(Step::Settle(COMMITTED));
            self.check_at_rest();
        }
    }
}

proptest! {
    #[test]
    fn every_job_ends_exactly_once(steps in prop::collection::vec((step(), any::<bool>()), 1..250)) {
        let mut world = World::new();
        for (step, looks) in steps {
            world.apply(step);
            world.check();
            if looks {
                world.check_at_rest();
            }
        }
        world.finish();
        prop_assert_eq!(world.ended.len() as u64, u64::from(PARTITIONS) * JOBS);
        for partition in 0..PARTITIONS {
            prop_assert_eq!(world.committed[&partition].next, JOBS);
        }
    }
}

#[test]
fn a_batch_of_unknown_fate_counts_only_if_all_of_it_is_there() {
    let mut world = World::new();
    world.apply(Step::Assign(0));
    world.apply(Step::ControlRead(0));
    world.apply(Step::DedupRead(0));
    (0..2).for_each(|_| world.apply(Step::Read(0)));
    (0..2).for_each(|_| world.apply(Step::End(0)));
    world.apply(Step::Gathered);
    let first = world.batch.as_ref().expect("a commit");
    let [offset] = &first.offsets[..] else { panic!("one partition") };
    let committed = Committed { next: offset.next, metadata: offset.metadata.clone() };
    assert!(Core::was_committed(first, &HashMap::from([(0, committed)])));
    assert!(!Core::was_committed(first, &HashMap::new()));
    let earlier = Committed { next: 0, metadata: String::new() };
    assert!(!Core::was_committed(first, &HashMap::from([(0, earlier)])));
}

#[test]
fn the_offset_passes_what_an_earlier_owner_finished_beyond_it() {
    let mut world = World::new();
    let take = |world: &mut World| {
        world.apply(Step::Assign(0));
        world.apply(Step::ControlRead(0));
        world.apply(Step::DedupRead(0));
    };
    take(&mut world);
    (0..2).for_each(|_| world.apply(Step::Read(0)));
    world.end((0, 1));
    world.apply(Step::Gathered);
    world.apply(Step::Settle(COMMITTED));
    world.apply(Step::Crash);
    assert_eq!(world.committed[&0].next, 0, "job 0 is not finished");
    take(&mut world);
    // Job 0 ends before the log delivers job 1 once more.
    world.apply(Step::Read(0));
    world.end((0, 0));
    world.apply(Step::Settle(COMMITTED));
    assert_eq!(world.committed[&0].next, 2);
    world.apply(Step::Read(0));
    world.apply(Step::Read(0));
    world.apply(Step::Wait(2 * STEP_MS));
    world.end((0, 2));
    world.apply(Step::Settle(COMMITTED));
    assert_eq!(world.committed[&0].next, 3);
}

/// A job with the key of others.
fn keyed(offset: u64) -> Delivered {
    let mut job = delivered((0, KEYED), 1);
    job.place.offset = offset;
    job.job_id = job_id((0, offset));
    job.identity.job_id = job.job_id;
    job.identity.by_id = Scope::of_id(&job.job.tenant, job.job_id);
    job
}

#[test]
fn a_lane_in_which_only_followers_wait_is_read_on_to_the_job_that_they_wait_for() {
    let mut core: Core<End> = Core::new(LIMITS);
    let (first, last) = (keyed(0), 2 * LIMITS.waiting_max as u64);
    core.assigned(Assignment { at: at(0), epoch: 1, committed: None, next: 0 }, NOW_MS);
    let holder = KeyHolder {
        offset: last,
        job_id: job_id((0, last)),
        tenant: first.job.tenant.clone(),
        idempotency_key: first.job.idempotency_key.clone().unwrap_or_default(),
        body_sha256: hex::encode(first.job.body_sha256()),
    };
    let jobs = vec![StartedJob { offset: last, attempt: 1, alone: false }];
    let started = StartedJobs { node: "other".to_owned(), incarnation: 1, jobs, holders: vec![holder] };
    core.told(0, ControlRecord::Started(started), NOW_MS, NOW_MS);
    core.control_read(0, NOW_MS);
    core.sides_read(0, NOW_MS);
    core.dedup_read(0, DedupIndex::new(10), &[], NOW_MS);
    let mut begins = Vec::new();
    for offset in 0..=last {
        assert!(core.read((0, offset), 1, NOW_MS));
        for effect in core.job(keyed(offset), NOW_MS) {
            match effect {
                Effect::Run(job) => begins.push(job.place.offset),
                Effect::Pause(_, true) => panic!("not read on behind {offset}"),
                _ => {}
            }
        }
    }
    assert_eq!(begins, [last], "the one that began before, and none that waits for it");
}
