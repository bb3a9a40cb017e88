//! Records in topics: how a job is read from and written to one, and the shapes of the others.

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error_code::ErrorCode;
use crate::event::{EventKind, JobError, Place};
use crate::frame::{self, DecodeError};
use crate::hand_over::{KeptEnd, KeptJobs};
use crate::id::JobId;
use crate::identity::hex;
use crate::job::{Hop, InlineMedia, Input, InputHeadV1, Job, JobHeadV1, Priority, StoredObject};
use crate::limits::is_sha256;
use crate::message::Message;
use crate::task::{Task, UnknownTask};
use crate::time::rfc3339;

/// Header of an event's record: the tenant, so that routing needs no parsing of the value.
pub const HEADER_TENANT: &str = "relay-tenant";
/// Header of an event's record: decimal seq.
pub const HEADER_SEQ: &str = "relay-seq";
/// Header of an event's record: name of the kind.
pub const HEADER_EVENT: &str = "relay-event";
/// Header of a job's record: the gateway that wrote it will append the `accepted` event itself.
pub const HEADER_GATEWAY: &str = "relay-gateway";
/// Header of a job's record that its producer had placed in another partition than its key's: `topic/partition/offset` of
/// the original. Such a record is not moved again.
pub const HEADER_MOVED: &str = "relay-moved";
/// How the headers begin that the relay gives to records.
pub const HEADER_OURS: &str = "relay-";
/// Header of a job's record in the parked topic or a delay tier, and in its lane after that: JSON that says what became of it so far.
pub const HEADER_ASIDE: &str = "relay-aside";
/// Header of a record of the parked topic or a delay tier that is no job: the offset of the job that has left the partition.
pub const HEADER_TAKEN: &str = "relay-taken";
/// Header of any record: W3C trace context.
pub const HEADER_TRACEPARENT: &str = "traceparent";

/// Writes `job` as the value of a record: a frame whose payload is the inline input.
///
/// # Errors
/// [`DecodeError::TooLarge`] if it does not fit a frame; a job that passed [`Job::check`] does.
pub fn encode_job(job: &Job) -> Result<Bytes, DecodeError> {
    let (input, payload) = match &job.input {
        Input::Inline(media) => (InputHeadV1::Inline(media.name.clone(), media.media_type.clone()), media.data.clone()),
        Input::Text(text) => (InputHeadV1::Text, Bytes::copy_from_slice(text.as_bytes())),
        Input::Object(object) => (object_head(object)?, Bytes::new()),
        Input::Url(url) => (InputHeadV1::Url(url.clone()), Bytes::new()),
    };
    let head = JobHeadV1 {
        id: job.id,
        tenant: job.tenant.clone(),
        subject: job.subject.clone(),
        task: job.task.name().to_owned(),
        model: job.model.clone(),
        params: params_text(&job.params),
        input,
        priority: job.priority.to_wire(),
        idempotency_key: job.idempotency_key.clone(),
        deadline_ms: job.deadline,
        not_before_ms: job.not_before,
        attempts_max: job.attempts_max,
        attempt: job.attempt,
        traceparent: job.traceparent.clone(),
        hops: job.hops.iter().map(|hop| (hop.hop.clone(), hop.at_us)).collect(),
        redrive_of: job.redrive_of,
    };
    frame::encode(&head, &payload)
}

/// Reads the value of a record in a lane, JSON or frame, and checks it.
///
/// # Errors
/// [`ErrorCode::NotAJob`] if it is neither, else the first broken rule of [`Job::check`].
pub fn decode_job(value: &Bytes) -> Result<Job, JobError> {
    let job = if frame::is_frame(value) { decode_frame(value)? } else { decode_json(value)? };
    job.check()?;
    Ok(job)
}

fn decode_json(value: &[u8]) -> Result<Job, JobError> {
    serde_json::from_slice(value).map_err(|error| match serde_json::from_slice::<TaskOnly>(value) {
        Ok(TaskOnly { task: Value::String(task) }) if task.parse::<Task>().is_err() => unknown_task(task),
        _ => not_a_job(format!("the record is not a job: {error}")),
    })
}

