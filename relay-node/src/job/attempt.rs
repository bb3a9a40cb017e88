//! What an attempt comes to, and what a job comes to that ran.

use std::time::Duration;

use relay_log::port::NewRecord;
use relay_protocol::{EventKind, JobError};
use tracing::Span;

use super::aside::{Aside, Side};
use super::outcome::{Ended, Outcome};

/// What becomes of a job that ran.
#[derive(Debug, Clone)]
pub enum Finish {
    /// It ended.
    Ended(Ended),
    /// It goes on later: it is set aside.
    SetAside(Leaving),
}

/// A job on its way to the parked topic or a delay tier.
#[derive(Debug, Clone)]
pub struct Leaving {
    /// Where to.
    pub side: Side,
    /// What became of it so far.
    pub aside: Aside,
    /// The `retrying` event, if an attempt failed.
    pub told: Option<NewRecord>,
}

/// The span of the attempt under way. One that is dropped before its end was abandoned: the job is another owner's now.
pub(super) struct AttemptSpan(pub(super) Span);

impl AttemptSpan {
    pub(super) fn failed(&self, error: &JobError) {
        self.0.record("error.code", error.code.as_str()).record("otel.status_code", "ERROR");
    }

    /// What became of the attempt, by the event that follows it.
    pub(super) fn end(&mut self, event: EventKind) {
        std::mem::replace(&mut self.0, Span::none()).record("outcome", event.name());
    }
}

impl Drop for AttemptSpan {
    fn drop(&mut self) {
        self.0.record("outcome", "abandoned");
    }
}

/// What follows a failed attempt.
pub(super) enum After {
    /// A wait, and another.
    Wait(Duration, JobError),
    /// Another, after a delay tier.
    Tier(Box<Leaving>),
    /// No other.
    End(Outcome),
}

/// Why an attempt did not succeed.
pub(super) enum Stopped {
    Failed(Failure),
    /// It did not begin: no backend can take it now.
    NoBackend,
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// A failed attempt.
pub(super) struct Failure {
    pub(super) backend: Option<String>,
    pub(super) error: JobError,
    pub(super) retry_after: Option<Duration>,
    /// How long the backend worked on it.
    pub(super) took: Duration,
    /// It was cut off with the lease of its slot: nobody's fault.
    pub(super) is_lost: bool,
}

impl Failure {
    pub(super) fn before_backend(error: JobError) -> Self {
        Self { backend: None, error, retry_after: None, took: Duration::ZERO, is_lost: false }
    }
}
