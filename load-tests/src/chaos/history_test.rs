//! The checker finds what it is there for.

use super::*;

const NODE: &str = "node-1";

fn job(number: u64) -> JobId {
    JobId::new(1_700_000_000_000, 0, number)
}

fn started(number: u64, attempt: u32, node: &str, at_ms: u64) -> Event {
    let mut event = Event::new(job(number), attempt, 0, EventKind::Started, at_ms);
    event.node = Some(node.to_owned());
    event
}

fn ended(number: u64, attempt: u32, kind: EventKind) -> Event {
    Event::new(job(number), attempt, relay_protocol::event::TERMINAL_N, kind, 100)
}

/// One job that went well.
fn good() -> History {
    let mut history = History::default();
    history.accepted.insert(job(1), None);
    history.events = vec![started(1, 1, NODE, 10), ended(1, 1, EventKind::Completed)];
    history.heard.insert(job(1), vec![(1, false), (2, true)]);
    history
}

#[test]
fn one_end_for_each_accepted_job_is_clean() {
    let mut history = good();
    // Never acknowledged, and run all the same.
    history.unanswered.insert(job(2));
    history.events.push(ended(2, 1, EventKind::Completed));
    assert!(history.check().is_clean(), "{:?}", history.check());
    assert_eq!(history.unended(), 0);
}

#[test]
fn a_job_without_an_end_is_lost() {
    let mut history = good();
    history.accepted.insert(job(2), None);
    history.events.push(started(2, 1, NODE, 10));
    assert_eq!(history.check().lost, 1);
    assert_eq!(history.unended(), 1);
}

#[test]
fn two_ends_are_doubled_whoever_was_told() {
    let mut history = good();
    history.events.push(ended(1, 2, EventKind::Completed));
    assert_eq!(history.check().doubled, 1);
    let mut history = good();
    history.unanswered.insert(job(2));
    history.events.extend([ended(2, 1, EventKind::Completed), ended(2, 2, EventKind::Completed)]);
    assert_eq!(history.check().doubled, 1);
}

#[test]
fn a_failure_is_found() {
    let mut history = good();
    history.accepted.insert(job(2), None);
    history.events.push(ended(2, 1, EventKind::Failed));
    assert_eq!(history.check().not_completed, 1);
}

#[test]
fn of_one_key_one_job_runs() {
    let mut history = good();
    for number in [2, 3] {
        history.accepted.insert(job(number), Some("key".to_owned()));
        history.events.push(ended(number, 1, EventKind::Completed));
    }
    assert_eq!(history.check().ran_twice, 1);
    history.events.last_mut().expect("just pushed").duplicate_of = Some(job(2));
    assert!(history.check().is_clean());
}

#[test]
fn a_client_hears_each_event_once_in_order_to_the_end() {
    let with = |heard: &[(u64, bool)]| {
        let mut history = good();
        history.heard.insert(job(1), heard.to_vec());
        history.check()
    };
    assert_eq!(with(&[(2, false), (1, false), (3, true)]).out_of_order, 1);
    assert_eq!(with(&[(1, false), (1, false), (3, true)]).out_of_order, 1);
    assert_eq!(with(&[(1, false), (3, true), (4, false)]).out_of_order, 1);
    assert_eq!(with(&[(1, false)]).unheard, 1);
}

#[test]
fn a_take_over_is_from_the_kill_to_the_next_attempt() {
    let mut history = good();
    history.kills.push((NODE.to_owned(), 50));
    // Ended before the kill, run elsewhere, in a delay tier, not yet started again: none of them is a take-over.
    history.events[1].at = 40;
    let retrying = Event::new(job(4), 1, 2, EventKind::Retrying, 30);
    history.events.extend([started(4, 1, NODE, 20), retrying, started(4, 2, "node-2", 60_000)]);
    history.events.extend([started(2, 1, "node-2", 20), started(3, 1, NODE, 20)]);
    assert!(history.take_overs().is_empty());
    history.events.extend([started(3, 2, "node-2", 6_050), ended(3, 2, EventKind::Completed)]);
    let times: Vec<_> = history.take_overs().iter().map(|one| one.took_ms).collect();
    assert_eq!(times, [6_000]);
}