/// Enough of a record to tell an unknown task from a broken one.
#[derive(Deserialize)]
struct TaskOnly {
    task: Value,
}

fn decode_frame(value: &Bytes) -> Result<Job, JobError> {
    let frame = frame::split(value.clone()).map_err(|error| not_a_job(error.to_string()))?;
    let head: JobHeadV1 = frame.head().map_err(|error| not_a_job(error.to_string()))?;
    if !frame.payload.is_empty() && matches!(head.input, InputHeadV1::Object(..) | InputHeadV1::Url(_)) {
        return Err(not_a_job("the record has a payload, but its input lies elsewhere".to_owned()));
    }
    let input = match head.input {
        InputHeadV1::Inline(name, media_type) => Input::Inline(InlineMedia { data: frame.payload, name, media_type }),
        InputHeadV1::Text => Input::Text(
            String::from_utf8(frame.payload.to_vec())
                .map_err(|_| not_a_job("the text input is not UTF-8".to_owned()))?,
        ),
        InputHeadV1::Object(path, bytes, sha256, name, media_type) => {
            Input::Object(StoredObject { path, bytes, sha256: hex(&sha256), name, media_type })
        }
        InputHeadV1::Url(url) => Input::Url(url),
    };
    Ok(Job {
        id: head.id,
        tenant: head.tenant,
        subject: head.subject,
        task: head.task.parse().map_err(|_| unknown_task(head.task))?,
        model: head.model,
        params: parse_params(&head.params)?,
        input,
        priority: Priority::from_wire(head.priority)
            .ok_or_else(|| not_a_job(format!("there is no priority {}", head.priority)))?,
        idempotency_key: head.idempotency_key,
        deadline: head.deadline_ms,
        not_before: head.not_before_ms,
        attempts_max: head.attempts_max,
        attempt: head.attempt,
        traceparent: head.traceparent,
        hops: head.hops.into_iter().map(|(hop, at_us)| Hop { hop, at_us }).collect(),
        redrive_of: head.redrive_of,
    })
}

/// Reads the text of a JSON object of parameters; empty text is no parameters.
///
/// # Errors
/// [`ErrorCode::InvalidParameter`] if it is not a JSON object.
pub fn parse_params(text: &str) -> Result<Map<String, Value>, JobError> {
    if text.is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_str(text).map_err(|error| {
        JobError::new(ErrorCode::InvalidParameter, format!("the parameters are not a JSON object: {error}"))
    })
}

fn params_text(params: &Map<String, Value>) -> String {
    if params.is_empty() { String::new() } else { Value::Object(params.clone()).to_string() }
}

fn object_head(object: &StoredObject) -> Result<InputHeadV1, DecodeError> {
    let sha256 = unhex(&object.sha256).ok_or_else(|| DecodeError::Malformed {
        kind: JobHeadV1::KIND,
        version: JobHeadV1::VERSION,
        reason: "sha256 is not 64 hex digits in lower case".to_owned(),
    })?;
    Ok(InputHeadV1::Object(object.path.clone(), object.bytes, sha256, object.name.clone(), object.media_type.clone()))
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    if !is_sha256(text) {
        return None; // from_str_radix alone would take "+f"
    }
    let mut out = [0; 32];
    for (index, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(out)
}

fn unknown_task(name: String) -> JobError {
    JobError::new(ErrorCode::UnknownTask, UnknownTask { name }.to_string())
}

fn not_a_job(message: String) -> JobError {
    JobError::new(ErrorCode::NotAJob, message)
}

/// A record of a lane's control topic: what the next owner of the same-numbered partition must know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ControlRecord {
    /// Somebody asks to cancel a job; the record's key is the job id.
    Cancel(CancelRequest),
    /// A node is about to call backends for these jobs.
    Started(StartedJobs),
    /// A node that gave the partition up goes on running these jobs; the record's key is the node's name.
    Kept(KeptJobs),
    /// A kept job's attempt has ended: its owner commits that; the record's key is the node's name.
    KeptEnd(Box<KeptEnd>),
    /// A node does not run these jobs any more and lives: no end will be told, and that they began there is no crash; the record's
    /// key is the node's name.
    GivenUp(KeptJobs),
}

