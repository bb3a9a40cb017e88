//! The time and the random numbers of this process.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Microseconds since the Unix epoch; 0 if the clock stands before it.
pub(crate) fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    now_us() / 1_000
}

/// Random bits; all but two of the 64 are random.
pub(crate) fn random_u64() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().1
}

/// A uniform draw from half of `delay` to `delay`, so that clients which lost a node together do not come back together.
pub(crate) fn jittered(delay: Duration) -> Duration {
    const STEPS: u32 = 1_024;
    let step = (random_u64() % u64::from(STEPS)) as u32;
    delay / 2 + delay / 2 * step / STEPS
}
