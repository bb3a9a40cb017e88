//! Crashes are counted as they were, whoever had a job in between: against a model that knows how each life ended.

use proptest::prelude::*;
use relay_protocol::record::StartedJob;

use super::earlier::{Crashes, Earlier, Life, PoisonLimits, Verdict};

/// How an owner stopped having the job, which did not end.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Stop {
    /// Its life ended.
    Died,
    /// It said that it gave the job up.
    GaveUp,
    /// It lost the partition, and is the next to have it again.
    Regains,
}

/// What one owner did with the job.
#[derive(Debug, Clone)]
struct Turn {
    /// Attempts that it began, and whether as the only suspect.
    attempts: Vec<bool>,
    stop: Stop,
}

fn turn() -> impl Strategy<Value = Turn> {
    let stop = prop_oneof![3 => Just(Stop::Died), 1 => Just(Stop::GaveUp), 1 => Just(Stop::Regains)];
    (prop::collection::vec(any::<bool>(), 0..4), stop).prop_map(|(attempts, stop)| Turn { attempts, stop })
}

const OFFSET: u64 = 7;

fn start(earlier: &mut Earlier, life: u64, offset: u64, attempt: u32, alone: bool) {
    earlier.started("node", life, StartedJob { offset, attempt, alone });
}

fn me(incarnation: u64) -> Life {
    Life { node: "node".to_owned(), incarnation }
}

proptest! {
    #[test]
    fn each_life_that_died_counts_once(turns in prop::collection::vec(turn(), 0..12)) {
        let (mut earlier, mut life, mut attempt) = (Earlier::default(), 1, 0);
        let mut expected = Crashes::default();
        // Whether the newest attempt of this life was alone; `None`: it began none, or said that it gave up.
        let mut open = None;
        for turn in &turns {
            for alone in &turn.attempts {
                attempt += 1;
                start(&mut earlier, life, OFFSET, attempt, *alone);
                // Another job's attempts in between say nothing of this one.
                start(&mut earlier, life + 1_000, OFFSET + 1, attempt, true);
                open = Some(*alone);
            }
            match turn.stop {
                Stop::Regains => continue,
                Stop::GaveUp => earlier.given_up("node", life, OFFSET),
                Stop::Died => {
                    if let Some(alone) = open {
                        expected = expected.and(Crashes { seen: 1, charged: u32::from(alone) });
                    }
                }
            }
            // What a life that is not the newest owner says has no bearing.
            earlier.given_up("node", life + 2_000, OFFSET);
            open = None;
            life += 1;
        }
        let found = earlier.take(OFFSET, &me(life));
        prop_assert_eq!(found, (attempt > 0).then_some((attempt, expected)));
        prop_assert_eq!(earlier.take(OFFSET, &me(life)), None, "asked once");
        prop_assert!(expected.charged <= expected.seen);
    }
}

#[test]
fn eight_jobs_of_which_one_kills_end_in_one_charged_with_all() {
    let limits = PoisonLimits { suspect_after: 1, crashes_max: 3, turns_ms: 1_000 };
    let mut earlier = Earlier::default();
    (0..8).for_each(|offset| start(&mut earlier, 1, offset, 1, false));
    // One after the other runs alone; the others end, the killer does not.
    for (life, attempt) in [(2, 2), (3, 3), (4, 4)] {
        start(&mut earlier, life, 5, attempt, true);
    }
    let (attempts, crashes) = earlier.take(5, &me(5)).unwrap();
    assert_eq!((attempts, crashes), (4, Crashes { seen: 4, charged: 3 }));
    assert_eq!(crashes.verdict(&limits), Verdict::Poison);
    let (_, innocent) = earlier.take(4, &me(5)).unwrap();
    assert_eq!(innocent, Crashes { seen: 1, charged: 0 });
    assert_eq!(innocent.verdict(&limits), Verdict::Suspect);
    assert_eq!(innocent.verdict(&PoisonLimits { suspect_after: 2, ..limits }), Verdict::Ordinary);
}

#[test]
fn all_of_one_crash_begin_again_in_time_and_who_kills_slowly_is_alone_in_the_end() {
    let limits = PoisonLimits { suspect_after: 1, crashes_max: 3, turns_ms: 1_000 };
    let turn = |seen, suspects| limits.turn_ms(Crashes { seen, charged: 0 }, suspects);
    assert_eq!([turn(1, 1), turn(1, 8), turn(1, 5_000)], [1_000, 125, 1]);
    assert_eq!([turn(2, 8), turn(3, 8), turn(4, 8)], [500, 2_000, 8_000]);
    let of_others = PoisonLimits { suspect_after: 2, ..limits };
    assert_eq!(of_others.turn_ms(Crashes { seen: 2, charged: 0 }, 8), 125);
    assert!(turn(13, 8) > 24 * 60 * 60 * 1_000, "a day's work is not cut into for ever");
    assert_eq!(turn(u32::MAX, 1), u64::MAX);
    let patience = |seen| limits.patience_ms(Crashes { seen, charged: 0 });
    assert_eq!([patience(1), patience(2), patience(u32::MAX)], [4_000, 16_000, u64::MAX]);
}

#[test]
fn a_suspect_that_made_room_is_charged_with_nothing_and_the_next_one_is() {
    let mut earlier = Earlier::default();
    [4, 5].iter().for_each(|offset| start(&mut earlier, 1, *offset, 1, false));
    start(&mut earlier, 2, 4, 2, true);
    start(&mut earlier, 2, 4, 2, false);
    start(&mut earlier, 2, 5, 2, true);
    assert_eq!(earlier.take(4, &me(3)), Some((2, Crashes { seen: 2, charged: 0 })));
    assert_eq!(earlier.take(5, &me(3)), Some((2, Crashes { seen: 2, charged: 1 })));
}

#[test]
fn a_life_that_gave_up_begins_anew_and_dies() {
    let mut earlier = Earlier::default();
    start(&mut earlier, 1, OFFSET, 1, false);
    earlier.given_up("node", 1, OFFSET);
    start(&mut earlier, 1, OFFSET, 2, true);
    assert_eq!(earlier.take(OFFSET, &me(2)), Some((2, Crashes { seen: 1, charged: 1 })));
}

#[test]
fn two_nodes_with_the_same_incarnation_are_two_lives() {
    let mut earlier = Earlier::default();
    start(&mut earlier, 1, OFFSET, 1, false);
    earlier.given_up("other", 1, OFFSET);
    let other = Life { node: "other".to_owned(), incarnation: 1 };
    assert_eq!(earlier.take(OFFSET, &other), Some((1, Crashes { seen: 1, charged: 0 })));
}
