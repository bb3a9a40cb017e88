//! Registers attempts before their backends are called: durable in the lane's control topic, many in one record.
//!
//! The next owner of the partition reads them, so that its attempts get higher numbers than any that was begun.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use relay_log::planted::{Bug, is_planted};
use relay_log::port::{Log, LogError, NewRecord, TopicPartition};
use relay_protocol::record::{ControlRecord, KeyHolder, StartedJob, StartedJobs};
use relay_runtime::clock::Clock;
use tokio::sync::{mpsc, oneshot};

/// Attempts that may wait for their registration; more wait to be let in.
const QUEUE_MAX: usize = 1_024;

/// Hands attempts to the task that registers them. Cheap to clone.
#[derive(Clone)]
pub struct Starts {
    queue: mpsc::Sender<Asked>,
    registrar: Arc<Registrar>,
}

/// An attempt that is to begin.
#[derive(Debug)]
pub struct Start {
    /// Partition of the lane.
    pub partition: u32,
    /// The attempt.
    pub job: StartedJob,
    /// The key that the job holds, if its next owner must know that before it reads the job.
    pub holder: Option<KeyHolder>,
    /// When the job was accepted, in milliseconds since the Unix epoch.
    pub accepted_at: u64,
    /// Events that tell of it.
    pub events: Vec<NewRecord>,
}

impl Start {
    /// An attempt of which nothing more is to be told.
    pub fn of(partition: u32, job: StartedJob) -> Self {
        Self { partition, job, holder: None, accepted_at: 0, events: Vec::new() }
    }
}

/// A start, and who waits for it.
struct Asked {
    start: Start,
    done: oneshot::Sender<Result<(), LogError>>,
}

/// Whose attempts are registered.
#[derive(Debug)]
pub struct Registrar {
    /// Name of the node.
    pub node: String,
    /// Its life.
    pub incarnation: u64,
    /// The lane's control topic.
    pub topic: relay_log::port::Topic,
    /// Highest time of a record so far, in milliseconds since the Unix epoch.
    latest_ms: AtomicU64,
}

impl Starts {
    /// Starts the task; it ends with the last handle.
    pub fn spawn(log: Arc<dyn Log>, clock: Arc<dyn Clock>, registrar: Registrar) -> Self {
        let (queue, starts) = mpsc::channel(QUEUE_MAX);
        let registrar = Arc::new(registrar);
        tokio::spawn(run(log, clock, registrar.clone(), starts));
        Self { queue, registrar }
    }

    /// The life of the node that registers.
    pub fn life(&self) -> (&str, u64) {
        (&self.registrar.node, self.registrar.incarnation)
    }

    /// A time for a record of the control topic, which is `now_ms` unless an earlier record of this node has a later one.
    pub fn stamp(&self, now_ms: u64) -> u64 {
        self.registrar.stamp(now_ms)
    }

    /// Returns when the attempt and the events that tell of it are durable; they share a round trip.
    ///
    /// # Errors
    /// The log could not take it: the attempt must not begin.
    pub async fn register(&self, start: Start) -> Result<(), LogError> {
        let (done, answer) = oneshot::channel();
        self.queue.send(Asked { start, done }).await.map_err(|_| LogError::Closed)?;
        answer.await.map_err(|_| LogError::Closed)?
    }
}

async fn run(log: Arc<dyn Log>, clock: Arc<dyn Clock>, registrar: Arc<Registrar>, mut starts: mpsc::Receiver<Asked>) {
    let mut batch = Vec::new();
    // What comes while one append is under way goes into the next: batches form by themselves under load.
    while starts.recv_many(&mut batch, QUEUE_MAX).await > 0 {
        let mut by_partition: BTreeMap<u32, (Vec<StartedJob>, Vec<KeyHolder>)> = BTreeMap::new();
        for Asked { start, .. } in batch.iter_mut().filter(|_| !is_planted(Bug::UnregisteredAttempt)) {
            let (jobs, holders) = by_partition.entry(start.partition).or_default();
            jobs.push(start.job);
            holders.extend(start.holder.take());
        }
        let accepted_at = batch.iter().map(|asked| asked.start.accepted_at).max();
        let now_ms = registrar.stamp(accepted_at.unwrap_or_default().max(clock.now_ms()));
        let mut records: Vec<NewRecord> =
            by_partition.into_iter().map(|(partition, begun)| registrar.started(partition, begun, now_ms)).collect();
        records.extend(batch.iter_mut().flat_map(|asked| asked.start.events.drain(..)));
        let outcome = log.append(records).await.map(|_| ());
        for asked in batch.drain(..) {
            // A job that was cancelled meanwhile does not wait for its answer.
            drop(asked.done.send(outcome.clone()));
        }
    }
}

impl Registrar {
    /// Registers for one life of one node.
    pub fn new(node: String, incarnation: u64, topic: relay_log::port::Topic) -> Self {
        Self { node, incarnation, topic, latest_ms: AtomicU64::new(0) }
    }

    /// A time for records that is never before an earlier one, nor before a job that it is about was accepted: the next owner
    /// looks for them from there on, also if this machine's clock was set back meanwhile.
    fn stamp(&self, at_least_ms: u64) -> u64 {
        self.latest_ms.fetch_max(at_least_ms, Ordering::Relaxed).max(at_least_ms)
    }

    fn started(&self, partition: u32, begun: (Vec<StartedJob>, Vec<KeyHolder>), now_ms: u64) -> NewRecord {
        let (jobs, holders) = begun;
        let started = StartedJobs { node: self.node.clone(), incarnation: self.incarnation, jobs, holders };
        self.record(partition, &ControlRecord::Started(started), now_ms)
    }

    fn record(&self, partition: u32, record: &ControlRecord, now_ms: u64) -> NewRecord {
        NewRecord {
            to: TopicPartition::new(self.topic.clone(), partition),
            key: None,
            value: Some(Bytes::from(serde_json::to_vec(record).unwrap_or_default())),
            headers: Vec::new(),
            timestamp_ms: now_ms,
        }
    }
}
