//! Whether and when a failed attempt is followed by another. Pure.

use std::time::Duration;

use serde::Deserialize;

/// How attempts are repeated.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetrySettings {
    /// Attempts of one job, the first included, unless the job itself says how many.
    pub attempts_max: u32,
    /// Wait before the second attempt, in milliseconds; doubles with each further one.
    pub delay_ms: u64,
    /// Longest wait, in milliseconds.
    pub delay_ms_max: u64,
}

/// What follows a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Another attempt after this wait.
    Retry(Duration),
    /// No more: the attempts are used up.
    Exhausted,
    /// No more: the deadline comes before the next attempt could begin.
    TooLate,
}

/// What follows failed attempt number `attempt` of at most `attempts_max`, at `now_ms`; `random` is 64 uniform bits.
///
/// The wait is at least half of the exponential delay, so that jobs that failed together do not come back together, and
/// at least `retry_after` where the backend asked for it.
pub fn next(
    settings: &RetrySettings,
    attempt: u32,
    attempts_max: u32,
    retry_after: Option<Duration>,
    deadline_ms: Option<u64>,
    now_ms: u64,
    random: u64,
) -> Next {
    if attempt >= attempts_max {
        return Next::Exhausted;
    }
    let (base, cap) = (Duration::from_millis(settings.delay_ms), Duration::from_millis(settings.delay_ms_max));
    let delay = relay_runtime::backoff::retry_delay(attempt, base, cap);
    let jittered = delay / 2 + relay_runtime::backoff::full_jitter(delay / 2, random);
    let wait = jittered.max(retry_after.unwrap_or_default().min(cap));
    let begins_ms = now_ms.saturating_add(wait.as_millis() as u64);
    if deadline_ms.is_some_and(|deadline| begins_ms >= deadline) { Next::TooLate } else { Next::Retry(wait) }
}
