//! A client that is cut off again and again, against the list of what was written: whatever it resumes with and wherever a scan begins,
//! it gets every durable event once and in order, or is told that some may be gone.

use proptest::prelude::*;
use relay_log::port::{Topic, TopicPartition};
use relay_protocol::event::TERMINAL_N;
use relay_protocol::record::{HEADER_EVENT, HEADER_SEQ, HEADER_TENANT};

use super::*;
use crate::events::order::{Delivered, Order};

const ALL: usize = usize::MAX;

fn job(number: u64) -> JobId {
    JobId::new(1_700_000_000_000, 3, number)
}

fn record(of: JobId, offset: usize, kind: EventKind, seq: u64) -> LogRecord {
    let text = |text: &str| bytes::Bytes::copy_from_slice(text.as_bytes());
    let place = r#","place":{"lane":"default","partition":1,"offset":9,"accepted_at":"2026-11-23T18:30:00.000Z"}"#;
    let place = if kind == EventKind::Started || kind.is_terminal() { place } else { "" };
    let json = format!(
        r#"{{"job_id":"{of}","seq":{seq},"attempt":{},"event":"{}","at":"2026-11-23T18:30:00.000Z"{place}}}"#,
        seq >> 32,
        kind.name()
    );
    LogRecord {
        at: TopicPartition::new(Topic::from("events"), 0),
        offset: offset as u64,
        key: Some(text(&of.to_string())),
        value: Some(text(&json)),
        headers: vec![
            (HEADER_TENANT.to_owned(), text("a")),
            (HEADER_SEQ.to_owned(), text(&seq.to_string())),
            (HEADER_EVENT.to_owned(), text(kind.name())),
        ],
        timestamp_ms: 0,
    }
}

fn want(after_seq: u64, from: From) -> Want {
    Want { job_id: job(1), tenant: "a".into(), after_seq, partials: true, from }
}

fn scan(want: Want, records: &[LogRecord], deleted: bool) -> Outcome {
    let mut gather = Gather::new(vec![want], ALL);
    records.iter().for_each(|record| gather.on(record));
    gather.finish(|_| deleted).pop().unwrap()
}

/// The whole of one job's life: its durable events with their places, and its partials with the number of durable ones before.
#[derive(Debug, Clone)]
struct Life {
    durable: Vec<LogRecord>,
    partials: Vec<(usize, LogRecord)>,
}

/// `attempts`: partials, and whether the attempt tells that it is retried or just stops. `late`: owners' events that overtake the receipt.
fn life(attempts: &[(u32, bool)], late: usize) -> Life {
    let mut kinds: Vec<(EventKind, u64)> = Vec::new();
    let mut partials = Vec::new();
    for (index, (count, tells)) in attempts.iter().enumerate() {
        let attempt = index as u32 + 1;
        if index > 0 {
            kinds.push((EventKind::Restarted, seq(attempt, 0)));
        }
        kinds.push((EventKind::Started, seq(attempt, 1)));
        partials.extend((0..*count).map(|n| (kinds.len(), seq(attempt, 2 + n))));
        if index + 1 == attempts.len() {
            kinds.push((EventKind::Completed, seq(attempt, TERMINAL_N)));
        } else if *tells {
            kinds.push((EventKind::Retrying, seq(attempt, TERMINAL_N - 1)));
        }
    }
    // One of another job between any two.
    kinds.insert(late.min(1), (EventKind::Accepted, 1));
    let places = |index: usize| 2 * index;
    let durable = kinds.iter().enumerate().map(|(index, (kind, seq))| record(job(1), places(index), *kind, *seq));
    let partials = partials.into_iter().enumerate();
    let partials = partials.map(|(n, (before, seq))| (before + 1, record(job(1), n, EventKind::Partial, seq)));
    Life { durable: durable.collect(), partials: partials.collect() }
}

impl Life {
    /// The durable events from `from` on of the first `written`, others' between them, and the partials that go with them.
    fn from(&self, from: u64, written: usize, low: usize) -> Vec<LogRecord> {
        let noise =
            |record: &LogRecord| self::record(job(2), record.offset as usize + 1, EventKind::Started, seq(1, 1));
        let durable = self.durable.iter().take(written).skip(low).flat_map(|record| [record.clone(), noise(record)]);
        let partials = self.partials.iter().filter(|(before, _)| *before <= written).map(|(_, record)| record.clone());
        partials.chain(durable.filter(|record| record.offset >= from)).collect()
    }
}

/// The client's end.
#[derive(Default)]
struct Client {
    got: Vec<(EventKind, u64)>,
    last_seq: u64,
}

impl Client {
    fn take(&mut self, order: &mut Order, event: RoutedEvent) {
        let events = match order.on(event) {
            Delivered::Nothing => vec![],
            Delivered::One(one) => vec![one],
            Delivered::Two(receipt, one) => vec![receipt, one],
        };
        for event in events {
            self.got.push((event.kind, event.seq));
            self.last_seq = event.seq;
        }
    }
}

