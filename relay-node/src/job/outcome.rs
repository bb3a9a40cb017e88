//! How a job ends, as the records that are committed with its offset.

use std::time::Duration;

use bytes::Bytes;
use relay_log::port::{Header, NewRecord, RECORD_BYTES_MAX, TopicPartition};
use relay_protocol::event::{JobCard, TERMINAL_N, seq};
use relay_protocol::job::Hop;
use relay_protocol::record::{
    AttemptFailure, DedupEntry, HEADER_DEAD_ATTEMPTS, HEADER_DEAD_ERROR, HEADER_DEAD_HEADERS_LOST,
    HEADER_DEAD_KEY_LOST, HEADER_DEAD_ORIGIN, HEADER_DEAD_VALUE_LOST, HEADER_JOB_ID, HEADER_OURS, HEADER_TENANT,
};
use relay_protocol::{Event, EventKind, JobError, JobId, partition, topics};
use serde_json::Value;

use super::delivered::{Delivered, NotAJob};
use crate::events::write::EventRecords;

/// Bytes that the original record's own headers may have in its dead letter, names included.
const KEPT_HEADERS_BYTES_MAX: usize = 65_536;

/// Bytes of the original's key that its dead letter keeps; a longer one is left out.
const KEPT_KEY_BYTES_MAX: usize = 32_768;
/// Bytes that the list of attempts may have in a dead letter; the newest win.
const ATTEMPTS_BYTES_MAX: usize = 65_536;

/// How a job ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Done.
    Completed(Value),
    /// It cannot be done.
    Failed(JobError),
    /// Somebody cancelled it.
    Cancelled(JobError),
    /// Its deadline passed.
    Expired(JobError),
    /// All attempts failed.
    DeadLettered(JobError),
}

impl Outcome {
    /// Kind of the terminal event.
    pub fn kind(&self) -> EventKind {
        match self {
            Self::Completed(_) => EventKind::Completed,
            Self::Failed(_) => EventKind::Failed,
            Self::Cancelled(_) => EventKind::Cancelled,
            Self::Expired(_) => EventKind::Expired,
            Self::DeadLettered(_) => EventKind::DeadLettered,
        }
    }

    /// What went wrong, if something did.
    pub fn error(&self) -> Option<&JobError> {
        match self {
            Self::Completed(_) => None,
            Self::Failed(error) | Self::Cancelled(error) | Self::Expired(error) | Self::DeadLettered(error) => {
                Some(error)
            }
        }
    }
}

