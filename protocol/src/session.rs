//! Messages of a session about jobs: submit, watch, status, cancel, resume, upload and fetch.
//!
//! A request carries a number that the client chooses (from 1, rising); its answer, or the error, carries the same.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{JobId, UploadId};

/// Where a submitted job's input is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SubmitInputV1 {
    /// The payload of the submit.
    Inline,
    /// An upload of this session that was answered with [`UploadDoneV1`].
    Upload(u64),
    /// The node fetches it, if its allow-list has it.
    Url(String),
}

/// Submits a job; answered by [`AcceptedV1`] once the job is durable, then by its events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmitV1 {
    /// Number of the request.
    pub request: u64,
    /// Identity of the job, made by the client with the session's reply partition.
    pub job_id: JobId,
    /// Lane.
    pub lane: String,
    /// Task, by name.
    pub task: String,
    /// Model, by name; empty lets the relay choose.
    pub model: String,
    /// Parameters: the text of a JSON object.
    pub params: String,
    /// Where the input is.
    pub input: SubmitInputV1,
    /// Name of the input's file; empty if it has none.
    pub name: String,
    /// Media type of the input; empty if unknown.
    pub media_type: String,
    /// 0 batch, 1 normal, 2 interactive.
    pub priority: u8,
    /// Of the jobs of a tenant and lane with the same key one runs; the others end as it does.
    pub idempotency_key: Option<String>,
    /// Not started after this, and ended at it: milliseconds since the Unix epoch.
    pub deadline_ms: Option<u64>,
    /// Not started before this: milliseconds since the Unix epoch.
    pub not_before_ms: Option<u64>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// When it was sent, in microseconds since the Unix epoch by the client's clock.
    pub sent_at_us: u64,
    /// Whether the job's events follow.
    pub watch: bool,
}

/// The job is durable. The payload is its `accepted` event as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedV1 {
    /// Number of the request.
    pub request: u64,
    /// Identity of the job, as submitted.
    pub job_id: JobId,
    /// When it was accepted, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// An event of a watched job. The payload is the event as JSON ([`crate::Event`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventV1 {
    /// Which job.
    pub job_id: JobId,
    /// Number of the event, rising through the job.
    pub seq: u64,
    /// Whether it is the job's last.
    pub terminal: bool,
    /// When the node sent it, in microseconds since the Unix epoch by the node's clock.
    pub sent_at_us: u64,
}

/// Asks for the events of a job after `after_seq` (0: from the first).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchV1 {
    /// Number of the request.
    pub request: u64,
    /// Which job.
    pub job_id: JobId,
    /// The last event that the client has.
    pub after_seq: u64,
}

/// Ends a watch; not answered. The job goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnwatchV1 {
    /// Which job.
    pub job_id: JobId,
}

/// Asks for a job's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusV1 {
    /// Number of the request.
    pub request: u64,
    /// Which job.
    pub job_id: JobId,
}

/// A job's state. The payload is [`crate::event::JobStatus`] as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReplyV1 {
    /// Number of the request.
    pub request: u64,
    /// Which job.
    pub job_id: JobId,
}

/// Asks to cancel a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelV1 {
    /// Number of the request.
    pub request: u64,
    /// Which job.
    pub job_id: JobId,
    /// When it was sent, in microseconds since the Unix epoch by the client's clock.
    pub sent_at_us: u64,
}

/// What became of a request to cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CancelOutcomeV1 {
    /// It is durable; the job ends as cancelled unless its outcome is committed first.
    Requested,
    /// The job had ended before.
    AlreadyEnded,
}

/// Answers a cancel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelReplyV1 {
    /// Number of the request.
    pub request: u64,
    /// Which job.
    pub job_id: JobId,
    /// What became of it.
    pub outcome: CancelOutcomeV1,
}

/// Goes on with the jobs of an earlier connection, on any node. Its debug output hides the token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumeV1 {
    /// Number of the request.
    pub request: u64,
    /// From the earlier welcome.
    pub resume_token: String,
    /// Each unfinished job with the last event that the client has.
    pub jobs: Vec<(JobId, u64)>,
}

impl fmt::Debug for ResumeV1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResumeV1")
            .field("request", &self.request)
            .field("resume_token", &crate::hello::HIDDEN)
            .field("jobs", &self.jobs)
            .finish()
    }
}

/// The resumed jobs are watched again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumedV1 {
    /// Number of the request.
    pub request: u64,
    /// How many jobs are watched.
    pub jobs: u32,
}

/// What a watcher of a job has to know beside its events. The payload is the job's last known state
/// ([`crate::event::JobStatus`]) as JSON, or empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoticeV1 {
    /// Number of the watch or resume.
    pub request: u64,
    /// Which job.
    pub job_id: JobId,
    /// Stable code, see [`crate::ErrorCode`].
    pub code: String,
    /// A sentence that says what to do.
    pub message: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// When to try again at the earliest, in milliseconds.
    pub retry_after_ms: Option<u32>,
    /// Whether the job's events still follow; if not, the watch has ended.
    pub goes_on: bool,
}

/// Begins an upload that lives as long as its connection; answered by an [`UploadAckV1`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadBeginV1 {
    /// Number of the request; names the upload on this connection from now on.
    pub request: u64,
    /// Size, if known.
    pub bytes: Option<u64>,
    /// Name of the file; empty if it has none.
    pub name: String,
    /// Media type; empty if unknown.
    pub media_type: String,
}

/// Begins an upload that outlives its connection, or goes on with it on any node; answered by an [`UploadAckV1`] whose
/// `next` is the first byte that is not stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadBeginV2 {
    /// Number of the request; names the upload on this connection from now on.
    pub request: u64,
    /// Names the upload on every connection of the tenant; made by the client.
    pub upload_id: UploadId,
    /// Size, if known.
    pub bytes: Option<u64>,
    /// Name of the file; empty if it has none.
    pub name: String,
    /// Media type; empty if unknown.
    pub media_type: String,
}

/// A part of an upload; the payload is the bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadChunkV1 {
    /// Which upload.
    pub upload: u64,
    /// Place of the payload's first byte.
    pub offset: u64,
}

/// The node has everything up to `next`; the client may send up to `window` bytes beyond.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadAckV1 {
    /// Which upload.
    pub upload: u64,
    /// The byte that comes next.
    pub next: u64,
    /// Bytes that may be under way.
    pub window: u64,
}

/// All bytes were sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadEndV1 {
    /// Which upload.
    pub upload: u64,
    /// Size in all.
    pub bytes: u64,
    /// SHA-256 of all bytes.
    pub sha256: [u8; 32],
}

/// The upload is stored and its digest was right; a submit may name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadDoneV1 {
    /// Which upload.
    pub upload: u64,
}

/// Asks for the media that a completed job made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchV1 {
    /// Number of the request.
    pub request: u64,
    /// Which job.
    pub job_id: JobId,
    /// Where to begin, in bytes.
    pub offset: u64,
}

/// A part of fetched media; the payload is the bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchChunkV1 {
    /// Number of the request.
    pub request: u64,
    /// Place of the payload's first byte.
    pub offset: u64,
    /// Size in all.
    pub total: u64,
    /// Whether it is the last part.
    pub last: bool,
}
