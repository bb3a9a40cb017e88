//! Partitions that move between three nodes while jobs run: whatever is kept, reported, handed in, lost, frozen or killed, each
//! job ends exactly once, by the newest attempt alone, and no job is run anew while its run is heard of.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use proptest::prelude::*;
use relay_log::port::{Assignment, Committed, LogRecord, TopicPartition};
use relay_protocol::event::TERMINAL_N;
use relay_protocol::hand_over::{KeptEnd, KeptJobs};
use relay_protocol::record::{CancelRequest, ControlRecord, StartedJob, StartedJobs};
use relay_protocol::{Event, EventKind, JobId, topics};

use super::core::{Batch, Core, Effect, Ends, Key, LaneLimits};
use super::dedup::{DedupIndex, EndedJob, Scope};
use super::earlier::PoisonLimits;
use super::keeping::KeptKey;
use super::room::Shares;
use crate::fair::Weights;
use crate::job::delivered::Delivered;
use crate::job::retry::Tiers;

const NODES: usize = 3;
const PARTITIONS: u32 = 2;
const JOBS: u64 = 5;
const NOW_MS: u64 = 1_700_000_000_000;
const TIMEOUT_MS: u64 = 1_000;
const LIMITS: LaneLimits = LaneLimits {
    running_max: 4,
    waiting_max: 6,
    weights: Weights { interactive: 16, normal: 4, batch: 1 },
    shares: Shares { tenant_jobs_max: usize::MAX, model_jobs_max: usize::MAX },
    set_aside_max: 100,
    tiers: Tiers::new([u64::MAX; 5]),
    poison: PoisonLimits { suspect_after: u32::MAX, crashes_max: u32::MAX, turns_ms: 1_000 },
    handover_timeout_ms: TIMEOUT_MS,
};
/// The run of the job at this offset is never at a backend when its partition is taken.
const NOT_AT_BACKEND: u64 = 3;
/// The job at this offset has a deadline.
const DEADLINE: (u64, u64) = (4, NOW_MS + 5 * TIMEOUT_MS);

#[derive(Debug, Clone)]
enum Step {
    /// The group wants a partition to be this node's.
    Move(u32, usize),
    /// The owner reads all that its first job must know of.
    ReadTopics(u32),
    /// The owner reads the next record of the control topic.
    Follow(u32),
    /// The owner reads the next job.
    Read(u32),
    /// The n-th run ends, wherever.
    End(usize),
    /// What becomes of a node's oldest announcement.
    Announce(usize, bool),
    Report(usize),
    Gathered(usize),
    Settle(usize, bool),
    Lose(u32),
    Crash(usize),
    /// It does nothing until it is thawed; its partitions go to others.
    Freeze(usize),
    Thaw(usize),
    Cancel(u32, u64),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let (partition, node) = (0..PARTITIONS, 0..NODES);
    prop_oneof![
        4 => (partition.clone(), node.clone()).prop_map(|(partition, node)| Step::Move(partition, node)),
        6 => partition.clone().prop_map(Step::ReadTopics),
        6 => partition.clone().prop_map(Step::Follow),
        8 => partition.clone().prop_map(Step::Read),
        4 => any::<usize>().prop_map(Step::End),
        5 => (node.clone(), prop::bool::weighted(0.9)).prop_map(|(node, ok)| Step::Announce(node, ok)),
        6 => node.clone().prop_map(Step::Report),
        4 => node.clone().prop_map(Step::Gathered),
        4 => (node.clone(), prop::bool::weighted(0.8)).prop_map(|(node, ok)| Step::Settle(node, ok)),
        1 => partition.clone().prop_map(Step::Lose),
        1 => node.clone().prop_map(Step::Crash),
        1 => node.clone().prop_map(Step::Freeze),
        2 => node.prop_map(Step::Thaw),
        1 => (partition, 0..JOBS).prop_map(|(partition, offset)| Step::Cancel(partition, offset)),
        3 => (1..TIMEOUT_MS / 2).prop_map(Step::Wait),
    ]
}

struct End(Scope, EndedJob);

impl Ends for End {
    fn ended(&self) -> Option<(Scope, EndedJob)> {
        Some((self.0, self.1))
    }
}

#[derive(Debug, Clone, Copy)]
struct Owned {
    epoch: u64,
    next: u64,
    /// Records of the control topic that were read, once they were to their end.
    followed: Option<usize>,
    revoking: bool,
}

