//! Registers attempts before their backends are called: durable in the lane's control topic, many in one record.
//!
//! The next owner of the partition reads them, so that its attempts get higher numbers than any that was begun.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use relay_log::port::{Log, LogError, NewRecord, TopicPartition};
use relay_protocol::record::{ControlRecord, StartedJob, StartedJobs};
use relay_runtime::clock::Clock;
use tokio::sync::{mpsc, oneshot};

/// Attempts that may wait for their registration; more wait to be let in.
const QUEUE_MAX: usize = 1_024;

/// Hands attempts to the task that registers them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Starts {
    queue: mpsc::Sender<Start>,
}

struct Start {
    partition: u32,
    job: StartedJob,
    events: Vec<NewRecord>,
    done: oneshot::Sender<Result<(), LogError>>,
}

/// Whose attempts are registered.
#[derive(Debug, Clone)]
pub struct Registrar {
    /// Name of the node.
    pub node: String,
    /// Its life.
    pub incarnation: u64,
    /// The lane's control topic.
    pub topic: relay_log::port::Topic,
}

impl Starts {
    /// Starts the task; it ends with the last handle.
    pub fn spawn(log: Arc<dyn Log>, clock: Arc<dyn Clock>, registrar: Registrar) -> Self {
        let (queue, starts) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(run(log, clock, registrar, starts));
        Self { queue }
    }

    /// Returns when the attempt and the `events` that tell of it are durable; they share a round trip.
    ///
    /// # Errors
    /// The log could not take it: the attempt must not begin.
    pub async fn register(&self, partition: u32, job: StartedJob, events: Vec<NewRecord>) -> Result<(), LogError> {
        let (done, answer) = oneshot::channel();
        self.queue.send(Start { partition, job, events, done }).await.map_err(|_| LogError::Closed)?;
        answer.await.map_err(|_| LogError::Closed)?
    }
}

async fn run(log: Arc<dyn Log>, clock: Arc<dyn Clock>, registrar: Registrar, mut starts: mpsc::Receiver<Start>) {
    let mut batch = Vec::new();
    // What comes while one append is under way goes into the next: batches form by themselves under load.
    while starts.recv_many(&mut batch, QUEUE_MAX).await > 0 {
        let mut by_partition: BTreeMap<u32, Vec<StartedJob>> = BTreeMap::new();
        for start in &batch {
            by_partition.entry(start.partition).or_default().push(start.job);
        }
        let now_ms = clock.now_ms();
        let mut records: Vec<NewRecord> =
            by_partition.into_iter().map(|(partition, jobs)| registrar.record(partition, jobs, now_ms)).collect();
        records.extend(batch.iter_mut().flat_map(|start| start.events.drain(..)));
        let outcome = log.append(records).await.map(|_| ());
        for start in batch.drain(..) {
            // A job that was cancelled meanwhile does not wait for its answer.
            drop(start.done.send(outcome.clone()));
        }
    }
}

impl Registrar {
    fn record(&self, partition: u32, jobs: Vec<StartedJob>, now_ms: u64) -> NewRecord {
        let record =
            ControlRecord::Started(StartedJobs { node: self.node.clone(), incarnation: self.incarnation, jobs });
        NewRecord {
            to: TopicPartition::new(self.topic.clone(), partition),
            key: None,
            value: Some(Bytes::from(serde_json::to_vec(&record).unwrap_or_default())),
            headers: Vec::new(),
            timestamp_ms: now_ms,
        }
    }
}
