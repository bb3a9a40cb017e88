//! A watcher sees rising numbers, each durable event once, and nothing after the end.

use proptest::prelude::*;
use relay_protocol::event::{Place, TERMINAL_N, seq};
use relay_protocol::{Event, EventKind, JobId};

use super::order::{Delivered, Order};
use super::route::RoutedEvent;

fn event(attempt: u32, n: u32, kind: EventKind) -> RoutedEvent {
    let job_id = JobId::new(1, 2, 3);
    let mut event = Event::new(job_id, attempt, n, kind, 5);
    event.place = Some(Place { lane: "default".into(), partition: 1, offset: 9, accepted_at: 4 });
    RoutedEvent { job_id, seq: seq(attempt, n), kind, json: serde_json::to_vec(&event).unwrap().into() }
}

fn deliver(order: &mut Order, events: impl IntoIterator<Item = RoutedEvent>) -> Vec<(EventKind, u64)> {
    let mut out = Vec::new();
    for event in events {
        match order.on(event) {
            Delivered::Nothing => {}
            Delivered::One(one) => out.push((one.kind, one.seq)),
            Delivered::Two(receipt, one) => out.extend([(receipt.kind, receipt.seq), (one.kind, one.seq)]),
        }
    }
    out
}

#[test]
fn a_started_that_overtook_its_receipt_brings_it_along() {
    let mut order = Order::default();
    let seen = deliver(
        &mut order,
        [event(1, 1, EventKind::Started), event(0, 1, EventKind::Accepted), event(1, TERMINAL_N, EventKind::Completed)],
    );
    assert_eq!(
        seen,
        [(EventKind::Accepted, 1), (EventKind::Started, seq(1, 1)), (EventKind::Completed, seq(1, TERMINAL_N))]
    );
    assert!(order.has_ended());
}

#[test]
fn the_end_comes_though_a_later_attempt_was_told_of() {
    // A node that was taken for dead told of attempt 2 after its successor had begun again with 1.
    let end = || event(1, TERMINAL_N, EventKind::Completed);
    let mut order = Order::default();
    let seen = deliver(&mut order, [event(0, 1, EventKind::Accepted), event(2, 1, EventKind::Started), end(), end()]);
    assert_eq!(seen.last(), Some(&(EventKind::Completed, seq(1, TERMINAL_N))));
    assert_eq!(seen.len(), 3);
    // Also to a watcher that comes back, unless it has it.
    assert_eq!(deliver(&mut Order::after(seq(2, 1)), [end()]).len(), 1);
    assert_eq!(deliver(&mut Order::after(seq(1, TERMINAL_N)), [end()]).len(), 0);
}

#[test]
fn the_end_of_a_job_that_never_started_brings_the_receipt_along() {
    let mut order = Order::default();
    let end = event(0, TERMINAL_N, EventKind::Completed);
    let seen = deliver(&mut order, [end, event(0, 1, EventKind::Accepted)]);
    assert_eq!(seen, [(EventKind::Accepted, 1), (EventKind::Completed, seq(0, TERMINAL_N))]);
    assert!(order.has_ended());
}

#[test]
fn a_partial_before_its_started_is_dropped_and_the_started_is_not() {
    let mut order = Order::default();
    let seen = deliver(
        &mut order,
        [
            event(0, 1, EventKind::Accepted),
            event(1, 2, EventKind::Partial),
            event(1, 1, EventKind::Started),
            event(1, 3, EventKind::Partial),
        ],
    );
    assert_eq!(seen, [(EventKind::Accepted, 1), (EventKind::Started, seq(1, 1)), (EventKind::Partial, seq(1, 3))]);
}

#[test]
fn a_late_partial_of_an_earlier_attempt_is_dropped() {
    let mut order = Order::after(seq(1, 5));
    let seen = deliver(
        &mut order,
        [event(2, 1, EventKind::Started), event(1, 6, EventKind::Partial), event(2, 2, EventKind::Partial)],
    );
    assert_eq!(seen, [(EventKind::Started, seq(2, 1)), (EventKind::Partial, seq(2, 2))]);
}

#[test]
fn a_watch_that_goes_on_in_the_middle_of_an_attempt_gets_its_partials() {
    let mut order = Order::after(seq(1, 2));
    let seen = deliver(
        &mut order,
        [event(1, 1, EventKind::Started), event(1, 2, EventKind::Partial), event(1, 3, EventKind::Partial)],
    );
    assert_eq!(seen, [(EventKind::Partial, seq(1, 3))]);
}

proptest! {
    #[test]
    fn whatever_comes_again_and_again_durable_events_are_delivered_once_in_rising_order(
        again in prop::collection::vec(0_usize..6, 0..60)
    ) {
        let durable = [
            event(0, 1, EventKind::Accepted),
            event(1, 1, EventKind::Started),
            event(1, TERMINAL_N - 1, EventKind::Retrying),
            event(2, 0, EventKind::Restarted),
            event(2, 1, EventKind::Started),
            event(2, TERMINAL_N, EventKind::Completed),
        ];
        let mut order = Order::default();
        let mut seen = Vec::new();
        let mut reached = 0;
        for pick in again {
            // A reader repeats what it had, or goes on by one; it never skips.
            let index = pick.min(reached);
            reached = reached.max(index + 1).min(durable.len() - 1);
            seen.extend(deliver(&mut order, [durable[index].clone(), event(1, 7, EventKind::Partial)]));
        }
        prop_assert!(seen.windows(2).all(|pair| pair[0].1 < pair[1].1), "{:?}", seen);
        let delivered: Vec<_> = seen.iter().filter(|(kind, _)| *kind != EventKind::Partial).map(|(_, seq)| *seq).collect();
        let wanted: Vec<_> = durable.iter().map(|event| event.seq).collect();
        prop_assert!(wanted.starts_with(&delivered), "{:?} of {:?}", delivered, wanted);
    }
}
