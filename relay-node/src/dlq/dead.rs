//! A record of `media.dlq`: a letter, or a mark on one.

use bytes::Bytes;
use relay_log::port::LogRecord;
use relay_protocol::dead_letter::{HEADER_MARK, Letter, LetterId, Mark, WholeLetter};
use relay_protocol::record::{
    AttemptFailure, HEADER_DEAD_ATTEMPTS, HEADER_DEAD_ERROR, HEADER_DEAD_ORIGIN, HEADER_JOB_ID, HEADER_OURS,
    HEADER_TENANT, decode_job,
};
use relay_protocol::{Input, Job, JobError, JobId, topics};
use serde_json::{Value, json};

use super::marks::Marks;

/// Bytes that are shown of a value that is no job.
const VALUE_BEGIN_BYTES: usize = 2_048;

/// A letter as it lies in the log.
#[derive(Debug, Clone)]
pub struct Dead {
    /// What it is called.
    pub id: LetterId,
    /// The job that died.
    pub job_id: Option<JobId>,
    /// Whose.
    pub tenant: Option<String>,
    /// Where the original record lay.
    pub origin: Option<String>,
    /// Why.
    pub error: Option<JobError>,
    /// Every attempt.
    pub attempts: Vec<AttemptFailure>,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The job; an error for a record that is none.
    pub job: Result<Box<Job>, JobError>,
    /// The record.
    pub record: LogRecord,
}

/// Whether a record is a mark.
pub fn is_mark(record: &LogRecord) -> bool {
    record.header(HEADER_MARK).is_some()
}

/// The mark of a record; `None` if it cannot be read.
pub fn mark_of(record: &LogRecord) -> Option<Mark> {
    let mark = serde_json::from_slice(record.value.as_deref()?);
    mark.inspect_err(|error| {
        tracing::warn!(%error, at = %record.at, offset = record.offset, "a mark on a dead letter cannot be read");
    })
    .ok()
}

/// The job that a letter's headers name.
pub fn job_id_of(record: &LogRecord) -> Option<JobId> {
    text(record, HEADER_JOB_ID)?.parse().ok()
}

/// The tenant that a letter's headers name.
pub fn tenant_of(record: &LogRecord) -> Option<&str> {
    text(record, HEADER_TENANT)
}

fn text<'a>(record: &'a LogRecord, header: &str) -> Option<&'a str> {
    std::str::from_utf8(record.header(header)?).ok()
}

impl Dead {
    /// Reads a letter.
    pub fn read(record: LogRecord) -> Self {
        let attempts = record.header(HEADER_DEAD_ATTEMPTS).and_then(|value| serde_json::from_slice(value).ok());
        let empty = Bytes::new();
        Self {
            id: LetterId { partition: record.at.partition, offset: record.offset },
            job_id: job_id_of(&record),
            tenant: tenant_of(&record).map(str::to_owned),
            origin: text(&record, HEADER_DEAD_ORIGIN).map(str::to_owned),
            error: record.header(HEADER_DEAD_ERROR).and_then(|value| serde_json::from_slice(value).ok()),
            attempts: attempts.unwrap_or_default(),
            at_ms: record.timestamp_ms,
            job: decode_job(record.value.as_ref().unwrap_or(&empty)).map(Box::new),
            record,
        }
    }

    /// The lane that it came from.
    pub fn lane(&self) -> Option<&str> {
        topics::lane_of(self.origin.as_deref()?.split('/').next()?)
    }

    /// Bytes that it holds in memory, about.
    pub fn bytes(&self) -> usize {
        let headers: usize = self.record.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        headers + self.record.value.as_ref().map_or(0, Bytes::len)
    }

    /// As a list shows it.
    pub fn letter(&self, marks: &Marks) -> Letter {
        let job = self.job.as_ref().ok();
        Letter {
            id: self.id,
            state: marks.state(),
            job_id: self.job_id,
            tenant: self.tenant.clone(),
            lane: self.lane().map(str::to_owned),
            task: job.map(|job| job.task),
            model: job.and_then(|job| job.model.clone()),
            error: self.error.clone(),
            at: self.at_ms,
            attempts_made: u32::try_from(self.attempts.len()).unwrap_or(u32::MAX),
            redriven_as: marks.redriven_as(),
        }
    }

    /// With all that it carries.
    pub fn whole(&self, marks: &Marks) -> WholeLetter {
        let value = self.record.value.clone().unwrap_or_default();
        let begin = || String::from_utf8_lossy(&value[..value.len().min(VALUE_BEGIN_BYTES)]).into_owned();
        let own = self.record.headers.iter().filter(|(name, _)| !name.starts_with(HEADER_OURS));
        WholeLetter {
            letter: self.letter(marks),
            attempts: self.attempts.clone(),
            origin: self.origin.clone(),
            key: self.record.key.as_ref().and_then(|key| String::from_utf8(key.to_vec()).ok()),
            headers: own.map(|(name, value)| (name.clone(), String::from_utf8_lossy(value).into())).collect(),
            job: self.job.as_ref().ok().map(|job| shown(job)),
            value_bytes: value.len() as u64,
            value_begin: self.job.is_err().then(begin),
        }
    }
}

/// A job as JSON, without the bytes that it holds itself.
fn shown(job: &Job) -> Value {
    let bytes = match &job.input {
        Input::Inline(media) => Some((media.data.len(), media.name.clone(), media.media_type.clone())),
        _ => None,
    };
    let Some((bytes, name, media_type)) = bytes else { return json!(job) };
    let mut light = job.clone();
    light.input = Input::Text(String::new());
    let mut shown = json!(light);
    shown["input"] = json!({ "inline": { "bytes": bytes, "name": name, "media_type": media_type } });
    shown
}