struct Node {
    core: Core<End>,
    owned: BTreeMap<u32, Owned>,
    /// Attempts that run for a partition that is ours.
    running: BTreeMap<Key, u32>,
    kept: BTreeMap<KeptKey, (u32, bool)>,
    announcing: Vec<(u32, u64, Vec<StartedJob>)>,
    batch: Option<Batch<End>>,
    gathering: bool,
    frozen: bool,
}

impl Node {
    fn new() -> Self {
        Self {
            core: Core::new(LIMITS),
            owned: BTreeMap::new(),
            running: BTreeMap::new(),
            kept: BTreeMap::new(),
            announcing: Vec::new(),
            batch: None,
            gathering: false,
            frozen: false,
        }
    }
}

struct World {
    now_ms: u64,
    nodes: Vec<Node>,
    /// Who may commit for a partition.
    owners: BTreeMap<u32, (usize, u64)>,
    epochs: u64,
    committed: HashMap<u32, Committed>,
    control: BTreeMap<u32, Vec<ControlRecord>>,
    ended: BTreeSet<Key>,
    /// The newest attempt that began.
    attempts: HashMap<Key, u32>,
    /// When an owner, by its epoch, last read a report of a job's newest attempt.
    heard: HashMap<(u64, Key), u64>,
    /// How often each of what matters happened.
    handed_over: usize,
    run_anew: usize,
}

fn job_id((partition, offset): Key) -> JobId {
    JobId::new(NOW_MS, 0, u64::from(partition) << 32 | offset)
}

fn delivered(key: Key, epoch: u64) -> Delivered {
    let value = serde_json::json!({ "id": job_id(key), "task": "probe", "input": { "text": "x" } });
    let record = LogRecord {
        at: TopicPartition::new(topics::jobs("lane"), key.0),
        offset: key.1,
        key: None,
        value: Some(Bytes::from(value.to_string())),
        headers: Vec::new(),
        timestamp_ms: NOW_MS + key.1,
    };
    let mut delivered = Delivered::read("lane", record, epoch).expect("a job");
    delivered.job.deadline = (key.1 == DEADLINE.0).then_some(DEADLINE.1);
    delivered
}

fn kept(node: usize, jobs: Vec<StartedJob>) -> KeptJobs {
    KeptJobs { node: format!("node-{node}"), incarnation: 1, jobs }
}

impl World {
    fn new() -> Self {
        Self {
            now_ms: NOW_MS,
            nodes: (0..NODES).map(|_| Node::new()).collect(),
            owners: BTreeMap::new(),
            epochs: 0,
            committed: HashMap::new(),
            control: BTreeMap::new(),
            ended: BTreeSet::new(),
            attempts: HashMap::new(),
            heard: HashMap::new(),
            handed_over: 0,
            run_anew: 0,
        }
    }

