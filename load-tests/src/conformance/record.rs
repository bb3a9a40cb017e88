//! The rules that a record in a lane obeys, and which of them one breaks. Pure: [`Lane::judge`] is given records in order.

use std::collections::HashMap;

use relay_log::port::{LogRecord, RECORD_BYTES_MAX};
use relay_protocol::job::JobHeadV1;
use relay_protocol::record::{HEADER_MOVED, HEADER_TRACEPARENT, decode_job};
use relay_protocol::{ErrorCode, Job, JobId, Message as _, frame, partition};
use relay_runtime::traceparent::Traceparent;

/// Prefix of the headers that only the relay writes.
const RELAY_HEADERS: &str = "relay-";

/// How far an id's time may lie after its record's, in milliseconds: the relay looks for events from that long before.
pub const ID_AHEAD_MS_MAX: u64 = 300_000;

/// A rule of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// There is a value of a size that the relay takes.
    Value,
    /// The value is a JSON object or a whole frame.
    Body,
    /// It has the shape of a job in a version that the relay reads.
    Schema,
    /// The job's fields obey the limits.
    Job,
    /// The job can be told apart when it comes twice.
    Identity,
    /// The id's time is believable.
    IdTime,
    /// The record's key is the job's.
    Key,
    /// The record lies in its key's partition.
    Partition,
    /// The relay's own headers are left to it.
    Headers,
    /// The trace context can be read.
    Trace,
    /// One id is one job.
    SameId,
    /// One idempotency key is one piece of work.
    SameKey,
}

impl Rule {
    /// Every rule, in the order of a report.
    pub const ALL: [Self; 12] = [
        Self::Value,
        Self::Body,
        Self::Schema,
        Self::Job,
        Self::Identity,
        Self::IdTime,
        Self::Key,
        Self::Partition,
        Self::Headers,
        Self::Trace,
        Self::SameId,
        Self::SameKey,
    ];

    /// Its stable name, and what it asks for.
    pub const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Value => ("record.value", "each record has a value of at most 1,100,000 bytes"),
            Self::Body => ("record.body", "the value is a JSON object, or a whole frame that begins with RM"),
            Self::Schema => ("record.schema", "the value is job.v1: no unknown field, known task, job_v1 in a frame"),
            Self::Job => ("job.rules", "each field keeps its limits (docs/protocol.md)"),
            Self::Identity => {
                ("job.identity", "id or idempotency_key is given, so that a repeated record is the same job")
            }
            Self::IdTime => ("job.id_time", "the time in a version 7 id is at most 300,000 ms ahead of the record's"),
            Self::Key => ("record.key", "the key is TENANT/IDEMPOTENCY_KEY, or TENANT/ID without one"),
            Self::Partition => ("record.partition", "the partition is (murmur2(key) & 0x7fffffff) % partitions"),
            Self::Headers => ("record.headers", "no header that begins with relay-"),
            Self::Trace => ("record.traceparent", "traceparent, if given, is 00-<32 hex>-<16 hex>-<2 hex>"),
            Self::SameId => ("job.same_id", "records with the same id have the same tenant, key and body"),
            Self::SameKey => ("job.same_key", "records of a tenant with the same idempotency_key have the same body"),
        }
    }
}

/// A rule that a record breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// Which.
    pub rule: Rule,
    /// What the record has instead.
    pub got: String,
}

/// What a record turned out to be.
#[derive(Debug)]
pub struct Judgement {
    /// The rules that it breaks.
    pub breaches: Vec<Breach>,
    /// The job's id, if it is one.
    pub job_id: Option<JobId>,
}

/// Tenant, idempotency key and body of a job.
type Work = (String, Option<String>, [u8; 32]);

/// A lane, and what its records so far were.
#[derive(Debug)]
pub struct Lane {
    partitions: u32,
    places: Vec<String>,
    ids: HashMap<JobId, Work>,
    keys: HashMap<(String, String), [u8; 32]>,
}

impl Lane {
    /// A lane of so many partitions.
    pub fn new(partitions: u32) -> Self {
        Self { partitions, places: Vec::new(), ids: HashMap::new(), keys: HashMap::new() }
    }

    /// Which rules `record` breaks; `None` if it is the relay's own copy of a record that was judged before.
    pub fn judge(&mut self, record: &LogRecord) -> Option<Judgement> {
        if let Some(origin) = record.header(HEADER_MOVED)
            && self.places.iter().any(|place| place.as_bytes() == &origin[..])
        {
            return None;
        }
        self.places.push(format!("{}/{}", record.at, record.offset));
        let mut breaches = header_breaches(record);
        let job_id = match read(record) {
            Ok(job) => {
                let job_id = job.id.unwrap_or_else(|| of_place(record));
                self.judge_job(record, &job, job_id, &mut breaches);
                Some(job_id)
            }
            Err(breach) => {
                breaches.push(breach);
                None
            }
        };
        Some(Judgement { breaches, job_id })
    }

