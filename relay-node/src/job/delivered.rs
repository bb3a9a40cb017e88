//! A job as it was delivered from its lane.

use relay_log::port::{LogRecord, RECORD_BYTES_MAX, TopicPartition};
use relay_protocol::event::{JobCard, Place};
use relay_protocol::limits::TRACEPARENT_BYTES_MAX;
use relay_protocol::record::{HEADER_GATEWAY, HEADER_TRACEPARENT, KeyHolder};
use relay_protocol::{ErrorCode, Job, JobError, JobId, Priority, Task, record, topics};

use super::aside::Aside;
use crate::intake::dedup::{Body, EndedJob, Scope};
use crate::intake::earlier::{Crashes, Verdict};
use crate::intake::room::Waiting;
use crate::intake::same::Identity;

/// Bytes that key and headers of a job's record may have: with what the relay adds it must be possible to write them again.
const BESIDE_BYTES_MAX: usize = 131_072;

/// A job, and where it lies.
#[derive(Debug, Clone)]
pub struct Delivered {
    /// Its id: the record's own, or one made from its place.
    pub job_id: JobId,
    /// What is to be done.
    pub job: Job,
    /// Where it lies in its lane.
    pub place: Place,
    /// The partition of the lane's job topic.
    pub at: TopicPartition,
    /// Epoch of the assignment that it came under.
    pub epoch: u64,
    /// Attempts that began before, under whichever owner.
    pub attempts_before: u32,
    /// Crashes of nodes that it was part of.
    pub crashes: Crashes,
    /// What follows from them.
    pub verdict: Verdict,
    /// What tells it apart from others.
    pub identity: Identity,
    /// Set if another job has its key.
    pub duplicate: Option<Duplicate>,
    /// When it was read, no backend could take it.
    pub is_stuck: bool,
    /// What became of it before it was set aside, if it was.
    pub aside: Option<Box<Aside>>,
    /// The record as it was read, for the dead-letter topic.
    pub record: LogRecord,
}

/// The job with the same idempotency key that came before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Duplicate {
    /// Its id.
    pub of: JobId,
    /// When it ended, in milliseconds since the Unix epoch; `None` if it has not, or does something else.
    pub ended_at_ms: Option<u64>,
}

impl Duplicate {
    /// Of a job that ended.
    pub fn of(ended: &EndedJob) -> Self {
        Self { of: ended.job_id, ended_at_ms: Some(ended.ended_at_ms) }
    }
}

/// What the receipt of a job from outside says.
#[derive(Debug, Clone)]
pub struct Receipt {
    /// Its id.
    pub job_id: JobId,
    /// Whose it is.
    pub tenant: String,
    /// Who submitted it.
    pub subject: String,
    /// What is to be done.
    pub task: Task,
    /// What its `accepted` event says of it.
    pub card: JobCard,
    /// Where it lies.
    pub place: Place,
    /// W3C trace context.
    pub traceparent: Option<String>,
}

/// A record that is not a job.
#[derive(Debug, Clone)]
pub struct NotAJob {
    /// The id that it says it has, or the one that its place gives it.
    pub job_id: JobId,
    /// Whose it says it is: who watches that id hears that it failed.
    pub tenant: Option<String>,
    /// Why.
    pub error: JobError,
    /// Where it lies.
    pub at: TopicPartition,
    /// The record as it was read.
    pub record: LogRecord,
}

impl Delivered {
    /// Reads a record of `lane`.
    ///
    /// # Errors
    /// [`NotAJob`] with the reason.
    pub fn read(lane: &str, record: LogRecord, epoch: u64) -> Result<Self, Box<NotAJob>> {
        let at = record.at.clone();
        let made = JobId::of_record(&at.topic, at.partition, record.offset, record.timestamp_ms);
        let decoded = match &record.value {
            Some(value) => fits(&record).and_then(|()| record::decode_job(value)),
            None => Err(JobError::new(ErrorCode::NotAJob, "the record has no value")),
        };
        match decoded {
            Ok(mut job) => {
                // Whatever the record says: a job beside the lane of its priority would be first among the wrong ones.
                job.priority = topics::base_lane(lane).1.unwrap_or(job.priority);
                job.traceparent = job.traceparent.or_else(|| traceparent_of(&record));
                let aside = Aside::read(&record.headers).map(Box::new);
                let (partition, accepted_at) = (at.partition, record.timestamp_ms);
                // Beside its lane it lies where it lay there first.
                let beside = aside.as_ref().filter(|_| topics::lane_of(&at.topic).is_none());
                let offset = beside.map_or(record.offset, |aside| aside.offset);
                let job_id = job.id.or(aside.as_ref().map(|aside| aside.id)).unwrap_or(made);
                Ok(Self {
                    job_id,
                    identity: identity(job_id, &job),
                    duplicate: None,
                    place: Place { lane: lane.to_owned(), partition, offset, accepted_at },
                    attempts_before: job.attempt.max(aside.as_ref().map_or(0, |aside| aside.attempts)),
                    job,
                    at,
                    epoch,
                    crashes: aside.as_ref().map(|aside| aside.crashes()).unwrap_or_default(),
                    verdict: Verdict::Ordinary,
                    aside,
                    is_stuck: false,
                    record,
                })
            }
            Err(error) => {
                let (id, tenant) = salvage(record.value.as_deref());
                Err(Box::new(NotAJob { job_id: id.unwrap_or(made), tenant, error, at, record }))
            }
        }
    }

