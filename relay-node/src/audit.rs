//! The audit trail: who did what when. Entries are queued, written in batches, and counted when the queue is full.

use std::sync::Arc;

use bytes::Bytes;
use relay_log::port::{Log, NewRecord, TopicPartition};
use relay_protocol::record::AuditEntry;
use relay_protocol::{JobId, SessionId, topics};
use relay_runtime::clock::Clock;
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::job::delivered::Delivered;
use crate::job::outcome::Ended;

/// Entries that may wait to be written.
const QUEUE_MAX: usize = 65_536;
/// Entries in one record.
const RECORD_ENTRIES_MAX: usize = 512;
/// How long the first entry of a record waits for others: a record costs the log as much as a job's, whatever is in it.
const LINGER: std::time::Duration = std::time::Duration::from_millis(50);
/// Wait before a failed write is tried again.
const RETRY: std::time::Duration = std::time::Duration::from_millis(500);

/// Takes entries. Cheap to clone.
#[derive(Clone)]
pub struct Audit {
    queue: mpsc::Sender<Queued>,
    writer: Arc<Writer>,
}

/// What the task that writes is told.
enum Queued {
    Entry(AuditEntry),
    /// Somebody waits until what came before is written.
    Flush(oneshot::Sender<()>),
}

struct Writer {
    node: String,
    partition: u32,
    clock: Arc<dyn Clock>,
}

/// Who acts.
#[derive(Debug, Clone, Copy)]
pub struct Actor<'a> {
    /// Whose.
    pub tenant: &'a str,
    /// Who.
    pub subject: &'a str,
}

impl Audit {
    /// Starts the task that writes the entries of `node` to one of the topic's `partitions`; it ends with the last handle.
    pub fn spawn(log: Arc<dyn Log>, clock: Arc<dyn Clock>, node: String, partitions: u32) -> Self {
        let partition = relay_protocol::partition::of_key(node.as_bytes(), partitions);
        let (queue, queued) = mpsc::channel(QUEUE_MAX);
        let writer = Arc::new(Writer { node, partition, clock });
        actix_rt::spawn(write(log, writer.clone(), queued));
        Self { queue, writer }
    }

    /// A job was accepted.
    pub fn accepted(&self, actor: Actor<'_>, job_id: JobId, traceparent: Option<&str>, detail: Value) {
        let mut entry = self.writer.entry("job.accepted", actor, detail);
        entry.job_id = Some(job_id);
        entry.trace_id = trace_id(traceparent);
        self.put(entry);
    }

    /// An attempt begins.
    pub fn attempt(&self, job: &Delivered, attempt: u32) {
        let mut entry = self.writer.entry("job.attempt", actor_of(job), json!({ "attempt": attempt }));
        entry.job_id = Some(job.job_id);
        entry.trace_id = trace_id(job.job.traceparent.as_deref());
        self.put(entry);
    }

    /// A node that had kept a job after its partition went on handed in how its attempt ended.
    pub fn handed_over(&self, job: &Delivered, from: &str, attempt: u32) {
        let detail = json!({ "from": from, "attempt": attempt });
        let mut entry = self.writer.entry("job.handed_over", actor_of(job), detail);
        entry.job_id = Some(job.job_id);
        entry.trace_id = trace_id(job.job.traceparent.as_deref());
        self.put(entry);
    }

    /// Somebody asked to cancel a job.
    pub fn cancel_requested(&self, actor: Actor<'_>, job_id: JobId, traceparent: Option<&str>) {
        let mut entry = self.writer.entry("job.cancel_requested", actor, Value::Null);
        entry.job_id = Some(job_id);
        entry.trace_id = trace_id(traceparent);
        self.put(entry);
    }

    /// Something happened to a dead letter: it was `redriven` or `dropped`. `job_id` is the job that died.
    pub fn letter(&self, happened: &str, actor: Actor<'_>, job_id: Option<JobId>, detail: Value) {
        let mut entry = self.writer.entry(&format!("letter.{happened}"), actor, detail);
        entry.job_id = job_id;
        self.put(entry);
    }

    /// Something was refused.
    pub fn denied(&self, actor: Actor<'_>, what: &str, code: &str) {
        self.put(self.writer.entry("denied", actor, json!({ "what": what, "code": code })));
    }

    /// A call of the OpenAI-compatible API is over.
    pub fn call(&self, actor: Actor<'_>, job_id: JobId, traceparent: &str, detail: Value) {
        let mut entry = self.writer.entry("call.ended", actor, detail);
        entry.job_id = Some(job_id);
        entry.trace_id = trace_id(Some(traceparent));
        self.put(entry);
    }

