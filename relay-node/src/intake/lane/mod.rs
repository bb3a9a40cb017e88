//! The actor that serves one lane on this node: it carries out what [`super::core::Core`] decides.
//!
//! Its mailbox is bounded by construction: one task sends member events and waits for each, one sends what the topics beside
//! the lane say and waits for each, questions have permits, and every other message belongs to a job that runs or to the one
//! commit under way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message};
use relay_log::port::{Member, MemberEvent, NewRecord, Release, TopicPartition};
use relay_protocol::record::AuditEntry;
use relay_protocol::{ErrorCode, JobError, JobId, topics};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::control::Said;
use super::core::{Batch, Core, Effect, Ends, Key, LaneLimits};
use super::dedup::{self, Body, EndedJob, Scope};
use super::earlier::Verdict;
use super::keeping::KeptKey;
use super::retention::Retention;
use crate::events::route::{self, RoutedEvent};
use crate::job::delivered::Delivered;
use crate::job::duplicate;
use crate::job::link::RunLink;
use crate::job::outcome::{self, Ended, Outcome};
use crate::job::run::{self, Finish, RunContext};
use crate::tenants::RuleBook;

mod aside;
mod assign;
mod delete;
mod deliver;
mod hand_over;
mod handlers;
mod reread;
mod settle;
mod suspects;

/// How often deadlines and `not_before` times of waiting jobs are looked at.
const TICK: Duration = Duration::from_millis(50);
/// What the topics beside the lane say and that may wait for the actor.
const SAID_MAX: usize = 256;
/// Questions for keys that may wait for the actor.
const QUESTIONS_MAX: usize = 64;
/// Longest wait for jobs that may share a commit.
const GATHER_MAX: Duration = Duration::from_millis(5);
/// Reports of a kept run within the time after which its owner gives it up.
const REPORTS_IN_TIMEOUT: u32 = 3;
/// Wait before an aborted commit is tried again; a hot retry would starve a rebalance.
const COMMIT_RETRY: Duration = Duration::from_millis(50);

/// A lane as the node serves it.
#[derive(Debug, Clone)]
pub struct LaneSettings {
    /// Name of the lane.
    pub lane: String,
    /// Name of the consumer group.
    pub group: String,
    /// Bounds.
    pub limits: LaneLimits,
    /// Whose weights count among those that wait.
    pub tenants: RuleBook,
    /// How long a rebalance that takes a partition waits for the announcement of the jobs that go on running here.
    pub revoke_grace: Duration,
    /// Time between two deletions of records that are done.
    pub delete_interval: Duration,
    /// Partitions of the dead-letter topic.
    pub dead_letter_partitions: u32,
    /// Partitions of the lane.
    pub partitions: u32,
    /// How long the key and id of an ended job stand for it.
    pub dedup_window: Duration,
    /// Ended jobs remembered of one partition.
    pub dedup_entries_max: usize,
}

/// What goes into a commit with a job's end.
#[derive(Debug, Default)]
pub struct Payload {
    records: Vec<NewRecord>,
    ended: Option<(Scope, EndedJob)>,
    is_set_aside: bool,
    moved_until_ms: Option<u64>,
    audit: Option<AuditEntry>,
    /// The terminal event, and whose it is, for this node's own watchers once it is committed.
    tell_here: Option<(String, RoutedEvent)>,
}

impl Ends for Payload {
    fn ended(&self) -> Option<(Scope, EndedJob)> {
        self.ended
    }

    fn is_set_aside(&self) -> bool {
        self.is_set_aside
    }

    fn moved_until_ms(&self) -> Option<u64> {
        self.moved_until_ms
    }
}

/// Serves one lane.
pub struct Lane {
    settings: LaneSettings,
    context: Arc<RunContext>,
    member: Arc<dyn Member>,
    core: Core<Payload>,
    runs: BTreeMap<Key, RunningJob>,
    /// Runs whose partitions are other nodes' now.
    kept: BTreeMap<KeptKey, RunningJob>,
    /// End the reading of control partitions: of ours, and of those of whose jobs runs are kept.
    controls: BTreeMap<u32, CancellationToken>,
    /// End the reading of the other topics beside our partitions.
    beside: BTreeMap<u32, CancellationToken>,
    silences: u64,
    /// A look at the suspect that runs is under way.
    looks_at_suspect: bool,
    said: mpsc::Sender<Said>,
    sayings: Option<mpsc::Receiver<Said>>,
    forgotten: u64,
    retention: Retention,
    releases: Vec<(Vec<u32>, Release)>,
    /// How long the last commit took.
    commit_took: Duration,
    drained: Option<DrainGuard>,
}

