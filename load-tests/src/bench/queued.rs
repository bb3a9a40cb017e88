//! `bench queued`: what a node holds in memory while very many jobs wait in its lane, on a real broker.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use bytes::Bytes;
use clap::{Args, ValueEnum};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use relay_log::kafka::{KafkaLog, KafkaSettings};
use relay_log::port::{Log, NewRecord, TopicPartition};
use relay_protocol::{JobId, partition, topics};

use super::process::{Started, coordinator, node, start};
use super::report::{Report, Row};
use crate::broker::Broker;

/// Jobs of one append.
const BATCH: usize = 1_000;
/// Appends under way.
const APPENDS: usize = 8;
/// Seconds between two figures on stderr.
const SAY_EVERY_S: u64 = 10;
/// Time between two looks at the node.
const LOOK: Duration = Duration::from_secs(1);

/// What to measure.
#[derive(Debug, Args)]
pub struct QueuedArguments {
    /// Jobs that are in the lane before the node starts.
    #[arg(long, default_value_t = 1_000_000)]
    jobs: usize,
    /// Bytes of each job's input.
    #[arg(long, default_value_t = 200)]
    bytes: usize,
    /// Partitions of the lane, all of them the one node's.
    #[arg(long, default_value_t = 8)]
    partitions: u32,
    /// Seconds that the node is looked at.
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// What the jobs wait for.
    #[arg(long, value_delimiter = ',', default_values = ["turn", "model"])]
    wait_for: Vec<WaitFor>,
    /// Where the figures go as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What jobs wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum WaitFor {
    /// Their turn: they can be done, one at a time.
    Turn,
    /// A model that no backend has: none can be done, and all are parked.
    Model,
}

impl WaitFor {
    fn name(self) -> &'static str {
        match self {
            Self::Turn => "their turn",
            Self::Model => "a model that nobody has",
        }
    }

    fn job(self, id: JobId, text: &str) -> serde_json::Value {
        match self {
            Self::Turn => serde_json::json!({ "id": id, "task": "probe", "input": { "text": text } }),
            Self::Model => {
                serde_json::json!({ "id": id, "task": "embed", "model": "nobody-has-it", "input": { "text": text } })
            }
        }
    }
}

/// Measures and prints.
///
/// # Errors
/// A binary that is not built, a broker, coordinator or node that does not start.
pub async fn run(arguments: QueuedArguments) -> anyhow::Result<()> {
    let settings =
        serde_json::json!({ "jobs": arguments.jobs, "bytes": arguments.bytes, "seconds": arguments.seconds });
    let mut report = Report::new("bench queued", settings);
    for wait_for in &arguments.wait_for {
        report.rows.push(measure(&arguments, *wait_for).await?);
    }
    report.publish(arguments.json.as_deref())
}

async fn measure(arguments: &QueuedArguments, wait_for: WaitFor) -> anyhow::Result<Row> {
    let folder = tempfile::tempdir()?;
    let broker = Broker::start(&folder.path().join("kafka"))?;
    let coordinator = start(
        coordinator(&broker.bootstrap)?
            // Nobody listens there: its models are not to be had now.
            .env("RELAY__BACKENDS__STATIC", "http://127.0.0.1:1")
            .env("RELAY__TOPICS__LANE_PARTITIONS", arguments.partitions.to_string()),
    )?;
    let written = write(&broker.bootstrap, arguments, wait_for).await?;
    let node =
        start(node("node-1", &broker.bootstrap, &coordinator.url, folder.path())?.env("RELAY__BUILTIN__SLOTS", "1"))?;
    let watched = watch(&node, Duration::from_secs(arguments.seconds)).await?;
    Ok(Row {
        what: format!("{} jobs wait for {}", arguments.jobs, wait_for.name()),
        figures: vec![
            ("written s".to_owned(), written.as_secs_f64()),
            ("RSS MB at 10 s".to_owned(), watched.early_mb),
            ("RSS MB most".to_owned(), watched.most_mb),
            ("RSS MB last".to_owned(), watched.last_mb),
            ("waiting".to_owned(), watched.waiting),
            ("parked".to_owned(), watched.parked),
            ("ended".to_owned(), watched.ended),
        ],
    })
}

/// Writes the jobs where their keys belong, as a producer does.
async fn write(bootstrap: &str, arguments: &QueuedArguments, wait_for: WaitFor) -> anyhow::Result<Duration> {
    let log: Arc<dyn Log> = Arc::new(KafkaLog::connect(KafkaSettings::single_broker(bootstrap))?);
    let (began, now_ms) = (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64);
    let (text, partitions) = ("x".repeat(arguments.bytes.max(1)), arguments.partitions);
    let batches = (0..arguments.jobs).step_by(BATCH).map(|first| {
        let numbers = first..(first + BATCH).min(arguments.jobs);
        let records: Vec<NewRecord> =
            numbers.map(|number| record(number, now_ms, partitions, wait_for, &text)).collect();
        let log = log.clone();
        async move { log.append(records).await.map(|_| ()) }
    });
    stream::iter(batches).buffer_unordered(APPENDS).try_collect::<Vec<()>>().await.context("writing the jobs")?;
    Ok(began.elapsed())
}

fn record(number: usize, now_ms: u64, partitions: u32, wait_for: WaitFor, text: &str) -> NewRecord {
    let id = JobId::new(now_ms, number as u32, number as u64);
    let key = partition::job_key("default", None, id);
    let place = partition::of_key(key.as_bytes(), partitions);
    NewRecord {
        to: TopicPartition::new(topics::jobs(topics::DEFAULT_LANE), place),
        key: Some(Bytes::from(key)),
        value: Some(Bytes::from(wait_for.job(id, text).to_string())),
        headers: Vec::new(),
        timestamp_ms: now_ms,
    }
}

#[derive(Debug, Default)]
struct Watched {
    early_mb: f64,
    most_mb: f64,
    last_mb: f64,
    waiting: f64,
    parked: f64,
    ended: f64,
}

/// Looks at the node again and again.
async fn watch(node: &Started, time: Duration) -> anyhow::Result<Watched> {
    let (began, mut watched) = (Instant::now(), Watched::default());
    while began.elapsed() < time {
        tokio::time::sleep(LOOK).await;
        watched.last_mb = node.resident_mb()?;
        watched.most_mb = watched.most_mb.max(watched.last_mb);
        let seconds = began.elapsed().as_secs();
        if seconds.is_multiple_of(SAY_EVERY_S) {
            eprintln!("{seconds:>5} s: {:.1} MB resident", watched.last_mb);
        }
        if began.elapsed() < Duration::from_secs(10) {
            watched.early_mb = watched.last_mb;
        }
    }
    let metrics = reqwest::get(format!("{}/metrics", node.url)).await?.text().await?;
    let sum = |name: &str| {
        let lines = metrics.lines().filter(|line| line.starts_with(name));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    };
    watched.waiting = sum("relay_lane_waiting_jobs");
    watched.parked = sum("relay_lane_parked_jobs");
    watched.ended = sum("relay_jobs_ended_total");
    Ok(watched)
}