    /// The node whose partition it is by its own account, if it acts.
    fn owner(&self, partition: u32) -> Option<usize> {
        self.owners.get(&partition).map(|(node, _)| *node).filter(|node| !self.nodes[*node].frozen)
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Move(partition, to) => self.move_to(partition, to),
            Step::ReadTopics(partition) => self.read_topics(partition),
            Step::Follow(partition) => self.follow(partition),
            Step::Read(partition) => self.read(partition),
            Step::End(index) => self.end(index),
            Step::Announce(node, ok) => self.announce(node, ok),
            Step::Report(node) => self.report(node),
            Step::Gathered(node) => {
                let acts = !self.nodes[node].frozen;
                if acts && std::mem::take(&mut self.nodes[node].gathering) {
                    let effects = self.nodes[node].core.gathered();
                    self.carry_out(node, effects);
                }
            }
            Step::Settle(node, ok) => self.settle(node, ok),
            Step::Lose(partition) => {
                if let Some(node) = self.owner(partition) {
                    self.lose(node, partition);
                }
            }
            Step::Crash(node) => {
                self.nodes[node] = Node::new();
                self.owners.retain(|_, (owner, _)| *owner != node);
            }
            Step::Freeze(node) => {
                // Its session ends while it is frozen; it hears of that when it is thawed.
                self.nodes[node].frozen = true;
                self.owners.retain(|_, (owner, _)| *owner != node);
            }
            Step::Thaw(node) => self.thaw(node),
            Step::Cancel(partition, offset) => self.cancel((partition, offset)),
            Step::Wait(ms) => {
                self.now_ms += ms;
                self.tick();
            }
        }
        for node in &self.nodes {
            assert!(node.running.len() + node.kept.len() <= LIMITS.running_max, "more run than may");
            assert_eq!(node.core.running(), node.running.len() + node.kept.len());
        }
    }

    fn tick(&mut self) {
        for node in (0..NODES).filter(|node| !self.nodes[*node].frozen).collect::<Vec<_>>() {
            let effects = self.nodes[node].core.tick(self.now_ms);
            self.carry_out(node, effects);
        }
    }

    fn thaw(&mut self, node: usize) {
        if !std::mem::take(&mut self.nodes[node].frozen) {
            return;
        }
        for partition in self.nodes[node].owned.keys().copied().collect::<Vec<_>>() {
            self.lose(node, partition);
        }
    }

    fn lose(&mut self, node: usize, partition: u32) {
        let effects = self.nodes[node].core.lost(&[partition]);
        self.carry_out(node, effects);
        let left = self.nodes[node].owned.remove(&partition);
        if left.is_some_and(|owned| self.owners.get(&partition) == Some(&(node, owned.epoch))) {
            self.owners.remove(&partition);
        }
        assert!(self.nodes[node].running.keys().all(|key| key.0 != partition), "what was lost is abandoned");
    }

    fn move_to(&mut self, partition: u32, to: usize) {
        if self.nodes[to].frozen {
            return;
        }
        match self.owners.get(&partition).copied() {
            None => self.assign(partition, to),
            Some((owner, _)) if owner == to || self.nodes[owner].frozen => {}
            Some((owner, _)) => {
                let node = &mut self.nodes[owner];
                let Some(owned) = node.owned.get_mut(&partition).filter(|owned| !owned.revoking) else { return };
                owned.revoking = true;
                let of = node.running.iter().filter(|(key, _)| key.0 == partition && key.1 != NOT_AT_BACKEND);
                let at_backend = of.map(|(key, attempt)| (*key, *attempt)).collect();
                let effects = node.core.hand_over(&[partition], &at_backend);
                self.carry_out(owner, effects);
            }
        }
    }

    fn assign(&mut self, partition: u32, to: usize) {
        self.epochs += 1;
        let epoch = self.epochs;
        self.owners.insert(partition, (to, epoch));
        let committed = self.committed.get(&partition).cloned();
        let next = committed.as_ref().map_or(0, |committed| committed.next);
        let owned = Owned { epoch, next, followed: None, revoking: false };
        self.nodes[to].owned.insert(partition, owned);
        let at = TopicPartition::new(topics::jobs("lane"), partition);
        let assignment = Assignment { at, epoch, committed, next };
        let (_, effects) = self.nodes[to].core.assigned(assignment, self.now_ms);
        self.carry_out(to, effects);
    }

    fn hear(&mut self, node: usize, partition: u32, record: ControlRecord) {
        let epoch = self.nodes[node].owned[&partition].epoch;
        if let ControlRecord::Kept(kept) = &record {
            for job in &kept.jobs {
                let key = (partition, job.offset);
                if self.attempts.get(&key) == Some(&job.attempt) {
                    self.heard.insert((epoch, key), self.now_ms);
                }
            }
        }
        if let ControlRecord::GivenUp(given_up) = &record {
            for job in &given_up.jobs {
                self.heard.remove(&(epoch, (partition, job.offset)));
            }
        }
        let effects = self.nodes[node].core.told(partition, record, self.now_ms, self.now_ms);
        self.carry_out(node, effects);
    }

    fn read_topics(&mut self, partition: u32) {
        let Some(node) = self.owner(partition) else { return };
        if !self.nodes[node].owned.get(&partition).is_some_and(|owned| owned.followed.is_none() && !owned.revoking) {
            return;
        }
        let records = self.control.get(&partition).cloned().unwrap_or_default();
        let followed = records.len();
        for record in records {
            self.hear(node, partition, record);
        }
        self.nodes[node].owned.get_mut(&partition).expect("it is ours").followed = Some(followed);
        let now = self.now_ms;
        let core = &mut self.nodes[node].core;
        let mut effects = core.control_read(partition, now);
        let proven = core.doubted(partition);
        effects.extend(core.dedup_read(partition, DedupIndex::new(100), &proven, now));
        effects.extend(core.sides_read(partition, now));
        self.carry_out(node, effects);
    }

    fn follow(&mut self, partition: u32) {
        let Some(node) = self.owner(partition) else { return };
        let Some(Owned { followed: Some(followed), .. }) = self.nodes[node].owned.get_mut(&partition) else { return };
        let Some(record) = self.control.get(&partition).and_then(|records| records.get(*followed)).cloned() else {
            return;
        };
        *followed += 1;
        // A reader passes attempts over once it has read to the end.
        if !matches!(record, ControlRecord::Started(_)) {
            self.hear(node, partition, record);
        }
    }

    fn read(&mut self, partition: u32) {
        let Some(node) = self.owner(partition) else { return };
        let readable = |owned: &&mut Owned| !owned.revoking && owned.next < JOBS;
        let Some(owned) = self.nodes[node].owned.get_mut(&partition).filter(readable) else { return };
        let (key, epoch) = ((partition, owned.next), owned.epoch);
        owned.next += 1;
        if self.nodes[node].core.read(key, epoch, NOW_MS) {
            assert!(!self.ended.contains(&key), "a finished job is not read as a new one");
            let effects = self.nodes[node].core.job(delivered(key, epoch), self.now_ms);
            self.carry_out(node, effects);
        }
    }

    fn end(&mut self, index: usize) {
        let mut runs: Vec<(usize, KeptKey, u32, bool)> = Vec::new();
        for (number, node) in self.nodes.iter().enumerate().filter(|(_, node)| !node.frozen) {
            let of_owner = |(key, attempt): (&Key, &u32)| (number, (key.0, key.1, 0), *attempt, false);
            runs.extend(node.running.iter().map(of_owner));
            let announced = node.kept.iter().filter(|(_, (_, announced))| *announced);
            runs.extend(announced.map(|(key, (attempt, _))| (number, *key, *attempt, true)));
        }
        let Some(index) = index.checked_rem(runs.len()) else { return };
        let (node, kept_key, attempt, is_kept) = runs[index];
        let key = (kept_key.0, kept_key.1);
        if is_kept {
            let event = Event::new(job_id(key), attempt, TERMINAL_N, EventKind::Completed, self.now_ms);
            let name = format!("node-{node}");
            let (failures, tier, last_partial_seq) = (Vec::new(), None, None);
            let end =
                KeptEnd { node: name, incarnation: 1, offset: key.1, attempt, event, failures, tier, last_partial_seq };
            self.control.entry(key.0).or_default().push(ControlRecord::KeptEnd(Box::new(end)));
            self.nodes[node].kept.remove(&kept_key);
            let effects = self.nodes[node].core.kept_over(kept_key, self.now_ms);
            self.carry_out(node, effects);
        } else {
            self.nodes[node].running.remove(&key);
            let epoch = self.nodes[node].owned[&key.0].epoch;
            self.finish(node, key, epoch);
        }
    }

    fn finish(&mut self, node: usize, key: Key, epoch: u64) {
        let identity = delivered(key, epoch).identity;
        let ended = EndedJob {
            job_id: identity.job_id,
            body: None,
            ended_at_ms: self.now_ms,
            expires_at_ms: self.now_ms + 1_000_000_000,
        };
        let effects = self.nodes[node].core.finished(key, epoch, End(identity.by_id, ended), self.now_ms);
        self.carry_out(node, effects);
    }

    fn announce(&mut self, node: usize, ok: bool) {
        if self.nodes[node].frozen || self.nodes[node].announcing.is_empty() {
            return;
        }
        let (partition, epoch, jobs) = self.nodes[node].announcing.remove(0);
        if ok {
            for job in &jobs {
                if let Some((_, announced)) = self.nodes[node].kept.get_mut(&(partition, job.offset, epoch)) {
                    *announced = true;
                }
            }
        }
        // One that failed may have been written all the same.
        self.control.entry(partition).or_default().push(ControlRecord::Kept(kept(node, jobs.clone())));
        let effects = self.nodes[node].core.announced(partition, epoch, ok.then_some(self.now_ms));
        self.carry_out(node, effects);
        if !ok {
            self.control.entry(partition).or_default().push(ControlRecord::GivenUp(kept(node, jobs)));
        }
    }

    fn report(&mut self, node: usize) {
        if self.nodes[node].frozen {
            return;
        }
        let (jobs, keys) = self.nodes[node].core.keeping().reports();
        for (partition, jobs) in jobs {
            self.control.entry(partition).or_default().push(ControlRecord::Kept(kept(node, jobs)));
        }
        self.nodes[node].core.keeping_mut().told(&keys, self.now_ms);
    }

    /// The broker takes a commit only if every partition in it is still the member's.
    fn settle(&mut self, node: usize, ok: bool) {
        if self.nodes[node].frozen {
            return;
        }
        let Some(batch) = self.nodes[node].batch.take() else { return };
        let ours = |partition: u32, epoch: u64| self.owners.get(&partition) == Some(&(node, epoch));
        let happens = ok && batch.offsets.iter().all(|offset| ours(offset.at.partition, offset.epoch));
        if happens {
            for (key, _, _) in &batch.jobs {
                assert!(self.ended.insert(*key), "{key:?} ended twice");
            }
            for offset in &batch.offsets {
                let committed = Committed { next: offset.next, metadata: offset.metadata.clone() };
                self.committed.insert(offset.at.partition, committed);
            }
        }
        let core = &mut self.nodes[node].core;
        let effects =
            if happens { core.committed(&batch, self.now_ms) } else { core.not_committed(batch, self.now_ms) };
        self.carry_out(node, effects);
    }

    fn cancel(&mut self, key: Key) {
        let request =
            CancelRequest { job_id: job_id(key), tenant: "default".to_owned(), subject: "test".to_owned(), at: NOW_MS };
        for node in (0..NODES).filter(|node| !self.nodes[*node].frozen).collect::<Vec<_>>() {
            let effects = self.nodes[node].core.cancel_kept(key.0, &request);
            self.carry_out(node, effects);
        }
        self.control.entry(key.0).or_default().push(ControlRecord::Cancel(request));
    }

    fn carry_out(&mut self, node: usize, effects: Vec<Effect<End>>) {
        for effect in effects {
            match effect {
                Effect::Run(job) => self.run(node, &job),
                Effect::EndCancelled(job) | Effect::EndExpired(job) => {
                    self.finish(node, (job.at.partition, job.place.offset), job.epoch);
                }
                Effect::Abandon(key) => {
                    assert!(self.nodes[node].running.remove(&key).is_some(), "only a running job is abandoned");
                }
                Effect::Keep(partition, epoch, jobs) => {
                    for job in &jobs {
                        let attempt = self.nodes[node].running.remove(&(partition, job.offset));
                        assert_eq!(attempt, Some(job.attempt), "what is kept runs");
                        self.nodes[node].kept.insert((partition, job.offset, epoch), (job.attempt, false));
                    }
                    self.nodes[node].announcing.push((partition, epoch, jobs));
                }
                Effect::CancelKept(key) => assert!(self.nodes[node].kept.contains_key(&key), "only what runs is told"),
                Effect::AbandonKept(key) => {
                    assert!(self.nodes[node].kept.remove(&key).is_some(), "only what is kept is dropped");
                }
                Effect::TakeEnd(job, end) => {
                    let key = (job.at.partition, job.place.offset);
                    assert_eq!(Some(&end.attempt), self.attempts.get(&key), "only the newest attempt's end counts");
                    self.handed_over += 1;
                    self.finish(node, key, job.epoch);
                }
                Effect::Gather => self.nodes[node].gathering = true,
                Effect::Commit(batch) => {
                    assert!(self.nodes[node].batch.is_none(), "one commit at a time");
                    self.nodes[node].batch = Some(batch);
                }
                Effect::Release(partition) => {
                    let released = self.nodes[node].owned.remove(&partition).expect("it was ours");
                    let pending = self.nodes[node]
                        .announcing
                        .iter()
                        .any(|(of, epoch, _)| (*of, *epoch) == (partition, released.epoch));
                    assert!(!pending, "given up before its runs are announced");
                    assert!(
                        self.nodes[node].running.keys().all(|key| key.0 != partition),
                        "all of it is kept or dropped"
                    );
                    if self.owners.get(&partition) == Some(&(node, released.epoch)) {
                        self.owners.remove(&partition);
                    }
                }
                Effect::Cancel(key) => {
                    assert!(self.nodes[node].running.contains_key(&key), "only a running job is told")
                }
                Effect::Accept(_) | Effect::Pause(..) => {}
                other => panic!("not in this world: {other:?}", other = std::mem::discriminant(&other)),
            }
        }
    }

    fn run(&mut self, node: usize, job: &Delivered) {
        let key = (job.at.partition, job.place.offset);
        let attempt = job.attempts_before + 1;
        let before = self.attempts.insert(key, attempt).unwrap_or(0);
        assert!(attempt > before, "attempt {attempt} of {key:?} after {before}");
        let goes_on = |other: &Node| {
            other
                .kept
                .iter()
                .any(|(of, (of_attempt, announced))| (of.0, of.1) == key && *of_attempt == before && *announced)
        };
        if self.nodes.iter().any(goes_on) {
            let heard = self.heard.get(&(job.epoch, key)).expect("whoever keeps it announced it before");
            assert!(heard + TIMEOUT_MS <= self.now_ms, "{key:?} is run anew though its run was heard of");
            self.run_anew += 1;
        }
        let jobs = vec![StartedJob { offset: key.1, attempt, alone: false }];
        let started = StartedJobs { node: format!("node-{node}"), incarnation: 1, jobs, holders: Vec::new() };
        self.control.entry(key.0).or_default().push(ControlRecord::Started(started));
        assert!(self.nodes[node].running.insert(key, attempt).is_none(), "{key:?} runs twice for one owner");
    }

    /// Everything goes well from now on.
    fn get_well(&mut self) {
        for node in 0..NODES {
            self.apply(Step::Thaw(node));
        }
        for _ in 0..u64::from(PARTITIONS) * JOBS * 6 {
            for partition in 0..PARTITIONS {
                if !self.owners.contains_key(&partition) {
                    self.assign(partition, 0);
                }
                self.apply(Step::ReadTopics(partition));
                (0..3).for_each(|_| self.apply(Step::Read(partition)));
                while self.owner(partition).is_some_and(|node| {
                    let followed = self.nodes[node].owned.get(&partition).and_then(|owned| owned.followed);
                    followed.is_some_and(|followed| followed < self.control.get(&partition).map_or(0, Vec::len))
                }) {
                    self.apply(Step::Follow(partition));
                }
            }
            for node in 0..NODES {
                self.apply(Step::Announce(node, true));
                self.apply(Step::Report(node));
                self.apply(Step::Gathered(node));
                self.apply(Step::Settle(node, true));
            }
            self.apply(Step::End(0));
            self.apply(Step::Wait(TIMEOUT_MS / 3));
        }
    }
}

