//! Whether and when a failed attempt is followed by another. Pure.

use std::time::Duration;

use relay_protocol::topics::RETRY_TIERS;
use serde::Deserialize;

/// Attempts of a job or call that were cut off because the lease of their slot was over, and that it is not charged with; further ones
/// count as failed.
pub const UNCHARGED_MAX: u32 = 16;

/// How attempts are repeated.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetrySettings {
    /// Attempts of one job, the first included, unless the job itself says how many.
    pub attempts_max: u32,
    /// Seconds that backends may spend on the failed attempts of one job; after that it is not tried again. Attempts that were lost with
    /// their node are not counted.
    pub backend_s_max: u64,
    /// Wait before the second attempt, in milliseconds; doubles with each further one.
    pub delay_ms: u64,
    /// Longest wait, in milliseconds.
    pub delay_ms_max: u64,
    /// How long a job waits for a slot of a backend that has not failed it, before one that has may get it again, in milliseconds.
    pub elsewhere_ms: u64,
    /// How long jobs wait in each delay tier, in milliseconds, rising: waits as long as the first one or longer are spent in the log.
    pub tiers_ms: [u64; RETRY_TIERS as usize],
}

/// Delay tiers by how long jobs wait in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiers([u64; RETRY_TIERS as usize]);

impl Tiers {
    /// Tiers of so many milliseconds each, rising.
    pub const fn new(waits_ms: [u64; RETRY_TIERS as usize]) -> Self {
        Self(waits_ms)
    }

    /// Whether the first is not 0 and each is longer than the one before.
    pub fn are_in_order(&self) -> bool {
        self.0[0] > 0 && self.0.is_sorted_by(|shorter, longer| shorter < longer)
    }

    /// The longest tier, from 1, that is over within a wait; `None` for a wait so short that it needs none.
    pub fn within(&self, wait_ms: u64) -> Option<usize> {
        Some(self.0.partition_point(|tier| *tier <= wait_ms)).filter(|tier| *tier > 0)
    }

    /// The tier of a failed attempt that wants to wait so long: the shortest that is not shorter, else the longest; with its
    /// wait. `None` for a wait shorter than the first.
    pub fn at_least(&self, wait_ms: u64) -> Option<(usize, u64)> {
        let shorter = self.0.partition_point(|tier| *tier < wait_ms).min(self.0.len() - 1);
        (wait_ms >= self.0[0]).then_some((shorter + 1, self.0[shorter]))
    }
}

/// What follows a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Another attempt after this wait.
    Retry(Duration),
    /// Another attempt after a delay tier, from 1, at this time in milliseconds since the Unix epoch.
    Tier(usize, u64),
    /// No more: the attempts are used up.
    Exhausted,
    /// No more: backends spent too long on it.
    TooCostly,
    /// No more: the deadline comes before the next attempt could begin.
    TooLate,
}

/// What a job has used of what it may.
#[derive(Debug, Clone, Copy)]
pub struct Spent {
    /// Number of the attempt that failed, from 1.
    pub attempt: u32,
    /// Attempts that the job may have.
    pub attempts_max: u32,
    /// How long backends worked on its failed attempts, in milliseconds.
    pub backend_ms: u64,
}

/// What follows a failed attempt at `now_ms`; `random` is 64 uniform bits.
///
/// Where another backend can do the job, and where the exponential delay is shorter than the first tier, the wait is at least half of the exponential delay, so that jobs that failed together do not come back together, and
/// at least `retry_after` where the backend asked for it. Longer waits are a tier's, up to a quarter longer.
pub fn next(
    settings: &RetrySettings,
    is_elsewhere: bool,
    spent: Spent,
    retry_after: Option<Duration>,
    deadline_ms: Option<u64>,
    now_ms: u64,
    random: u64,
) -> Next {
    if spent.attempt >= spent.attempts_max {
        return Next::Exhausted;
    }
    if spent.backend_ms >= settings.backend_s_max.saturating_mul(1_000) {
        return Next::TooCostly;
    }
    let (base, cap) = (Duration::from_millis(settings.delay_ms), Duration::from_millis(settings.delay_ms_max));
    let delay = relay_runtime::backoff::retry_delay(spent.attempt, base, cap);
    // What one backend asks for does not bind another.
    let asked = retry_after.filter(|_| !is_elsewhere).unwrap_or_default().min(cap);
    let tiers = Tiers(settings.tiers_ms);
    let nominal_ms = if is_elsewhere { 0 } else { delay.max(asked).as_millis() as u64 };
    let (next, begins_ms) = match tiers.at_least(nominal_ms) {
        Some((tier, wait_ms)) => {
            let wait = Duration::from_millis(wait_ms.max(asked.as_millis() as u64));
            let jitter = relay_runtime::backoff::full_jitter(wait / 4, random);
            let due_ms = now_ms.saturating_add((wait + jitter).as_millis() as u64);
            (Next::Tier(tier, due_ms), due_ms)
        }
        None => {
            let delay = delay.min(Duration::from_millis(settings.tiers_ms[0]));
            let jittered = delay / 2 + relay_runtime::backoff::full_jitter(delay / 2, random);
            let wait = jittered.max(asked);
            (Next::Retry(wait), now_ms.saturating_add(wait.as_millis() as u64))
        }
    };
    if deadline_ms.is_some_and(|deadline| begins_ms >= deadline) { Next::TooLate } else { next }
}
