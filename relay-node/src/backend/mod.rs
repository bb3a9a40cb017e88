//! What can do a job's work: the port, and its two kinds (LocalAI servers, the signal processing built in).

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use relay_protocol::{ErrorCode, JobError, JobId, Task};
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use self::forward::Forward;
use crate::job::media::Media;

pub mod breaker;
pub mod builtin;
pub mod cost;
pub mod forward;
pub mod in_process;
pub mod lately;
pub mod lent;
pub mod localai;
pub mod pool;
pub mod size;
pub mod slots;

/// One request to a backend.
#[derive(Debug, Clone)]
pub struct Call {
    /// Which job.
    pub job_id: JobId,
    /// What to do.
    pub task: Task,
    /// With which model; `None` lets the backend choose.
    pub model: Option<String>,
    /// The task's parameters, checked against [`Task::params`].
    pub params: Map<String, Value>,
    /// What to do it with.
    pub media: Media,
    /// W3C trace context to pass on.
    pub traceparent: Option<String>,
}

/// What a backend says while it works.
#[derive(Debug, Clone, PartialEq)]
pub enum Update {
    /// How far it is, from 0 to 1.
    Progress(f32),
    /// A piece of the result.
    Partial(Value),
}

/// Where a backend puts its updates; waits while the reader is behind.
pub type Updates = mpsc::Sender<Update>;

/// A finished job's result.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// The result as it goes into the terminal event.
    pub result: Value,
    /// Media that was made, to be stored and named in the result as `media`.
    pub media: Option<OutputMedia>,
}

/// Media that a job made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputMedia {
    /// Media type.
    pub media_type: String,
    /// Name of a file for it.
    pub name: String,
    /// The bytes.
    pub bytes: Bytes,
}

/// Why a backend did not do a job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// It refused this job and every backend will. Fail it: no retry.
    #[error("{reason}")]
    Rejected {
        /// Stable code.
        code: ErrorCode,
        /// What the backend said, and what to do.
        reason: String,
    },
    /// It has no room now. Try another backend, this one after `retry_after`.
    #[error("the backend is busy: {reason}")]
    Busy {
        /// What the backend said.
        reason: String,
        /// When it may have room again.
        retry_after: Option<Duration>,
    },
    /// It failed, died or broke off; inference has no side effects: retry, elsewhere first.
    #[error("the backend failed: {0}")]
    Failed(String),
    /// No connection, or no answer in time; retry elsewhere.
    #[error("the backend is unreachable: {0}")]
    Unreachable(String),
    /// The request was cut off: its slot was lent, and the lease is over. Says nothing about the backend or the request.
    #[error("the node was cut off from the coordinators, and others may use the backend's slot now")]
    LeaseOver,
}

impl BackendError {
    /// The error as clients see it.
    pub fn to_job_error(&self) -> JobError {
        let code = match self {
            Self::Rejected { code, .. } => *code,
            Self::Busy { .. } => ErrorCode::BackendBusy,
            Self::Failed(_) | Self::Unreachable(_) => ErrorCode::BackendFailed,
            Self::LeaseOver => ErrorCode::AttemptLost,
        };
        JobError::new(code, self.to_string())
    }

    /// How long it asks to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether another attempt may succeed.
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::Rejected { .. })
    }
}

/// Does jobs' work. Dropping the future of a call ends its request.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Its name in events and metrics: a URL, or `builtin`.
    fn name(&self) -> &str;

    /// Whether its progress with `task` is the share of a known amount of work that is done, so that the time left follows
    /// from it.
    fn measures(&self, task: Task) -> bool {
        let _ = task;
        false
    }

    /// Does one job's work.
    ///
    /// # Errors
    /// See [`BackendError`]; each variant says what the caller should do.
    async fn call(&self, call: Call, updates: Updates) -> Result<Output, BackendError>;

    /// Passes a request of its own HTTP API on, and returns its answer, whatever that says.
    ///
    /// # Errors
    /// There is no answer; [`BackendError::Rejected`] from what has no such API.
    async fn forward(&self, forward: Forward) -> Result<reqwest::Response, BackendError> {
        let reason = format!("{} has no HTTP API with a path {}", self.name(), forward.path);
        Err(BackendError::Rejected { code: ErrorCode::BackendRejected, reason })
    }
}

/// Reads a text parameter.
pub fn text<'a>(params: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    params.get(name).and_then(Value::as_str)
}
