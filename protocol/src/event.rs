//! What happened to a job, as JSON on every way out: topic, SSE, session, CLI.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error_code::ErrorCode;
use crate::id::JobId;
use crate::job::{Hop, Job, Priority};
use crate::limits::ERROR_MESSAGE_BYTES_MAX;
use crate::task::Task;
use crate::time::{rfc3339, rfc3339_option};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The job is durable.
    Accepted,
    /// An attempt began.
    Started,
    /// How far the attempt is.
    Progress,
    /// A piece of the result, revocable until the job completed.
    Partial,
    /// A new attempt began after pieces of an earlier one were sent: forget those.
    Restarted,
    /// The attempt failed; another follows.
    Retrying,
    /// Done; holds the result.
    Completed,
    /// It cannot be done.
    Failed,
    /// It was cancelled.
    Cancelled,
    /// It was not done before its deadline.
    Expired,
    /// All attempts failed; the job lies in the dead-letter topic.
    DeadLettered,
}

impl EventKind {
    /// Whether it is the last event of a job.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled | Self::Expired | Self::DeadLettered)
    }

    /// Its name, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Started => "started",
            Self::Progress => "progress",
            Self::Partial => "partial",
            Self::Restarted => "restarted",
            Self::Retrying => "retrying",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::DeadLettered => "dead_lettered",
        }
    }

    /// The kind with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [
            Self::Accepted,
            Self::Started,
            Self::Progress,
            Self::Partial,
            Self::Restarted,
            Self::Retrying,
            Self::Completed,
            Self::Failed,
            Self::Cancelled,
            Self::Expired,
            Self::DeadLettered,
        ]
        .into_iter()
        .find(|kind| kind.name() == name)
    }
}

/// One event of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// Which job.
    pub job_id: JobId,
    /// Number, rising through the whole job: attempt × 2^32 + n.
    pub seq: u64,
    /// The attempt that it belongs to; 0 before the first.
    pub attempt: u32,
    /// What happened.
    pub event: EventKind,
    /// When, by the clock of the node that says so.
    #[serde(with = "rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub at: u64,
    /// `accepted`, `started` and the terminal event of a job that never started: where the job lies in its lane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// With `place`: what the job is, for whoever lists jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Box<JobCard>>,
    /// `started`: who works on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// `started`: the node that runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// `progress`: from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fraction: Option<f32>,
    /// `progress`: when the attempt is done if it goes on as fast as so far. Only where `fraction` is measured against a known
    /// amount of work (the media's size or duration), and not before there is something to go by.
    #[serde(default, with = "rfc3339_option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub eta: Option<u64>,
    /// `partial`: the piece; its shape depends on the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial: Option<Value>,
    /// `retrying`: when the next attempt begins at the earliest.
    #[serde(default, with = "rfc3339_option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub retry_at: Option<u64>,
    /// `completed`: the result, or where it lies; its shape depends on the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// `retrying` and the terminal events but `completed`: what went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<JobError>,
    /// Terminal events: the job with the same idempotency key whose end this one repeats; this one did not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicate_of: Option<JobId>,
    /// Terminal events: the dead-lettered job that this one repeated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redrive_of: Option<JobId>,
    /// Terminal events: seq of the last `partial` or `progress` of the attempt, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_partial_seq: Option<u64>,
    /// Terminal events: where the job was when.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hops: Vec<Hop>,
    /// W3C trace context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// What a job is, without its input and parameters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct JobCard {
    /// Who submitted it.
    pub subject: String,
    /// What to do.
    pub task: Task,
    /// Model, if the job names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Order among waiting jobs.
    pub priority: Priority,
    /// Not started after this, and ended at it.
    #[serde(default, with = "rfc3339_option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub deadline: Option<u64>,
    /// Not started before this.
    #[serde(default, with = "rfc3339_option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub not_before: Option<u64>,
    /// The dead-lettered job that this one repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redrive_of: Option<JobId>,
}

impl JobCard {
    /// The card of `job`.
    pub fn of(job: &Job) -> Self {
        Self {
            subject: job.subject.clone(),
            task: job.task,
            model: job.model.clone(),
            priority: job.priority,
            deadline: job.deadline,
            not_before: job.not_before,
            redrive_of: job.redrive_of,
        }
    }
}

