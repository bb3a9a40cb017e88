//! The tracker's promises: nothing unfinished is ever counted as finished, and a successor redoes exactly the rest.

use std::collections::BTreeSet;

use proptest::prelude::*;
use relay_log::port::{Committed, METADATA_BYTES_MAX};

use super::progress::{Progress, WINDOW_OFFSETS_MAX};
use super::tracker::{Delivery, Tracker};
use crate::job::aside::SIDES;

const NOW_MS: u64 = 1_000_000;
const UNTIL_MS: u64 = 2_000_000;

fn committed(progress: &Progress) -> Committed {
    Committed { next: progress.next, metadata: progress.pack() }
}

#[test]
fn jobs_finished_out_of_order_move_the_offset_only_past_a_finished_prefix() {
    let mut tracker = Tracker::new(None, 10, NOW_MS);
    for offset in 10..15 {
        assert_eq!(tracker.deliver(offset, 1_000 + offset), Delivery::New);
    }
    tracker.finish(11, None);
    tracker.finish(13, None);
    let progress = tracker.proposal();
    assert_eq!((progress.next, progress.oldest_ms), (10, 1_010));
    assert!(progress.is_finished(11) && progress.is_finished(13));
    assert!(!progress.is_finished(10) && !progress.is_finished(12) && !progress.is_finished(14));

    tracker.finish(10, None);
    assert_eq!(tracker.proposal().next, 12);
}

#[test]
fn a_gap_left_by_a_transaction_marker_is_passed_over() {
    let mut tracker = Tracker::new(None, 0, NOW_MS);
    tracker.deliver(0, 1);
    tracker.deliver(5, 1);
    tracker.finish(0, None);
    assert_eq!(tracker.proposal().next, 5);
    tracker.finish(5, None);
    assert_eq!(tracker.proposal().next, 6);
}

#[test]
fn a_successor_skips_what_was_finished_beyond_the_offset() {
    let mut first = Tracker::new(None, 0, NOW_MS);
    (0..4).for_each(|offset| _ = first.deliver(offset, 1));
    first.finish(2, None);
    let mut second = Tracker::new(Some(&committed(&first.proposal())), 0, NOW_MS);
    let redone: Vec<u64> = (0..4).filter(|offset| second.deliver(*offset, 1) == Delivery::New).collect();
    assert_eq!(redone, [0, 1, 3]);
    assert!(second.proposal().is_finished(2), "what was inherited stays in the next commit");
}

#[test]
fn metadata_of_somebody_else_counts_as_nothing_finished_beyond() {
    for metadata in ["", "b1", "b1:x:AA", "b9:0:AA", "b1:0:***", "\u{0}"] {
        let progress = Progress::unpack(&Committed { next: 7, metadata: metadata.to_owned() });
        assert_eq!((progress.next, progress.oldest_ms), (7, 0), "{metadata:?}");
        let committed = Committed { next: 7, metadata: metadata.to_owned() };
        assert_eq!(Progress::is_foreign(&committed), !metadata.is_empty(), "{metadata:?}");
        assert!((7..100).all(|offset| !progress.is_finished(offset)), "{metadata:?}");
    }
}

#[test]
fn a_full_window_still_fits_the_metadata_and_then_stops_reading() {
    let mut tracker = Tracker::new(None, 0, NOW_MS);
    let mut offset = 0;
    while tracker.has_room() {
        tracker.deliver(offset, u64::MAX / 2);
        if offset % 2 == 1 {
            tracker.finish(offset, None);
        }
        offset += 1;
    }
    assert_eq!(offset, WINDOW_OFFSETS_MAX);
    assert!(tracker.proposal().pack().len() <= METADATA_BYTES_MAX);
    tracker.finish(0, None);
    tracker.committed(tracker.proposal().next);
    assert!(tracker.has_room());
}

#[test]
fn what_the_last_commit_finished_counts_for_a_successor_only_with_proof() {
    let mut first = Tracker::new(None, 0, NOW_MS);
    (0..5).for_each(|offset| _ = first.deliver(offset, 100 + offset));
    first.finish(0, Some(UNTIL_MS));
    first.committed(first.proposal().next);
    for offset in [1, 2, 4] {
        first.finish(offset, Some(UNTIL_MS));
    }
    let last = first.proposal();
    assert_eq!((last.next, last.oldest_ms, last.done_below()), (3, 101, 1), "what may have to be redone is kept");

    let mut second = Tracker::new(Some(&committed(&last)), 3, NOW_MS);
    assert_eq!(second.doubted().iter().copied().collect::<Vec<_>>(), [1, 2, 4]);
    assert!(second.is_done(0) && !second.is_done(1) && !second.is_done(4));
    assert_eq!(second.proposal().next, 1, "until it is proven, nothing is committed beyond it");
    second.prove(2);
    assert_eq!(second.deliver(3, 103), Delivery::New);
    assert_eq!(
        second.deliver(4, 104),
        Delivery::AlreadyFinished,
        "it is read again only once it is known to be needed"
    );
    assert_eq!(second.reopen(), [1, 4]);
    assert_eq!(second.deliver(1, 101), Delivery::New);
    assert_eq!(second.deliver(4, 104), Delivery::New);
    assert_eq!(second.deliver(4, 104), Delivery::AlreadyFinished, "once");
    assert!(!second.is_proven(), "what is only read again must not be deleted");
    for offset in [1, 3, 4] {
        second.finish(offset, Some(UNTIL_MS));
    }
    assert_eq!(second.proposal().next, 5);
    assert!(!second.is_proven(), "nor what is not committed");
}