proptest! {
    #[test]
    fn a_client_that_is_cut_off_again_and_again_gets_every_durable_event_once_and_in_order(
        attempts in prop::collection::vec((0_u32..4, any::<bool>()), 1..5),
        late in 0_usize..2,
        // Of each connection: events written when it resumes, and until it is cut; which event had been written when the session of its
        // token began; what the live reader repeats; what was deleted.
        connections in prop::collection::vec((0_usize..14, 0_usize..6, 0_usize..14, 0_usize..6, any::<bool>()), 0..8),
        deletes in prop::option::of(0_usize..8),
    ) {
        let life = life(&attempts, late);
        let (mut client, mut written, mut told) = (Client::default(), 0, false);
        let last = (life.durable.len(), 0, 0, 0, false);
        for (grows, lives, hint, repeats, use_hint) in connections.into_iter().chain([last]) {
            written = (written + grows).min(life.durable.len());
            let low = deletes.unwrap_or(0).min(written);
            let hint = 2 * hint as u64;
            let is_near = use_hint && hint >= 2 * low as u64;
            let from = if is_near { From::Hint(hint, 0) } else { From::Made };
            let records = life.from(if is_near { hint } else { 0 }, written, low);
            let found = match scan(want(client.last_seq, from), &records, low > 0) {
                Outcome::Found(found) => found,
                Outcome::Widen => {
                    prop_assert!(is_near);
                    let whole = life.from(0, written, low);
                    let Outcome::Found(found) = scan(want(client.last_seq, From::Made), &whole, low > 0) else { panic!() };
                    found
                }
                Outcome::Again => panic!("there was room"),
            };
            told |= found.may_lack;
            let mut order = Order::after(client.last_seq);
            found.events.into_iter().for_each(|event| client.take(&mut order, event));
            // The live reader repeats a bit of it and goes on, until the connection is cut.
            let until = (written + lives).min(life.durable.len());
            for record in life.durable.iter().take(until).skip(written.saturating_sub(repeats).max(low)) {
                client.take(&mut order, route::routed(record, job(1)).unwrap());
            }
            for (_, partial) in life.partials.iter().filter(|(before, _)| *before <= until) {
                client.take(&mut order, route::routed(partial, job(1)).unwrap());
            }
            written = until;
        }
        prop_assert!(client.got.windows(2).all(|pair| pair[0].1 < pair[1].1), "{:?}", client.got);
        let durable: Vec<u64> = client.got.iter().filter(|(kind, _)| *kind != EventKind::Partial).map(|(_, seq)| *seq).collect();
        let mut all: Vec<u64> = life.durable.iter().map(|record| route::routed(record, job(1)).unwrap().seq).collect();
        all.sort_unstable();
        prop_assert!(told || durable == all, "got {durable:?} of {all:?}");
        prop_assert!(durable.iter().all(|seq| all.contains(seq)));
        let mut attempt = 0;
        for (kind, seq) in client.got {
            if kind == EventKind::Partial {
                prop_assert_eq!(seq >> 32, attempt, "a partial of another attempt than the one that is known to run");
            } else {
                attempt = seq >> 32;
            }
        }
    }
}

#[test]
fn a_hint_behind_what_the_client_lacks_is_not_believed() {
    let life = life(&[(0, false), (0, false)], 0);
    // accepted, started 1, restarted, started 2, completed at 0, 2, 4, 6, 8.
    let behind = life.from(6, 5, 0);
    assert_eq!(scan(want(1, From::Hint(6, 0)), &behind, false), Outcome::Widen);
    assert_eq!(scan(want(seq(1, 1), From::Hint(6, 0)), &behind, false), Outcome::Widen);
    let Outcome::Found(found) = scan(want(seq(2, 1), From::Hint(6, 0)), &behind, false) else { panic!() };
    assert!(!found.may_lack);
}

#[test]
fn a_cut_past_is_told() {
    let life = life(&[(0, true), (0, false)], 0);
    let left = life.from(0, ALL, 3);
    let may_lack = |after_seq, deleted| match scan(want(after_seq, From::Made), &left, deleted) {
        Outcome::Found(found) => found.may_lack,
        other => panic!("{other:?}"),
    };
    assert!(may_lack(0, true));
    assert!(may_lack(seq(1, 1), true), "the client has not seen why it was retried");
    assert!(!may_lack(seq(2, 0), true));
    assert!(!may_lack(0, false));
}

#[test]
fn what_does_not_fit_is_scanned_again_and_one_is_served_at_least() {
    let wants: Vec<Want> = (1..=3).map(|number| Want { job_id: job(number), ..want(0, From::Made) }).collect();
    let mut gather = Gather::new(wants, 10);
    for number in [2, 3, 1] {
        gather.on(&record(job(number), number as usize, EventKind::Started, seq(1, 1)));
    }
    let outcomes = gather.finish(|_| false);
    let served: Vec<bool> = outcomes.iter().map(|outcome| matches!(outcome, Outcome::Found(_))).collect();
    assert_eq!(served, [true, false, false]);
    assert!(outcomes[1..].iter().all(|outcome| *outcome == Outcome::Again));
}

#[test]
fn the_scan_may_end_once_all_jobs_have() {
    let wants = vec![want(0, From::Made), Want { job_id: job(2), ..want(0, From::Made) }];
    let mut gather = Gather::new(wants, ALL);
    gather.on(&record(job(1), 0, EventKind::Completed, seq(1, TERMINAL_N)));
    gather.on(&record(job(1), 1, EventKind::Completed, seq(1, TERMINAL_N)));
    assert!(!gather.have_all_ended());
    gather.on(&record(job(2), 2, EventKind::Failed, seq(1, TERMINAL_N)));
    assert!(gather.have_all_ended());
}