/// A request to cancel a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CancelRequest {
    /// Which job.
    pub job_id: JobId,
    /// Whose job; a request for a job of another tenant is ignored.
    pub tenant: String,
    /// Who asks.
    pub subject: String,
    /// When.
    #[serde(with = "rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub at: u64,
}

/// Attempts that begin: a new owner numbers the attempts of what it redoes from here, and counts crashes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StartedJobs {
    /// The node that begins.
    pub node: String,
    /// Its life.
    pub incarnation: u64,
    /// Which jobs.
    pub jobs: Vec<StartedJob>,
    /// Those of them that were set aside before and have an idempotency key: they lie behind jobs with the same key, which wait for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<KeyHolder>,
}

/// A job that holds an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyHolder {
    /// The job's offset in the partition of its lane.
    pub offset: u64,
    /// Which job.
    pub job_id: JobId,
    /// Whose.
    pub tenant: String,
    /// The key.
    pub idempotency_key: String,
    /// [`Job::body_sha256`] in lower-case hex.
    pub body_sha256: String,
}

/// One attempt that begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StartedJob {
    /// The job's offset in the partition of its lane.
    pub offset: u64,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// A node died that ran the job, and now it is the only such job that runs on its node: if that dies too, it is the job's doing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub alone: bool,
}

/// A record of a lane's dedup topic: a job of the same-numbered partition that ended, written in the transaction that ended
/// it. The record's key is that of a job's record ([`crate::partition::job_key`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DedupEntry {
    /// The job.
    pub job_id: JobId,
    /// Whose.
    pub tenant: String,
    /// The key that stands for this job until `expires_at`; without one it is its id alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// With `idempotency_key`: [`Job::body_sha256`] in lower-case hex; the key with another body is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_sha256: Option<String>,
    /// Where it lies in its lane.
    pub place: Place,
    /// How it ended; its terminal event in [`crate::topics::EVENTS`] holds the result.
    pub outcome: EventKind,
    /// Number of its terminal event.
    pub seq: u64,
    /// When it ended: also the time of the terminal event and of its record.
    #[serde(with = "rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub ended_at: u64,
    /// The job whose end it repeated, if it did not run because of that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicate_of: Option<JobId>,
    /// From then on the same key or id is new work.
    #[serde(with = "rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub expires_at: u64,
}

/// A record of the cluster topic: a member of a group that commits under a transactional id. The record's key is
/// [`MemberRegistration::key`]; a tombstone under it says that this life of the member has nothing open any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemberRegistration {
    /// The group.
    pub group: String,
    /// Name of the member in its group: that of its node.
    pub client_id: String,
    /// Whoever makes a producer of this id ends what the member has open.
    pub transactional_id: String,
    /// Its life, in milliseconds since the Unix epoch, or more if two would be the same. Of several with one transactional
    /// id, the one that lies last in the topic holds it.
    pub incarnation: u64,
}

impl MemberRegistration {
    /// Key of its record.
    pub fn key(&self) -> String {
        format!("{MEMBER_KEY}{}/{}", self.transactional_id, self.incarnation)
    }

    /// True for the keys of such records: the topic holds others too.
    pub fn is_key(key: &[u8]) -> bool {
        key.starts_with(MEMBER_KEY.as_bytes())
    }
}

/// How the keys of members begin in the cluster topic.
const MEMBER_KEY: &str = "member/";