#[test]
fn what_is_read_again_out_of_turn_passes_nothing_over() {
    let mut first = Tracker::new(None, 0, NOW_MS);
    (0..3).for_each(|offset| _ = first.deliver(offset, 1));
    first.finish(2, Some(UNTIL_MS));
    let mut second = Tracker::new(Some(&committed(&first.proposal())), 0, NOW_MS);
    second.reopen();
    second.deliver(2, 1);
    second.finish(2, Some(UNTIL_MS));
    assert_eq!(second.proposal().next, 0, "offsets 0 and 1 were not read yet");
}

#[test]
fn what_nobody_can_prove_any_more_is_not_doubted() {
    let mut first = Tracker::new(None, 0, NOW_MS);
    (0..2).for_each(|offset| _ = first.deliver(offset, 1));
    first.finish(0, Some(UNTIL_MS));
    first.finish(1, Some(u64::MAX));
    let last = committed(&first.proposal());
    assert_eq!(Tracker::new(Some(&last), 2, UNTIL_MS - 1).doubted().len(), 2);
    assert!(Tracker::new(Some(&last), 2, UNTIL_MS).is_proven());
}

#[test]
fn a_record_that_is_gone_holds_nothing_up() {
    let mut first = Tracker::new(None, 0, NOW_MS);
    first.deliver(0, 1);
    first.finish(0, Some(UNTIL_MS));
    let mut second = Tracker::new(Some(&committed(&first.proposal())), 1, NOW_MS);
    assert_eq!(second.reopen(), [0]);
    second.is_gone(0);
    assert_eq!(second.proposal().next, 1);
}

#[test]
fn a_full_window_with_as_much_finished_at_once_as_can_be_still_fits() {
    let mut tracker = Tracker::new(None, u64::MAX / 4, NOW_MS);
    for offset in (u64::MAX / 4..).take(WINDOW_OFFSETS_MAX as usize) {
        tracker.deliver(offset, u64::MAX / 2);
        if offset % 2 == 1 {
            tracker.finish(offset, Some(UNTIL_MS));
        }
    }
    let mut progress = tracker.proposal();
    (progress.serial, progress.sides) = (u64::MAX / 2, [u64::MAX / 4; SIDES]);
    assert!(progress.pack().len() <= METADATA_BYTES_MAX, "{}", progress.pack().len());
    assert_eq!(Progress::unpack(&committed(&progress)), progress);
}

proptest! {
    #[test]
    fn over_any_number_of_owners_each_offset_is_finished_once_and_none_is_forgotten(
        steps in prop::collection::vec((prop::collection::vec(0_u64..60, 1..4), any::<bool>(), any::<bool>()), 1..200)
    ) {
        let mut done = BTreeSet::new();
        let mut stored: Option<Committed> = None;
        let mut tracker = Tracker::new(None, 0, NOW_MS);
        let mut mine: BTreeSet<u64> = (0..60).filter(|offset| tracker.deliver(*offset, 1) == Delivery::New).collect();
        for (offsets, dies, keeps_records) in steps {
            let ended: BTreeSet<u64> = offsets.into_iter().filter(|offset| mine.contains(offset)).collect();
            for offset in &ended {
                tracker.finish(*offset, Some(UNTIL_MS));
            }
            if !ended.is_empty() {
                let progress = tracker.proposal();
                stored = Some(committed(&progress));
                // Who loses the records of a commit finds out before the next one, or dies.
                if keeps_records || !dies {
                    for offset in &ended {
                        prop_assert!(done.insert(*offset), "offset {} finished twice", offset);
                        mine.remove(offset);
                    }
                    tracker.committed(progress.next);
                }
            }
            if dies {
                let start = stored.as_ref().map_or(0, |committed| committed.next);
                tracker = Tracker::new(stored.as_ref(), start, NOW_MS);
                let doubted: Vec<u64> = tracker.doubted().iter().copied().collect();
                doubted.into_iter().filter(|offset| done.contains(offset)).for_each(|offset| tracker.prove(offset));
                let again = tracker.reopen();
                mine = again.into_iter().chain(start..60).filter(|offset| tracker.deliver(*offset, 1) == Delivery::New).collect();
                let open: BTreeSet<u64> = (0..60).filter(|offset| !done.contains(offset)).collect();
                prop_assert_eq!(&mine, &open);
            }
        }
    }
}
