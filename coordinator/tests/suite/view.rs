//! The view's core, store and questions.

use coordinator::view::bulk::cancel_requests;
use coordinator::view::projection::JobRow;
use coordinator::view::query::{BadQuery, Cursor, Filters, Query};
use coordinator::view::store::{Batch, Limits};
use proptest::prelude::*;
use relay_protocol::record::ControlRecord;
use relay_protocol::{Event, EventKind};

use crate::view_world::{
    BEGAN_MS, accepted, all, ended, job_id, limits, read, retrying, started, store, take, whole_life,
};

const ENDS: [EventKind; 5] =
    [EventKind::Completed, EventKind::Failed, EventKind::Cancelled, EventKind::Expired, EventKind::DeadLettered];

/// A job's events in their order: `attempts` tries, and an end if there is one.
fn life(attempts: u32, end: Option<usize>) -> Vec<Event> {
    let mut events = vec![accepted(1)];
    for attempt in 1..=attempts {
        if attempt > 1 {
            events.push(retrying(1, attempt - 1));
        }
        events.push(started(1, attempt));
    }
    events.extend(end.map(|end| ended(1, attempts, ENDS[end])));
    events
}

fn fold(events: impl IntoIterator<Item = Event>) -> JobRow {
    let rows = events.into_iter().map(|event| JobRow::of("red", &event).unwrap());
    let merged = rows.reduce(|mut row, next| {
        row.merge(next);
        row
    });
    merged.unwrap()
}

proptest! {
    #[test]
    fn any_order_and_any_repetition_say_the_same(
        attempts in 0_u32..4,
        end in proptest::option::of(0_usize..5),
        picks in proptest::collection::vec((any::<prop::sample::Index>(), any::<u64>()), 0..20),
        order in proptest::collection::vec(any::<u64>(), 12),
    ) {
        let events = life(attempts, end);
        let mut mixed: Vec<(u64, Event)> = order.iter().copied().zip(events.iter().cloned()).collect();
        prop_assert_eq!(mixed.len(), events.len());
        mixed.extend(picks.iter().map(|(pick, key)| (*key, pick.get(&events).clone())));
        mixed.sort_by_key(|(key, _)| *key);
        let row = fold(mixed.into_iter().map(|(_, event)| event));
        prop_assert_eq!(&row, &fold(events.clone()));
        // What a reader of the events in their order would say.
        let last = events.last().unwrap();
        let state = match (attempts, end) {
            (_, Some(end)) => ENDS[end].name(),
            (0, None) => "queued",
            (_, None) => "running",
        };
        prop_assert_eq!((row.state(), row.newest.seq, row.newest.at), (state, last.seq, last.at));
        prop_assert_eq!(row.attempt.as_ref().map(|attempt| attempt.attempt), (attempts > 0).then_some(attempts));
        prop_assert_eq!((row.submitted_at(), row.card().is_some()), (BEGAN_MS + 1, true));
        prop_assert_eq!(row.last_at, events.iter().map(|event| event.at).max().unwrap());
    }

    #[test]
    fn any_cut_into_batches_makes_the_same_rows(cuts in proptest::collection::vec(0_usize..60, 0..6), turn in 0_usize..60) {
        let folder = tempfile::tempdir().unwrap();
        let mut events: Vec<Event> = (0..20).flat_map(whole_life).collect();
        let one = store(folder.path(), limits());
        take(&one, &events);
        let other = tempfile::tempdir().unwrap();
        let many = store(other.path(), limits());
        events.rotate_left(turn);
        let mut cuts = cuts;
        cuts.extend([0, 60]);
        cuts.sort_unstable();
        for cut in cuts.windows(2) {
            take(&many, &events[cut[0]..cut[1]]);
            take(&many, &events[cut[0].saturating_sub(3)..cut[1]]);
        }
        prop_assert_eq!(all(&one), all(&many));
    }

    #[test]
    fn a_cursor_is_read_as_it_was_written(ms in 0..i64::MAX as u64, number in any::<u64>(), tenant in "[^/\\p{Cc}]{1,20}") {
        let cursor = Cursor { submitted_at: ms, tenant, job_id: job_id(number % 1_000_000) };
        prop_assert_eq!(Cursor::parse(&cursor.text()), Some(cursor));
    }

    #[test]
    fn no_cursor_crashes(text in "\\PC{0,80}") {
        if let Some(cursor) = Cursor::parse(&text) {
            prop_assert_eq!(cursor.text(), text);
        }
    }
}

