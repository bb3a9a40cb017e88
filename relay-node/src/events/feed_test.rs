//! What a watcher gets when its channel has room, is full, or is still being filled with the past.

use futures_util::FutureExt;
use relay_log::port::{Topic, TopicPartition};
use relay_protocol::EventKind;
use relay_protocol::event::{TERMINAL_N, seq};
use relay_protocol::record::{HEADER_EVENT, HEADER_SEQ, HEADER_TENANT};
use tokio::sync::mpsc;

use super::*;

const TENANT: &str = "a";

fn job() -> JobId {
    JobId::new(1_700_000_000_000, 3, 42)
}

fn record(offset: u64, kind: EventKind, seq: u64) -> LogRecord {
    let text = |text: &str| bytes::Bytes::copy_from_slice(text.as_bytes());
    LogRecord {
        at: TopicPartition::new(Topic::from("events"), 0),
        offset,
        key: Some(text(&job().to_string())),
        value: Some(text("{}")),
        headers: vec![
            (HEADER_TENANT.to_owned(), text(TENANT)),
            (HEADER_SEQ.to_owned(), text(&seq.to_string())),
            (HEADER_EVENT.to_owned(), text(kind.name())),
        ],
        timestamp_ms: 0,
    }
}

fn here(kind: EventKind, seq: u64) -> RoutedEvent {
    RoutedEvent { job_id: job(), seq, kind, json: bytes::Bytes::from_static(b"{}") }
}

struct Watched {
    feed: Feed,
    sink: Sink,
    events: mpsc::Receiver<Delivery>,
}

impl Watched {
    fn new(room: usize, past: Past) -> Self {
        let (sender, events) = mpsc::channel(room);
        let (feed, sink) = (Feed::default(), Sink { events: sender, lagging: Lagging::default() });
        feed.add(job(), Watcher::new(1, 7, TENANT.into(), sink.clone(), past));
        Self { feed, sink, events }
    }

    fn read(&self, offset: u64, kind: EventKind, seq: u64) {
        self.feed.deliver(job(), &record(offset, kind, seq));
    }

    fn seqs(&mut self) -> Vec<u64> {
        let all = std::iter::from_fn(|| self.events.recv().now_or_never().flatten());
        let seq = |delivery: Delivery| match delivery.what {
            What::Event(event) => Some(event.seq),
            _ => None,
        };
        all.inspect(|delivery| assert_eq!((delivery.watch, delivery.job_id), (7, job()))).filter_map(seq).collect()
    }
}

#[test]
fn what_was_delivered_here_is_not_queued_again() {
    let mut watched = Watched::new(8, Past::Unwritten);
    watched.feed.deliver_here(TENANT, &here(EventKind::Started, 10));
    watched.feed.deliver_here(TENANT, &here(EventKind::Completed, 20));
    watched.read(0, EventKind::Accepted, 1);
    watched.read(1, EventKind::Started, 10);
    watched.read(2, EventKind::Completed, 20);
    assert_eq!(watched.seqs(), [10, 20]);
    assert!(watched.sink.lagging.take().is_empty());
}

#[test]
fn what_does_not_fit_here_comes_by_the_reader_and_nothing_before_it() {
    let mut watched = Watched::new(1, Past::Unwritten);
    watched.feed.deliver_here(TENANT, &here(EventKind::Accepted, 1));
    watched.feed.deliver_here(TENANT, &here(EventKind::Started, 10));
    assert_eq!(watched.seqs(), [1]);
    watched.feed.deliver_here(TENANT, &here(EventKind::Completed, 20));
    assert!(watched.seqs().is_empty(), "completed came before started");
    watched.read(1, EventKind::Started, 10);
    assert_eq!(watched.seqs(), [10]);
    watched.read(2, EventKind::Completed, 20);
    assert_eq!(watched.seqs(), [20]);
    assert!(watched.sink.lagging.take().is_empty());
}

#[test]
fn a_watcher_that_lags_gets_nothing_until_it_watches_from_there() {
    let mut watched = Watched::new(1, Past::Unwritten);
    watched.read(5, EventKind::Accepted, 1);
    watched.read(6, EventKind::Started, 10);
    assert_eq!(watched.seqs(), [1]);
    watched.read(7, EventKind::Completed, 20);
    assert!(watched.seqs().is_empty(), "completed came before started");
    assert_eq!(watched.sink.lagging.take(), [(7, job(), Past::From(6))]);
}

#[test]
fn partials_leave_room_for_what_must_not_be_lost() {
    let mut watched = Watched::new(8, Past::Unwritten);
    watched.read(0, EventKind::Started, 10);
    (11..30).for_each(|seq| watched.read(0, EventKind::Partial, seq));
    watched.read(1, EventKind::Retrying, 30);
    watched.read(2, EventKind::Started, 40);
    assert!(watched.sink.lagging.take().is_empty());
    assert_eq!(watched.seqs(), [10, 11, 12, 13, 30, 40]);
}

#[tokio::test]
async fn a_past_comes_before_what_came_while_it_was_read() {
    let mut watched = Watched::new(8, Past::Whole);
    watched.read(3, EventKind::Completed, 20);
    assert!(watched.seqs().is_empty());
    let past = vec![here(EventKind::Accepted, 1), here(EventKind::Started, 10)];
    let begun = Begun { job_id: job(), watcher: 1, watch: 7 };
    let past = Found { events: past, may_lack: false };
    watched.feed.go_live(&begun, past, 0, &watched.sink).await;
    assert_eq!(watched.seqs(), [1, 10, 20]);
}

#[tokio::test]
async fn a_past_has_its_end_though_a_later_attempt_was_told_of() {
    // A node that was taken for dead told of attempt 2 after its successor had begun again with 1.
    let (told, end) = (here(EventKind::Started, seq(2, 1)), here(EventKind::Completed, seq(1, TERMINAL_N)));
    for (after_seq, news) in [(told.seq, vec![end.seq]), (end.seq, vec![])] {
        let mut watched = Watched::new(8, Past::Whole);
        let begun = Begun { job_id: job(), watcher: 1, watch: 7 };
        let past = Found { events: vec![here(EventKind::Accepted, 1), told.clone(), end.clone()], may_lack: false };
        assert_eq!(matches!(Reached::of(&past, after_seq), Reached::Ended(_)), news.is_empty());
        watched.feed.go_live(&begun, past, after_seq, &watched.sink).await;
        let seen: Vec<u64> = watched.seqs().into_iter().filter(|seq| *seq != told.seq).collect();
        assert_eq!(seen, news);
    }
}

#[test]
fn other_tenants_get_nothing() {
    let (sender, events) = mpsc::channel(8);
    let sink = Sink { events: sender, lagging: Lagging::default() };
    let feed = Feed::default();
    feed.add(job(), Watcher::new(1, 7, "b".into(), sink.clone(), Past::Unwritten));
    let mut watched = Watched { feed, sink, events };
    watched.read(0, EventKind::Started, 10);
    watched.feed.deliver_here(TENANT, &here(EventKind::Completed, 20));
    assert!(watched.seqs().is_empty());
}
