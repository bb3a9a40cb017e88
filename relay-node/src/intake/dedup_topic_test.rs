//! Ended jobs are read from a real log: the newest of each partition, to the end, and whatever is none is passed over.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use relay_log::local::{LocalLog, LocalLogSettings};
use relay_log::port::{Log, NewRecord, Retention, TopicPartition, TopicSpec};
use relay_protocol::event::Place;
use relay_protocol::record::DedupEntry;
use relay_protocol::{EventKind, JobId, topics};
use relay_runtime::clock::{Clock, SystemClock};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::control::{Followed, Said, What};
use super::dedup::{DedupIndex, Scope};
use super::dedup_topic::{Reading, read};

const PATIENCE: Duration = Duration::from_secs(30);
const ENTRIES_MAX: usize = 3;
const HOUR_MS: u64 = 3_600_000;

fn at(partition: u32) -> TopicPartition {
    TopicPartition::new(topics::dedup("default"), partition)
}

fn record(partition: u32, value: &str) -> NewRecord {
    let value = Some(Bytes::from(value.to_owned()));
    NewRecord { to: at(partition), key: None, value, headers: Vec::new(), timestamp_ms: 1 }
}

fn entry(partition: u32, number: u64, expires_at: u64) -> NewRecord {
    let entry = DedupEntry {
        job_id: JobId::new(1, 0, number),
        tenant: "default".to_owned(),
        idempotency_key: None,
        body_sha256: None,
        place: Place { lane: "default".to_owned(), partition, offset: number, accepted_at: 1 },
        outcome: EventKind::Completed,
        seq: 7,
        ended_at: 1,
        duplicate_of: None,
        expires_at,
    };
    record(partition, &serde_json::to_string(&entry).unwrap())
}

async fn log(folder: &tempfile::TempDir) -> Arc<dyn Log> {
    let log = LocalLog::open(folder.path(), &LocalLogSettings::default()).unwrap();
    let retention = Retention::Age(Duration::from_secs(3_600));
    log.create_topics(&[TopicSpec { name: at(0).topic, partitions: 3, retention }]).await.unwrap();
    Arc::new(log)
}

fn followed(partition: u32) -> Followed {
    let (epoch, stop) = (u64::from(partition) + 40, CancellationToken::new());
    Followed { at: at(partition), epoch, since_ms: None, doubted: vec![1, 18, 30], stop }
}

/// Reads these partitions; what was said of each, and under which epoch.
async fn read_all(log: Arc<dyn Log>, followed: Vec<Followed>) -> Vec<(u32, u64, DedupIndex, Vec<u64>)> {
    let (said, mut sayings) = mpsc::channel(8);
    let reading = Reading { log, clock: Arc::new(SystemClock), entries_max: ENTRIES_MAX };
    timeout(PATIENCE, read(reading, followed, said)).await.expect("it ends by itself");
    let mut read = Vec::new();
    while let Some(Said { partition, epoch, what }) = sayings.recv().await {
        let What::Ended(index, proven) = what else { panic!("{what:?}") };
        read.push((partition, epoch, index, proven));
    }
    read.sort_by_key(|(partition, ..)| *partition);
    read
}

fn known(index: &DedupIndex, numbers: std::ops::Range<u64>, now_ms: u64) -> Vec<u64> {
    let scope = |number| Scope::of_id("default", JobId::new(1, 0, number));
    numbers.filter(|number| index.get(scope(*number), now_ms).is_some()).collect()
}

#[tokio::test]
async fn the_newest_are_read_and_what_is_none_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let (log, now_ms) = (log(&folder).await, SystemClock.now_ms());
    let many = (0..20).map(|number| entry(0, number, now_ms + HOUR_MS + number));
    let few = [
        entry(1, 0, now_ms - 1),
        record(1, "no entry"),
        entry(1, 1, now_ms + HOUR_MS),
        record(1, r#"{"job_id":"17"}"#),
    ];
    log.append(many.chain(few).collect()).await.unwrap();
    let read = read_all(log, vec![followed(0), followed(1), followed(2)]).await;
    let [(0, 40, many, newest), (1, 41, few, expired), (2, 42, none, nothing)] = &read[..] else { panic!("{read:?}") };
    assert_eq!((&newest[..], &expired[..], &nothing[..]), (&[18][..], &[1][..], &[][..]), "ends that were in doubt");
    assert_eq!(known(many, 0..20, now_ms), [17, 18, 19]);
    // Twice as many records as entries are kept are read, no more.
    assert_eq!(many.forgotten(), ENTRIES_MAX as u64);
    assert_eq!((known(few, 0..2, now_ms), few.len()), (vec![1], 1));
    assert!(none.is_empty());
}

#[tokio::test]
async fn a_partition_that_was_given_up_is_not_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let log = log(&folder).await;
    let gone = followed(0);
    gone.stop.cancel();
    assert!(read_all(log, vec![gone]).await.is_empty());
}
