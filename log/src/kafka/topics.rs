//! Creating and checking topics, and deleting records.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::context::Plain;
use super::errors::{code_of, is_denial, log_error};
use super::feed::partition_id;
use super::properties::BATCH_BYTES_MAX;
use super::query::Query;
use super::{KafkaSettings, blocking};
use crate::port::{LogError, Retention, TopicPartition, TopicSpec, TopicState};

/// How often a new topic is looked at until it has leaders.
const LOOK: Duration = Duration::from_millis(30);

/// Bytes of a segment of a compacted topic: the newest segment is never compacted, and readers of such topics start at
/// the beginning.
const COMPACT_SEGMENT_BYTES: u32 = 16 << 20;

/// The configuration that a topic of `spec` is created with.
fn topic_config(spec: &TopicSpec, settings: &KafkaSettings) -> BTreeMap<&'static str, String> {
    let mut config = BTreeMap::from([
        ("min.insync.replicas", settings.min_in_sync_replicas.to_string()),
        ("max.message.bytes", BATCH_BYTES_MAX.to_string()),
        ("message.timestamp.type", "CreateTime".to_owned()),
    ]);
    match spec.retention {
        Retention::Forever => {
            config.insert("cleanup.policy", "delete".to_owned());
            config.insert("retention.ms", "-1".to_owned());
            config.insert("retention.bytes", "-1".to_owned());
        }
        Retention::Age(age) => {
            config.insert("cleanup.policy", "delete".to_owned());
            config.insert("retention.ms", age.as_millis().max(1).to_string());
            config.insert("retention.bytes", "-1".to_owned());
        }
        Retention::Compact => {
            config.insert("cleanup.policy", "compact".to_owned());
            config.insert("segment.bytes", COMPACT_SEGMENT_BYTES.to_string());
        }
    }
    config
}

/// The commands that create the topics of `specs` by Kafka's own tool, for an operator who creates them by hand.
pub fn kafka_topics_commands(specs: &[TopicSpec], settings: &KafkaSettings) -> Vec<String> {
    let credentials = if settings.extra.is_empty() { "" } else { " --command-config client.properties" };
    let command = |spec: &TopicSpec| {
        let configs: String =
            topic_config(spec, settings).iter().map(|(key, value)| format!(" --config {key}={value}")).collect();
        format!(
            "kafka-topics.sh --bootstrap-server {}{credentials} --create --if-not-exists --topic {} --partitions {} \
             --replication-factor {}{configs}",
            settings.brokers, spec.name, spec.partitions, settings.replication_factor,
        )
    };
    specs.iter().map(command).collect()
}

/// How each topic stands.
pub(super) async fn check(query: &Arc<Query>, specs: &[TopicSpec]) -> Result<Vec<TopicState>, LogError> {
    let (query, specs) = (Arc::clone(query), specs.to_vec());
    let state = move |spec: &TopicSpec| {
        Ok(match query.partitions(&spec.name)? {
            None => TopicState::Missing,
            Some(count) if count == spec.partitions => TopicState::Ready,
            Some(found) => TopicState::Partitions { found },
        })
    };
    blocking(move || specs.iter().map(state).collect()).await
}

/// Creates the missing topics and waits until each partition has a leader.
pub(super) async fn create(
    admin: &AdminClient<Plain>,
    query: &Arc<Query>,
    settings: &KafkaSettings,
    specs: &[TopicSpec],
) -> Result<(), LogError> {
    let states = check(query, specs).await?;
    let missing: Vec<TopicSpec> = specs
        .iter()
        .zip(states)
        .filter(|(_, state)| *state == TopicState::Missing)
        .map(|(spec, _)| spec.clone())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let configs: Vec<_> = missing.iter().map(|spec| topic_config(spec, settings)).collect();
    let topics: Vec<_> = missing.iter().zip(&configs).map(|(spec, config)| new_topic(spec, config, settings)).collect();
    let timeout = Duration::from_millis(settings.request_timeout_ms.into());
    let options = AdminOptions::new().request_timeout(Some(timeout)).operation_timeout(Some(timeout));
    let answers = admin.create_topics(&topics, &options).await.map_err(|error| log_error("creating topics", &error))?;
    for (topic, code) in answers.into_iter().filter_map(Result::err) {
        // Another process may create the same topics at the same time.
        if code != RDKafkaErrorCode::TopicAlreadyExists {
            return Err(creation_error(&topic, code, settings));
        }
    }
    await_leaders(query, missing, timeout).await
}