/// A job that ended, with all that its terminal event tells.
#[derive(Debug, Clone)]
pub struct Ended {
    /// How.
    pub outcome: Outcome,
    /// The last attempt's number; 0 if none began.
    pub attempt: u32,
    /// Every failed attempt.
    pub failures: Vec<AttemptFailure>,
    /// Seq of the last partial or progress event.
    pub last_partial_seq: Option<u64>,
    /// Where the job was when.
    pub hops: Vec<Hop>,
    /// The job whose end it repeats: it did not run.
    pub duplicate_of: Option<JobId>,
    /// Every earlier event was delivered to this node's own watchers, so that the terminal one may be.
    pub told_here: bool,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// The terminal event of a job's end.
pub(super) fn terminal(job: &Delivered, ended: &Ended) -> Event {
    let mut event = Event::new(job.job_id, ended.attempt, TERMINAL_N, ended.outcome.kind(), ended.at_ms);
    event.result = match &ended.outcome {
        Outcome::Completed(result) => Some(result.clone()),
        _ => None,
    };
    event.error = ended.outcome.error().cloned();
    // No `started` tells it, and the receipt of a job that ends at once may come late.
    event.place = (ended.attempt == 0).then(|| job.place.clone());
    event.job = (ended.attempt == 0).then(|| Box::new(JobCard::of(&job.job)));
    event.duplicate_of = ended.duplicate_of;
    event.redrive_of = job.job.redrive_of;
    event.last_partial_seq = ended.last_partial_seq;
    event.hops = ended.hops.clone();
    event.traceparent = job.job.traceparent.clone();
    event
}

/// The records of a job's end, the terminal event first; then what keeps it from being done twice until `window` has
/// passed, and its dead letter if it has one.
pub fn records(
    job: &Delivered,
    ended: &Ended,
    events: &EventRecords,
    dead_letter_partitions: u32,
    entry: &DedupEntry,
) -> Vec<NewRecord> {
    let mut records = vec![events.record(&job.job.tenant, &terminal(job, ended)), dedup_record(job, entry)];
    if let (Outcome::DeadLettered(error), None) = (&ended.outcome, ended.duplicate_of) {
        records.push(dead_letter(job, error, &ended.failures, dead_letter_partitions, ended.at_ms));
    }
    records
}

/// What is remembered of a job's end until `window` has passed: that its key stands for it; of a job that did not hold
/// its key, that its id does.
pub fn dedup_entry(job: &Delivered, ended: &Ended, window: Duration) -> DedupEntry {
    let key = job.job.idempotency_key.clone().filter(|_| ended.duplicate_of.is_none());
    DedupEntry {
        job_id: job.job_id,
        tenant: job.job.tenant.clone(),
        body_sha256: key.as_ref().map(|_| hex::encode(job.job.body_sha256())),
        idempotency_key: key,
        place: job.place.clone(),
        outcome: ended.outcome.kind(),
        seq: seq(ended.attempt, TERMINAL_N),
        ended_at: ended.at_ms,
        duplicate_of: ended.duplicate_of,
        expires_at: ended.at_ms.saturating_add(window.as_millis() as u64),
    }
}

fn dedup_record(job: &Delivered, entry: &DedupEntry) -> NewRecord {
    let key = partition::job_key(&job.job.tenant, job.job.idempotency_key.as_deref(), job.job_id);
    NewRecord {
        to: TopicPartition::new(topics::dedup(&job.place.lane), job.place.partition),
        key: Some(Bytes::from(key)),
        value: Some(json(entry)),
        headers: Vec::new(),
        timestamp_ms: entry.ended_at,
    }
}

/// The records of the end of a record that is not a job: its dead letter, and a `failed` event for whoever watches the id
/// that it says it has.
pub fn not_a_job(refused: &NotAJob, events: &EventRecords, dead_letter_partitions: u32, now_ms: u64) -> Vec<NewRecord> {
    let tenant = refused.tenant.as_deref();
    let letter = letter(refused.job_id, tenant, &refused.record, &refused.error, &[], dead_letter_partitions, now_ms);
    let mut records = vec![letter];
    if let Some(tenant) = tenant {
        let mut event = Event::new(refused.job_id, 0, TERMINAL_N, EventKind::Failed, now_ms);
        event.error = Some(refused.error.clone());
        records.push(events.record(tenant, &event));
    }
    records
}

fn dead_letter(
    job: &Delivered,
    error: &JobError,
    failures: &[AttemptFailure],
    partitions: u32,
    now_ms: u64,
) -> NewRecord {
    letter(job.job_id, Some(&job.job.tenant), &job.record, error, failures, partitions, now_ms)
}

fn letter(
    job_id: JobId,
    tenant: Option<&str>,
    record: &relay_log::port::LogRecord,
    error: &JobError,
    failures: &[AttemptFailure],
    partitions: u32,
    now_ms: u64,
) -> NewRecord {
    let origin = format!("{}/{}", record.at, record.offset);
    let mut headers = vec![
        (HEADER_DEAD_ERROR.to_owned(), json(error)),
        (HEADER_DEAD_ORIGIN.to_owned(), Bytes::from(origin)),
        (HEADER_JOB_ID.to_owned(), Bytes::from(job_id.to_string())),
        (HEADER_DEAD_ATTEMPTS.to_owned(), attempts(failures)),
    ];
    if let Some(tenant) = tenant {
        headers.push((HEADER_TENANT.to_owned(), Bytes::copy_from_slice(tenant.as_bytes())));
    }
    headers.extend(kept_headers(&record.headers));
    let key = kept(record.key.as_ref(), KEPT_KEY_BYTES_MAX, HEADER_DEAD_KEY_LOST, &mut headers);
    let value = kept(record.value.as_ref(), RECORD_BYTES_MAX, HEADER_DEAD_VALUE_LOST, &mut headers);
    NewRecord {
        to: TopicPartition::new(topics::DEAD_LETTERS, job_id.reply_partition(partitions)),
        key,
        value,
        headers,
        timestamp_ms: now_ms,
    }
}

/// What is not larger than `bytes_max`; in its stead a header says how large it was.
fn kept(original: Option<&Bytes>, bytes_max: usize, lost: &str, headers: &mut Vec<Header>) -> Option<Bytes> {
    let original = original?;
    if original.len() <= bytes_max {
        return Some(original.clone());
    }
    metrics::counter!("relay_dlq_cut_total").increment(1);
    headers.push((lost.to_owned(), Bytes::from(original.len().to_string())));
    None
}

/// The newest attempts that fit.
fn attempts(failures: &[AttemptFailure]) -> Bytes {
    (0..=failures.len())
        .filter_map(|skipped| failures.get(skipped..))
        .map(json)
        .find(|text| text.len() <= ATTEMPTS_BYTES_MAX)
        .unwrap_or_default()
}

/// The original's own headers, as many as fit: a record that is as large as the log allows must still fit with ours.
fn kept_headers(original: &[Header]) -> Vec<Header> {
    let own = original.iter().filter(|(name, _)| !name.starts_with(HEADER_OURS));
    let (mut bytes, mut lost) = (0, 0_u32);
    let mut kept = Vec::new();
    for (name, value) in own {
        bytes += name.len() + value.len();
        if bytes <= KEPT_HEADERS_BYTES_MAX {
            kept.push((name.clone(), value.clone()));
        } else {
            lost += 1;
        }
    }
    if lost > 0 {
        metrics::counter!("relay_dlq_headers_lost_total").increment(u64::from(lost));
        kept.push((HEADER_DEAD_HEADERS_LOST.to_owned(), Bytes::from(lost.to_string())));
    }
    kept
}

fn json<T: serde::Serialize + ?Sized>(value: &T) -> Bytes {
    // These types have string keys only and cannot fail; an empty header would still name the record's origin.
    serde_json::to_vec(value).map(Bytes::from).unwrap_or_default()
}
