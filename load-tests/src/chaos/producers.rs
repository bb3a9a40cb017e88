//! Those who submit while everything falls: SDK clients that wait for the events of their jobs, HTTP clients with idempotency
//! keys, and a program that writes to Kafka itself. Each tries a job again, as the same job, until it is acknowledged.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use client_cli::{Client, ClientSettings, JobHandle, JobInput, JobRequest};
use rand::Rng as _;
use relay_log::kafka::{KafkaLog, KafkaSettings};
use relay_log::port::{Log, NewRecord, TopicPartition};
use relay_protocol::{JobId, partition, topics};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::fleet::Fleet;
use super::history::History;
use crate::broker::repository;

/// Partitions of the lane and of the event topic.
pub(super) const PARTITIONS: u32 = 8;

/// Pause before a job is tried again.
const AGAIN: Duration = Duration::from_millis(200);

/// How long a job is tried once no new ones are begun, and how long a client waits for the end of one.
const LAST_PATIENCE: Duration = Duration::from_secs(150);

/// Longest answer to an HTTP request.
const HTTP_PATIENCE: Duration = Duration::from_secs(10);

/// Two samples of silence at 8 kHz.
const TINY_WAV: &[u8] =
    b"RIFF\x28\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data\x04\0\0\0\0\0\0\0";

struct Shared {
    history: Arc<Mutex<History>>,
    clients: Vec<Client>,
    urls: Vec<String>,
    http: reqwest::Client,
    log: KafkaLog,
    speech: Bytes,
    number: AtomicU64,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// All producers.
pub(super) struct Producers {
    shared: Arc<Shared>,
    waiting: TaskTracker,
}

/// How a job is submitted.
#[derive(Clone, Copy)]
enum Way {
    Sdk,
    Http,
    Kafka,
}

impl Producers {
    /// Connects, and begins to submit `per_second` jobs.
    ///
    /// # Errors
    /// No node, no Kafka.
    pub(super) async fn start(
        fleet: &Fleet,
        bootstrap: &str,
        history: Arc<Mutex<History>>,
        per_second: f64,
    ) -> anyhow::Result<Self> {
        let urls = fleet.client_urls();
        let mut clients = Vec::new();
        for at in 0..urls.len() {
            // Each begins at another node; all know all of them.
            let mut servers = urls.clone();
            servers.rotate_left(at);
            // A node's own address would lead past the proxy.
            let settings = ClientSettings { servers: servers.join(","), placement: false, ..ClientSettings::default() };
            clients.push(Client::connect(settings).await?);
        }
        let speech = std::fs::read(repository().join("fixtures/audio/speech.wav"))?;
        let shared = Arc::new(Shared {
            history,
            clients,
            urls,
            http: reqwest::Client::new(),
            log: KafkaLog::connect(KafkaSettings { brokers: bootstrap.to_owned(), ..KafkaSettings::default() })?,
            speech: speech.into(),
            number: AtomicU64::new(0),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let producers = Self { shared: shared.clone(), waiting: TaskTracker::new() };
        let waiting = producers.waiting.clone();
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / per_second));
            while shared.stop.run_until_cancelled(ticks.tick()).await.is_some() {
                let number = shared.number.fetch_add(1, Ordering::Relaxed);
                shared.tasks.spawn(one(shared.clone(), waiting.clone(), number));
            }
        });
        Ok(producers)
    }

    /// Begins no more jobs, and waits until those begun are acknowledged or given up.
    pub(super) async fn stop(&self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    /// Waits until the clients have heard of the ends that they wait for.
    pub(super) async fn hear_the_rest(&self) {
        self.waiting.close();
        // What is still open then is found by the check.
        let _ = tokio::time::timeout(LAST_PATIENCE, self.waiting.wait()).await;
    }
}

