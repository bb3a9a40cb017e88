//! Each priority gets its share, none starves, and none saves up turns.

use proptest::prelude::*;
use relay_protocol::Priority;

use super::fair::{PRIORITIES, Turns, WEIGHT_MAX, Weights};

/// The next turn while `waiting` says who waits, in the order of [`PRIORITIES`].
fn next(turns: &mut Turns, waiting: [bool; 3]) -> Option<Priority> {
    let waits = |one: &Priority| PRIORITIES.iter().zip(waiting).any(|(other, waits)| other == one && waits);
    let next = turns.order().into_iter().find(waits)?;
    turns.took(next);
    Some(next)
}

#[test]
fn while_all_wait_turns_go_by_weight() {
    let mut turns = Turns::new(Weights { interactive: 16, normal: 4, batch: 1 });
    let given: Vec<_> = (0..2_100).filter_map(|_| next(&mut turns, [true; 3])).collect();
    let of = |one: Priority| given.iter().filter(|other| **other == one).count();
    let counts = PRIORITIES.map(of);
    for (count, share) in counts.into_iter().zip([1_600, 400, 100]) {
        assert!(count.abs_diff(share) <= 1, "{counts:?}");
    }
}

#[test]
fn the_higher_priority_goes_first() {
    let mut turns = Turns::default();
    let first: Vec<_> = (0..3).filter_map(|_| next(&mut turns, [true; 3])).collect();
    assert_eq!(first, PRIORITIES);
}

#[test]
fn who_did_not_wait_saves_up_no_turns() {
    let mut turns = Turns::new(Weights { interactive: 1, normal: 1, batch: 1 });
    for _ in 0..1_000 {
        next(&mut turns, [false, false, true]);
    }
    let after: Vec<_> = (0..20).filter_map(|_| next(&mut turns, [true, false, true])).collect();
    let batch = after.iter().filter(|one| **one == Priority::Batch).count();
    assert!((9..=11).contains(&batch), "{after:?}");
}

fn weights() -> impl Strategy<Value = Weights> {
    let weight = || prop_oneof![1..=20_u32, 1..=WEIGHT_MAX];
    (weight(), weight(), weight()).prop_map(|(interactive, normal, batch)| Weights { interactive, normal, batch })
}

proptest! {
    #[test]
    fn nobody_who_waits_is_passed_over_more_often_than_the_bound(
        weights in weights(),
        waiting in prop::collection::vec(any::<[bool; 3]>(), 1..3_000),
        always in 0..3_usize,
    ) {
        let mut turns = Turns::new(weights);
        let patient = PRIORITIES[always];
        let mut passed_over = 0;
        for mut waiting in waiting {
            waiting[always] = true;
            let next = next(&mut turns, waiting).unwrap();
            passed_over = if next == patient { 0 } else { passed_over + 1 };
            prop_assert!(passed_over < weights.turns_max(patient), "{passed_over} turns past {patient:?}");
        }
    }
}