/// Dropped when nothing runs and nothing is left to commit.
struct DrainGuard(#[expect(dead_code, reason = "its drop is the message")] oneshot::Sender<()>);

struct RunningJob {
    epoch: u64,
    link: Arc<RunLink>,
    task: tokio::task::JoinHandle<()>,
    /// Of a kept run: fires when its announcement is durable.
    announced: CancellationToken,
}

/// Handle to a lane. Cheap to clone.
#[derive(Clone)]
pub struct LaneHandle {
    addr: Addr<Lane>,
    questions: Arc<Semaphore>,
}

/// What a lane is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LaneState {
    /// Jobs that run.
    pub running: usize,
    /// Jobs that wait.
    pub waiting: usize,
    /// Partitions that are this node's.
    pub partitions: Vec<u32>,
}

impl LaneHandle {
    /// Starts to serve a lane on the current thread.
    pub fn start(settings: LaneSettings, context: Arc<RunContext>, member: Arc<dyn Member>) -> Self {
        let (said, sayings) = mpsc::channel(SAID_MAX);
        let (node, incarnation) = context.starts.life();
        let core = Core::new(settings.limits).of_life(node, incarnation).with_tenants(settings.tenants.clone());
        let lane = Lane {
            settings,
            context,
            member,
            core,
            runs: BTreeMap::new(),
            kept: BTreeMap::new(),
            controls: BTreeMap::new(),
            beside: BTreeMap::new(),
            silences: 0,
            looks_at_suspect: false,
            said,
            sayings: Some(sayings),
            forgotten: 0,
            retention: Retention::default(),
            releases: Vec::new(),
            commit_took: Duration::ZERO,
            drained: None,
        };
        Self { addr: lane.start(), questions: Arc::new(Semaphore::new(QUESTIONS_MAX)) }
    }

    /// The job of `partition` that an idempotency key stands for, and whether it does the same. `None` if there is none, the
    /// partition is another node's, or the lane is too busy to say: only the job's own end tells for certain.
    pub async fn of_key(&self, partition: u32, scope: Scope, body: Body) -> Option<(JobId, bool)> {
        let _permit = self.questions.try_acquire().ok()?;
        self.addr.send(OfKey { partition, scope, body }).await.ok().flatten()
    }

    /// What it is doing; `None` once it has ended.
    pub async fn state(&self) -> Option<LaneState> {
        self.addr.send(Observe).await.ok()
    }

    /// Starts no more jobs, lets those that run end within `deadline`, commits them and leaves the group.
    pub async fn drain(&self, deadline: Duration) {
        let (done, drained) = oneshot::channel();
        if self.addr.send(DrainLane(done)).await.is_ok() && tokio::time::timeout(deadline, drained).await.is_err() {
            tracing::warn!(?deadline, "running jobs did not end in time; another node runs them again");
        }
        if self.addr.send(Leave).await.is_err() {
            tracing::debug!("the lane had ended already");
        }
    }
}

impl Actor for Lane {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let (member, addr) = (self.member.clone(), ctx.address());
        actix::spawn(async move {
            loop {
                let event = match member.next().await {
                    Ok(event) => event,
                    Err(relay_log::port::LogError::Closed) => return,
                    Err(error) => {
                        tracing::warn!(%error, "jobs cannot be read, trying again");
                        tokio::time::sleep(COMMIT_RETRY).await;
                        continue;
                    }
                };
                if addr.send(FromLog(event)).await.is_err() {
                    return;
                }
            }
        });
        if let Some(mut sayings) = self.sayings.take() {
            let addr = ctx.address();
            actix::spawn(async move {
                while let Some(said) = sayings.recv().await {
                    if addr.send(FromTopics(said)).await.is_err() {
                        return;
                    }
                }
            });
        }
        ctx.run_interval(TICK, |lane, ctx| {
            let effects = lane.core.tick(lane.now_ms());
            lane.carry_out(effects, ctx);
            lane.make_room(ctx);
            lane.call_back(ctx);
            lane.show();
        });
        ctx.run_interval(self.settings.delete_interval, Self::delete_done);
        ctx.run_interval(self.settings.handover_timeout() / REPORTS_IN_TIMEOUT, Self::report);
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct FromLog(MemberEvent);

#[derive(Message)]
#[rtype(result = "()")]
struct FromTopics(Said);

#[derive(Message)]
#[rtype(result = "Option<(JobId, bool)>")]
struct OfKey {
    partition: u32,
    scope: Scope,
    body: Body,
}

#[derive(Message)]
#[rtype(result = "()")]
struct JobEnded {
    job: Box<Delivered>,
    finish: Finish,
}

#[derive(Message)]
#[rtype(result = "()")]
struct Settled {
    batch: Batch<Payload>,
    fate: Fate,
    took: Duration,
}

enum Fate {
    Committed,
    NotCommitted(Vec<u32>),
}

#[derive(Message)]
#[rtype(result = "LaneState")]
struct Observe;

#[derive(Message)]
#[rtype(result = "()")]
struct DrainLane(oneshot::Sender<()>);

#[derive(Message)]
#[rtype(result = "()")]
struct Leave;

impl LaneSettings {
    /// How long after its last report a job that another node keeps running is run anew.
    fn handover_timeout(&self) -> Duration {
        Duration::from_millis(self.limits.handover_timeout_ms)
    }
}

impl Lane {
    fn now_ms(&self) -> u64 {
        self.context.clock.now_ms()
    }

