//! The log of a simulated cluster: the pure state machine of the embedded log, with faults where that one has a store.

mod member;
mod reader;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use relay_log::local::core::{Core, Fetched, Kept, Write};
use relay_log::local::places::Places;
use relay_log::port::{
    Committed, JoinSpec, Log, LogError, LogReader, LogRecord, Member, NewRecord, Start, TopicPartition, TopicSpec,
    TopicState, Watermarks,
};
use relay_protocol::{Event, EventKind, topics};
use relay_runtime::clock::Clock;
use relay_runtime::random::{Random, SeededRandom};
use tokio::sync::Notify;

use super::clock::VirtualClock;
use super::counts::{Counts, Fault, Op, Phase};
use super::gate::Gate;
use super::history::{CommitSeen, Moment};
use member::{MemberShared, SimMember};
use reader::SimReader;

/// Without word for so long, a member is dead to its group.
pub(super) const SESSION: Duration = Duration::from_secs(3);
/// Time-out of calls to a log that is cut off.
const TIMEOUT: Duration = Duration::from_millis(1_500);
/// Wait of a reader before it says that the log is cut off.
const READ_TIMEOUT: Duration = Duration::from_millis(300);

/// The log, as all nodes share it.
pub(super) struct Engine {
    core: Mutex<Core>,
    clock: VirtualClock,
    random: SeededRandom,
    /// Whether faults happen now.
    pub(super) faulty: AtomicBool,
    pub(super) counts: Arc<Counts>,
    listeners: Mutex<BTreeMap<u64, Listener>>,
    members: Mutex<BTreeMap<u64, Arc<MemberShared>>>,
    numbers: AtomicU64,
    /// Commits that were answered as doubtful and happen later.
    late: AtomicU64,
    journal: Mutex<Journal>,
}

/// What the log did.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// Commits that happened, in order.
    pub(super) commits: Vec<CommitSeen>,
    /// When which life wrote each start of an attempt of a job that was its own then.
    pub(super) starts: BTreeMap<(TopicPartition, u64), Moment>,
    /// Newest epoch in which each partition was assigned.
    epochs: BTreeMap<TopicPartition, u64>,
    /// The life that has it.
    owners: BTreeMap<TopicPartition, u64>,
}