/// A record of the election topic. Its key is [`ELECTION_KEY`]; one partition, read by all in one order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ElectionRecord {
    /// A coordinator wants to lead. It does from here on if `next` is this record's own offset: then nobody wrote since it
    /// read. The offset is the incarnation of its leadership.
    Claim {
        /// One life of a coordinator.
        candidate: String,
        /// Where nodes reach it, if it says so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        url: Option<String>,
        /// Number of the record among its writer's, rising.
        number: u64,
        /// The offset that the next record had when it was written.
        next: u64,
    },
    /// The leadership of this incarnation goes on; without a meaning if a later claim counts.
    Beat {
        /// One life of a coordinator.
        candidate: String,
        /// Where nodes reach it, if it says so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        url: Option<String>,
        /// Number of the record among its writer's, rising.
        number: u64,
        /// Offset of its claim.
        incarnation: u64,
    },
    /// The leadership of this incarnation is given up: others need not wait for silence.
    Resign {
        /// Offset of its claim.
        incarnation: u64,
    },
}

/// Key of all records of the election topic: compaction keeps the newest.
pub const ELECTION_KEY: &str = "leader";

/// A record of the cluster topic: a backend that gets no requests until someone says otherwise. The record's key is
/// [`BackendDrain::key_of`]; a tombstone under it says that the backend gets requests again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BackendDrain {
    /// URL of the backend, as it is listed.
    pub backend: String,
    /// Who asked for it.
    pub subject: String,
    /// When.
    #[serde(with = "rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub at: u64,
}

impl BackendDrain {
    /// Key of the record about `backend`.
    pub fn key_of(backend: &str) -> String {
        format!("{DRAIN_KEY}{backend}")
    }

    /// The backend that the record with this key is about; `None` for other records of the topic.
    pub fn backend_of(key: &[u8]) -> Option<&str> {
        std::str::from_utf8(key).ok()?.strip_prefix(DRAIN_KEY)
    }
}

/// How the keys of drained backends begin in the cluster topic.
const DRAIN_KEY: &str = "drain/";

/// Header of a dead letter: why, as [`JobError`] in JSON. The record's value and key are the original's, and so are the
/// headers that do not begin with [`HEADER_OURS`]. A record of the topic with [`crate::dead_letter::HEADER_MARK`] is no
/// letter.
pub const HEADER_DEAD_ERROR: &str = "relay-error";
/// Header of a dead letter: `topic/partition/offset` of the original.
pub const HEADER_DEAD_ORIGIN: &str = "relay-origin";
/// Header of a dead letter: the job's id, if it had or got one.
pub const HEADER_JOB_ID: &str = "relay-job-id";
/// Header of a dead letter: every attempt, as JSON list of [`AttemptFailure`].
pub const HEADER_DEAD_ATTEMPTS: &str = "relay-attempts";

/// Header of a dead letter: how many of the original's own headers did not fit.
pub const HEADER_DEAD_HEADERS_LOST: &str = "relay-headers-lost";

/// Header of a dead letter: bytes of the original's value, which was too large to be written again.
pub const HEADER_DEAD_VALUE_LOST: &str = "relay-value-lost";
/// Header of a dead letter: bytes of the original's key, which was too large to be written again.
pub const HEADER_DEAD_KEY_LOST: &str = "relay-key-lost";

/// How one attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AttemptFailure {
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// Who worked on it.
    pub backend: Option<String>,
    /// When it ended.
    #[serde(with = "rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub at: u64,
    /// Why it failed.
    pub error: JobError,
    /// How long the backend worked on it, in milliseconds, where its own node tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_ms: Option<u64>,
}

/// One entry of the audit trail; a record of the audit topic is a JSON list of them, all from one writer, in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AuditEntry {
    /// When, by the writer's clock.
    #[serde(with = "rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub at: u64,
    /// What: `job.accepted`, `job.attempt`, `job.cancel_requested`, `job.handed_over`, `job.outcome`, `letter.redriven`, `letter.dropped`, `denied`, `session.opened`, `session.resumed`, `session.moved`, `session.closed`, `node.joined`, `node.left`, `backend.drained`, `backend.resumed`.
    pub action: String,
    /// Name of the writer.
    pub node: String,
    /// Whose.
    pub tenant: String,
    /// Who.
    pub subject: String,
    /// Which job, if about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
    /// Which session, if about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<crate::id::SessionId>,
    /// W3C trace id (32 hex digits), if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// Details of the action.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub detail: Map<String, Value>,
}
