//! What follows a failed attempt: a wait and another attempt, here or later, or the end.

use std::time::Duration;

use relay_log::planted::{Bug, is_planted};
use relay_log::port::NewRecord;
use relay_protocol::record::AttemptFailure;
use relay_protocol::{ErrorCode, Event, EventKind, JobError};

use super::{RETRYING_N, Run, expired};
use crate::job::aside::{Aside, Side};
use crate::job::attempt::{After, Failure, Leaving};
use crate::job::attempts;
use crate::job::outcome::Outcome;
use crate::job::retry::{self, Next, Spent, UNCHARGED_MAX};

/// The shortest delay tier.
const FIRST_TIER: Side = 1;

impl Run<'_> {
    /// What is known of the job now that it waits at `side` until `due_ms`.
    pub(super) fn leaving(&self, side: Side, due_ms: u64) -> Leaving {
        let aside = Aside {
            attempts: self.attempt,
            failures: self.failures.clone(),
            last_partial_seq: self.last_partial_seq,
            ..Aside::untouched(self.job, due_ms)
        };
        Leaving { side, aside, told: None }
    }

    /// What follows a failed attempt: a wait and another, or the end.
    pub(super) fn after(&mut self, failure: Failure) -> After {
        let Failure { backend, error, retry_after, took, is_lost } = failure;
        let now_ms = self.context.clock.now_ms();
        self.failures.push(AttemptFailure {
            attempt: self.attempt,
            backend_ms: backend.as_ref().filter(|_| !is_lost).map(|_| took.as_millis() as u64),
            backend: backend.clone(),
            at: now_ms,
            error: error.clone(),
        });
        self.failed_backends.extend(backend.filter(|_| !is_lost));
        if !error.retryable {
            return After::End(Outcome::Failed(error));
        }
        let settings = &self.context.retry;
        let attempts_max = self.job.job.attempts_max.unwrap_or(settings.attempts_max);
        let attempts_max = attempts_max + u32::from(is_planted(Bug::OneRetryTooMany));
        let charged = self.attempt.saturating_sub(self.uncharged());
        if is_lost && charged < attempts_max {
            return self.at_once(now_ms, error);
        }
        let random = self.context.random.next_u64();
        let job = &self.job.job;
        let is_elsewhere = self.context.pool.can_run(job.task, job.model.as_deref(), &self.failed_backends);
        let backend_ms = self.failures.iter().filter_map(|failure| failure.backend_ms).sum();
        let spent = Spent { attempt: charged, attempts_max, backend_ms };
        match retry::next(settings, is_elsewhere, spent, retry_after, job.deadline, now_ms, random) {
            // The next attempt is another node's.
            Next::Retry(wait) if self.link.is_kept() => self.later(FIRST_TIER, now_ms + wait.as_millis() as u64, error),
            Next::Retry(wait) => {
                self.link.waits();
                After::Wait(wait, error)
            }
            Next::Tier(tier, due_ms) => self.later(tier, due_ms, error),
            Next::TooLate => After::End(Outcome::Expired(expired(self.job))),
            Next::TooCostly => {
                metrics::counter!("relay_retries_too_costly_total", "task" => job.task.name()).increment(1);
                let message = format!("failed attempts took backends {} s: {error}", backend_ms / 1_000);
                After::End(Outcome::DeadLettered(JobError::new(ErrorCode::AttemptsExhausted, message)))
            }
            Next::Exhausted => After::End(Outcome::DeadLettered(JobError::new(
                ErrorCode::AttemptsExhausted,
                format!("attempt {charged} of {attempts_max} failed: {error}"),
            ))),
        }
    }

    /// Attempts that were cut off with the lease of their slot: the job is not charged with them.
    fn uncharged(&self) -> u32 {
        let is_lost = |failure: &&AttemptFailure| failure.error.known_code() == Some(ErrorCode::AttemptLost);
        let lost = self.failures.iter().filter(is_lost).count();
        u32::try_from(lost).unwrap_or(u32::MAX).min(UNCHARGED_MAX)
    }

    /// After an attempt that was cut off: another, as soon as there is a slot.
    fn at_once(&self, now_ms: u64, error: JobError) -> After {
        metrics::counter!("relay_attempts_cut_off_total", "task" => self.job.job.task.name()).increment(1);
        if self.link.is_kept() {
            return self.later(FIRST_TIER, now_ms, error);
        }
        self.link.waits();
        After::Wait(Duration::ZERO, error)
    }

    fn later(&self, tier: Side, due_ms: u64, error: JobError) -> After {
        let told = Some(self.retrying(due_ms, error));
        After::Tier(Box::new(Leaving { told, ..self.leaving(tier, due_ms) }))
    }

    fn retrying(&self, retry_at_ms: u64, error: JobError) -> NewRecord {
        let now = self.context.clock.now_ms();
        let mut event = Event::new(self.job.job_id, self.attempt, RETRYING_N, EventKind::Retrying, now);
        event.error = Some(error);
        event.retry_at = Some(retry_at_ms);
        self.context.events.record(&self.job.job.tenant, &event)
    }

    pub(super) async fn wait(&self, wait: Duration, error: JobError) {
        let record = self.retrying(self.context.clock.now_ms() + wait.as_millis() as u64, error);
        let told = self.tell(vec![record], |records| self.context.log.append(records));
        let (told, ()) = tokio::join!(told, tokio::time::sleep(wait));
        if let Err(error) = told {
            tracing::warn!(%error, job_id = %self.job.job_id, "a retrying event was not written");
        }
    }

    /// A dead letter tells of every attempt: what earlier owners made is read from the job's events.
    pub(super) async fn recall_attempts(&mut self, outcome: &Outcome) {
        let is_letter = matches!(outcome, Outcome::DeadLettered(_)) && self.duplicate_of.is_none();
        if is_letter && self.job.attempts_before > 0 {
            let past = attempts::past(self.context, self.job).await;
            self.failures = attempts::whole(std::mem::take(&mut self.failures), &past);
        }
    }
}