#[test]
fn an_end_is_the_last_word_even_if_a_lost_owner_starts_later() {
    let row = fold([ended(1, 1, EventKind::Completed), started(1, 2), accepted(1)]);
    assert_eq!(row.state(), "completed");
}

#[test]
fn the_same_id_is_another_job_for_another_tenant() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), limits());
    let records = vec![read("red", &accepted(1)), read("blue", &started(1, 1))];
    store.apply(&Batch { records, ..Batch::default() }, BEGAN_MS).unwrap();
    let state = |tenant| store.get(job_id(1), Some(tenant)).unwrap().map(|row| row.state().to_owned());
    assert_eq!(state("red").as_deref(), Some("queued"));
    assert_eq!(state("blue").as_deref(), Some("running"));
    assert_eq!(state("green"), None);
    assert_eq!(store.get(job_id(1), None).unwrap().unwrap().tenant, "blue", "the first by name");
}

fn query(filters: Filters) -> Query {
    filters.read(1_000).unwrap()
}

#[test]
fn pages_neither_repeat_nor_skip_while_jobs_come() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), limits());
    take(&store, &(0..25).map(accepted).collect::<Vec<_>>());
    let (mut seen, mut cursor) = (Vec::new(), None);
    for page in 0.. {
        let listed = store.list(&query(Filters { limit: Some(10), cursor, ..Filters::default() })).unwrap();
        seen.extend(listed.jobs.iter().map(|job| job.job_id));
        // New ones come before the first page, and known ones go on.
        take(&store, &[accepted(100 + page), started(page, 1)]);
        cursor = listed.next.map(|next| next.text());
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, (0..25).rev().map(job_id).collect::<Vec<_>>());
}

#[test]
fn filters_find_what_they_name() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), limits());
    let mut events: Vec<Event> = (0..6).map(accepted).collect();
    events.extend([started(1, 1), started(2, 1), ended(2, 1, EventKind::Failed)]);
    take(&store, &events);
    let found = |filters: Filters| -> Vec<u64> {
        let jobs = store.list(&query(filters)).unwrap().jobs;
        jobs.iter().map(|job| job.submitted_at() - BEGAN_MS).collect()
    };
    let all = Filters::default;
    assert_eq!(found(all()), [5, 4, 3, 2, 1, 0]);
    assert_eq!(found(Filters { status: Some("running".to_owned()), ..all() }), [1]);
    assert_eq!(found(Filters { status: Some("failed".to_owned()), ..all() }), [2]);
    assert_eq!(found(Filters { task: Some("vad".to_owned()), ..all() }), [5, 3, 1]);
    assert_eq!(found(Filters { tenant: Some("blue".to_owned()), ..all() }), Vec::<u64>::new());
    let since = relay_protocol::time::format_rfc3339(BEGAN_MS + 4);
    assert_eq!(found(Filters { since: Some(since), ..all() }), [5, 4]);
    let open = Query { open_only: true, ..query(all()) };
    assert_eq!(store.list(&open).unwrap().jobs.len(), 5);
}

#[test]
fn filters_that_mean_nothing_are_refused() {
    let all = Filters::default;
    let text = |text: &str| Some(text.to_owned());
    let wrong = [
        ("status", Filters { status: text("done"), ..all() }),
        ("task", Filters { task: text("sing"), ..all() }),
        ("tenant", Filters { tenant: text("a/b"), ..all() }),
        ("since", Filters { since: text("yesterday"), ..all() }),
        ("limit", Filters { limit: Some(0), ..all() }),
        ("limit", Filters { limit: Some(1_001), ..all() }),
    ];
    for (name, filters) in wrong {
        match filters.read(1_000) {
            Err(BadQuery::Filter { field, .. }) => assert_eq!(field, name),
            other => panic!("{name}: {other:?}"),
        }
    }
    let good = Cursor { submitted_at: 1, tenant: "red".to_owned(), job_id: job_id(1) }.text();
    for bad in ["", "x", "1.2.3", &good[1..], &good.to_uppercase(), &format!("{good}00"), &format!("0{good}")] {
        assert_eq!(Filters { cursor: text(bad), ..all() }.read(1_000), Err(BadQuery::Cursor), "{bad}");
    }
}

