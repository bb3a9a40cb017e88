//! A full disk: clear refusals, nothing lost, what was taken can end, and all goes on when there is room.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::{LocalLog, LocalLogSettings};
use crate::port::{
    Commit, CommitError, CommitOffset, JoinSpec, Log, LogError, MemberEvent, NewRecord, Retention, TopicPartition,
    TopicSpec,
};

const MIB: u64 = 1 << 20;
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

fn at() -> TopicPartition {
    TopicPartition::new("lane", 0)
}

fn record(bytes: usize) -> NewRecord {
    let value = Some(Bytes::from(vec![7; bytes]));
    NewRecord { to: at(), key: None, value, headers: Vec::new(), timestamp_ms: 1_000 }
}

async fn open(folder: &Path, free: &Arc<AtomicU64>) -> LocalLog {
    let free = free.clone();
    let settings = LocalLogSettings { free_bytes_min: 32 * MIB, ..LocalLogSettings::default() };
    let log =
        LocalLog::open_with(folder, &settings, Arc::new(move || Some(free.load(Ordering::SeqCst)))).expect("it opens");
    let spec = TopicSpec { name: "lane".into(), partitions: 1, retention: Retention::Forever };
    log.create_topics(&[spec]).await.expect("a topic");
    log
}

fn is_full<T: std::fmt::Debug>(answer: Result<T, LogError>) {
    match answer {
        Err(LogError::Unavailable(reason)) => {
            assert!(reason.contains("nearly full") && reason.contains("make room"), "{reason}")
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_full_disk_is_said_and_nothing_is_lost_and_it_goes_on_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let free = Arc::new(AtomicU64::new(100 * MIB));
    let log = open(folder.path(), &free).await;
    let spec = JoinSpec {
        group: "group".to_owned(),
        topics: vec!["lane".into()],
        client_id: String::new(),
        transactional_id: "one".to_owned(),
        read_ahead_records_max: 8,
    };
    let member = log.join(spec).await.unwrap();
    let MemberEvent::Assigned(given) = tokio::time::timeout(PATIENCE, member.next()).await.unwrap().unwrap() else {
        panic!("no assignment")
    };
    log.append(vec![record(10)]).await.unwrap();
    log.health().await.unwrap();

    free.store(31 * MIB, Ordering::SeqCst);
    is_full(log.append(vec![record(10)]).await);
    is_full(log.health().await);
    let before = log.watermarks(&at()).await.unwrap();
    assert_eq!(before.high, 1, "nothing of it is there");
    // What was taken can end.
    let commit = |next: u64| Commit {
        records: vec![record(10)],
        offsets: vec![CommitOffset { at: at(), epoch: given[0].epoch, next, metadata: String::new() }],
    };
    member.commit(commit(1)).await.expect("commits use what is kept free");
    free.store(7 * MIB, Ordering::SeqCst);
    let refused = member.commit(commit(2)).await;
    assert!(matches!(&refused, Err(CommitError::Aborted(reason)) if reason.contains("make room")), "{refused:?}");
    assert_eq!(log.committed("group", &at()).await.unwrap().unwrap().next, 1, "nothing of it happened");

    free.store(100 * MIB, Ordering::SeqCst);
    log.health().await.unwrap();
    member.commit(commit(2)).await.unwrap();
    assert_eq!(log.append(vec![record(10)]).await.unwrap(), [3]);
    drop((member, log));
    let log = reopen(folder.path(), &free).await;
    assert_eq!(log.watermarks(&at()).await.unwrap().high, 4);
    assert_eq!(log.committed("group", &at()).await.unwrap().unwrap().next, 2);
}

/// The writer's thread lets go of the file in its own time.
async fn reopen(folder: &Path, free: &Arc<AtomicU64>) -> LocalLog {
    let began = std::time::Instant::now();
    loop {
        let free = free.clone();
        match LocalLog::open_with(
            folder,
            &LocalLogSettings::default(),
            Arc::new(move || Some(free.load(Ordering::SeqCst))),
        ) {
            Ok(log) => return log,
            Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn one_group_of_commands_does_not_take_more_than_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let free = Arc::new(AtomicU64::new(40 * MIB));
    let log = open(folder.path(), &free).await;
    // 8 MiB may be used, and each takes 3 MiB of them.
    let appends = (0..8).map(|_| log.append(vec![record(1_000_000)]));
    let done = futures_util::future::join_all(appends).await;
    let taken = done.iter().filter(|answer| answer.is_ok()).count();
    assert!(taken >= 2, "{done:?}");
    assert_eq!(log.watermarks(&at()).await.unwrap().high, taken as u64);
    free.store(32 * MIB, Ordering::SeqCst);
    is_full(log.append(vec![record(1_000_000)]).await);
}
