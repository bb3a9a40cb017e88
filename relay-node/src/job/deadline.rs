//! Waiting for a time of the wall clock, which may jump while one waits.

use std::time::Duration;

use relay_runtime::clock::Clock;

/// Longest time until a jump of the clock is noticed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Returns once `clock` shows `at_ms` (milliseconds since the Unix epoch) or later, within a second of it, however the clock is set
/// meanwhile.
pub async fn passed(clock: &dyn Clock, at_ms: u64) {
    loop {
        let left = at_ms.saturating_sub(clock.now_ms());
        if left == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(left).min(LOOK_EVERY)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use relay_runtime::clock::TestClock;
    use tokio::time::timeout;

    use super::*;

    const HOUR_MS: u64 = 3_600_000;
    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn a_clock_that_jumps_ahead_is_noticed_soon() {
        let clock = Arc::new(TestClock::at(1_000_000_000));
        let watched = clock.clone();
        let waiting = tokio::spawn(async move { passed(&*watched, 1_000_000_000 + HOUR_MS).await });
        tokio::task::yield_now().await;
        clock.advance(Duration::from_millis(HOUR_MS));
        timeout(PATIENCE, waiting).await.expect("long before the hour is over").unwrap();
    }

    #[tokio::test]
    async fn a_clock_that_is_set_back_makes_it_wait_for_its_time() {
        let clock = TestClock::at(1_000_000_000);
        let waits = passed(&clock, 1_000_000_300);
        tokio::pin!(waits);
        assert!(timeout(Duration::from_millis(50), &mut waits).await.is_err());
        clock.set(1_000_000_000 - HOUR_MS);
        assert!(timeout(Duration::from_millis(1_500), &mut waits).await.is_err(), "its time has not come");
        clock.set(1_000_000_300);
        timeout(PATIENCE, waits).await.expect("its time has come");
    }
}
