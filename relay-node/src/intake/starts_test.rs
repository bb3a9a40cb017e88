//! Registered attempts are found again by the next owner, whatever the clock of this machine does.

use std::sync::Arc;

use relay_log::local::{LocalLog, LocalLogSettings};
use relay_log::port::{Log, LogRecord, ReadEvent, Retention, Start, TopicPartition, TopicSpec};
use relay_protocol::record::{ControlRecord, StartedJob};
use relay_runtime::clock::TestClock;

use super::starts::{Registrar, Start as Attempt, Starts};

const NOW_MS: u64 = 1_700_000_000_000;
const HOUR_MS: u64 = 3_600_000;

async fn read(log: &dyn Log, at: &TopicPartition, since_ms: u64) -> Vec<LogRecord> {
    let mut reader = log.read(vec![(at.clone(), Start::Time(since_ms))]).await.unwrap();
    let mut records = Vec::new();
    while let ReadEvent::Record(record) = reader.next().await.unwrap() {
        records.push(record);
    }
    records
}

#[tokio::test]
async fn what_is_registered_after_the_clock_was_set_back_is_found_from_the_jobs_time_on() {
    let folder = tempfile::tempdir().unwrap();
    let log: Arc<dyn Log> = Arc::new(LocalLog::open(folder.path(), &LocalLogSettings::default()).unwrap());
    let spec = TopicSpec { name: "control".into(), partitions: 1, retention: Retention::Forever };
    log.create_topics(&[spec]).await.unwrap();
    let (at, clock) = (TopicPartition::new("control", 0), Arc::new(TestClock::at(NOW_MS)));
    let registrar = Registrar::new("node".to_owned(), 7, "control".into());
    let starts = Starts::spawn(log.clone(), clock.clone(), registrar);
    let start = |offset, accepted_at| {
        let job = StartedJob { offset, attempt: 1, alone: false };
        Attempt { accepted_at, ..Attempt::of(0, job) }
    };
    starts.register(start(1, NOW_MS - 5)).await.unwrap();
    clock.set(NOW_MS - 2 * HOUR_MS);
    // After an attempt of its own, after a job that is younger than the clock says, and for other records.
    starts.register(start(2, NOW_MS - 3 * HOUR_MS)).await.unwrap();
    starts.register(start(3, NOW_MS + 1_000)).await.unwrap();
    assert_eq!(starts.stamp(NOW_MS), NOW_MS + 1_000);
    let found = read(&*log, &at, NOW_MS).await;
    let kinds: Vec<_> = found
        .iter()
        .map(|record| match serde_json::from_slice(record.value.as_deref().unwrap()).unwrap() {
            ControlRecord::Started(started) => (started.jobs[0].offset, started.incarnation),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(kinds, [(1, 7), (2, 7), (3, 7)]);
    assert!(found.is_sorted_by_key(|record| record.timestamp_ms), "times do not go back");
}
