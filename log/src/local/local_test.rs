//! Readers and members of a log whose memory holds next to nothing: what they get comes from the store, batch by batch.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{LocalLog, LocalLogSettings};
use crate::port::{
    Commit, CommitError, CommitOffset, JoinSpec, Log, LogError, LogReader, METADATA_BYTES_MAX, Member, MemberEvent,
    NewRecord, RECORD_BYTES_MAX, ReadEvent, Retention, Start, TopicPartition, TopicSpec,
};

/// A wait that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);
/// Records beyond several batches of readers (256) and members (64), and no multiple of either.
const RECORDS: u64 = 700;

fn at() -> TopicPartition {
    TopicPartition::new("lane", 0)
}

fn record(n: u64) -> NewRecord {
    let value = Some(Bytes::from(n.to_string()));
    NewRecord { to: at(), key: None, value, headers: Vec::new(), timestamp_ms: 1_000 + n }
}

async fn open(folder: &Path, cache_bytes_max: usize) -> LocalLog {
    let settings = LocalLogSettings { cache_bytes_max, ..LocalLogSettings::default() };
    let log = LocalLog::open(folder, &settings).expect("it opens");
    let spec = TopicSpec { name: "lane".into(), partitions: 1, retention: Retention::Forever };
    log.create_topics(&[spec]).await.expect("a topic");
    log
}

async fn join(log: &LocalLog) -> (Arc<dyn Member>, u64) {
    let spec = JoinSpec {
        group: "group".to_owned(),
        topics: vec!["lane".into()],
        client_id: String::new(),
        transactional_id: "one".to_owned(),
        read_ahead_records_max: 8,
    };
    let member = log.join(spec).await.expect("it joins");
    match next(&*member).await {
        MemberEvent::Assigned(given) => (member, given[0].epoch),
        other => panic!("expected an assignment, got {other:?}"),
    }
}

async fn next(member: &dyn Member) -> MemberEvent {
    tokio::time::timeout(PATIENCE, member.next()).await.expect("an event in time").expect("an event")
}

/// The offsets of all records up to the end; each must hold its own offset as its value.
async fn read_to_end(reader: &mut dyn LogReader) -> Vec<u64> {
    let mut offsets = Vec::new();
    loop {
        match tokio::time::timeout(PATIENCE, reader.next()).await.expect("an event in time").expect("an event") {
            ReadEvent::Record(record) => {
                assert_eq!(record.value, Some(Bytes::from(record.offset.to_string())));
                offsets.push(record.offset);
            }
            ReadEvent::End { .. } => return offsets,
        }
    }
}

#[tokio::test]
async fn a_reader_gets_each_record_once_however_little_is_in_memory() {
    for cache_bytes_max in [0, 10_000, 1 << 20] {
        let folder = tempfile::tempdir().expect("a folder");
        let log = open(folder.path(), cache_bytes_max).await;
        let offsets = log.append((0..RECORDS).map(record).collect()).await;
        assert_eq!(offsets, Ok((0..RECORDS).collect()));
        for (start, first) in
            [(Start::Earliest, 0), (Start::Offset(255), 255), (Start::Time(1_000 + 300), 300), (Start::Latest, RECORDS)]
        {
            let mut reader = log.read(vec![(at(), start)]).await.expect("a reader");
            let all: Vec<u64> = (first..RECORDS).collect();
            assert_eq!(read_to_end(&mut *reader).await, all, "{start:?} with a cache of {cache_bytes_max}");
            if start == Start::Latest {
                log.append(vec![record(RECORDS)]).await.expect("one more");
                assert_eq!(read_to_end(&mut *reader).await, [RECORDS], "the reader goes on behind the end");
            }
        }
    }
}

#[tokio::test]
async fn a_member_gets_each_record_once_however_little_is_in_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = open(folder.path(), 0).await;
    log.append((0..RECORDS).map(record).collect()).await.expect("records");
    let (member, epoch) = join(&log).await;
    for expected in 0..RECORDS {
        let MemberEvent::Record { record: found, epoch: under } = next(&*member).await else { panic!("no record") };
        assert_eq!((found.offset, under), (expected, epoch));
        if expected == 10 {
            // What the member has read ahead already is still given, each once.
            log.append(vec![record(RECORDS)]).await.expect("one more");
        }
    }
    let MemberEvent::Record { record: last, .. } = next(&*member).await else { panic!("no record") };
    assert_eq!(last.offset, RECORDS);
}

#[tokio::test]
async fn what_is_too_large_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = open(folder.path(), 0).await;
    let mut large = record(0);
    large.value = Some(Bytes::from(vec![0; RECORD_BYTES_MAX + 1]));
    let refused = log.append(vec![record(0), large.clone()]).await;
    assert_eq!(refused, Err(LogError::TooLarge { bytes: RECORD_BYTES_MAX + 1, limit: RECORD_BYTES_MAX }));
    let (member, epoch) = join(&log).await;
    let offset = |metadata: String| CommitOffset { at: at(), epoch, next: 0, metadata };
    for commit in [
        Commit { records: vec![record(0), large.clone()], offsets: vec![offset("small".to_owned())] },
        Commit { records: vec![record(0)], offsets: vec![offset("x".repeat(METADATA_BYTES_MAX + 1))] },
    ] {
        let refused = member.commit(commit).await;
        assert!(matches!(refused, Err(CommitError::Invalid(_))), "{refused:?}");
    }
    assert_eq!(log.committed("group", &at()).await, Ok(None));
    // The largest that is allowed comes back whole from the store.
    large.value = Some(Bytes::from(vec![1; RECORD_BYTES_MAX]));
    assert_eq!(log.append(vec![large.clone()]).await, Ok(vec![0]), "no offset was taken");
    let mut reader = log.read(vec![(at(), Start::Earliest)]).await.expect("a reader");
    match tokio::time::timeout(PATIENCE, reader.next()).await.expect("an event in time") {
        Ok(ReadEvent::Record(found)) => assert!(found.value == large.value),
        other => panic!("expected the record, got {other:?}"),
    }
}

/// Many callers at once: their commands form groups, and each gets the answer to its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_at_the_same_time_get_their_own_offsets() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = open(folder.path(), 1_000).await;
    let calls = (0..200_u64).map(|n| {
        let log = log.clone();
        tokio::spawn(async move { (n, log.append(vec![record(n), record(n)]).await.expect("it appends")) })
    });
    let mut owners = vec![None; 400];
    for (n, offsets) in futures_util::future::join_all(calls).await.into_iter().map(|call| call.expect("it ends")) {
        assert_eq!(offsets[1], offsets[0] + 1, "records of one call stay together");
        for offset in offsets {
            assert_eq!(owners[offset as usize].replace(n), None, "two calls got the offset {offset}");
        }
    }
    let mut reader = log.read(vec![(at(), Start::Earliest)]).await.expect("a reader");
    for owner in owners {
        let event = tokio::time::timeout(PATIENCE, reader.next()).await.expect("an event in time");
        let Ok(ReadEvent::Record(found)) = event else { panic!("expected a record, got {event:?}") };
        assert_eq!(found.value, owner.map(|n| Bytes::from(n.to_string())));
    }
}