    fn judge_job(&mut self, record: &LogRecord, job: &Job, job_id: JobId, breaches: &mut Vec<Breach>) {
        let mut breach = |rule, got| breaches.push(Breach { rule, got });
        if job.id.is_none() && job.idempotency_key.is_none() {
            // Nothing says what its key must be, and it stays where it is.
            breach(Rule::Identity, "neither id nor idempotency_key".to_owned());
        } else {
            let key = partition::job_key(&job.tenant, job.idempotency_key.as_deref(), job_id);
            match record.key.as_deref() {
                Some(found) if found == key.as_bytes() => {}
                None => breach(Rule::Key, format!("no key instead of {key:?}")),
                Some(found) => breach(Rule::Key, format!("{:?} instead of {key:?}", String::from_utf8_lossy(found))),
            }
            let expected = partition::of_key(key.as_bytes(), self.partitions);
            if record.at.partition != expected {
                breach(Rule::Partition, format!("partition {} instead of {expected} for {key:?}", record.at.partition));
            }
        }
        if let Some(ahead) = job.id.and_then(JobId::made_at_ms).map(|made| made.saturating_sub(record.timestamp_ms))
            && ahead > ID_AHEAD_MS_MAX
        {
            breach(Rule::IdTime, format!("id {job_id} is {ahead} ms ahead"));
        }
        self.judge_repeats(job, breaches);
    }

    fn judge_repeats(&mut self, job: &Job, breaches: &mut Vec<Breach>) {
        let body = job.body_sha256();
        if let Some(id) = job.id {
            let work = (job.tenant.clone(), job.idempotency_key.clone(), body);
            if *self.ids.entry(id).or_insert_with(|| work.clone()) != work {
                breaches.push(Breach { rule: Rule::SameId, got: format!("id {id} was another job before") });
            }
        }
        if let Some(key) = &job.idempotency_key
            && *self.keys.entry((job.tenant.clone(), key.clone())).or_insert(body) != body
        {
            let got = format!("key {key:?} of tenant {:?} had another body before", job.tenant);
            breaches.push(Breach { rule: Rule::SameKey, got });
        }
    }
}

/// Reads the job, or says which rule the value breaks.
fn read(record: &LogRecord) -> Result<Job, Breach> {
    let breach = |rule, got| Breach { rule, got };
    let Some(value) = &record.value else { return Err(breach(Rule::Value, "no value".to_owned())) };
    if value.len() > RECORD_BYTES_MAX {
        return Err(breach(Rule::Value, format!("{} bytes", value.len())));
    }
    if frame::is_frame(value) {
        let frame = frame::split(value.clone()).map_err(|error| breach(Rule::Body, error.to_string()))?;
        if (frame.kind, frame.version) != (JobHeadV1::KIND, JobHeadV1::VERSION) {
            let got = format!("a frame of kind {:#06x} version {}", frame.kind, frame.version);
            return Err(breach(Rule::Schema, got));
        }
    } else if let Err(error) = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(value) {
        return Err(breach(Rule::Body, format!("neither: {error}")));
    }
    decode_job(value).map_err(|error| {
        let of_shape = [ErrorCode::NotAJob, ErrorCode::UnknownTask].iter().any(|code| error.code == code.as_str());
        breach(if of_shape { Rule::Schema } else { Rule::Job }, format!("{}: {}", error.code, error.message))
    })
}

/// The id that the relay gives a record without one.
fn of_place(record: &LogRecord) -> JobId {
    JobId::of_record(&record.at.topic, record.at.partition, record.offset, record.timestamp_ms)
}

fn header_breaches(record: &LogRecord) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (name, value) in &record.headers {
        if name.starts_with(RELAY_HEADERS) {
            breaches.push(Breach { rule: Rule::Headers, got: format!("header {name}") });
        }
        if name == HEADER_TRACEPARENT {
            let parsed = std::str::from_utf8(value).map(Traceparent::parse);
            if !matches!(parsed, Ok(Ok(_))) {
                let got = format!("{:?}", String::from_utf8_lossy(value));
                breaches.push(Breach { rule: Rule::Trace, got });
            }
        }
    }
    breaches
}

#[cfg(test)]
#[path = "record_test.rs"]
mod tests;