/// Where a job lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Place {
    /// Lane.
    pub lane: String,
    /// Partition of the lane's topics.
    pub partition: u32,
    /// Offset in the lane's job topic.
    pub offset: u64,
    /// When the log took it.
    #[serde(with = "rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub accepted_at: u64,
}

/// What went wrong: the same shape in events, HTTP bodies and on the CLI.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{code}: {message}")]
pub struct JobError {
    /// Stable code, see [`ErrorCode`].
    pub code: String,
    /// A sentence that says what to do.
    pub message: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
}

impl JobError {
    /// An error with `code`'s own retryability; an overlong message is cut.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > ERROR_MESSAGE_BYTES_MAX {
            let cut = (0..=ERROR_MESSAGE_BYTES_MAX).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
            message.truncate(cut);
        }
        Self { code: code.as_str().to_owned(), message, retryable: code.retryable() }
    }

    /// The same with another retryability.
    #[must_use]
    pub fn with_retryable(mut self, retryable: bool) -> Self {
        self.retryable = retryable;
        self
    }

    /// Its stable code, if this build knows it.
    pub fn known_code(&self) -> Option<ErrorCode> {
        ErrorCode::ALL.iter().copied().find(|code| code.as_str() == self.code)
    }
}

/// Largest number of events in one attempt.
pub const EVENTS_PER_ATTEMPT: u64 = 1 << 32;

/// The number of the `n`-th event of an attempt: attempt × 2^32 + n. Stays below 2^53 for attempts up to 2^20.
pub const fn seq(attempt: u32, n: u32) -> u64 {
    attempt as u64 * EVENTS_PER_ATTEMPT + n as u64
}

/// The `n` of every terminal event: the highest of its attempt, so that it follows whatever partials there were.
pub const TERMINAL_N: u32 = u32::MAX;

/// Whether an event is news to whoever was told of the events of its job up to `last_seq`; 0 is of none.
///
/// Seqs rise, but an end is news whatever its number is, once: a node that was taken for dead may have told of a later attempt
/// than the one that ended the job.
pub const fn is_news(seq: u64, is_terminal: bool, last_seq: u64) -> bool {
    if is_terminal { seq != last_seq } else { seq > last_seq }
}

impl Event {
    /// An event with nothing but its identity; the caller adds what its kind has.
    pub fn new(job_id: JobId, attempt: u32, n: u32, event: EventKind, at_ms: u64) -> Self {
        Self {
            job_id,
            seq: seq(attempt, n),
            attempt,
            event,
            at: at_ms,
            place: None,
            job: None,
            backend: None,
            node: None,
            fraction: None,
            eta: None,
            partial: None,
            retry_at: None,
            result: None,
            error: None,
            duplicate_of: None,
            redrive_of: None,
            last_partial_seq: None,
            hops: Vec::new(),
            traceparent: None,
        }
    }

    /// The receipt of a job: the same for the same place, whoever makes it.
    pub fn accepted(job_id: JobId, place: Place, traceparent: Option<String>) -> Self {
        let at = place.accepted_at;
        Self { place: Some(place), traceparent, ..Self::new(job_id, 0, 1, EventKind::Accepted, at) }
    }

    /// The same with what the job is.
    #[must_use]
    pub fn about(self, card: JobCard) -> Self {
        Self { job: Some(Box::new(card)), ..self }
    }
}

/// Answer to "what of this job?".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobStatus {
    /// Which job.
    pub job_id: JobId,
    /// `queued`, `running`, or the name of its terminal event.
    pub state: String,
    /// The newest event that decides the state.
    pub last: Event,
}

impl JobStatus {
    /// The state that `last` (not a `partial` or `progress` alone, but any event will do) tells of.
    pub fn of(last: Event) -> Self {
        let state = match last.event {
            EventKind::Accepted => "queued",
            kind if kind.is_terminal() => kind.name(),
            _ => "running",
        };
        Self { job_id: last.job_id, state: state.to_owned(), last }
    }
}