    fn show(&mut self) {
        let lane = self.settings.lane.clone();
        let (remembered, forgotten) = self.core.remembered();
        metrics::gauge!("relay_dedup_entries", "lane" => lane.clone()).set(remembered as f64);
        // A partition that is not ours any more takes its count with it.
        let more = forgotten.saturating_sub(self.forgotten);
        self.forgotten = forgotten;
        metrics::counter!("relay_dedup_forgotten_total", "lane" => lane.clone()).increment(more);
        metrics::gauge!("relay_lane_suspect_jobs", "lane" => lane.clone()).set(self.core.suspects() as f64);
        metrics::gauge!("relay_lane_running_jobs", "lane" => lane.clone()).set(self.core.running() as f64);
        metrics::gauge!("relay_lane_waiting_jobs", "lane" => lane).set(self.core.waiting() as f64);
        self.show_hand_overs();
    }

    fn carry_out(&mut self, effects: Vec<Effect<Payload>>, ctx: &mut Context<Self>) {
        for effect in effects {
            match effect {
                Effect::Accept(receipt) => self.accept(&receipt),
                Effect::EndSame(job) => self.end_same(&job, ctx),
                Effect::EndReused(job) => {
                    self.count_duplicate("refused");
                    let first = job.duplicate.map_or(job.job_id, |first| first.of);
                    self.end_waiting(&job, Outcome::Failed(duplicate::key_reused(first)), ctx);
                }
                Effect::Run(job) => self.run(job, ctx),
                Effect::EndCancelled(job) => {
                    let error = JobError::new(ErrorCode::Cancelled, "the job was cancelled");
                    self.end_waiting(&job, Outcome::Cancelled(error), ctx);
                }
                Effect::EndExpired(job) => {
                    let error = run::expired(&job);
                    self.end_waiting(&job, Outcome::Expired(error), ctx);
                }
                Effect::SetAside(job, side, due_ms) => self.set_aside(&job, side, due_ms, ctx),
                Effect::Reread(partition, epoch, offsets) => self.reread(partition, epoch, offsets, ctx),
                Effect::Fetch(partition, epoch, wanted) => self.fetch(partition, epoch, wanted, ctx),
                Effect::Return(job, at) => self.go_back(&job, at, ctx),
                Effect::EndAside(job, at, cancelled) => self.end_aside(&job, at, cancelled, ctx),
                Effect::Cancel(key) => {
                    if let Some(running) = self.runs.get(&key) {
                        running.link.cancel.cancel();
                    }
                }
                Effect::Abandon(key) => {
                    if let Some(running) = self.runs.remove(&key) {
                        running.task.abort();
                    }
                }
                Effect::Keep(partition, epoch, jobs) => self.keep(partition, epoch, jobs, ctx),
                Effect::CancelKept(key) => {
                    self.kept.get(&key).into_iter().for_each(|running| running.link.cancel.cancel());
                }
                Effect::AbandonKept(key) => self.abandon_kept(key),
                Effect::TakeEnd(job, end) => self.take_end(job, *end, ctx),
                Effect::Gather => {
                    ctx.run_later(gathering(self.commit_took), |lane, ctx| {
                        let effects = lane.core.gathered();
                        lane.carry_out(effects, ctx);
                    });
                }
                Effect::Commit(batch) => self.commit(batch, ctx),
                Effect::Pause(partition, paused) => {
                    let at = TopicPartition::new(topics::jobs(&self.settings.lane), partition);
                    self.member.pause(&at, paused);
                }
                Effect::Release(partition) => self.release(partition),
            }
        }
        if self.core.is_settled() {
            // Dropping the sender is the message.
            self.drained = None;
        }
    }