    /// Whether the gateway that wrote the record appends the `accepted` event.
    pub fn has_gateway(&self) -> bool {
        self.record.header(HEADER_GATEWAY).is_some()
    }

    /// Attempts that earlier owners ended in order: the next one needs no `restarted` for their sake.
    pub fn attempts_told(&self) -> u32 {
        self.job.attempt.max(self.aside.as_ref().map_or(0, |aside| aside.attempts))
    }

    /// The key that it holds though it came back from where it was set aside, behind jobs with the same key that wait for it.
    pub fn key_holder(&self) -> Option<KeyHolder> {
        let idempotency_key = self.job.idempotency_key.as_ref().filter(|_| self.aside.is_some())?.clone();
        Some(KeyHolder {
            offset: self.place.offset,
            job_id: self.job_id,
            tenant: self.job.tenant.clone(),
            idempotency_key,
            body_sha256: hex::encode(self.job.body_sha256()),
        })
    }

    /// The receipt that its owner writes, if no gateway does.
    pub fn receipt(&self) -> Option<Box<Receipt>> {
        // One that was set aside has its receipt; else its `started` event stands for it.
        (!self.has_gateway() && self.aside.is_none()).then(|| {
            Box::new(Receipt {
                job_id: self.job_id,
                tenant: self.job.tenant.clone(),
                subject: self.job.subject.clone(),
                task: self.job.task,
                card: JobCard::of(&self.job),
                place: self.place.clone(),
                traceparent: self.job.traceparent.clone(),
            })
        })
    }
}

/// Whether a record can be written again: moved, set aside, or as dead letter. Brokers take larger ones.
fn fits(record: &LogRecord) -> Result<(), JobError> {
    let value = record.value.as_ref().map_or(0, bytes::Bytes::len);
    let headers: usize = record.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    let beside = record.key.as_ref().map_or(0, bytes::Bytes::len) + headers;
    let (what, bytes, limit) = match (value > RECORD_BYTES_MAX, beside > BESIDE_BYTES_MAX) {
        (true, _) => ("value", value, RECORD_BYTES_MAX),
        (_, true) => ("key and headers", beside, BESIDE_BYTES_MAX),
        _ => return Ok(()),
    };
    let message =
        format!("the record's {what} has {bytes} bytes, at most {limit} are taken: upload the media and name it");
    Err(JobError::new(ErrorCode::TooLarge, message))
}

fn identity(job_id: JobId, job: &Job) -> Identity {
    let by_key = |key: &String| (Scope::of_key(&job.tenant, key), Body::new(&job.body_sha256()));
    Identity {
        job_id,
        by_id: Scope::of_id(&job.tenant, job_id),
        by_key: job.idempotency_key.as_ref().map(by_key),
        redrive_of: job.redrive_of,
    }
}

/// The trace context that a producer's instrumentation puts beside the record.
fn traceparent_of(record: &LogRecord) -> Option<String> {
    let value = record.header(HEADER_TRACEPARENT).filter(|value| value.len() <= TRACEPARENT_BYTES_MAX)?;
    std::str::from_utf8(value).ok().map(str::to_owned)
}

/// Id and tenant of a JSON record that is no job but says whose it is.
fn salvage(value: Option<&[u8]>) -> (Option<JobId>, Option<String>) {
    #[derive(serde::Deserialize)]
    struct Said {
        id: Option<JobId>,
        tenant: Option<String>,
    }
    let said = value.and_then(|value| serde_json::from_slice::<Said>(value).ok());
    match said {
        Some(Said { id, tenant }) => {
            let tenant = tenant.unwrap_or_else(|| relay_protocol::job::DEFAULT_TENANT.to_owned());
            (id, Some(tenant).filter(|tenant| relay_protocol::limits::is_name(tenant)))
        }
        None => (None, None),
    }
}

impl Waiting for Delivered {
    fn job_id(&self) -> JobId {
        self.job_id
    }

    fn priority(&self) -> Priority {
        self.job.priority
    }

    fn not_before_ms(&self) -> Option<u64> {
        self.job.not_before
    }

    fn deadline_ms(&self) -> Option<u64> {
        self.job.deadline
    }

    fn partition(&self) -> u32 {
        self.at.partition
    }

    fn tenant(&self) -> &str {
        &self.job.tenant
    }

    fn model(&self) -> Option<&str> {
        self.job.model.as_deref()
    }

    fn is_suspect(&self) -> bool {
        self.verdict == Verdict::Suspect
    }
}
