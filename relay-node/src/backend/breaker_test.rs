//! Ejection, its growth, and the slow way back.

use super::*;

const LIMITS: BreakerLimits =
    BreakerLimits { failures: 3, ejection_ms: 1_000, ejection_ms_max: 3_000, ejected_share_max: 0.5 };

fn fail(breaker: &mut Breaker, now_ms: u64) -> bool {
    breaker.failed(false, true, now_ms, &LIMITS)
}

/// One that was ejected at the begin.
fn ejected() -> Breaker {
    let mut breaker = Breaker::default();
    assert_eq!([0; 3].map(|now_ms| fail(&mut breaker, now_ms)), [false, false, true]);
    breaker
}

#[test]
fn failures_in_a_row_eject_and_a_success_between_them_does_not() {
    let mut breaker = Breaker::default();
    fail(&mut breaker, 0);
    fail(&mut breaker, 0);
    breaker.succeeded(8);
    assert_eq!([0; 3].map(|now_ms| fail(&mut breaker, now_ms)), [false, false, true]);
    assert_eq!((breaker.room(999), breaker.back_at(999)), (Some(0), Some(1_000)));
    assert_eq!((Breaker::default().room(0), Breaker::default().back_at(0)), (None, None));
}

#[test]
fn it_is_let_back_in_slowly_and_a_failure_meanwhile_ejects_it_for_longer() {
    let mut breaker = ejected();
    assert_eq!(breaker.room(1_000), Some(1), "one to see");
    assert!(fail(&mut breaker, 1_100));
    assert_eq!((breaker.back_at(1_100), breaker.room(3_099)), (Some(3_100), Some(0)), "twice as long");
    let rooms = [(); 3].map(|()| {
        breaker.succeeded(8);
        breaker.room(3_200)
    });
    assert_eq!(rooms, [Some(2), Some(4), None]);
    assert!(!breaker.is_doubted());
    for _ in 0..3 {
        fail(&mut breaker, 4_000);
    }
    assert_eq!(breaker.back_at(4_000), Some(7_000), "at most ejection_ms_max");
}

#[test]
fn ejections_long_ago_are_forgotten_with_each_success() {
    let mut breaker = ejected();
    for _ in 0..6 {
        breaker.succeeded(8);
    }
    for _ in 0..3 {
        fail(&mut breaker, 3_000);
    }
    assert_eq!(breaker.back_at(3_000), Some(4_000));
}

#[test]
fn one_that_may_not_be_ejected_goes_on_or_stays_on_probation() {
    let mut breaker = Breaker::default();
    for _ in 0..9 {
        assert!(!breaker.failed(false, false, 0, &LIMITS));
    }
    assert_eq!(breaker.room(0), None);
    let mut doubted = ejected();
    doubted.succeeded(8);
    assert!(!doubted.failed(false, false, 2_000, &LIMITS));
    assert_eq!((doubted.room(2_000), doubted.back_at(2_000)), (Some(1), None));
    assert_eq!([1, 2, 3, 4, 9].map(|backends| LIMITS.ejected_max(backends)), [1, 1, 1, 2, 4]);
}

#[test]
fn a_backend_whose_slots_were_asked_back_stays_on_probation() {
    let mut breaker = ejected();
    breaker.succeeded(0);
    assert!(!breaker.is_doubted(), "two are as many as were ever shown to be well");
    let mut breaker = ejected();
    breaker.succeeded(8);
    assert!(breaker.is_doubted());
}

#[test]
fn one_stall_ejects() {
    assert!(Breaker::default().failed(true, true, 0, &LIMITS));
}
