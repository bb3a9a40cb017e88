//! When another attempt follows.

use std::time::Duration;

use proptest::prelude::*;

use super::retry::{Next, RetrySettings, next};

const SETTINGS: RetrySettings = RetrySettings { attempts_max: 3, delay_ms: 100, delay_ms_max: 5_000 };

#[test]
fn the_last_attempt_is_followed_by_none() {
    assert_eq!(next(&SETTINGS, 3, 3, None, None, 0, 0), Next::Exhausted);
    assert_eq!(next(&SETTINGS, 1, 1, None, None, 0, 0), Next::Exhausted);
}

#[test]
fn an_attempt_that_could_only_begin_at_the_deadline_is_not_waited_for() {
    assert_eq!(next(&SETTINGS, 1, 3, None, Some(1_050), 1_000, 0), Next::TooLate);
    assert_eq!(next(&SETTINGS, 1, 3, None, Some(1_051), 1_000, 0), Next::Retry(Duration::from_millis(50)));
}

#[test]
fn a_backend_that_names_a_time_is_given_it_within_the_cap() {
    let asked = |seconds| next(&SETTINGS, 1, 3, Some(Duration::from_secs(seconds)), None, 0, u64::MAX);
    assert_eq!(asked(2), Next::Retry(Duration::from_secs(2)));
    assert_eq!(asked(3_600), Next::Retry(Duration::from_secs(5)));
}

proptest! {
    #[test]
    fn waits_lie_between_half_the_delay_and_the_delay(attempt in 1_u32..40, random: u64) {
        let full = Duration::from_millis((100_u64 << (attempt - 1).min(20)).min(5_000));
        match next(&SETTINGS, attempt, 41, None, None, 0, random) {
            Next::Retry(wait) => prop_assert!(wait >= full / 2 && wait <= full, "{:?}", wait),
            other => prop_assert!(false, "{:?}", other),
        }
    }
}
