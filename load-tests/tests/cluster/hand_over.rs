//! Jobs that run while their partitions move between real nodes on a real broker: a node joins, and the one that goes on
//! running them is killed or frozen meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use load_tests::broker::repository;
use load_tests::localai_sim::settings::SimulatorSettings;
use load_tests::localai_sim::{ModelCounters, Simulator};
use relay_log::kafka::{KafkaLog, KafkaSettings};
use relay_log::port::{Log, ReadEvent, Start, TopicPartition};
use relay_protocol::partition;
use relay_protocol::record::ControlRecord;
use serde_json::{Value, json};

use crate::processes::{Cluster, PATIENCE, Process, node_command};
use crate::slow_backend::SlowBackend;
use crate::{events, kinds};

/// Partitions of a lane: one job for each.
const JOBS: u32 = 8;
/// Variable: how many seconds each job of the test with the simulator lasts; 60 for one longer than [`POLL_INTERVAL_MS`].
const JOB_S: &str = "RELAY_TEST_JOB_S";
/// Without it: longer than the session (6 s) and the hand-over time-out (10 s).
const JOB_S_DEFAULT: u64 = 20;
/// Longest pause between two polls of the group's consumer, as short as librdkafka lets it be: no job is what it waits for.
const POLL_INTERVAL_MS: u64 = 45_000;
/// How long the zombie is frozen.
const FROZEN: Duration = Duration::from_secs(30);

/// A simulated LocalAI server on a thread of its own.
struct Localai {
    url: String,
    counts: mpsc::Sender<mpsc::Sender<ModelCounters>>,
}

impl Localai {
    /// A server that works on eight requests at a time, each for so long.
    fn start(work: Duration) -> anyhow::Result<Self> {
        let mut settings = SimulatorSettings::transcriber(work);
        settings.models.iter_mut().for_each(|model| model.workers = JOBS as usize);
        let (counts, asked) = mpsc::channel::<mpsc::Sender<ModelCounters>>();
        let (tell, url) = mpsc::channel();
        std::thread::spawn(move || {
            actix_rt::System::new().block_on(async move {
                let simulator = Simulator::start(settings).expect("the simulator starts");
                tell.send(simulator.url.clone()).expect("the test waits");
                let answer = move || {
                    while let Ok(asker) = asked.recv() {
                        let counted = simulator.counters().models.remove("whisper-1").unwrap_or_default();
                        // Whoever asked may have given up.
                        _ = asker.send(counted);
                    }
                };
                tokio::task::spawn_blocking(answer).await.expect("it answers");
            });
        });
        Ok(Self { url: url.recv_timeout(PATIENCE)?, counts })
    }

    fn counters(&self) -> anyhow::Result<ModelCounters> {
        let (tell, answer) = mpsc::channel();
        self.counts.send(tell)?;
        Ok(answer.recv_timeout(PATIENCE)?)
    }
}

/// Starts one more node of the cluster.
fn add_node(cluster: &mut Cluster, timeout_ms: u64) -> anyhow::Result<()> {
    let name = format!("node-{}", cluster.nodes.len() + 1);
    let file = cluster.folder().join("node.toml");
    std::fs::write(&file, format!("[kafka.extra]\n\"max.poll.interval.ms\" = \"{POLL_INTERVAL_MS}\"\n"))?;
    let mut command = node_command(&name, &cluster.bootstrap, &cluster.folder().join("objects"))?;
    command
        .arg("--config")
        .arg(&file)
        .env("RELAY__COORDINATOR__URL", &cluster.coordinator.url)
        .env("RELAY__LANES__HANDOVER_TIMEOUT_MS", timeout_ms.to_string());
    let node = Process::start(&mut command)?;
    cluster.nodes.push(node);
    Ok(())
}