    /// Something happened to a session: `opened`, `resumed`, `moved` or `closed`.
    pub fn session(&self, happened: &str, actor: Actor<'_>, session_id: SessionId, detail: Value) {
        let mut entry = self.writer.entry(&format!("session.{happened}"), actor, detail);
        entry.session_id = Some(session_id);
        self.put(entry);
    }

    /// The entry of a job's end, for [`Audit::record`].
    pub fn outcome(&self, job: &Delivered, ended: &Ended) -> AuditEntry {
        let detail = json!({
            "outcome": ended.outcome.kind().name(),
            "attempt": ended.attempt,
            "code": ended.outcome.error().map(|error| &error.code),
            "duplicate_of": ended.duplicate_of,
        });
        let mut entry = self.writer.entry("job.outcome", actor_of(job), detail);
        entry.job_id = Some(job.job_id);
        entry.trace_id = trace_id(job.job.traceparent.as_deref());
        entry
    }

    /// A record of entries, to be committed together with what they tell of.
    pub fn record(&self, entries: &[AuditEntry]) -> NewRecord {
        self.writer.record(entries)
    }

    /// Waits until all entries so far are written.
    pub async fn flush(&self) {
        let (written, wait) = oneshot::channel();
        if self.queue.send(Queued::Flush(written)).await.is_ok() {
            // Err: the task has ended, and with it what could be waited for.
            _ = wait.await;
        }
    }

    fn put(&self, entry: AuditEntry) {
        if let Err(error) = self.queue.try_send(Queued::Entry(entry)) {
            metrics::counter!("relay_audit_dropped_total").increment(1);
            tracing::error!(%error, "an audit entry was lost: the queue of {QUEUE_MAX} is full");
        }
    }
}

impl Writer {
    fn entry(&self, action: &str, actor: Actor<'_>, detail: Value) -> AuditEntry {
        let detail = match detail {
            Value::Object(fields) => fields.into_iter().filter(|(_, value)| !value.is_null()).collect(),
            _ => Map::new(),
        };
        AuditEntry {
            at: self.clock.now_ms(),
            action: action.to_owned(),
            node: self.node.clone(),
            tenant: actor.tenant.to_owned(),
            subject: actor.subject.to_owned(),
            job_id: None,
            session_id: None,
            trace_id: None,
            detail,
        }
    }

    fn record(&self, entries: &[AuditEntry]) -> NewRecord {
        NewRecord {
            to: TopicPartition::new(topics::AUDIT, self.partition),
            key: Some(Bytes::copy_from_slice(self.node.as_bytes())),
            // Entries have string keys only: writing them cannot fail.
            value: Some(serde_json::to_vec(entries).map(Bytes::from).unwrap_or_default()),
            headers: Vec::new(),
            timestamp_ms: self.clock.now_ms(),
        }
    }
}

/// What goes into one record, and who waits for it.
#[derive(Default)]
struct Batch {
    entries: Vec<AuditEntry>,
    flushes: Vec<oneshot::Sender<()>>,
}

impl Batch {
    /// Takes what is next, for as long as entries wait for others; `false` at the end.
    async fn gather(&mut self, queue: &mut mpsc::Receiver<Queued>) -> bool {
        let Some(first) = queue.recv().await else { return false };
        self.put(first);
        let until = tokio::time::Instant::now() + LINGER;
        while self.entries.len() < RECORD_ENTRIES_MAX && self.flushes.is_empty() {
            match tokio::time::timeout_at(until, queue.recv()).await {
                Ok(Some(next)) => self.put(next),
                // Nobody is left who writes, or time is up.
                Ok(None) | Err(_) => break,
            }
        }
        true
    }

    fn put(&mut self, queued: Queued) {
        match queued {
            Queued::Entry(entry) => self.entries.push(entry),
            Queued::Flush(written) => self.flushes.push(written),
        }
    }
}

async fn write(log: Arc<dyn Log>, writer: Arc<Writer>, mut queue: mpsc::Receiver<Queued>) {
    let mut batch = Batch::default();
    while batch.gather(&mut queue).await {
        if !batch.entries.is_empty() {
            let record = writer.record(&batch.entries);
            while let Err(error) = log.append(vec![record.clone()]).await {
                tracing::warn!(%error, "audit entries are not written yet, trying again");
                tokio::time::sleep(RETRY).await;
            }
        }
        batch.entries.clear();
        for written in batch.flushes.drain(..) {
            // Whoever waited may have given up.
            _ = written.send(());
        }
    }
}

fn actor_of(job: &Delivered) -> Actor<'_> {
    Actor { tenant: &job.job.tenant, subject: &job.job.subject }
}

/// The 32 hex digits of a W3C trace context.
fn trace_id(traceparent: Option<&str>) -> Option<String> {
    traceparent?.split('-').nth(1).map(str::to_owned)
}
