//! Offsets that say more than the log has: what the last commit called done is done again if its end is not there.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use relay_log::kafka::{KafkaLog, KafkaSettings};
use relay_log::port::{Log, NewRecord, TopicPartition};
use relay_node::intake::tracker::Tracker;
use relay_protocol::{JobId, partition};
use serde_json::json;

use crate::processes::{Cluster, PATIENCE, Process};
use crate::retention::{GROUP, PARTITIONS, TOPIC, node, submit};
use crate::{events, kinds};

const HOUR_MS: u64 = 3_600_000;

/// A job of partition `number` that comes while no node is there, and its offset.
async fn append_job(log: &KafkaLog, number: u32, now_ms: u64) -> anyhow::Result<(JobId, u64)> {
    let key = |job| partition::job_key("default", None, job);
    let is_there = |job: &JobId| partition::of_key(key(*job).as_bytes(), PARTITIONS) == number;
    let job_id = (0..).map(|n| JobId::new(now_ms, 0, n)).find(is_there).context("no such id")?;
    let job = json!({ "id": job_id, "task": "probe", "input": { "url": "http://127.0.0.1:9/refused" } });
    let record = NewRecord {
        to: TopicPartition::new(TOPIC, number),
        key: Some(key(job_id).into()),
        value: Some(serde_json::to_vec(&job)?.into()),
        headers: Vec::new(),
        timestamp_ms: now_ms,
    };
    let offsets = log.append(vec![record]).await?;
    Ok((job_id, *offsets.first().context("no offset")?))
}

/// Commits that these offsets are done, and that this commit has their ends, once the dead member's session has ended.
fn commit_alone(bootstrap: &str, number: u32, done: [u64; 2], now_ms: u64) -> anyhow::Result<()> {
    let mut tracker = Tracker::new(None, done[0], now_ms);
    for offset in done {
        tracker.deliver(offset, now_ms);
        tracker.finish(offset, Some(now_ms + HOUR_MS));
    }
    let progress = tracker.proposal();
    let mut list = TopicPartitionList::new();
    let mut place = list.add_partition(TOPIC, i32::try_from(number)?);
    place.set_offset(Offset::Offset(i64::try_from(progress.next)?))?;
    place.set_metadata(progress.pack());
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", bootstrap).set("group.id", GROUP).create()?;
    let began = Instant::now();
    while let Err(error) = consumer.commit(&list, CommitMode::Sync) {
        ensure!(began.elapsed() < PATIENCE, "the offsets are not committed: {error}");
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

#[test]
fn a_job_whose_offset_was_committed_without_its_end_is_done_and_one_that_ended_is_not_done_again() -> anyhow::Result<()>
{
    let cluster = Cluster::start(0, &[])?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let log = KafkaLog::connect(KafkaSettings::single_broker(&cluster.bootstrap))?;
    let mut first = Process::start(&mut node(&cluster)?)?;
    let ended = submit(&first.url)?;
    let heard = events(&first.url, &ended)?;
    let place = heard.iter().find_map(|event| event["place"].as_object()).context("no place")?;
    let (number, offset) = (&place["partition"], &place["offset"]);
    let number = u32::try_from(number.as_u64().context("no partition")?)?;
    let offset = offset.as_u64().context("no offset")?;
    first.kill_9()?;

    let now_ms = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
    let (lost, lost_offset) = runtime.block_on(append_job(&log, number, now_ms))?;
    commit_alone(&cluster.bootstrap, number, [offset, lost_offset], now_ms)?;

    let again = Process::start(&mut node(&cluster)?)?;
    let began = Instant::now();
    while cluster.terminal_events(&lost.to_string())? == 0 {
        ensure!(began.elapsed() < PATIENCE, "the job was not done");
        std::thread::sleep(Duration::from_millis(100));
    }
    // It is done, which for a URL that nobody allowed is to fail.
    assert_eq!(kinds(&events(&again.url, &lost.to_string())?).last(), Some(&"failed"));
    assert_eq!(cluster.terminal_events(&lost.to_string())?, 1);
    assert_eq!(cluster.terminal_events(&ended)?, 1, "what has an end is not done again");
    Ok(())
}
