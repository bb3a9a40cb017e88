//! What the Kafka tests share: the broker under test, names of their own, and waits that end.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use bytes::Bytes;
use relay_log::kafka::{KafkaLog, KafkaSettings};
use relay_log::port::{
    Assignment, CommitOffset, JoinSpec, Log, LogReader, LogRecord, Member, MemberEvent, NewRecord, ReadEvent, Release,
    Retention, Topic, TopicPartition, TopicSpec,
};
use relay_protocol::topics;

/// Longest wait for anything that should happen; a session's time-out and a broker's start fit in it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// The broker that the tests run against.
pub(crate) fn bootstrap() -> anyhow::Result<String> {
    std::env::var("KAFKA_BOOTSTRAP")
        .context("KAFKA_BOOTSTRAP is not set: run `deploy/kafka-dev/kafka.sh start` and export the line that it prints")
}

/// Shows what the adapter logs, as `RUST_LOG` says.
pub(crate) fn trace() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    // The first test of the process does it for all.
    drop(tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init());
}

/// A log on the broker under test.
pub(crate) fn log() -> anyhow::Result<KafkaLog> {
    trace();
    Ok(KafkaLog::connect(KafkaSettings::single_broker(bootstrap()?))?)
}

/// A name that no other test and no earlier run has.
pub(crate) fn unique(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    format!("{name}-{}-{nanos}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A new topic that keeps its records.
pub(crate) async fn topic(log: &dyn Log, name: &str, partitions: u32) -> anyhow::Result<Topic> {
    let name = Topic::from(unique(name));
    let spec = TopicSpec { name: Arc::clone(&name), partitions, retention: Retention::Forever };
    // Members register there.
    let cluster = TopicSpec { name: topics::CLUSTER.into(), partitions: 1, retention: Retention::Compact };
    within("creating topics", log.create_topics(&[spec, cluster])).await??;
    Ok(name)
}

pub(crate) fn at(topic: &Topic, partition: u32) -> TopicPartition {
    TopicPartition { topic: Arc::clone(topic), partition }
}

pub(crate) fn record(topic: &Topic, partition: u32, value: &str) -> NewRecord {
    NewRecord {
        to: at(topic, partition),
        key: None,
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        headers: Vec::new(),
        timestamp_ms: 1_700_000_000_000,
    }
}

pub(crate) fn text(record: &LogRecord) -> String {
    String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned()
}

/// Waits for `what`, but not for ever.
pub(crate) async fn within<T>(what: &str, wait: impl Future<Output = T>) -> anyhow::Result<T> {
    tokio::time::timeout(PATIENCE, wait).await.with_context(|| format!("{what}: not within {PATIENCE:?}"))
}

pub(crate) fn join_spec(group: &str, topics: &[&Topic], id: &str) -> JoinSpec {
    JoinSpec {
        group: group.to_owned(),
        topics: topics.iter().map(|topic| Arc::clone(topic)).collect(),
        client_id: id.to_owned(),
        transactional_id: id.to_owned(),
        read_ahead_records_max: 100,
    }
}

/// The next event of a member, outages waited out.
pub(crate) async fn event(member: &dyn Member) -> anyhow::Result<MemberEvent> {
    within("an event", async {
        loop {
            match member.next().await {
                Err(relay_log::port::LogError::Unavailable(_)) => {}
                other => return Ok(other?),
            }
        }
    })
    .await?
}

/// Waits for an assignment; records that come before it are an error.
pub(crate) async fn assigned(member: &dyn Member) -> anyhow::Result<Vec<Assignment>> {
    loop {
        match event(member).await? {
            MemberEvent::Assigned(assignments) => return Ok(assignments),
            MemberEvent::Record { record, .. } => bail!("a record before the assignment: {record:?}"),
            MemberEvent::Revoking { .. } | MemberEvent::Lost(_) => {}
        }
    }
}

/// Waits for the next record of a member.
pub(crate) async fn delivered(member: &dyn Member) -> anyhow::Result<(LogRecord, u64)> {
    loop {
        if let MemberEvent::Record { record, epoch } = event(member).await? {
            return Ok((record, epoch));
        }
    }
}

/// Waits until partitions are asked back.
pub(crate) async fn revoking(member: &dyn Member) -> anyhow::Result<(Vec<TopicPartition>, Release)> {
    loop {
        if let MemberEvent::Revoking { partitions, release } = event(member).await? {
            return Ok((partitions, release));
        }
    }
}

/// Reads until the end of some partition; outages are waited out.
pub(crate) async fn read_to_end(reader: &mut dyn LogReader) -> anyhow::Result<(Vec<LogRecord>, u64)> {
    let mut records = Vec::new();
    loop {
        match within("the end", reader.next()).await? {
            Ok(ReadEvent::Record(record)) => records.push(record),
            Ok(ReadEvent::End { next, .. }) => return Ok((records, next)),
            Err(relay_log::port::LogError::Unavailable(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reads the next record; ends and outages are passed over.
pub(crate) async fn read_one(reader: &mut dyn LogReader) -> anyhow::Result<LogRecord> {
    within("a record", async {
        loop {
            match reader.next().await {
                Ok(ReadEvent::Record(record)) => return Ok(record),
                Ok(ReadEvent::End { .. }) | Err(relay_log::port::LogError::Unavailable(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
    })
    .await?
}

pub(crate) fn offset(assignment: &Assignment, next: u64, metadata: &str) -> CommitOffset {
    CommitOffset { at: assignment.at.clone(), epoch: assignment.epoch, next, metadata: metadata.to_owned() }
}
