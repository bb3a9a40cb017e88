//! Ejection, its growth, and the slow way back.

use super::*;

const LIMITS: BreakerLimits =
    BreakerLimits { failures: 3, ejection_ms: 1_000, ejection_ms_max: 3_000, ejected_share_max: 0.5 };
const BADLY: Ended = Ended::Badly { after_ms: 1 };
const WELL: Ended = Ended::Well { worked_ms: None };

fn ended(breaker: &mut Breaker, how: Ended, now_ms: u64) -> bool {
    breaker.ended(how, 8, true, now_ms, &LIMITS)
}

#[test]
fn failures_in_a_row_eject_and_a_success_between_them_does_not() {
    let mut breaker = Breaker::default();
    let ejected: Vec<_> =
        [BADLY, BADLY, WELL, BADLY, Ended::Unknown, BADLY, BADLY].map(|how| ended(&mut breaker, how, 0)).to_vec();
    assert_eq!(ejected, [false, false, false, false, false, false, true]);
    assert_eq!((breaker.room(8, 999), breaker.back_at(999)), (0, Some(1_000)));
    assert!(!ended(&mut breaker, BADLY, 500), "what was under way fails too, and counts no more");
    assert_eq!(breaker.back_at(999), Some(1_000));
}

#[test]
fn it_is_let_back_in_slowly_and_a_failure_meanwhile_ejects_it_for_longer() {
    let mut breaker = Breaker::default();
    for _ in 0..3 {
        ended(&mut breaker, BADLY, 0);
    }
    assert_eq!(breaker.room(8, 1_000), 1, "one to see");
    assert!(ended(&mut breaker, BADLY, 1_100));
    assert_eq!((breaker.back_at(1_100), breaker.room(8, 3_099)), (Some(3_100), 0), "twice as long");
    ended(&mut breaker, WELL, 3_200);
    let mut rooms = vec![breaker.room(8, 3_200)];
    for _ in 0..2 {
        ended(&mut breaker, WELL, 3_300);
        rooms.push(breaker.room(8, 3_300));
    }
    assert_eq!(rooms, [2, 4, 8]);
    assert!(!breaker.is_doubted());
    for _ in 0..3 {
        ended(&mut breaker, BADLY, 4_000);
    }
    assert_eq!(breaker.back_at(4_000), Some(7_000), "at most ejection_ms_max");
}

#[test]
fn ejections_long_ago_are_forgotten_with_each_success() {
    let mut breaker = Breaker::default();
    for _ in 0..3 {
        ended(&mut breaker, BADLY, 0);
    }
    for _ in 0..6 {
        ended(&mut breaker, WELL, 2_000);
    }
    for _ in 0..3 {
        ended(&mut breaker, BADLY, 3_000);
    }
    assert_eq!(breaker.back_at(3_000), Some(4_000));
}

#[test]
fn one_that_may_not_be_ejected_goes_on_until_it_may() {
    let mut breaker = Breaker::default();
    for _ in 0..9 {
        assert!(!breaker.ended(BADLY, 8, false, 0, &LIMITS));
    }
    assert_eq!(breaker.room(8, 0), 8);
    assert!(ended(&mut breaker, BADLY, 1));
    assert_eq!([1, 2, 3, 4, 9].map(|backends| LIMITS.ejected_max(backends)), [1, 1, 1, 2, 4]);
}

#[test]
fn a_backend_that_asks_for_a_rest_gets_it_and_is_not_doubted() {
    let mut breaker = Breaker::default();
    ended(&mut breaker, Ended::Busy { rest_ms: 5_000 }, 1_000);
    ended(&mut breaker, WELL, 1_100);
    assert_eq!((breaker.room(8, 5_999), breaker.back_at(1_000)), (0, Some(6_000)));
    assert_eq!((breaker.room(8, 6_000), breaker.is_doubted()), (8, false));
}