    fn run(&mut self, job: Box<Delivered>, ctx: &Context<Self>) {
        let (key, epoch) = ((job.at.partition, job.place.offset), job.epoch);
        let link = Arc::new(RunLink::default());
        let (context, shared, addr) = (self.context.clone(), link.clone(), ctx.address());
        if job.verdict != Verdict::Ordinary {
            let as_what = if job.verdict == Verdict::Poison { "poison" } else { "suspect" };
            tracing::warn!(job_id = %job.job_id, crashes = ?job.crashes, as_what, "nodes died while they ran this job");
            metrics::counter!("relay_jobs_suspected_total", "lane" => self.settings.lane.clone(), "as" => as_what)
                .increment(1);
        }
        let task = actix::spawn(async move {
            let finish = run::run(&context, &job, &shared).await;
            tell(&addr, JobEnded { job, finish }).await;
        });
        self.runs.insert(key, RunningJob { epoch, link, task, announced: CancellationToken::new() });
    }

    fn end_waiting(&mut self, job: &Delivered, outcome: Outcome, ctx: &mut Context<Self>) {
        let ended = Ended {
            outcome,
            attempt: job.attempts_before,
            failures: Vec::new(),
            last_partial_seq: None,
            hops: job.job.hops.clone(),
            duplicate_of: job.duplicate.map(|first| first.of),
            told_here: false,
            at_ms: self.now_ms(),
        };
        self.end(job, &ended, ctx);
    }

    fn end(&mut self, job: &Delivered, ended: &Ended, ctx: &mut Context<Self>) {
        let key = (job.at.partition, job.place.offset);
        self.runs.remove(&key);
        let payload = self.payload(job, ended);
        let effects = self.core.finished(key, job.epoch, payload, self.now_ms());
        self.carry_out(effects, ctx);
    }

    /// What is committed with the end of a job.
    fn payload(&self, job: &Delivered, ended: &Ended) -> Payload {
        let outcome = ended.outcome.kind().name();
        metrics::counter!("relay_jobs_ended_total", "task" => job.job.task.name(), "outcome" => outcome).increment(1);
        let waited_ms = ended.at_ms.saturating_sub(job.place.accepted_at);
        metrics::histogram!("relay_job_total_seconds", "task" => job.job.task.name())
            .record(waited_ms as f64 / 1_000.0);
        if ended.duplicate_of.is_some() && job.duplicate.is_some_and(|first| first.ended_at_ms.is_some()) {
            self.count_duplicate("repeated");
        }
        let entry = outcome::dedup_entry(job, ended, self.settings.dedup_window);
        let dead_letter_partitions = self.settings.dead_letter_partitions;
        let records = outcome::records(job, ended, &self.context.events, dead_letter_partitions, &entry);
        let terminal = records.first().filter(|_| ended.told_here).and_then(route::routed_new);
        let tell_here = terminal.map(|event| (job.job.tenant.clone(), event));
        let audit = Some(self.context.audit.outcome(job, ended));
        Payload { records, ended: dedup::read(&entry), audit, tell_here, ..Payload::default() }
    }

    fn count_duplicate(&self, how: &'static str) {
        metrics::counter!("relay_duplicates_total", "lane" => self.settings.lane.clone(), "how" => how).increment(1);
    }
}

/// How long to wait for jobs that may share the next commit, when the last one took `commit`: half of it, which is less
/// than what is saved if only one comes. Below a millisecond waiting saves nothing.
fn gathering(commit: Duration) -> Duration {
    let wait = (commit / 2).min(GATHER_MAX);
    if wait < Duration::from_millis(1) { Duration::ZERO } else { wait }
}

/// Sends the lane what became of its work. A lane that has ended needs to know no more: its partitions are somebody else's.
async fn tell<M>(lane: &Addr<Lane>, message: M)
where
    M: Message<Result = ()> + Send + 'static,
    Lane: Handler<M>,
{
    if lane.send(message).await.is_err() {
        tracing::debug!("the lane has ended");
    }
}