fn new_topic<'a>(
    spec: &'a TopicSpec,
    config: &'a BTreeMap<&'static str, String>,
    settings: &KafkaSettings,
) -> NewTopic<'a> {
    let partitions = i32::try_from(spec.partitions).unwrap_or(i32::MAX);
    let replication = TopicReplication::Fixed(settings.replication_factor.into());
    let topic = NewTopic::new(&spec.name, partitions, replication);
    config.iter().fold(topic, |topic, (key, value)| topic.set(key, value))
}

fn creation_error(topic: &str, code: RDKafkaErrorCode, settings: &KafkaSettings) -> LogError {
    let copies = settings.replication_factor;
    match code {
        RDKafkaErrorCode::InvalidReplicationFactor => LogError::Denied(format!(
            "topic {topic} wants {copies} copies (kafka.replication_factor), more than the cluster has brokers"
        )),
        code if is_denial(code) => LogError::Denied(format!("creating topic {topic}: {code}")),
        code => LogError::Unavailable(format!("creating topic {topic}: {code}")),
    }
}

async fn await_leaders(query: &Arc<Query>, specs: Vec<TopicSpec>, timeout: Duration) -> Result<(), LogError> {
    let until = Instant::now() + timeout;
    loop {
        // Borders are told by a partition's leader alone: once told, it can be written and read.
        let (asked, partitions) = (Arc::clone(query), all_partitions(&specs));
        let ready = check(query, &specs).await.and_then(|states| {
            let missing = states.iter().position(|state| *state == TopicState::Missing);
            missing.map_or(Ok(()), |i| Err(LogError::Unavailable(format!("topic {} is not there yet", specs[i].name))))
        });
        let ready = match ready {
            Ok(()) => blocking(move || asked.borders(&partitions).map(|_| ())).await,
            not_yet => not_yet,
        };
        match ready {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() + LOOK >= until => return Err(error),
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

fn all_partitions(specs: &[TopicSpec]) -> Vec<TopicPartition> {
    let of = |spec: &TopicSpec| {
        let name = Arc::clone(&spec.name);
        (0..spec.partitions).map(move |partition| TopicPartition { topic: Arc::clone(&name), partition })
    };
    specs.iter().flat_map(of).collect()
}

/// Deletes the records of `at` below `offset`.
pub(super) async fn delete_before(
    admin: &AdminClient<Plain>,
    query: &Arc<Query>,
    settings: &KafkaSettings,
    at: &TopicPartition,
    offset: u64,
) -> Result<(), LogError> {
    let (asked, place) = (Arc::clone(query), at.clone());
    blocking(move || asked.require(&place)).await?;
    let failed = |error: KafkaError| log_error("deleting records", &error);
    let mut list = TopicPartitionList::with_capacity(1);
    let raw = i64::try_from(offset).unwrap_or(i64::MAX);
    list.add_partition(&at.topic, partition_id(at)).set_offset(Offset::Offset(raw)).map_err(failed)?;
    let timeout = Duration::from_millis(settings.request_timeout_ms.into());
    let options = AdminOptions::new().request_timeout(Some(timeout)).operation_timeout(Some(timeout));
    let answer = admin.delete_records(&list, &options).await.map_err(failed)?;
    let refused = answer.find_partition(&at.topic, partition_id(at)).and_then(|element| element.error().err());
    match refused {
        None => Ok(()),
        Some(error) if code_of(&error) == Some(RDKafkaErrorCode::OffsetOutOfRange) => {
            let (asked, place) = (Arc::clone(query), at.clone());
            let borders = blocking(move || asked.borders(&[place])).await?;
            let (low, high) = borders.first().map_or((0, 0), |borders| (borders.low, borders.high));
            Err(LogError::OffsetOutOfRange { at: at.clone(), offset, low, high })
        }
        Some(error) => Err(failed(error)),
    }
}

#[cfg(test)]
#[path = "topics_test.rs"]
mod tests;
