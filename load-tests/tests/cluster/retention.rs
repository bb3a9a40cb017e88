//! Records that are done are deleted by their owner, and a group that lost its offsets is refused.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use load_tests::broker::repository;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use relay_log::kafka::{KafkaLog, KafkaSettings};
use relay_log::port::{Log, NewRecord, TopicPartition, Watermarks};
use relay_protocol::{JobId, partition};
use serde_json::{Value, json};

use crate::processes::{Cluster, PATIENCE, Process, binary, node_command};
use crate::{events, kinds};

pub(crate) const PARTITIONS: u32 = 8;
pub(crate) const TOPIC: &str = "media.jobs.default";
pub(crate) const GROUP: &str = "media-relay.default";

pub(crate) fn node(cluster: &Cluster) -> anyhow::Result<Command> {
    let mut command = node_command("node-1", &cluster.bootstrap, &cluster.folder().join("objects"))?;
    command.env("RELAY__COORDINATOR__URL", &cluster.coordinator.url).env("RELAY__LANES__DELETE_INTERVAL_MS", "100");
    Ok(command)
}

pub(crate) fn submit(url: &str) -> anyhow::Result<String> {
    let submit = Command::new(binary("client-cli")?)
        .args(["--server", url, "submit", "--task", "probe", "--json"])
        .arg(repository().join("fixtures/audio/speech.mp3"))
        .output()?;
    ensure!(submit.status.success(), "{}", String::from_utf8_lossy(&submit.stderr));
    let last = String::from_utf8(submit.stdout)?.lines().last().context("no event")?.to_owned();
    let event: Value = serde_json::from_str(&last)?;
    ensure!(event["event"] == "completed", "{event}");
    Ok(event["job_id"].as_str().context("no job id")?.to_owned())
}

async fn borders(log: &KafkaLog) -> anyhow::Result<Vec<Watermarks>> {
    let mut found = Vec::new();
    for number in 0..PARTITIONS {
        found.push(log.watermarks(&TopicPartition::new(TOPIC, number)).await?);
    }
    Ok(found)
}

/// A job that comes while no node is there, in a partition whose first records are deleted.
async fn append_job(log: &KafkaLog, places: &[Watermarks]) -> anyhow::Result<JobId> {
    let now_ms = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
    let in_place = |job: &JobId| {
        let number = partition::of_key(partition::job_key("default", None, *job).as_bytes(), PARTITIONS);
        places[number as usize].low > 0
    };
    let job_id = (0..).map(|number| JobId::new(now_ms, 0, number)).find(in_place).context("no such id")?;
    let key = partition::job_key("default", None, job_id);
    let job = json!({ "id": job_id, "task": "probe", "input": { "url": "http://127.0.0.1:9/refused" } });
    let record = NewRecord {
        to: TopicPartition::new(TOPIC, partition::of_key(key.as_bytes(), PARTITIONS)),
        key: Some(key.into()),
        value: Some(serde_json::to_vec(&job)?.into()),
        headers: Vec::new(),
        timestamp_ms: now_ms,
    };
    log.append(vec![record]).await?;
    Ok(job_id)
}

/// Deletes the group, once its dead member's session has ended.
async fn delete_group(bootstrap: &str) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new().set("bootstrap.servers", bootstrap).create()?;
    let began = Instant::now();
    loop {
        let deleted = admin.delete_groups(&[GROUP], &AdminOptions::new()).await?;
        let left: Vec<_> = deleted.into_iter().filter_map(Result::err).collect();
        if left.is_empty() {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "the group is not deleted: {left:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// What the command in the refusal does: `--reset-offsets --to-earliest` for the partitions that it names.
fn reset_offsets(bootstrap: &str, words: &str, places: &[Watermarks]) -> anyhow::Result<()> {
    ensure!(words.contains(&format!("--bootstrap-server {bootstrap} --group {GROUP}")), "{words}");
    ensure!(words.contains("--reset-offsets --to-earliest --execute"), "{words}");
    let named = words.split(&format!("--topic {TOPIC}:")).nth(1).and_then(|rest| rest.split(' ').next());
    let mut list = TopicPartitionList::new();
    for number in named.context("no partitions are named")?.split(',') {
        let number: usize = number.parse()?;
        let low = Offset::Offset(i64::try_from(places[number].low)?);
        list.add_partition_offset(TOPIC, i32::try_from(number)?, low)?;
    }
    let deleted = places.iter().filter(|place| place.low > 0).count();
    ensure!(list.count() == deleted, "all of the {deleted} partitions are named: {words}");
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", bootstrap).set("group.id", GROUP).create()?;
    Ok(consumer.commit(&list, CommitMode::Sync)?)
}

#[test]
fn done_records_are_deleted_and_a_group_without_offsets_is_refused() -> anyhow::Result<()> {
    let cluster = Cluster::start(0, &[])?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let log = KafkaLog::connect(KafkaSettings::single_broker(&cluster.bootstrap))?;
    let mut first = Process::start(&mut node(&cluster)?)?;
    let done = (0..6).map(|_| submit(&first.url)).collect::<anyhow::Result<Vec<_>>>()?;
    let began = Instant::now();
    let places = loop {
        let places = runtime.block_on(borders(&log))?;
        if places.iter().map(|place| place.low).sum::<u64>() == done.len() as u64 {
            break places;
        }
        ensure!(began.elapsed() < PATIENCE, "what is done is not deleted: {places:?}");
        std::thread::sleep(Duration::from_millis(50));
    };
    first.kill_9()?;
    runtime.block_on(delete_group(&cluster.bootstrap))?;
    let waiting = runtime.block_on(append_job(&log, &places))?;

    let refused = node(&cluster)?.stdin(Stdio::null()).output()?;
    let words = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success(), "it must not go on");
    assert!(refused.stdout.is_empty(), "it was never ready");

    reset_offsets(&cluster.bootstrap, &words, &places)?;
    let again = Process::start(&mut node(&cluster)?)?;
    // It is done, which for a URL that nobody allowed is to fail.
    assert_eq!(kinds(&events(&again.url, &waiting.to_string())?).last(), Some(&"failed"));
    for job in &done {
        assert_eq!(cluster.terminal_events(job)?, 1, "{job} was done once");
    }
    Ok(())
}
