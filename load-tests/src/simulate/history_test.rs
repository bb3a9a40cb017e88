//! Bad histories, and that each is complained of; and a good one, of which nothing is said.

use relay_log::port::TopicPartition;
use relay_protocol::event::TERMINAL_N;
use relay_protocol::{Event, EventKind, JobId};

use super::history::{CommitSeen, Heard, History, Moment, Submitted, Told};

const STARTED_N: u32 = 1;

fn job(n: u64) -> JobId {
    JobId::new(1_800_000_000_000, 0, n)
}

fn place(offset: u64) -> (TopicPartition, u64) {
    (TopicPartition::new("media.events", 0), offset)
}

fn event(of: JobId, attempt: u32, kind: EventKind) -> Event {
    let n = match kind {
        EventKind::Accepted => 1,
        EventKind::Started => STARTED_N,
        EventKind::Retrying => u32::MAX - 1,
        _ => TERMINAL_N,
    };
    let mut event = Event::new(of, attempt, n, kind, 5);
    event.node = (kind == EventKind::Started).then(|| "node-0".to_owned());
    event
}

/// A job that was accepted, ran once and completed; its client heard of all of it.
fn good() -> History {
    let mut history = History::default();
    let submitted = Submitted { accepted: true, attempts_max: 3, ..Submitted::default() };
    history.jobs.insert(job(1), submitted);
    for kind in [EventKind::Accepted, EventKind::Started, EventKind::Completed] {
        tell(&mut history, event(job(1), u32::from(kind != EventKind::Accepted), kind));
    }
    hear_all(&mut history, job(1));
    history
}

/// The event comes into the log, with a commit if it is an end.
fn tell(history: &mut History, event: Event) {
    let place = place(history.events.len() as u64);
    if event.event.is_terminal() {
        history.commits.push(CommitSeen { life: 1, is_fenced: false, places: vec![place.clone()] });
    }
    history.events.push(Told { place, event });
}

fn hear_all(history: &mut History, of: JobId) {
    let of_job = history.events.iter().filter(|told| told.event.job_id == of);
    let heard = of_job.map(|told| (told.event.seq, told.event.event, serde_json::to_string(&told.event).unwrap()));
    let heard = heard.collect();
    history.heard.insert((of, "client".to_owned()), heard);
}

/// What is said of a history that was good until `spoil`.
fn complaints(spoil: impl FnOnce(&mut History)) -> String {
    let mut history = good();
    spoil(&mut history);
    history.check().named.join("\n")
}

#[test]
fn nothing_is_said_of_a_good_history() {
    assert_eq!(complaints(|_| {}), "");
}

#[test]
fn a_lost_job_and_a_second_end_are_found() {
    let lost = complaints(|history| {
        history.jobs.insert(job(2), Submitted { accepted: true, attempts_max: 3, ..Submitted::default() });
    });
    assert!(lost.contains("accepted, never ended"), "{lost}");
    let doubled = complaints(|history| tell(history, event(job(1), 2, EventKind::Failed)));
    assert!(doubled.contains("2 ends"), "{doubled}");
    let waits = complaints(|history| history.unsettled.push("client-0 for a job".to_owned()));
    assert!(waits.contains("still waits"), "{waits}");
}

#[test]
fn ends_that_nobody_asked_for_are_found() {
    for (kind, said) in [(EventKind::Cancelled, "nobody asked"), (EventKind::Expired, "no deadline")] {
        let found = complaints(|history| {
            history.events.clear();
            history.heard.clear();
            history.commits.clear();
            tell(history, event(job(1), 0, kind));
        });
        assert!(found.contains(said), "{found}");
    }
    let refused = complaints(|history| history.jobs.values_mut().for_each(|job| job.refused = true));
    assert!(refused.contains("accepted and refused"), "{refused}");
}

#[test]
fn an_attempt_too_many_is_found() {
    let found = complaints(|history| tell(history, event(job(1), 3, EventKind::Retrying)));
    assert!(found.contains("followed by another"), "{found}");
}

