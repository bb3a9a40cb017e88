//! The tracker's promises: nothing unfinished is ever counted as finished, and a successor redoes exactly the rest.

use std::collections::BTreeSet;

use proptest::prelude::*;
use relay_log::port::{Committed, METADATA_BYTES_MAX};

use super::tracker::{Delivery, Progress, Tracker, WINDOW_OFFSETS_MAX};

fn committed(progress: &Progress) -> Committed {
    Committed { next: progress.next, metadata: progress.pack() }
}

#[test]
fn jobs_finished_out_of_order_move_the_offset_only_past_a_finished_prefix() {
    let mut tracker = Tracker::new(None, 10);
    for offset in 10..15 {
        assert_eq!(tracker.deliver(offset, 1_000 + offset), Delivery::New);
    }
    tracker.finish(11);
    tracker.finish(13);
    let progress = tracker.proposal();
    assert_eq!((progress.next, progress.oldest_ms), (10, 1_010));
    assert!(progress.is_finished(11) && progress.is_finished(13));
    assert!(!progress.is_finished(10) && !progress.is_finished(12) && !progress.is_finished(14));

    tracker.finish(10);
    assert_eq!(tracker.proposal().next, 12);
}

#[test]
fn a_gap_left_by_a_transaction_marker_is_passed_over() {
    let mut tracker = Tracker::new(None, 0);
    tracker.deliver(0, 1);
    tracker.deliver(5, 1);
    tracker.finish(0);
    assert_eq!(tracker.proposal().next, 5);
    tracker.finish(5);
    assert_eq!(tracker.proposal().next, 6);
}

#[test]
fn a_successor_skips_what_was_finished_beyond_the_offset() {
    let mut first = Tracker::new(None, 0);
    (0..4).for_each(|offset| _ = first.deliver(offset, 1));
    first.finish(2);
    let mut second = Tracker::new(Some(&committed(&first.proposal())), 0);
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
    let mut tracker = Tracker::new(None, 0);
    let mut offset = 0;
    while tracker.has_room() {
        tracker.deliver(offset, u64::MAX / 2);
        if offset % 2 == 1 {
            tracker.finish(offset);
        }
        offset += 1;
    }
    assert_eq!(offset, WINDOW_OFFSETS_MAX);
    assert!(tracker.proposal().pack().len() <= METADATA_BYTES_MAX);
    tracker.finish(0);
    tracker.committed(tracker.proposal().next);
    assert!(tracker.has_room());
}

proptest! {
    #[test]
    fn over_any_number_of_owners_each_offset_is_finished_once_and_none_is_forgotten(
        steps in prop::collection::vec((0_u64..60, any::<bool>()), 1..200)
    ) {
        let mut done = BTreeSet::new();
        let mut stored: Option<Committed> = None;
        let mut tracker = Tracker::new(None, 0);
        let mut mine: BTreeSet<u64> = (0..60).filter(|offset| tracker.deliver(*offset, 1) == Delivery::New).collect();
        for (offset, dies) in steps {
            if mine.remove(&offset) {
                tracker.finish(offset);
                let progress = tracker.proposal();
                prop_assert!(done.insert(offset), "offset {} finished twice", offset);
                tracker.committed(progress.next);
                stored = Some(committed(&progress));
            }
            if dies {
                let start = stored.as_ref().map_or(0, |committed| committed.next);
                tracker = Tracker::new(stored.as_ref(), start);
                mine = (start..60).filter(|offset| tracker.deliver(*offset, 1) == Delivery::New).collect();
                let open: BTreeSet<u64> = (0..60).filter(|offset| !done.contains(offset)).collect();
                prop_assert_eq!(&mine, &open);
            }
        }
    }
}