/// Submits one job for each partition.
fn submit(url: &str, job: &Value) -> anyhow::Result<Vec<String>> {
    relay_runtime::tls::install_provider();
    let (client, mut ids) = (reqwest::blocking::Client::new(), BTreeMap::new());
    for number in 0.. {
        let key = format!("key-{number}");
        let partition = partition::of_key(
            partition::job_key("default", Some(&key), relay_protocol::JobId::new(1, 2, 3)).as_bytes(),
            JOBS,
        );
        if ids.contains_key(&partition) {
            continue;
        }
        let mut job = job.clone();
        job["idempotency_key"] = json!(key);
        let answer: Value = client.post(format!("{url}/v1/jobs")).json(&job).send()?.json()?;
        ids.insert(partition, answer["job_id"].as_str().with_context(|| format!("refused: {answer}"))?.to_owned());
        if ids.len() == JOBS as usize {
            break;
        }
    }
    Ok(ids.into_values().collect())
}

/// The control records so far, with their partitions.
fn control(bootstrap: &str) -> anyhow::Result<Vec<(u32, ControlRecord)>> {
    let log = KafkaLog::connect(KafkaSettings::single_broker(bootstrap))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let at = |partition| TopicPartition::new("media.control.default", partition);
        let mut open: Vec<_> = (0..JOBS).map(at).collect();
        let mut reader = log.read(open.iter().map(|at| (at.clone(), Start::Earliest)).collect()).await?;
        let mut found = Vec::new();
        while !open.is_empty() {
            match tokio::time::timeout(PATIENCE, reader.next()).await?? {
                ReadEvent::End { at, .. } => open.retain(|still| *still != at),
                ReadEvent::Record(record) => {
                    let read = serde_json::from_slice(record.value.as_deref().unwrap_or_default())?;
                    found.push((record.at.partition, read));
                }
            }
        }
        Ok(found)
    })
}

