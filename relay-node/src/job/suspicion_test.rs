//! Turns of suspects on one node.

use std::time::Duration;

use futures_util::FutureExt as _;

use super::*;

const TURN: Duration = Duration::from_secs(2);
const LIMITS: PoisonLimits = PoisonLimits { suspect_after: 1, crashes_max: 3, turns_ms: 1_000 };
const ONE_CRASH: Crashes = Crashes { seen: 1, charged: 0 };

#[tokio::test]
async fn a_suspect_makes_room_once_and_after_its_turn() {
    let place = SuspectPlace::new(LIMITS);
    let (first, second) = (Suspicion::default(), Suspicion::default());
    first.enter(&place, ONE_CRASH).await;
    assert!(!place.is_wanted());
    let mut waits = Box::pin(second.enter(&place, ONE_CRASH));
    assert!(waits.as_mut().now_or_never().is_none());
    assert!(place.is_wanted());
    let began = Instant::now();
    let at = |ms| began + Duration::from_millis(ms);
    assert_eq!(first.leave_after(TURN, at(9_000)), None, "no attempt began yet");
    first.began(3, began);
    // Another attempt does not begin its turn anew.
    first.began(4, at(1_000));
    assert_eq!(first.leave_after(TURN, at(1_999)), None);
    assert!(first.is_alone());
    assert_eq!(first.leave_after(TURN, at(2_000)), Some(3));
    assert!(!first.is_alone(), "an attempt that begins now is not alone");
    assert_eq!(first.leave_after(TURN, at(9_000)), None, "once");
    assert!(waits.as_mut().now_or_never().is_none(), "not before it is written");
    first.left();
    waits.as_mut().now_or_never().unwrap();
    first.enter(&place, ONE_CRASH).now_or_never().expect("it made room, and does not come back");
    assert!(second.is_alone() && !first.is_alone() && !place.is_wanted());
}

#[tokio::test]
async fn a_run_that_is_dropped_leaves_the_place_and_wants_none() {
    let place = SuspectPlace::new(LIMITS);
    let run = Suspicion::default();
    run.enter(&place, ONE_CRASH).await;
    run.enter(&place, ONE_CRASH).now_or_never().expect("its next attempt is there already");
    let mut waits = Box::pin(place.enter(ONE_CRASH));
    assert!(waits.as_mut().now_or_never().is_none());
    drop(waits);
    assert!(!place.is_wanted());
    drop(run);
    assert!(place.enter(ONE_CRASH).now_or_never().flatten().is_some());
}

#[tokio::test]
async fn an_attempt_that_does_not_begin_leaves_the_place_to_others() {
    let place = SuspectPlace::new(LIMITS);
    let (first, second) = (Suspicion::default(), Suspicion::default());
    first.enter(&place, ONE_CRASH).await;
    first.not_begun();
    second.enter(&place, ONE_CRASH).now_or_never().expect("nobody is there");
    assert!(!first.is_alone() && second.is_alone());
    second.began(1, Instant::now());
    second.not_begun();
    assert!(second.is_alone(), "what began must be written down before it leaves");
    let mut again = Box::pin(first.enter(&place, ONE_CRASH));
    assert!(again.as_mut().now_or_never().is_none(), "it waits anew");
}

#[tokio::test(start_paused = true)]
async fn a_suspect_that_waited_for_long_begins_beside_the_other_and_wants_nothing_any_more() {
    let place = SuspectPlace::new(LIMITS);
    let (first, second) = (Suspicion::default(), Suspicion::default());
    first.enter(&place, ONE_CRASH).await;
    let began = Instant::now();
    second.enter(&place, ONE_CRASH).await;
    assert_eq!(began.elapsed().as_secs(), 4, "four times the turns of all");
    assert!(second.is_beside() && !second.is_alone() && first.is_alone() && !place.is_wanted());
    second.began(1, Instant::now());
    assert_eq!(second.leave_after(Duration::ZERO, Instant::now()), None, "it has nothing to leave");
    second.enter(&place, ONE_CRASH).now_or_never().expect("it does not wait again");
}
