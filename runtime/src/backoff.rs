//! How long to wait before trying again: pure, the caller brings the attempt and the randomness.

use std::time::Duration;

/// Time to wait before retry `attempt` (the first retry is 1; 0 counts as 1), before jitter.
///
/// Doubles from `base` and stops at `cap`: `min(cap, base * 2^(attempt - 1))`. Callers draw the real wait with
/// [`full_jitter`], so that nodes which failed together do not come back together ("Exponential Backoff And Jitter",
/// AWS Architecture Blog, 2015).
pub fn retry_delay(attempt: u32, base: Duration, cap: Duration) -> Duration {
    let doublings = attempt.saturating_sub(1).min(31);
    base.saturating_mul(1 << doublings).min(cap)
}

/// A uniform draw from zero to `delay`, both included; `random` is 64 uniform bits.
pub fn full_jitter(delay: Duration, random: u64) -> Duration {
    // delay * (random / 2^64), in nanoseconds; a delay beyond u64 nanoseconds (584 years) is cut.
    let nanos = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
    let drawn = ((u128::from(nanos) + 1) * u128::from(random)) >> 64;
    Duration::from_nanos(u64::try_from(drawn).unwrap_or(u64::MAX))
}
