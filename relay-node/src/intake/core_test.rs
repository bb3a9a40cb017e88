//! A lane's promises under any order of reads, ends, commits, rebalances and crashes: every job ends exactly once in the
//! log, nothing runs twice at a time, limits hold.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use proptest::prelude::*;
use relay_log::port::{Assignment, Committed, LogRecord, TopicPartition};
use relay_protocol::record::{CancelRequest, ControlRecord, StartedJob, StartedJobs};
use relay_protocol::{JobId, topics};

use super::core::{Batch, Core, Effect, Key, LaneLimits};
use crate::job::delivered::Delivered;

const PARTITIONS: u32 = 3;
const JOBS: u64 = 12;
const LIMITS: LaneLimits = LaneLimits { running_max: 4, waiting_max: 6 };
const NOW_MS: u64 = 1_700_000_000_000;

#[derive(Debug, Clone)]
enum Step {
    /// The next record of a partition, if it is read now.
    Read(u32),
    ControlRead(u32),
    /// The n-th running job ends.
    End(usize),
    /// A run that was abandoned ends all the same, the n-th of them.
    EndLate(usize),
    /// The commit under way succeeds, or fails without a trace.
    Settle(bool),
    Assign(u32),
    Revoke(u32),
    RevokeNow,
    Lose(u32),
    Cancel(u32, u64),
    /// The node dies, and with it whatever is not in the log.
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let partition = 0..PARTITIONS;
    prop_oneof![
        8 => partition.clone().prop_map(Step::Read),
        2 => partition.clone().prop_map(Step::ControlRead),
        6 => any::<usize>().prop_map(Step::End),
        2 => any::<usize>().prop_map(Step::EndLate),
        5 => prop::bool::weighted(0.8).prop_map(Step::Settle),
        2 => partition.clone().prop_map(Step::Assign),
        1 => partition.clone().prop_map(Step::Revoke),
        1 => Just(Step::RevokeNow),
        1 => partition.clone().prop_map(Step::Lose),
        1 => (partition, 0..JOBS).prop_map(|(partition, offset)| Step::Cancel(partition, offset)),
        1 => Just(Step::Crash),
    ]
}

/// What one life of the node knows of a partition.
struct Owned {
    epoch: u64,
    next: u64,
    paused: bool,
    revoking: bool,
    control_read: bool,
}

/// The log, the group and one node.
struct World {
    core: Core<u32>,
    owned: BTreeMap<u32, Owned>,
    /// Attempt of each running job.
    running: BTreeMap<Key, u32>,
    /// Runs that were abandoned, under which epoch.
    abandoned: Vec<(Key, u64)>,
    /// Jobs that ran under the current epoch of their partition.
    ran: BTreeSet<Key>,
    batch: Option<Batch<u32>>,
    epochs: u64,
    committed: HashMap<u32, Committed>,
    ended: BTreeSet<Key>,
    /// Registered attempts, in the control topic.
    control: Vec<(u32, ControlRecord)>,
    attempts: HashMap<Key, u32>,
}

fn job_id((partition, offset): Key) -> JobId {
    JobId::new(NOW_MS, 0, u64::from(partition) << 32 | offset)
}

fn at(partition: u32) -> TopicPartition {
    TopicPartition::new(topics::jobs(topics::DEFAULT_LANE), partition)
}

fn delivered(key: Key, epoch: u64) -> Delivered {
    let id = job_id(key);
    let value = serde_json::json!({ "id": id, "task": "probe", "input": { "text": "x" } });
    let record = LogRecord {
        at: at(key.0),
        offset: key.1,
        key: None,
        value: Some(Bytes::from(value.to_string())),
        headers: Vec::new(),
        timestamp_ms: NOW_MS + key.1,
    };
    Delivered::read(topics::DEFAULT_LANE, record, epoch).expect("a job")
}