#[test]
fn too_old_and_too_many_jobs_leave() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), Limits { rows_max: 3, retention_ms: 1_000, ..limits() });
    take(&store, &(0..5).map(accepted).collect::<Vec<_>>());
    let left = |rows: Vec<JobRow>| rows.iter().map(|row| row.submitted_at() - BEGAN_MS).collect::<Vec<_>>();
    assert_eq!(left(all(&store)), [4, 3, 2]);
    store.apply(&Batch::default(), BEGAN_MS + 1_003).unwrap();
    assert_eq!(left(all(&store)), [4, 3]);
    drop(store);
    // What was counted before is counted after.
    let store = crate::view_world::store(folder.path(), Limits { rows_max: 3, retention_ms: 1_000, ..limits() });
    take(&store, &[accepted(5), accepted(6)]);
    assert_eq!(left(all(&store)), [6, 5, 4]);
}

#[test]
fn a_file_that_is_of_no_use_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jobs.sqlite");
    let filled = |limits: Limits| {
        let store = store(folder.path(), limits);
        let found = (all(&store).len(), store.offsets().unwrap().len());
        let records = vec![read("red", &accepted(1))];
        store.apply(&Batch { records, offsets: [(0, 7)].into() }, BEGAN_MS).unwrap();
        found
    };
    assert_eq!(filled(limits()), (0, 0));
    assert_eq!(filled(limits()), (1, 1), "a sound file stays");
    assert_eq!(filled(Limits { partitions: 9, ..limits() }), (0, 0), "of other partitions");
    rusqlite::Connection::open(&file).unwrap().pragma_update(None, "user_version", 77).unwrap();
    assert_eq!(filled(Limits { partitions: 9, ..limits() }), (0, 0), "of another schema");
    std::fs::write(&file, b"this is no database, and it never was one").unwrap();
    assert_eq!(filled(limits()), (0, 0), "no database");
    // A damaged page in the middle.
    let store = store(folder.path(), limits());
    take(&store, &(0..2_000).map(accepted).collect::<Vec<_>>());
    drop(store);
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8_192].fill(0xa5);
    std::fs::write(&file, bytes).unwrap();
    assert_eq!(filled(limits()), (0, 0), "damaged");
}

#[test]
fn records_that_are_no_events_are_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), limits());
    let good = read("red", &accepted(1));
    let mut broken = vec![good.clone(), good.clone(), good.clone(), good];
    broken[0].value = Some("{\"job_id\":1}".into());
    broken[1].value = None;
    broken[2].headers.clear();
    store.apply(&Batch { records: broken, offsets: [(0, 4)].into() }, BEGAN_MS).unwrap();
    assert_eq!((all(&store).len(), store.offsets().unwrap()), (1, [(0, 4)].into()));
}

#[test]
fn only_jobs_that_go_on_and_have_a_place_are_asked_to_end() {
    let rows = [fold(whole_life(1)), fold([accepted(2)]), fold([retrying(3, 1)]), fold([accepted(4), started(4, 1)])];
    let requests = cancel_requests(&rows, "ann", 9);
    assert_eq!(requests.iter().map(|(job, _)| *job).collect::<Vec<_>>(), [job_id(2), job_id(4)]);
    let (_, record) = &requests[0];
    assert_eq!(record.to.to_string(), "media.control.default/2");
    let ControlRecord::Cancel(request) = serde_json::from_slice(record.value.as_ref().unwrap()).unwrap() else {
        panic!("another record")
    };
    assert_eq!((request.job_id, request.tenant.as_str(), request.subject.as_str()), (job_id(2), "red", "ann"));
}
