//! On a real embedded log: a transaction that happened is told from one that did not, whatever else was written.

use bytes::Bytes;
use relay_log::local::{LocalLog, LocalLogSettings};
use relay_log::port::{Retention, TopicSpec};

use super::*;

async fn log(folder: &tempfile::TempDir) -> LocalLog {
    let log = LocalLog::open(folder.path(), &LocalLogSettings::default()).expect("a log");
    let spec = |name: &str| TopicSpec { name: name.into(), partitions: 2, retention: Retention::Forever };
    log.create_topics(&[spec("a"), spec("b")]).await.expect("topics");
    log
}

fn record(topic: &str, partition: u32, value: &str, timestamp_ms: u64) -> NewRecord {
    NewRecord {
        to: TopicPartition::new(topic, partition),
        key: Some(Bytes::from_static(b"k")),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        headers: vec![("h".to_owned(), Bytes::from_static(b"1"))],
        timestamp_ms,
    }
}

#[tokio::test]
async fn nothing_written_tells_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    assert_eq!(happened(&log(&folder).await, std::iter::empty()).await, None);
}

#[tokio::test]
async fn all_records_must_be_there_as_they_were_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = log(&folder).await;
    let written = [record("a", 0, "1", 1_000), record("a", 1, "2", 1_000), record("b", 0, "3", 2_000)];
    assert_eq!(happened(&log, written.iter()).await, Some(false), "the log is empty");
    let others = vec![record("a", 0, "x", 1_000), record("a", 1, "2", 1_001), record("b", 0, "3", 1_999)];
    log.append(others).await.expect("appended");
    assert_eq!(happened(&log, written.iter()).await, Some(false), "others are none of it");
    log.append(written[..2].to_vec()).await.expect("appended");
    assert_eq!(happened(&log, written.iter()).await, Some(false), "one partition lacks its part");
    log.append(vec![record("b", 0, "4", 3_000), written[2].clone()]).await.expect("appended");
    assert_eq!(happened(&log, written.iter()).await, Some(true));
    let without_header = NewRecord { headers: Vec::new(), ..written[2].clone() };
    assert_eq!(happened(&log, [&without_header].into_iter()).await, Some(false));
}
