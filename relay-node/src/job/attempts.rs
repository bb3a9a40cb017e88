//! Every attempt of a job, also those that other owners made: what its events tell of them.

use std::collections::BTreeMap;
use std::time::Duration;

use relay_protocol::record::AttemptFailure;
use relay_protocol::{ErrorCode, Event, EventKind, JobError};

use super::delivered::Delivered;
use super::run::RunContext;

/// Wait before the log is asked again.
const READ_RETRY: Duration = Duration::from_millis(200);
/// Attempts that a dead letter tells of; the newest win.
pub const ATTEMPTS_TOLD_MAX: usize = 64;

/// `own` failures, and those before them as `past` (a job's durable events, in any order) tells of them. An attempt that
/// began and of whose end nothing is known was lost with its node.
pub fn whole(own: Vec<AttemptFailure>, past: &[Event]) -> Vec<AttemptFailure> {
    let mut all = BTreeMap::new();
    for event in past {
        if event.event == EventKind::Started {
            all.entry(event.attempt).or_insert_with(|| lost(event));
        }
    }
    for event in past {
        if let (EventKind::Retrying, Some(error)) = (event.event, &event.error) {
            let backend = all.get(&event.attempt).and_then(|attempt: &AttemptFailure| attempt.backend.clone());
            let failure = AttemptFailure {
                attempt: event.attempt,
                backend,
                at: event.at,
                error: error.clone(),
                backend_ms: None,
            };
            all.insert(event.attempt, failure);
        }
    }
    all.extend(own.into_iter().map(|failure| (failure.attempt, failure)));
    let skipped = all.len().saturating_sub(ATTEMPTS_TOLD_MAX);
    all.into_values().skip(skipped).collect()
}

/// The job's durable events so far. Waits while the log cannot be read.
pub async fn past(context: &RunContext, job: &Delivered) -> Vec<Event> {
    loop {
        match context.hub.past(job.job_id, &job.job.tenant).await {
            Ok(past) => return past.iter().filter_map(|event| serde_json::from_slice(&event.json).ok()).collect(),
            Err(error) => tracing::warn!(%error, job_id = %job.job_id, "attempts cannot be read, trying again"),
        }
        tokio::time::sleep(READ_RETRY).await;
    }
}

fn lost(started: &Event) -> AttemptFailure {
    let node = started.node.as_deref().unwrap_or("its node");
    let message = format!("{node} died or lost the job before the attempt ended");
    AttemptFailure {
        attempt: started.attempt,
        backend: started.backend.clone(),
        at: started.at,
        error: JobError::new(ErrorCode::AttemptLost, message),
        backend_ms: None,
    }
}

#[cfg(test)]
mod tests {
    use relay_protocol::JobId;

    use super::*;

    fn event(attempt: u32, n: u32, kind: EventKind) -> Event {
        let mut event = Event::new(JobId::new(1, 2, 3), attempt, n, kind, u64::from(attempt) * 10 + u64::from(n));
        if kind == EventKind::Started {
            event.backend = Some(format!("backend-{attempt}"));
            event.node = Some("node-1".to_owned());
        }
        event
    }

    fn failure(attempt: u32) -> AttemptFailure {
        let error = JobError::new(ErrorCode::BackendFailed, "no answer");
        AttemptFailure { attempt, backend: Some("mine".to_owned()), at: 99, error, backend_ms: None }
    }

    #[test]
    fn attempts_of_other_owners_are_told_with_backend_time_and_error() {
        let mut retrying = event(1, 3, EventKind::Retrying);
        retrying.error = Some(JobError::new(ErrorCode::BackendBusy, "no slot"));
        let past = [event(0, 1, EventKind::Accepted), event(1, 1, EventKind::Started), retrying]
            .into_iter()
            .chain([event(2, 1, EventKind::Started), event(3, 1, EventKind::Started)]);
        let told = whole(vec![failure(3)], &past.collect::<Vec<_>>());
        let seen: Vec<_> = told.iter().map(|one| (one.attempt, one.backend.as_deref().unwrap(), one.at)).collect();
        assert_eq!(seen, [(1, "backend-1", 13), (2, "backend-2", 21), (3, "mine", 99)]);
        let codes: Vec<_> = told.iter().map(|one| one.error.code.as_str()).collect();
        assert_eq!(codes, ["backend_busy", "attempt_lost", "backend_failed"]);
    }

    #[test]
    fn the_newest_attempts_win() {
        let past: Vec<_> = (1..=100).map(|attempt| event(attempt, 1, EventKind::Started)).collect();
        let told = whole(vec![failure(101)], &past);
        assert_eq!((told.len(), told[0].attempt, told[63].attempt), (ATTEMPTS_TOLD_MAX, 38, 101));
    }
}
