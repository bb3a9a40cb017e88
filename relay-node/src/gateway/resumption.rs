//! What a watcher is told of a past that is not simply there: the job has ended for it, is unknown, or is older than retention. For
//! sessions and server-sent events alike.

use relay_protocol::event::{JobStatus, TERMINAL_N, seq};
use relay_protocol::{ErrorCode, Event, EventKind, JobError, JobId};
use serde::Deserialize;

use crate::cluster::link::CoordinatorLink;
use crate::events::catch_up::{CatchUpError, RETRY_AFTER};
use crate::events::feed::Reached;
use crate::gateway::submit::log_error;
use crate::state::NodeState;

/// Age below which a job's receipt may still be on its way to the log, in milliseconds.
pub const RECEIPT_DELAY_MAX_MS: u64 = 5_000;
/// How long the receipt of such a job is waited for, in milliseconds.
const RECEIPT_WAIT_MS: u64 = 1_600;
/// Seq of a job's receipt.
const ACCEPTED_SEQ: u64 = 1;

/// Something that a watcher has to know beside its events.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    /// What it is.
    pub error: JobError,
    /// When to try again at the earliest, in milliseconds.
    pub retry_after_ms: Option<u32>,
    /// Whether the job's events still follow.
    pub goes_on: bool,
    /// The last known state.
    pub status: Option<Box<JobStatus>>,
}

impl Notice {
    fn new(code: ErrorCode, message: String, goes_on: bool) -> Self {
        Self { error: JobError::new(code, message), retry_after_ms: None, goes_on, status: None }
    }

    /// Why a watch did not begin.
    pub fn not_begun(error: CatchUpError) -> Self {
        let busy = error == CatchUpError::Full;
        let retry_after_ms = busy.then_some(RETRY_AFTER.as_millis() as u32);
        Self { error: catch_up_error(error), retry_after_ms, goes_on: false, status: None }
    }

    /// The job had no event, where that must not be.
    fn unknown(job_id: JobId, goes_on: bool) -> Self {
        let mut notice = Self::new(ErrorCode::UnknownJob, format!("there is no job {job_id}"), goes_on);
        if goes_on {
            let message = format!("no event of job {job_id} is there yet: if it was accepted, they follow");
            notice.error = JobError::new(ErrorCode::UnknownJob, message).with_retryable(true);
        }
        notice
    }
}

/// The error of a past that was not read.
pub fn catch_up_error(error: CatchUpError) -> JobError {
    match error {
        CatchUpError::Full => JobError::new(ErrorCode::TooManyRequests, format!("{error}: try again later")),
        CatchUpError::Log(error) => log_error(error),
    }
}

/// What is told before what is left of the past; `Err` if it has to be found out by [`of_nothing`].
///
/// # Errors
/// The job has no event: whether some were deleted.
pub fn of(reached: Reached, job_id: JobId) -> Result<Option<Notice>, bool> {
    Ok(match reached {
        Reached::Whole => None,
        Reached::Part => {
            let message = "earlier events are older than the retention and gone: what is left follows";
            Some(Notice::new(ErrorCode::ResumeExpired, message.to_owned(), true))
        }
        Reached::Ended(end) => {
            let message = format!("job {job_id} has ended with that event: nothing follows");
            let mut notice = Notice::new(ErrorCode::AlreadyEnded, message, false);
            notice.status = serde_json::from_slice(&end.json).ok().map(|event| Box::new(JobStatus::of(event)));
            Some(notice)
        }
        Reached::Nothing { deleted } => return Err(deleted),
    })
}

/// How long to wait before a job without any event is given up, in milliseconds: its receipt may be on its way.
pub fn receipt_wait_ms(job_id: JobId, now_ms: u64) -> u64 {
    let is_new = job_id.made_at_ms().is_some_and(|made| now_ms < made + RECEIPT_DELAY_MAX_MS);
    if is_new { RECEIPT_WAIT_MS } else { 0 }
}

/// What is told of a job without any event. `resumes`: the client says that it has the events up to `after_seq`.
pub async fn of_nothing(
    node: &NodeState,
    tenant: &str,
    job_id: JobId,
    (after_seq, resumes): (u64, bool),
    deleted: bool,
) -> Notice {
    if !deleted {
        // The receipt is shown when the job is durable, and written beside: it may be lost, the job is not.
        return Notice::unknown(job_id, resumes && after_seq == ACCEPTED_SEQ);
    }
    let known = match &node.coordinator {
        Some(link) => of_view(link, tenant, job_id).await,
        None => None,
    };
    let Some(known) = known else {
        if after_seq == 0 {
            return Notice::unknown(job_id, false);
        }
        let message = "the job's events are older than the retention, and nobody knows its state any more";
        return Notice::new(ErrorCode::ResumeExpired, message.to_owned(), false);
    };
    let ended = known.last.event.is_terminal();
    let message = if ended {
        format!("the job's events are older than the retention: it is known that it ended as {}", known.state)
    } else {
        format!("the job's events so far are older than the retention: it is {}, what comes follows", known.state)
    };
    Notice { status: Some(Box::new(known)), ..Notice::new(ErrorCode::ResumeExpired, message, !ended) }
}

/// What the coordinator's view shows of a job.
#[derive(Deserialize)]
struct Shown {
    state: String,
    #[serde(with = "relay_protocol::time::rfc3339")]
    updated_at: u64,
    attempt: u32,
    node: Option<String>,
    backend: Option<String>,
    error: Option<JobError>,
    redrive_of: Option<JobId>,
    duplicate_of: Option<JobId>,
}

async fn of_view(link: &CoordinatorLink, tenant: &str, job_id: JobId) -> Option<JobStatus> {
    let query: String = url::form_urlencoded::Serializer::new(String::new()).append_pair("tenant", tenant).finish();
    let answer = link.get(&format!("/v1/jobs/{job_id}?{query}")).await;
    let answer = answer.inspect_err(|error| tracing::warn!(%error, %job_id, "the job view does not answer")).ok()?;
    let shown: Shown = (answer.status == 200).then(|| serde_json::from_slice(&answer.body).ok()).flatten()?;
    Some(status_of(job_id, shown))
}

/// The state that the view shows, as far as it goes: it keeps no results.
fn status_of(job_id: JobId, shown: Shown) -> JobStatus {
    let kind = match shown.state.as_str() {
        "queued" => EventKind::Accepted,
        state => EventKind::from_name(state).unwrap_or(EventKind::Started),
    };
    let n = if kind.is_terminal() { TERMINAL_N } else { 1 };
    let mut last = Event::new(job_id, shown.attempt, n, kind, shown.updated_at);
    debug_assert_eq!(last.seq, seq(shown.attempt, n));
    (last.node, last.backend, last.error) = (shown.node, shown.backend, shown.error);
    (last.redrive_of, last.duplicate_of) = (shown.redrive_of, shown.duplicate_of);
    JobStatus { job_id, state: shown.state, last }
}

#[cfg(test)]
#[path = "resumption_test.rs"]
mod tests;