#[test]
fn what_changes_is_found() {
    let changed = complaints(|history| {
        let seq = history.events[1].event.seq;
        tell(history, Event { seq, ..event(job(1), 1, EventKind::Restarted) });
    });
    assert!(changed.contains("two events have seq"), "{changed}");
    let twice = |called_ms: &[(u64, u64)]| {
        complaints(|history| {
            let again = history.events.len() as u64;
            tell(history, event(job(1), 1, EventKind::Started));
            history.starts.insert(place(1), Moment { life: 1, at_ms: 10 });
            history.starts.insert(place(again), Moment { life: 2, at_ms: 30 });
            let calls = called_ms.iter().map(|(life, at_ms)| Moment { life: *life, at_ms: *at_ms });
            history.calls.insert(job(1), calls.collect());
        })
    };
    let both = twice(&[(1, 20), (2, 31)]);
    assert!(both.contains("began twice"), "{both}");
    assert_eq!(twice(&[(1, 5), (2, 31)]), "", "the first call was another attempt's");
    assert_eq!(twice(&[(1, 30), (2, 31)]), "", "the first node was taken for dead");
    assert_eq!(twice(&[(1, 20)]), "", "the second attempt did not begin");
    let next = complaints(|history| {
        for (attempt, life, at_ms) in [(1, 2, 30), (2, 2, 40)] {
            history.starts.insert(place(history.events.len() as u64), Moment { life, at_ms });
            tell(history, event(job(1), attempt, EventKind::Started));
        }
        history.starts.insert(place(1), Moment { life: 1, at_ms: 10 });
        history.calls.insert(job(1), [(1, 20), (2, 41)].map(|(life, at_ms)| Moment { life, at_ms }).to_vec());
    });
    assert!(!next.contains("began twice"), "what the second life called was its next attempt: {next}");
}

#[test]
fn two_runs_of_one_key_are_found() {
    let ran = |repeats: Option<JobId>| {
        complaints(|history| {
            let key = Some(("tenant".to_owned(), "key".to_owned()));
            let submitted = Submitted { accepted: true, key, attempts_max: 3, ..Submitted::default() };
            history.jobs.insert(job(1), submitted.clone());
            history.jobs.insert(job(2), submitted);
            let end = Event { duplicate_of: repeats, ..event(job(2), 1, EventKind::Completed) };
            tell(history, end);
        })
    };
    assert!(ran(None).contains("all ran"));
    assert_eq!(ran(Some(job(1))), "");
}

#[test]
fn gaps_repeats_and_wrong_words_to_a_watcher_are_found() {
    let heard = |spoil: fn(&mut Vec<Heard>)| complaints(|history| history.heard.values_mut().for_each(spoil));
    let gap = heard(|heard| drop(heard.remove(1)));
    assert!(gap.contains("never heard started"), "{gap}");
    let twice = heard(|heard| heard.insert(1, heard[1].clone()));
    assert!(twice.contains("twice or out of order"), "{twice}");
    let turned = heard(|heard| heard.swap(0, 1));
    assert!(turned.contains("twice or out of order"), "{turned}");
    let other = heard(|heard| heard[2].2 = "{}".to_owned());
    assert!(other.contains("which the log does not have"), "{other}");
    let after = heard(|heard| heard.push((u64::MAX, EventKind::Retrying, String::new())));
    assert!(after.contains("after the end"), "{after}");
}

#[test]
fn an_event_that_was_overtaken_in_the_log_need_not_be_heard() {
    let found = complaints(|history| {
        tell(history, event(job(1), 0, EventKind::Accepted));
        history.events.swap(0, 1);
        history.heard.values_mut().for_each(|heard| drop(heard.remove(0)));
    });
    assert_eq!(found, "");
}

#[test]
fn wrong_answers_to_cancels_are_found() {
    let early = complaints(|history| history.ended_answers.push((job(1), false)));
    assert!(early.contains("before it had"), "{early}");
    let late = complaints(|history| history.late_cancels.push(job(1)));
    assert!(late.contains("was taken"), "{late}");
}

#[test]
fn commits_of_the_fenced_and_ends_without_commit_are_found() {
    let fenced = complaints(|history| history.commits[0].is_fenced = true);
    assert!(fenced.contains("no longer its own"), "{fenced}");
    let outside = complaints(|history| history.commits.clear());
    assert!(outside.contains("outside a commit"), "{outside}");
}

#[test]
fn overload_and_wrong_letters_are_found() {
    let overload = complaints(|history| history.overloads.push(("one".to_owned(), 2, 1)));
    assert!(overload.contains("2 requests at 1 slots"), "{overload}");
    let letter = complaints(|history| history.letters.push(job(1)));
    assert!(letter.contains("1 dead letters"), "{letter}");
}