struct Listener {
    topics: BTreeSet<Arc<str>>,
    notify: Arc<Notify>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Engine {
    /// An empty log.
    pub(super) fn new(clock: VirtualClock, seed: u64, counts: Arc<Counts>) -> Arc<Self> {
        Arc::new(Self {
            core: Mutex::new(Core::new(Kept::default(), SESSION, usize::MAX)),
            clock,
            random: SeededRandom::new(seed),
            faulty: AtomicBool::new(true),
            counts,
            listeners: Mutex::default(),
            members: Mutex::default(),
            numbers: AtomicU64::new(1),
            late: AtomicU64::new(0),
            journal: Mutex::default(),
        })
    }

    /// Makes topics at once.
    pub(super) fn make_topics(&self, specs: &[TopicSpec]) {
        let mut writes = Vec::new();
        let mut core = lock(&self.core);
        specs.iter().for_each(|spec| core.create_topic(spec, &mut writes));
    }

    /// The log as one life of a node reaches it.
    pub(super) fn at(self: &Arc<Self>, gate: Arc<Gate>) -> Arc<SimLog> {
        Arc::new(SimLog { engine: self.clone(), gate })
    }

    /// All records of a partition.
    pub(super) fn records(&self, at: &TopicPartition) -> Vec<LogRecord> {
        let core = lock(&self.core);
        let Ok(borders) = core.watermarks(at) else { return Vec::new() };
        let (mut next, mut found) = (borders.low, Vec::new());
        while let Fetched::Record(record) = core.fetch(at, next) {
            next = record.offset + 1;
            found.push(record);
        }
        found
    }

    /// What a group has committed.
    pub(super) fn committed_now(&self, group: &str, at: &TopicPartition) -> Option<Committed> {
        lock(&self.core).committed(group, at)
    }

    /// The commits that happened.
    pub(super) fn commits(&self) -> Vec<CommitSeen> {
        lock(&self.journal).commits.clone()
    }

    /// When which life wrote each start of an attempt of a job that was its own then.
    pub(super) fn starts(&self) -> BTreeMap<(TopicPartition, u64), Moment> {
        lock(&self.journal).starts.clone()
    }

    /// Heartbeats: members without word leave, what waits too long is taken.
    pub(super) fn beat(&self) {
        let members: Vec<_> = lock(&self.members).values().cloned().collect();
        for member in members {
            if member.beat(self) {
                self.counts.fault(Fault::SessionExpired);
            }
        }
        let mut writes = Vec::new();
        lock(&self.core).tick(self.clock.now_ms(), &mut writes);
        self.wake_members();
    }

    /// Throws a live member out of its group, if some node has one; as a broker does after a pause it never explains.
    pub(super) fn kick(&self, life: u64) -> bool {
        let members: Vec<_> = lock(&self.members).values().filter(|one| one.gate.number == life).cloned().collect();
        for member in &members {
            member.expire(self);
        }
        self.wake_members();
        !members.is_empty()
    }

    /// Takes the transactional ids of a live node, as a helper does that believes it dead.
    pub(super) fn fence_life(&self, life: u64) -> bool {
        let members: Vec<_> = lock(&self.members).values().filter(|one| one.gate.number == life).cloned().collect();
        for member in &members {
            lock(&self.core).fence(&member.spec.transactional_id);
        }
        !members.is_empty()
    }

    /// A member that does nothing joins: partitions move to it. Returns what to leave with.
    pub(super) fn ghost_joins(&self, group: &str, topic: &str, name: &str) -> u64 {
        let spec = JoinSpec {
            group: group.to_owned(),
            topics: vec![topic.into()],
            client_id: name.to_owned(),
            transactional_id: name.to_owned(),
            read_ahead_records_max: 1,
        };
        let id = lock(&self.core).join(&spec);
        self.wake_members();
        id
    }

    /// The ghost takes what it is given.
    pub(super) fn ghost_takes(&self, group: &str, id: u64) {
        while lock(&self.core).next_event(group, id, self.clock.now_ms()).is_some() {}
    }

    /// It leaves.
    pub(super) fn ghost_leaves(&self, group: &str, id: u64) {
        lock(&self.core).leave(group, id);
        self.wake_members();
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    fn rolls(&self, fault: Fault, per_mille: u64) -> bool {
        let hit = self.faulty.load(Ordering::Relaxed) && self.random.below(1_000) < per_mille;
        if hit {
            self.counts.fault(fault);
        }
        hit
    }

    async fn latency(&self) {
        let slow = self.rolls(Fault::SlowAnswer, 4);
        let ms = if slow { 200 + self.random.below(2_500) } else { self.random.below(6) };
        if ms > 0 {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
    }

    fn wake_members(&self) {
        lock(&self.members).values().for_each(|member| member.notify.notify_one());
    }

    fn publish(&self, writes: &[Write]) {
        lock(&self.core).publish();
        let touched: BTreeSet<&Arc<str>> = writes
            .iter()
            .filter_map(|write| match write {
                Write::Record(_, record) => Some(&record.at.topic),
                _ => None,
            })
            .collect();
        for listener in lock(&self.listeners).values() {
            if touched.iter().any(|topic| listener.topics.contains(*topic)) {
                listener.notify.notify_one();
            }
        }
        self.wake_members();
    }

    /// Appends what a life writes.
    fn append_now(&self, life: u64, records: Vec<NewRecord>) -> Result<Vec<u64>, LogError> {
        let mut writes = Vec::new();
        let offsets = lock(&self.core).append(records, &mut writes)?;
        self.note_starts(life, &writes);
        self.publish(&writes);
        Ok(offsets)
    }

    fn note_starts(&self, life: u64, writes: &[Write]) {
        let (mut journal, moment) = (lock(&self.journal), Moment { life, at_ms: self.clock.now_ms() });
        for write in writes {
            let Write::Record(_, record) = write else { continue };
            let event = record.value.as_deref().filter(|_| &*record.at.topic == topics::EVENTS);
            let event = event.and_then(|value| serde_json::from_slice::<Event>(value).ok());
            let started = event.filter(|event| event.event == EventKind::Started).and_then(|event| event.place);
            let Some(place) = started else { continue };
            let of = TopicPartition::new(topics::jobs(&place.lane), place.partition);
            if journal.owners.get(&of) == Some(&life) {
                journal.starts.insert((record.at.clone(), record.offset), moment);
            }
        }
    }
}

/// The log of one life of a node.
pub(super) struct SimLog {
    engine: Arc<Engine>,
    gate: Arc<Gate>,
}

fn unavailable(what: &str) -> LogError {
    LogError::Unavailable(format!("simulated: {what}"))
}

/// What kind of append it is, by its first record.
fn op_of(records: &[NewRecord]) -> Op {
    let Some(first) = records.first() else { return Op::AppendEvent };
    match &*first.to.topic {
        topics::EVENTS => Op::AppendEvent,
        topics::PARTIALS => Op::AppendPartial,
        topics::AUDIT => Op::AppendAudit,
        // Of coordinators, which have no crash points.
        topics::ELECTION => Op::AppendEvent,
        topic if topic.starts_with("media.control.") && first.key.is_none() => Op::AppendStart,
        topic if topic.starts_with("media.control.") => Op::AppendCancel,
        _ => Op::AppendJob,
    }
}

impl SimLog {
    /// A question that changes nothing.
    async fn ask<T>(&self, op: Op, answer: impl FnOnce(&mut Core) -> T) -> Result<T, LogError> {
        self.gate.pass(op, Phase::Before).await;
        self.engine.latency().await;
        if self.gate.is_cut() {
            tokio::time::sleep(TIMEOUT).await;
            return Err(unavailable("cut off"));
        }
        if self.engine.rolls(Fault::QueryFailed, 10) {
            return Err(unavailable("a question failed"));
        }
        let answer = answer(&mut lock(&self.engine.core));
        self.gate.pass(op, Phase::After).await;
        Ok(answer)
    }

    /// Some of the records, in order within each partition: what an append that fails may leave.
    fn torn(&self, records: &[NewRecord]) -> Vec<NewRecord> {
        let mut cut: BTreeMap<&TopicPartition, bool> = BTreeMap::new();
        let mut some = Vec::new();
        for record in records {
            let is_cut = cut.entry(&record.to).or_insert_with(|| self.engine.random.below(2) == 0);
            if !*is_cut {
                some.push(record.clone());
                *is_cut = self.engine.random.below(2) == 0;
            }
        }
        some
    }
}

#[async_trait]
impl Log for SimLog {
    async fn create_topics(&self, specs: &[TopicSpec]) -> Result<(), LogError> {
        self.engine.make_topics(specs);
        Ok(())
    }

    async fn check_topics(&self, specs: &[TopicSpec]) -> Result<Vec<TopicState>, LogError> {
        self.ask(Op::CheckTopics, |core| specs.iter().map(|spec| core.topic_state(spec)).collect()).await
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<u64>, LogError> {
        let (op, engine) = (op_of(&records), &self.engine);
        // A job that may or may not be there is what its submitter has to live with.
        let more = if op == Op::AppendJob { 3 } else { 1 };
        lock(&engine.core).check(&records)?;
        self.gate.pass(op, Phase::Before).await;
        engine.latency().await;
        if self.gate.is_cut() || engine.rolls(Fault::AppendLost, 6 * more) {
            tokio::time::sleep(TIMEOUT).await;
            return Err(unavailable("nothing was appended"));
        }
        if records.len() > 1 && engine.rolls(Fault::AppendTorn, 8) {
            engine.append_now(self.gate.number, self.torn(&records))?;
            return Err(unavailable("some of it was appended"));
        }
        let offsets = engine.append_now(self.gate.number, records)?;
        if engine.rolls(Fault::AppendAnswerLost, 8 * more) {
            tokio::time::sleep(TIMEOUT).await;
            return Err(unavailable("the answer to an append was lost"));
        }
        engine.latency().await;
        self.gate.pass(op, Phase::After).await;
        Ok(offsets)
    }

    async fn watermarks(&self, at: &TopicPartition) -> Result<Watermarks, LogError> {
        self.ask(Op::Watermarks, |core| core.watermarks(at)).await?
    }

    async fn read(&self, starts: Vec<(TopicPartition, Start)>) -> Result<Box<dyn LogReader>, LogError> {
        let opened = self.ask(Op::Open, |core| Places::open(core, &starts)).await??;
        Ok(Box::new(SimReader::new(self.engine.clone(), self.gate.clone(), opened)))
    }

    async fn join(&self, spec: JoinSpec) -> Result<Arc<dyn Member>, LogError> {
        self.gate.pass(Op::Join, Phase::Before).await;
        self.engine.latency().await;
        if self.gate.is_cut() {
            tokio::time::sleep(TIMEOUT).await;
            return Err(unavailable("cut off"));
        }
        let id = lock(&self.engine.core).join(&spec);
        let member = SimMember::new(self.engine.clone(), self.gate.clone(), spec, id);
        self.engine.wake_members();
        self.gate.pass(Op::Join, Phase::After).await;
        Ok(Arc::new(member))
    }

    async fn committed(&self, group: &str, at: &TopicPartition) -> Result<Option<Committed>, LogError> {
        // A commit under way decides first what there is to read.
        while self.engine.late.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.ask(Op::Committed, |core| core.committed(group, at)).await
    }

    async fn fence(&self, transactional_id: &str) -> Result<(), LogError> {
        self.ask(Op::Committed, |core| core.fence(transactional_id)).await
    }

    async fn delete_before(&self, at: &TopicPartition, offset: u64) -> Result<(), LogError> {
        self.ask(Op::Delete, |core| core.delete_before(at, offset, &mut Vec::new())).await?
    }

    async fn health(&self) -> Result<(), LogError> {
        self.ask(Op::Health, |_| ()).await
    }
}