/// One job, tried until it is acknowledged.
async fn one(shared: Arc<Shared>, waiting: TaskTracker, number: u64) {
    let way = [Way::Sdk, Way::Http, Way::Kafka][(number % 3) as usize];
    let job_id = JobId::new(now_ms(), rand::random::<u32>() % PARTITIONS, rand::random());
    // Every third key is one that another job has too.
    let key = matches!(way, Way::Http).then(|| format!("key-{}", number / 6));
    let is_slow = number.is_multiple_of(2);
    let mut given_up = None;
    loop {
        let acknowledged = match way {
            Way::Sdk => over_sdk(&shared, &waiting, number, job_id, is_slow).await,
            Way::Http => over_http(&shared, job_id, key.as_deref().unwrap_or_default()).await,
            Way::Kafka => over_kafka(&shared, job_id, is_slow).await,
        };
        match acknowledged {
            Ok(()) => {
                lock(&shared.history).accepted.insert(job_id, key);
                return;
            }
            Err(error) => tracing::debug!(%job_id, %error, "not acknowledged, trying again"),
        }
        if shared.stop.is_cancelled() {
            let until = *given_up.get_or_insert_with(|| tokio::time::Instant::now() + LAST_PATIENCE);
            if tokio::time::Instant::now() > until {
                lock(&shared.history).unanswered.insert(job_id);
                return;
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn over_sdk(
    shared: &Arc<Shared>,
    waiting: &TaskTracker,
    number: u64,
    job_id: JobId,
    is_slow: bool,
) -> anyhow::Result<()> {
    let client = &shared.clients[(number / 3) as usize % shared.clients.len()];
    let input = if is_slow { Bytes::from(text()) } else { shared.speech.clone() };
    let mut job = JobRequest::new(if is_slow { "embed" } else { "vad" }, JobInput::Bytes(input));
    job.model = is_slow.then(|| "embed-1".to_owned());
    job.job_id = Some(job_id);
    let handle = client.submit(job).await?;
    waiting.spawn(hear(shared.clone(), handle));
    Ok(())
}

/// Writes down what a client is told of its job.
async fn hear(shared: Arc<Shared>, mut handle: JobHandle) {
    let job_id = handle.job_id();
    lock(&shared.history).heard.entry(job_id).or_default();
    loop {
        match handle.next_event().await {
            Ok(Some(event)) => {
                lock(&shared.history).heard.entry(job_id).or_default().push((event.seq, event.terminal));
            }
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%job_id, %error, "a client gave its job up");
                return;
            }
        }
    }
}

async fn over_http(shared: &Shared, job_id: JobId, key: &str) -> anyhow::Result<()> {
    let url = &shared.urls[rand::rng().random_range(0..shared.urls.len())];
    let mut job = small_job(job_id);
    job["idempotency_key"] = json!(key);
    let request = shared.http.post(format!("{url}/v1/jobs")).json(&job).timeout(HTTP_PATIENCE);
    let answer = request.send().await?;
    let status = answer.status();
    anyhow::ensure!(status.as_u16() == 202, "{status}: {}", answer.text().await?);
    Ok(())
}

async fn over_kafka(shared: &Shared, job_id: JobId, is_slow: bool) -> anyhow::Result<()> {
    let job = if is_slow {
        json!({ "id": job_id, "task": "embed", "model": "embed-1", "input": { "text": text() } })
    } else {
        small_job(job_id)
    };
    let key = partition::job_key("default", None, job_id);
    let to = TopicPartition::new(topics::jobs(topics::DEFAULT_LANE), partition::of_key(key.as_bytes(), PARTITIONS));
    let record = NewRecord {
        to,
        key: Some(key.into()),
        value: Some(serde_json::to_vec(&job)?.into()),
        headers: Vec::new(),
        timestamp_ms: now_ms(),
    };
    shared.log.append(vec![record]).await.context("appending")?;
    Ok(())
}

fn small_job(job_id: JobId) -> Value {
    json!({ "id": job_id, "task": "probe", "input": { "inline": { "data": STANDARD.encode(TINY_WAV) } } })
}

/// Text that a simulator works on for an eighth of a second to three.
fn text() -> String {
    "word ".repeat(rand::rng().random_range(25..600))
}

fn lock(history: &Mutex<History>) -> MutexGuard<'_, History> {
    history.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Milliseconds since the Unix epoch.
pub(super) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
