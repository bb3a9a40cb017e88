//! The end of a job that is another one's duplicate: the same, read from that one's terminal event.

use std::time::Duration;

use relay_protocol::{ErrorCode, Event, EventKind, JobError, JobId};

use super::delivered::Duplicate;
use super::outcome::Outcome;
use super::run::RunContext;

/// Wait before the log is asked again.
const READ_RETRY: Duration = Duration::from_millis(200);

/// How `first` ended; `None` if its terminal event is gone, in which case the work must be done once more.
pub async fn outcome_of(context: &RunContext, tenant: &str, first: &Duplicate) -> Option<Outcome> {
    let event = loop {
        match context.hub.end_of(first.of, tenant, first.ended_at_ms?).await {
            Ok(event) => break event,
            Err(error) => tracing::warn!(%error, job_id = %first.of, "the end of a job cannot be read, trying again"),
        }
        tokio::time::sleep(READ_RETRY).await;
    };
    let outcome = event.and_then(|event| serde_json::from_slice(&event.json).ok()).and_then(outcome);
    if outcome.is_none() {
        metrics::counter!("relay_dedup_results_gone_total").increment(1);
        tracing::warn!(job_id = %first.of, "the end of a job is gone within the dedup window; its duplicate runs");
    }
    outcome
}

/// The error of a key that stands for the job `first`, which does something else.
pub fn key_reused(first: JobId) -> JobError {
    let message =
        format!("the idempotency key is that of job {first}, which has another task, model, parameters or input");
    JobError::new(ErrorCode::IdempotencyKeyReused, message)
}

/// What a terminal event says; `None` if it is none, or lacks what it should say.
pub(super) fn outcome(event: Event) -> Option<Outcome> {
    let error = event.error;
    Some(match event.event {
        EventKind::Completed => Outcome::Completed(event.result?),
        EventKind::Failed => Outcome::Failed(error?),
        EventKind::Cancelled => Outcome::Cancelled(error?),
        EventKind::Expired => Outcome::Expired(error?),
        EventKind::DeadLettered => Outcome::DeadLettered(error?),
        _ => return None,
    })
}
