//! `bench takeover`: how soon the jobs of a killed node are tried again, by the other node or by its own next life.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::ensure;
use clap::Args;
use rand::Rng as _;
use serde_json::json;

use super::process::{Started, binary, coordinator, node, start};
use super::report::{Report, Row};
use crate::broker::Broker;
use crate::chaos::history::History;
use crate::chaos::topic;

/// Time for jobs to run on both nodes before the next kill.
const REST: Duration = Duration::from_secs(4);

/// Time after a kill in which its jobs must be tried again: the session, and much more.
const AWAY: Duration = Duration::from_secs(12);

/// What to measure.
#[derive(Debug, Args)]
pub struct TakeOverArguments {
    /// Kills of each kind.
    #[arg(long, default_value_t = 10)]
    kills: usize,
    /// Jobs a second: half of them run at a backend for up to three seconds, the others end at once.
    #[arg(long, default_value_t = 30.0)]
    per_second: f64,
    /// Where the figures go as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What becomes of the killed node.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// It stays away until its jobs are another's.
    Away,
    /// It is started again at once.
    Back,
    /// The same, and it is a static member.
    BackStatic,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Away, Self::Back, Self::BackStatic];

    fn name(self) -> &'static str {
        match self {
            Self::Away => "killed",
            Self::Back => "killed, started again at once",
            Self::BackStatic => "the same, static membership",
        }
    }
}

/// Measures and prints.
///
/// # Errors
/// A binary that is not built or does not start, a kill of which no job was taken over.
pub async fn run(arguments: TakeOverArguments) -> anyhow::Result<()> {
    let settings = json!({ "kills": arguments.kills, "per_second": arguments.per_second, "session_timeout_ms": 6_000 });
    let mut report = Report::new("bench takeover", settings);
    for kind in Kind::ALL {
        report.rows.push(measure(kind, &arguments).await?);
    }
    report.publish(arguments.json.as_deref())
}

async fn measure(kind: Kind, arguments: &TakeOverArguments) -> anyhow::Result<Row> {
    let folder = tempfile::tempdir()?;
    let broker = Broker::start(&folder.path().join("kafka"))?;
    let simulator = start(binary("localai-simulator")?.args([
        "--listen",
        "127.0.0.1:0",
        "--workers",
        "64",
        "--spread",
        "0.6",
        "--speed",
        "2",
    ]))?;
    let coordinator = start(
        coordinator(&broker.bootstrap)?
            .env("RELAY__LEASES__RESTART_WAIT_MS", "0")
            .env("RELAY__BACKENDS__SLOTS_DEFAULT", "64")
            .env("RELAY__BACKENDS__STATIC", &simulator.url),
    )?;
    let node = |at: usize| launch(kind, at, &broker.bootstrap, &coordinator.url, folder.path());
    let mut nodes = [Some(node(0)?), Some(node(1)?)];
    let urls = Arc::new(Mutex::new(nodes.iter().map(url_of).collect::<Vec<_>>()));
    let load = tokio::spawn(keep_submitting(urls.clone(), arguments.per_second));
    let mut history = History::default();
    for kill in 0..arguments.kills {
        let victim = kill % 2;
        tokio::time::sleep(REST).await;
        lock(&urls)[victim] = None;
        history.kills.push((name(victim), now_ms()));
        nodes[victim] = None; // SIGKILL
        if matches!(kind, Kind::Away) {
            tokio::time::sleep(AWAY).await;
        }
        nodes[victim] = Some(node(victim)?);
        lock(&urls)[victim] = url_of(&nodes[victim]);
        if !matches!(kind, Kind::Away) {
            tokio::time::sleep(AWAY).await;
        }
        eprintln!("{}: {} of {}", kind.name(), kill + 1, arguments.kills);
    }
    load.abort();
    tokio::time::sleep(AWAY).await;
    history.events = topic::read_all(&broker.bootstrap).await?;
    let times: Vec<_> = history.take_overs().iter().map(|one| one.took_ms).collect();
    ensure!(times.len() >= arguments.kills, "only {} jobs were taken over", times.len());
    let percentile = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)] as f64;
    Ok(Row {
        what: kind.name().to_owned(),
        figures: vec![
            ("jobs".to_owned(), times.len() as f64),
            ("p50 ms".to_owned(), percentile(50)),
            ("p99 ms".to_owned(), percentile(99)),
            ("max ms".to_owned(), percentile(100)),
        ],
    })
}

fn url_of(node: &Option<Started>) -> Option<String> {
    node.as_ref().map(|node| node.url.clone())
}

fn name(at: usize) -> String {
    format!("node-{}", at + 1)
}

fn launch(kind: Kind, at: usize, bootstrap: &str, coordinator: &str, folder: &Path) -> anyhow::Result<Started> {
    let is_static = matches!(kind, Kind::BackStatic);
    let mut node = node(&name(at), bootstrap, coordinator, folder)?;
    start(node.env("RELAY__KAFKA__STATIC_MEMBERSHIP", is_static.to_string()))
}

async fn keep_submitting(urls: Arc<Mutex<Vec<Option<String>>>>, per_second: f64) {
    let client = reqwest::Client::new();
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / per_second));
    for number in 0_usize.. {
        ticks.tick().await;
        let living: Vec<String> = lock(&urls).iter().flatten().cloned().collect();
        let Some(url) = living.get(number % living.len().max(1)) else { continue };
        let words = "word ".repeat(rand::rng().random_range(25..600));
        let job = if number % 4 < 2 {
            json!({ "task": "embed", "model": "embed-1", "input": { "text": words } })
        } else {
            json!({ "task": "probe", "input": { "inline": { "data": "AAAA" } } })
        };
        let request = client.post(format!("{url}/v1/jobs")).json(&job).timeout(AWAY);
        // A submission that fails is load that is not there; the figures are of jobs that ran.
        tokio::spawn(async move { drop(request.send().await) });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
