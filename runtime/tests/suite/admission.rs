//! Permits: bounded, fair, drained.

use std::time::Duration;

use relay_runtime::admission::{AdmissionError, Permits};
use tokio::time::Instant;

const S: Duration = Duration::from_secs(1);

/// Lets every other task of this one-threaded runtime run until it waits.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn no_more_than_the_capacity_is_let_in() {
    let door = Permits::new("test_capacity", 2);
    let first = door.try_acquire().unwrap();
    let _second = door.try_acquire().unwrap();
    assert_eq!(door.in_use(), 2);
    assert_eq!(door.try_acquire().unwrap_err(), AdmissionError::Full { name: "test_capacity", capacity: 2 });
    drop(first);
    assert_eq!(door.in_use(), 1);
    assert!(door.clone().try_acquire().is_ok(), "clones share the permits");
    assert_eq!((door.name(), door.capacity()), ("test_capacity", 2));
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_at_its_deadline() {
    let door = Permits::new("test_deadline", 1);
    let _held = door.try_acquire().unwrap();
    let began = Instant::now();
    let error = door.acquire(3 * S).await.unwrap_err();
    assert_eq!(error, AdmissionError::DeadlinePassed { name: "test_deadline", capacity: 1, waited_ms: 3_000 });
    assert_eq!(began.elapsed(), 3 * S);
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_let_in_when_a_permit_comes_back() {
    let door = Permits::new("test_wait", 1);
    let held = door.try_acquire().unwrap();
    let waiter = tokio::spawn({
        let door = door.clone();
        async move { door.acquire(60 * S).await }
    });
    settle().await;
    assert!(!waiter.is_finished());
    drop(held);
    let permit = waiter.await.unwrap().unwrap();
    assert_eq!(door.in_use(), 1);
    drop(permit);
    assert_eq!(door.in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_waiting_line_is_bounded_and_given_back() {
    let door = Permits::with_waiting_max("test_line", 1, 1);
    let held = door.try_acquire().unwrap();
    let waiter = tokio::spawn({
        let door = door.clone();
        async move { door.acquire(60 * S).await.map(drop) }
    });
    settle().await;
    assert!(matches!(door.acquire(60 * S).await, Err(AdmissionError::Full { .. })), "the line is full");
    waiter.abort();
    assert!(waiter.await.unwrap_err().is_cancelled());
    let error = door.acquire(S).await.unwrap_err();
    assert!(matches!(error, AdmissionError::DeadlinePassed { .. }), "the aborted waiter gave its place back: {error}");
    drop(held);
    assert!(door.acquire(S).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_the_last_permit_and_refuses_newcomers_at_once() {
    let door = Permits::new("test_drain", 2);
    let held = door.try_acquire().unwrap();
    let drain = tokio::spawn({
        let door = door.clone();
        async move { door.drain(60 * S).await }
    });
    settle().await;
    assert!(!drain.is_finished());
    assert_eq!(door.try_acquire().unwrap_err(), AdmissionError::Closed { name: "test_drain" });
    assert_eq!(door.acquire(S).await.unwrap_err(), AdmissionError::Closed { name: "test_drain" });
    assert_eq!(door.in_use(), 1, "what the drain holds is not in use");
    drop(held);
    assert!(drain.await.unwrap());
    assert!(matches!(door.try_acquire(), Err(AdmissionError::Closed { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_runs_out_of_time_says_so_and_lets_nobody_slip_in() {
    let door = Permits::new("test_drain_late", 2);
    let held = door.try_acquire().unwrap();
    let full = door.try_acquire().unwrap();
    let waiter = tokio::spawn({
        let door = door.clone();
        async move { door.acquire(600 * S).await }
    });
    settle().await;
    let began = Instant::now();
    let drain = tokio::spawn({
        let door = door.clone();
        async move { door.drain(5 * S).await }
    });
    settle().await;
    drop(full);
    let early = waiter.await.unwrap().expect("who stood in line before the drain is let in");
    drop(early);
    assert!(!drain.await.unwrap());
    assert_eq!(began.elapsed(), 5 * S);
    assert!(matches!(door.acquire(S).await, Err(AdmissionError::Closed { .. })));
    drop(held);
    assert_eq!(door.in_use(), 0);
}

#[tokio::test]
async fn the_gauges_follow() {
    let metrics = relay_runtime::metrics::install().unwrap();
    let door = Permits::new("test_gauges", 5);
    let twin = Permits::new("test_gauges", 2);
    let held = (door.try_acquire().unwrap(), twin.try_acquire().unwrap());
    let line = |name: &str, value: u32| format!("{name}{{name=\"test_gauges\"}} {value}\n");
    let text = metrics.render();
    assert!(text.contains(&line("relay_permits_in_use", 2)), "{text}");
    assert!(text.contains(&line("relay_permits_capacity", 7)), "{text}");
    drop(held);
    drop(twin);
    let text = metrics.render();
    assert!(text.contains(&line("relay_permits_in_use", 0)), "{text}");
    assert!(text.contains(&line("relay_permits_capacity", 5)), "{text}");
}