/// Waits until the jobs of half of the partitions are kept by their old node.
fn wait_for_kept(bootstrap: &str) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let records = control(bootstrap)?;
        let kept: BTreeSet<u32> =
            records.iter().filter(|(_, record)| matches!(record, ControlRecord::Kept(_))).map(|(of, _)| *of).collect();
        if kept.len() == JOBS as usize / 2 {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "half of the jobs should be kept: {records:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The job's end, which is its only one; its attempts, as their numbers and nodes.
fn ended(cluster: &Cluster, url: &str, job_id: &str) -> anyhow::Result<Vec<(u64, String)>> {
    let seen = events(url, job_id)?;
    assert_eq!(kinds(&seen).last(), Some(&"completed"), "{seen:?}");
    assert_eq!(cluster.terminal_events(job_id)?, 1, "one terminal event lies in the topic: {seen:?}");
    let started = seen.iter().filter(|event| event["event"] == "started");
    Ok(started.filter_map(|event| Some((event["attempt"].as_u64()?, event["node"].as_str()?.to_owned()))).collect())
}

#[test]
fn a_node_joins_during_eight_long_jobs_and_each_runs_once() -> anyhow::Result<()> {
    let job_s = std::env::var(JOB_S).map_or(Ok(JOB_S_DEFAULT), |text| text.parse()).context(JOB_S)?;
    let localai = Localai::start(Duration::from_secs(job_s))?;
    let mut cluster = Cluster::start(0, &[&format!("{};slots={JOBS}", localai.url)])?;
    add_node(&mut cluster, 10_000)?;
    let sample = STANDARD.encode(std::fs::read(repository().join("fixtures/audio/speech.wav"))?);
    let job = json!({ "task": "transcribe", "model": "whisper-1", "input": { "inline": { "data": sample } } });
    let ids = submit(&cluster.nodes[0].url, &job)?;
    let began = Instant::now();
    while localai.counters()?.in_flight < u64::from(JOBS) {
        ensure!(began.elapsed() < PATIENCE, "eight jobs should run: {:?}", localai.counters()?);
        std::thread::sleep(Duration::from_millis(20));
    }
    add_node(&mut cluster, 10_000)?;
    wait_for_kept(&cluster.bootstrap)?;
    assert_eq!(localai.counters()?.completed, 0, "the jobs should last until the partitions have moved");
    for id in &ids {
        assert_eq!(ended(&cluster, &cluster.nodes[1].url, id)?, [(1, "node-1".to_owned())], "it runs once");
    }
    let counted = localai.counters()?;
    assert_eq!((counted.requests, counted.completed, counted.cancelled), (8, 8, 0), "{counted:?}");
    let records = control(&cluster.bootstrap)?;
    let ends = records.iter().filter(|(_, record)| matches!(record, ControlRecord::KeptEnd(_))).count();
    assert_eq!(ends, JOBS as usize / 2, "half of the jobs were handed over: {records:?}");
    Ok(())
}

/// A cluster whose first node runs eight jobs that last until the backend is told to answer, half of them for the second node.
fn half_kept(backend: &SlowBackend) -> anyhow::Result<(Cluster, Vec<String>)> {
    let mut cluster = Cluster::start(0, &[&format!("{};slots=32", backend.url)])?;
    add_node(&mut cluster, 3_000)?;
    let ids = submit(&cluster.nodes[0].url, &json!({ "task": "embed", "model": "m", "input": { "text": "a" } }))?;
    backend.wait_for_requests(JOBS as usize)?;
    add_node(&mut cluster, 3_000)?;
    wait_for_kept(&cluster.bootstrap)?;
    assert_eq!(backend.requests(), JOBS as usize, "a job ran twice");
    Ok((cluster, ids))
}

fn expect_second_runs(cluster: &Cluster, ids: &[String]) -> anyhow::Result<()> {
    let expected = [(1, "node-1".to_owned()), (2, "node-2".to_owned())];
    for id in ids {
        assert_eq!(ended(cluster, &cluster.nodes[1].url, id)?, expected);
    }
    Ok(())
}

#[test]
fn jobs_of_a_node_that_is_killed_while_it_keeps_them_are_run_again_once() -> anyhow::Result<()> {
    let backend = SlowBackend::start()?;
    let (mut cluster, ids) = half_kept(&backend)?;
    cluster.nodes[0].kill_9()?;
    backend.wait_for_requests(2 * JOBS as usize)?;
    backend.answer();
    expect_second_runs(&cluster, &ids)?;
    assert_eq!(backend.requests(), 2 * JOBS as usize, "each was run again once");
    Ok(())
}

#[test]
fn a_node_that_was_frozen_while_it_ran_and_kept_jobs_ends_none_of_them() -> anyhow::Result<()> {
    let backend = SlowBackend::start()?;
    let (cluster, ids) = half_kept(&backend)?;
    cluster.nodes[0].freeze()?;
    let began = Instant::now();
    backend.wait_for_requests(2 * JOBS as usize)?;
    // The calls of the frozen node are answered too: it finds the answers when it wakes.
    backend.answer();
    expect_second_runs(&cluster, &ids)?;
    std::thread::sleep(FROZEN.saturating_sub(began.elapsed()));
    cluster.nodes[0].thaw()?;
    // It takes work again, and so has seen to what it held before.
    let (client, url) = (reqwest::blocking::Client::new(), cluster.nodes[0].url.clone());
    let again = json!({ "task": "embed", "model": "m", "input": { "text": "b" } });
    let began = Instant::now();
    let later = loop {
        let answer = client.post(format!("{url}/v1/jobs")).json(&again).timeout(Duration::from_secs(5)).send();
        match answer.and_then(reqwest::blocking::Response::json::<Value>) {
            Ok(answer) if answer["job_id"].is_string() => {
                break answer["job_id"].as_str().unwrap_or_default().to_owned();
            }
            answer => ensure!(began.elapsed() < PATIENCE, "the node does not come back: {answer:?}"),
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    ended(&cluster, &url, &later)?;
    // The group is whole again: half of the partitions are the first node's.
    let began = Instant::now();
    while !metrics(&client, &url)?.contains("relay_lane_kept_jobs{lane=\"default\"} 0") {
        ensure!(began.elapsed() < PATIENCE, "the node still keeps jobs");
        std::thread::sleep(Duration::from_millis(100));
    }
    expect_second_runs(&cluster, &ids)?;
    Ok(())
}

fn metrics(client: &reqwest::blocking::Client, url: &str) -> anyhow::Result<String> {
    Ok(client.get(format!("{url}/metrics")).send()?.text()?)
}
