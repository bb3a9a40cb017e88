//! The coordinator's part of the audit trail: entries go through a bounded queue to the audit topic. Best effort: a full
//! queue drops the entry and counts it; nothing waits for the trail.

use std::sync::Arc;
use std::time::Duration;

use relay_log::port::{Log, LogError, NewRecord, TopicPartition};
use relay_protocol::record::AuditEntry;
use relay_protocol::{JobId, partition, topics};
use relay_runtime::backoff::retry_delay;
use relay_runtime::clock::Clock;
use relay_runtime::telemetry::current_traceparent;
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::metrics;
use crate::registry::core::{Happening, Sender};

/// Entries that wait to be written at most.
pub const AUDIT_QUEUE_MAX: usize = 1_024;
/// Entries in one record at most.
const ENTRIES_PER_RECORD_MAX: usize = 64;
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// Takes entries; cheap to clone. The trail ends when every clone is gone and the queue is written.
#[derive(Clone)]
pub struct AuditTrail {
    queue: mpsc::Sender<AuditEntry>,
    writer: Arc<str>,
    clock: Arc<dyn Clock>,
}

/// The other end of the queue: writes to the log.
pub struct AuditWriter {
    queue: mpsc::Receiver<AuditEntry>,
    batch: Vec<AuditEntry>,
    writer: Arc<str>,
    partitions: u32,
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
}

/// The two ends of the trail that `writer` (the coordinator's name) keeps in an audit topic of `partitions` partitions.
pub fn open(writer: &str, partitions: u32, log: Arc<dyn Log>, clock: Arc<dyn Clock>) -> (AuditTrail, AuditWriter) {
    let (sender, receiver) = mpsc::channel(AUDIT_QUEUE_MAX);
    let writer: Arc<str> = writer.into();
    let trail = AuditTrail { queue: sender, writer: writer.clone(), clock: clock.clone() };
    (trail, AuditWriter { queue: receiver, batch: Vec::new(), writer, partitions, log, clock })
}

impl AuditTrail {
    /// A node came or went.
    pub fn node(&self, happening: Happening) {
        let (action, node, incarnation, reason, by) = match happening {
            Happening::Joined { node, incarnation, reason, by } => ("node.joined", node, incarnation, reason, by),
            Happening::Left { node, incarnation, reason, by } => ("node.left", node, incarnation, reason, by),
        };
        tracing::info!(action, node, incarnation, reason, "cluster changed");
        let detail = [("node", node.into()), ("incarnation", incarnation.into()), ("reason", reason.into())];
        self.entry(action, by, None, detail);
    }

    /// A leadership of this coordinator began (`won`) or ended.
    pub fn leadership(&self, outcome: &str, incarnation: u64) {
        let detail = [("outcome", outcome.into()), ("incarnation", incarnation.into())];
        self.entry("coordinator.leadership", Sender::default(), None, detail);
    }

    /// A caller was turned away from `path` with `code`.
    pub fn denied(&self, by: Sender, path: &str, code: &str) {
        let trace_id = format!("{:032x}", current_traceparent().trace_id());
        self.entry("denied", by, Some(trace_id), [("path", path.into()), ("code", code.into())]);
    }

    /// These jobs' owners were asked to cancel them, because `filter` found them.
    pub fn cancel_requested(&self, by: Sender, jobs: &[JobId], filter: Value) {
        let trace_id = format!("{:032x}", current_traceparent().trace_id());
        let jobs: Vec<Value> = jobs.iter().map(|job| job.to_string().into()).collect();
        self.entry("job.cancel_requested", by, Some(trace_id), [("filter", filter), ("jobs", jobs.into())]);
    }

    /// A backend was drained, or gets requests again.
    pub fn backend(&self, by: Sender, backend: &str, drains: bool) {
        let action = if drains { "backend.drained" } else { "backend.resumed" };
        tracing::info!(action, backend, by = by.subject, "a backend was ordered about");
        let trace_id = format!("{:032x}", current_traceparent().trace_id());
        self.entry(action, by, Some(trace_id), [("backend", backend.into())]);
    }

    fn entry<const N: usize>(
        &self,
        action: &str,
        by: Sender,
        trace_id: Option<String>,
        detail: [(&'static str, Value); N],
    ) {
        let entry = AuditEntry {
            at: self.clock.now_ms(),
            action: action.to_owned(),
            node: self.writer.to_string(),
            tenant: by.tenant,
            subject: by.subject,
            job_id: None,
            session_id: None,
            trace_id,
            detail: detail.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<Map<_, _>>(),
        };
        if self.queue.try_send(entry).is_err() {
            metrics::audit_dropped(1);
        }
    }
}

impl AuditWriter {
    /// Writes until every [`AuditTrail`] is gone and the queue is empty; a log that is away is tried again for ever. Drop
    /// the future to give up: what is left is counted as dropped.
    pub async fn run(mut self) {
        while self.queue.recv_many(&mut self.batch, ENTRIES_PER_RECORD_MAX).await > 0 {
            self.write(&self.batch).await;
            self.batch.clear();
        }
    }

    async fn write(&self, batch: &[AuditEntry]) {
        let value = match serde_json::to_vec(batch) {
            Ok(value) => value,
            Err(error) => {
                tracing::error!(%error, "an audit entry cannot be written as JSON");
                return metrics::audit_dropped(batch.len() as u64);
            }
        };
        let record = NewRecord {
            to: TopicPartition::new(topics::AUDIT, partition::of_key(self.writer.as_bytes(), self.partitions)),
            key: Some(self.writer.as_bytes().to_vec().into()),
            value: Some(value.into()),
            headers: Vec::new(),
            timestamp_ms: self.clock.now_ms(),
        };
        for attempt in 1_u32.. {
            match self.log.append(vec![record.clone()]).await {
                Ok(_) => return metrics::audit_written(batch.len() as u64),
                Err(error @ (LogError::TooLarge { .. } | LogError::Closed)) => {
                    tracing::error!(%error, entries = batch.len(), "audit entries are lost");
                    return metrics::audit_dropped(batch.len() as u64);
                }
                Err(error) => {
                    let delay = retry_delay(attempt, RETRY_MIN, RETRY_MAX);
                    tracing::debug!(%error, ?delay, "the audit trail waits for the log");
                    sleep(delay).await;
                }
            }
        }
    }
}

impl Drop for AuditWriter {
    fn drop(&mut self) {
        metrics::audit_dropped((self.batch.len() + self.queue.len()) as u64);
    }
}
