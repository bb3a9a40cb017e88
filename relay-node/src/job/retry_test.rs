//! When another attempt follows.

use std::time::Duration;

use proptest::prelude::*;

use super::retry::{Next, RetrySettings, Spent, Tiers, next};

const SETTINGS: RetrySettings = RetrySettings {
    attempts_max: 3,
    backend_s_max: 60,
    elsewhere_ms: 1_000,
    delay_ms: 100,
    delay_ms_max: 5_000,
    tiers_ms: TIERS_MS,
};
const TIERS_MS: [u64; 5] = [10_000, 20_000, 30_000, 40_000, 50_000];

fn spent(attempt: u32, attempts_max: u32) -> Spent {
    Spent { attempt, attempts_max, backend_ms: 0 }
}

#[test]
fn a_job_that_took_backends_too_long_is_not_tried_again() {
    let after = |backend_ms| next(&SETTINGS, true, Spent { backend_ms, ..spent(1, 3) }, None, None, 0, 0);
    assert_eq!(after(60_000), Next::TooCostly);
    assert_eq!(after(59_999), Next::Retry(Duration::from_millis(50)));
}

#[test]
fn the_last_attempt_is_followed_by_none() {
    assert_eq!(next(&SETTINGS, false, spent(3, 3), None, None, 0, 0), Next::Exhausted);
    assert_eq!(next(&SETTINGS, false, spent(1, 1), None, None, 0, 0), Next::Exhausted);
}

#[test]
fn an_attempt_that_could_only_begin_at_the_deadline_is_not_waited_for() {
    assert_eq!(next(&SETTINGS, false, spent(1, 3), None, Some(1_050), 1_000, 0), Next::TooLate);
    assert_eq!(
        next(&SETTINGS, false, spent(1, 3), None, Some(1_051), 1_000, 0),
        Next::Retry(Duration::from_millis(50))
    );
}

#[test]
fn a_backend_that_names_a_time_is_given_it_within_the_cap() {
    let asked = |seconds| next(&SETTINGS, false, spent(1, 3), Some(Duration::from_secs(seconds)), None, 0, u64::MAX);
    assert_eq!(asked(2), Next::Retry(Duration::from_secs(2)));
    assert_eq!(asked(3_600), Next::Retry(Duration::from_secs(5)));
}

proptest! {
    #[test]
    fn waits_lie_between_half_the_delay_and_the_delay(attempt in 1_u32..40, random: u64) {
        let full = Duration::from_millis((100_u64 << (attempt - 1).min(20)).min(5_000));
        match next(&SETTINGS, false, spent(attempt, 41), None, None, 0, random) {
            Next::Retry(wait) => prop_assert!(wait >= full / 2 && wait <= full, "{:?}", wait),
            other => prop_assert!(false, "{:?}", other),
        }
    }
}

const IN_TIERS: RetrySettings = RetrySettings {
    attempts_max: 9,
    backend_s_max: 60,
    elsewhere_ms: 1_000,
    delay_ms: 1_000,
    delay_ms_max: 3_600_000,
    tiers_ms: [1_000, 10_000, 60_000, 600_000, 3_600_000],
};

#[test]
fn failed_attempts_pass_longer_and_longer_tiers() {
    let tier = |attempt| match next(&IN_TIERS, false, spent(attempt, 99), None, None, 0, 0) {
        Next::Tier(tier, due_ms) => (tier, due_ms),
        other => panic!("{other:?}"),
    };
    let passed: Vec<_> = [1, 2, 5, 7, 11, 40].map(tier).into();
    assert_eq!(
        passed,
        [(1, 1_000), (2, 10_000), (3, 60_000), (4, 600_000), (5, 3_600_000), (5, 3_600_000)],
        "the first tier that is not shorter than the delay"
    );
}

#[test]
fn another_backend_is_tried_before_any_tier() {
    let wait = |is_elsewhere, retry_after| next(&IN_TIERS, is_elsewhere, spent(3, 9), retry_after, None, 0, 0);
    assert_eq!(wait(true, None), Next::Retry(Duration::from_millis(500)), "shorter than the first tier");
    assert_eq!(wait(false, None), Next::Tier(2, 10_000));
    assert_eq!(
        wait(true, Some(Duration::from_secs(60))),
        Next::Retry(Duration::from_millis(500)),
        "another did not ask for it"
    );
    assert_eq!(wait(false, Some(Duration::from_secs(60))), Next::Tier(3, 60_000));
}

#[test]
fn a_tier_beyond_the_deadline_is_not_used() {
    let next = |deadline| next(&IN_TIERS, false, spent(2, 9), None, Some(deadline), 0, 0);
    assert_eq!(next(10_000), Next::TooLate);
    assert_eq!(next(10_001), Next::Tier(2, 10_000));
}

proptest! {
    #[test]
    fn jobs_leave_a_tier_after_its_time_and_at_most_a_quarter_later(attempt in 1_u32..40, asked_s in 0_u64..4_000, random: u64) {
        match next(&IN_TIERS, false, spent(attempt, 41), Some(Duration::from_secs(asked_s)), None, 7, random) {
            Next::Tier(tier, due_ms) => {
                let least = IN_TIERS.tiers_ms[tier - 1].max((asked_s * 1_000).min(IN_TIERS.delay_ms_max));
                prop_assert!((7 + least..=7 + least + least / 4).contains(&due_ms), "{} {} {}", tier, least, due_ms);
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn the_tier_of_a_wait_is_the_longest_within_it(wait_ms in 0_u64..9_000_000) {
        let within = IN_TIERS.tiers_ms.iter().rposition(|tier| *tier <= wait_ms).map(|index| index + 1);
        prop_assert_eq!(Tiers::new(IN_TIERS.tiers_ms).within(wait_ms), within);
    }
}