impl World {
    fn new() -> Self {
        Self {
            core: Core::new(LIMITS),
            owned: BTreeMap::new(),
            running: BTreeMap::new(),
            abandoned: Vec::new(),
            ran: BTreeSet::new(),
            batch: None,
            epochs: 0,
            committed: HashMap::new(),
            ended: BTreeSet::new(),
            control: Vec::new(),
            attempts: HashMap::new(),
        }
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Read(partition) => self.read(partition),
            Step::ControlRead(partition) => self.control_read(partition),
            Step::End(index) => {
                if let Some(index) = index.checked_rem(self.running.len()) {
                    let key = *self.running.keys().nth(index).expect("it runs");
                    self.end(key);
                }
            }
            Step::EndLate(index) => {
                if let Some(index) = index.checked_rem(self.abandoned.len()) {
                    let (key, epoch) = self.abandoned.swap_remove(index);
                    let effects = self.core.finished(key, epoch, 0, NOW_MS);
                    self.carry_out(effects);
                }
            }
            Step::Settle(succeeds) => self.settle(succeeds),
            Step::Assign(partition) => self.assign(partition),
            Step::Revoke(partition) => {
                if let Some(owned) = self.owned.get_mut(&partition).filter(|owned| !owned.revoking) {
                    owned.revoking = true;
                    let effects = self.core.revoking(&[partition]);
                    self.carry_out(effects);
                }
            }
            Step::RevokeNow => {
                let effects = self.core.revoke_now();
                self.carry_out(effects);
            }
            Step::Lose(partition) => {
                if self.owned.contains_key(&partition) {
                    let effects = self.core.lost(&[partition]);
                    self.carry_out(effects);
                    assert!(self.running.keys().all(|key| key.0 != partition), "what was lost is abandoned");
                    self.owned.remove(&partition);
                }
            }
            Step::Cancel(partition, offset) => self.cancel((partition, offset)),
            Step::Crash => {
                self.core = Core::new(LIMITS);
                self.owned.clear();
                self.running.clear();
                self.abandoned.clear();
                self.batch = None;
            }
        }
    }

    fn assign(&mut self, partition: u32) {
        if self.owned.contains_key(&partition) {
            return;
        }
        self.epochs += 1;
        self.ran.retain(|key| key.0 != partition);
        let committed = self.committed.get(&partition).cloned();
        let next = committed.as_ref().map_or(0, |committed| committed.next);
        let owned = Owned { epoch: self.epochs, next, paused: false, revoking: false, control_read: false };
        self.owned.insert(partition, owned);
        let assignment = Assignment { at: at(partition), epoch: self.epochs, committed, next };
        let (_, effects) = self.core.assigned(assignment, NOW_MS);
        self.carry_out(effects);
    }

    fn control_read(&mut self, partition: u32) {
        let Some(owned) = self.owned.get_mut(&partition).filter(|owned| !owned.control_read && !owned.revoking) else {
            return;
        };
        owned.control_read = true;
        for (_, record) in self.control.clone().into_iter().filter(|(of, _)| *of == partition) {
            let effects = self.core.control(partition, record);
            self.carry_out(effects);
        }
        let effects = self.core.control_read(partition, NOW_MS);
        self.carry_out(effects);
    }

    fn read(&mut self, partition: u32) {
        let readable = |owned: &&mut Owned| !owned.paused && !owned.revoking && owned.next < JOBS;
        let Some(owned) = self.owned.get_mut(&partition).filter(readable) else { return };
        let (key, epoch) = ((partition, owned.next), owned.epoch);
        owned.next += 1;
        if self.core.read(key, epoch, NOW_MS) {
            assert!(!self.ended.contains(&key), "a finished job is not read as a new one");
            let effects = self.core.job(delivered(key, epoch), NOW_MS);
            self.carry_out(effects);
        } else {
            assert!(self.ended.contains(&key), "an unfinished job is not passed over");
        }
    }

    fn end(&mut self, key: Key) {
        let attempt = self.running.remove(&key).expect("it runs");
        let epoch = self.owned[&key.0].epoch;
        let effects = self.core.finished(key, epoch, attempt, NOW_MS);
        self.carry_out(effects);
    }

    /// The broker takes a commit only if every partition in it is still the member's.
    fn settle(&mut self, succeeds: bool) {
        let Some(batch) = self.batch.take() else { return };
        let is_owned =
            |partition: u32, epoch: u64| self.owned.get(&partition).is_some_and(|owned| owned.epoch == epoch);
        let ours = batch.offsets.iter().all(|offset| is_owned(offset.at.partition, offset.epoch));
        let effects = if succeeds && ours {
            for (key, _, _) in &batch.jobs {
                assert!(self.ended.insert(*key), "{key:?} ended twice");
            }
            for offset in &batch.offsets {
                let committed = Committed { next: offset.next, metadata: offset.metadata.clone() };
                self.committed.insert(offset.at.partition, committed);
                let below = (0..offset.next).map(|number| (offset.at.partition, number));
                let missing: Vec<Key> = below.filter(|key| !self.ended.contains(key)).collect();
                assert!(missing.is_empty(), "the offset passed {missing:?}, which did not end");
            }
            self.core.committed(&batch.offsets, NOW_MS)
        } else {
            self.core.not_committed(batch, NOW_MS)
        };
        self.carry_out(effects);
    }

    fn cancel(&mut self, key: Key) {
        let request =
            CancelRequest { job_id: job_id(key), tenant: "default".to_owned(), subject: "test".to_owned(), at: NOW_MS };
        self.control.push((key.0, ControlRecord::Cancel(request.clone())));
        if self.owned.get(&key.0).is_some_and(|owned| owned.control_read) {
            let effects = self.core.control(key.0, ControlRecord::Cancel(request));
            self.carry_out(effects);
        }
    }

    fn carry_out(&mut self, effects: Vec<Effect<u32>>) {
        for effect in effects {
            match effect {
                Effect::Run(job) => self.run(&job),
                Effect::EndCancelled(job) | Effect::EndExpired(job) => {
                    let key = (job.at.partition, job.place.offset);
                    assert!(!self.running.contains_key(&key), "a running job is told, not ended");
                    let effects = self.core.finished(key, job.epoch, 0, NOW_MS);
                    self.carry_out(effects);
                }
                Effect::Cancel(key) => assert!(self.running.contains_key(&key), "only a running job is told"),
                Effect::Abandon(key) => {
                    assert!(self.running.remove(&key).is_some(), "only a running job is abandoned");
                    self.abandoned.push((key, self.owned[&key.0].epoch));
                }
                Effect::Commit(batch) => {
                    assert!(self.batch.is_none(), "one commit at a time");
                    self.batch = Some(batch);
                }
                Effect::Pause(partition, paused) => {
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

    fn run(&mut self, job: &Delivered) {
        let key = (job.at.partition, job.place.offset);
        let owned = &self.owned[&key.0];
        assert_eq!(job.epoch, owned.epoch);
        assert!(owned.control_read, "its control topic was read first");
        assert!(self.ran.insert(key), "{key:?} runs twice under one assignment");
        // As the run registers it before it calls a backend.
        let attempt = job.attempts_before + 1;
        let before = self.attempts.insert(key, attempt).unwrap_or(0);
        assert!(attempt > before, "attempt {attempt} of {key:?} after {before}");
        let jobs = vec![StartedJob { offset: key.1, attempt }];
        let started = StartedJobs { node: "node".to_owned(), incarnation: 1, jobs };
        self.control.push((key.0, ControlRecord::Started(started)));
        self.running.insert(key, attempt);
    }

    fn check(&self) {
        assert!(self.running.len() <= LIMITS.running_max, "{} run", self.running.len());
        assert!(self.core.waiting() <= LIMITS.waiting_max, "{} wait", self.core.waiting());
        assert_eq!(self.core.running(), self.running.len());
    }

    /// Everything goes well from now on.
    fn finish(&mut self) {
        for _ in 0..PARTITIONS as u64 * JOBS * 4 {
            self.apply(Step::RevokeNow);
            for partition in 0..PARTITIONS {
                self.apply(Step::Assign(partition));
                self.apply(Step::ControlRead(partition));
                self.apply(Step::Read(partition));
            }
            self.apply(Step::End(0));
            self.apply(Step::Settle(true));
            self.check();
        }
    }
}

proptest! {
    #[test]
    fn every_job_ends_exactly_once(steps in prop::collection::vec(step(), 1..250)) {
        let mut world = World::new();
        for step in steps {
            world.apply(step);
            world.check();
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
    (0..2).for_each(|_| world.apply(Step::Read(0)));
    (0..2).for_each(|_| world.apply(Step::End(0)));
    let first = world.batch.as_ref().expect("a commit");
    let [offset] = &first.offsets[..] else { panic!("one partition") };
    let committed = Committed { next: offset.next, metadata: offset.metadata.clone() };
    assert!(Core::was_committed(first, &HashMap::from([(0, committed)])));
    assert!(!Core::was_committed(first, &HashMap::new()));
    let earlier = Committed { next: 0, metadata: String::new() };
    assert!(!Core::was_committed(first, &HashMap::from([(0, earlier)])));
}