fn check(steps: Vec<Step>) -> World {
    let mut world = World::new();
    for step in steps {
        world.apply(step);
    }
    world.get_well();
    assert_eq!(world.ended.len() as u64, u64::from(PARTITIONS) * JOBS, "jobs are left");
    for partition in 0..PARTITIONS {
        assert_eq!(world.committed[&partition].next, JOBS);
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn each_job_ends_once_wherever_it_runs(steps in prop::collection::vec(step(), 1..300)) {
        check(steps);
    }
}

/// One job of partition 0 runs at node 0, whose partition goes to node 1, which has read all there is.
fn moved() -> Vec<Step> {
    let moved = [Step::Move(0, 0), Step::ReadTopics(0), Step::Read(0), Step::Move(0, 1), Step::Announce(0, true)];
    let taken = [Step::Move(0, 1), Step::ReadTopics(0), Step::Read(0)];
    moved.into_iter().chain(taken).collect()
}

#[test]
fn a_kept_job_is_ended_by_its_new_owner() {
    let mut world = World::new();
    moved().into_iter().for_each(|step| world.apply(step));
    assert_eq!((world.nodes[0].kept.len(), world.nodes[1].running.len()), (1, 0));
    for _ in 0..10 {
        world.apply(Step::Report(0));
        world.apply(Step::Follow(0));
        world.apply(Step::Wait(TIMEOUT_MS / 2));
    }
    assert_eq!((world.nodes[0].kept.len(), world.nodes[1].running.len()), (1, 0), "it is heard of");
    world.apply(Step::End(0));
    world.apply(Step::Follow(0));
    world.apply(Step::Settle(1, true));
    assert_eq!((world.ended.contains(&(0, 0)), world.handed_over, world.attempts[&(0, 0)]), (true, 1, 1));
}

#[test]
fn a_kept_job_goes_back_to_the_node_that_runs_it() {
    let mut world = World::new();
    moved().into_iter().for_each(|step| world.apply(step));
    // To node 2, and on to node 0, before it ends.
    for to in [2, 0] {
        [Step::Move(0, to), Step::Move(0, to), Step::ReadTopics(0), Step::Read(0)]
            .into_iter()
            .for_each(|step| world.apply(step));
        assert_eq!(world.owner(0), Some(to));
    }
    assert_eq!((world.nodes[0].kept.len(), world.nodes[0].running.len()), (1, 0), "it is not run beside itself");
    world.apply(Step::End(0));
    world.apply(Step::Follow(0));
    world.apply(Step::Settle(0, true));
    assert_eq!((world.ended.contains(&(0, 0)), world.attempts[&(0, 0)]), (true, 1));
}

#[test]
fn a_job_whose_keeper_died_is_run_anew_after_the_time_out() {
    let mut world = World::new();
    moved().into_iter().for_each(|step| world.apply(step));
    world.apply(Step::Crash(0));
    world.apply(Step::Wait(TIMEOUT_MS - 1));
    assert_eq!(world.nodes[1].running.len(), 0, "too early");
    world.apply(Step::Wait(1));
    assert_eq!(world.nodes[1].running.get(&(0, 0)), Some(&2), "a higher attempt");
}

#[test]
fn a_keeper_that_was_frozen_ends_nothing() {
    let mut world = World::new();
    moved().into_iter().for_each(|step| world.apply(step));
    world.apply(Step::Freeze(0));
    world.apply(Step::Wait(TIMEOUT_MS));
    assert_eq!(world.nodes[1].running.get(&(0, 0)), Some(&2));
    world.apply(Step::Thaw(0));
    // Its run ends before it looks at the clock.
    world.apply(Step::End(0));
    assert_eq!(world.nodes[0].kept.len(), 0);
    while world.nodes[1].owned[&0].followed < Some(world.control[&0].len()) {
        world.apply(Step::Follow(0));
    }
    assert_eq!((world.handed_over, world.nodes[1].running.len()), (0, 1), "its end is of an older attempt");
    // Nor for whoever comes next.
    [Step::Crash(1), Step::Move(0, 2), Step::ReadTopics(0), Step::Read(0)]
        .into_iter()
        .for_each(|step| world.apply(step));
    assert_eq!((world.handed_over, world.nodes[2].running.get(&(0, 0))), (0, Some(&3)));
}

#[test]
fn a_keeper_that_cannot_report_drops_its_runs() {
    let mut world = World::new();
    moved().into_iter().for_each(|step| world.apply(step));
    world.apply(Step::Wait(TIMEOUT_MS - 1));
    assert_eq!(world.nodes[0].kept.len(), 1);
    world.apply(Step::Wait(1));
    assert_eq!((world.nodes[0].kept.len(), world.nodes[1].running.len()), (0, 1));
}

#[test]
fn what_is_not_announced_is_dropped() {
    let mut world = World::new();
    let steps = [Step::Move(0, 0), Step::ReadTopics(0), Step::Read(0), Step::Move(0, 1)];
    steps.into_iter().for_each(|step| world.apply(step));
    assert_eq!(world.owner(0), Some(0), "it is not given up yet");
    world.apply(Step::Announce(0, false));
    assert_eq!((world.owner(0), world.nodes[0].kept.len()), (None, 0));
    [Step::Move(0, 1), Step::ReadTopics(0), Step::Read(0)].into_iter().for_each(|step| world.apply(step));
    assert_eq!(world.nodes[1].running.get(&(0, 0)), Some(&2), "and run at once by the next owner");
}

#[test]
fn a_cancelled_job_whose_keeper_is_deaf_is_ended_by_its_owner() {
    let mut world = World::new();
    moved().into_iter().for_each(|step| world.apply(step));
    world.apply(Step::Cancel(0, 0));
    world.apply(Step::Follow(0));
    for _ in 0..4 {
        world.apply(Step::Report(0));
        world.apply(Step::Follow(0));
        world.apply(Step::Wait(TIMEOUT_MS / 4));
    }
    world.apply(Step::Settle(1, true));
    assert_eq!((world.ended.contains(&(0, 0)), world.attempts[&(0, 0)]), (true, 1), "reports do not help it");
}
