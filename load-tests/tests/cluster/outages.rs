//! Kafka or the coordinator away, at the start and later; a node whose store is another one.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use load_tests::broker::{self, Broker, repository};
use serde_json::{Value, json};

use crate::processes::{Cluster, PATIENCE, Process, binary, coordinator_command, free_address, node_command};
use crate::slow_backend::SlowBackend;
use crate::{events, kinds};

/// The reason that `/readyz` gives while Kafka is away.
const LOG: &str = "\"code\":\"log\"";

/// Status and body of an HTTP request; `None` while nobody listens.
fn ask(request: reqwest::blocking::RequestBuilder) -> Option<(u16, String)> {
    let answer = request.timeout(Duration::from_secs(15)).send().ok()?;
    Some((answer.status().as_u16(), answer.text().ok()?))
}

fn get(url: &str) -> Option<(u16, String)> {
    ask(reqwest::blocking::Client::new().get(url))
}

fn submit_text(url: &str) -> Option<(u16, String)> {
    let job = json!({ "task": "probe", "input": { "inline": { "data": "AAAA" } } });
    ask(reqwest::blocking::Client::new().post(format!("{url}/v1/jobs")).json(&job))
}

/// Waits until `/readyz` has this status and says this.
fn wait_for_readiness(url: &str, wanted: u16, says: &str) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        match get(&format!("{url}/readyz")) {
            Some((status, body)) if status == wanted && body.contains(says) => return Ok(()),
            last => ensure!(began.elapsed() < PATIENCE, "not {wanted} with {says} in time: {last:?}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn vad(url: &str) -> anyhow::Result<Value> {
    let submit = Command::new(binary("client-cli")?)
        .args(["--server", url, "submit", "--task", "vad", "--json"])
        .arg(repository().join("fixtures/audio/speech.wav"))
        .output()?;
    ensure!(submit.status.success(), "{}", String::from_utf8_lossy(&submit.stderr));
    let last = String::from_utf8(submit.stdout)?.lines().last().context("no event")?.to_owned();
    Ok(serde_json::from_str(&last)?)
}

fn submit_slow(url: &str) -> anyhow::Result<String> {
    let submit = Command::new(binary("client-cli")?)
        .args(["--server", url, "submit", "--task", "embed", "--model", "m", "--detach"])
        .arg(repository().join("LICENSE"))
        .output()?;
    ensure!(submit.status.success(), "{}", String::from_utf8_lossy(&submit.stderr));
    Ok(String::from_utf8(submit.stdout)?.trim().to_owned())
}

#[test]
fn kafka_away_at_the_start_and_later() -> anyhow::Result<()> {
    relay_runtime::tls::install_provider();
    let folder = tempfile::tempdir()?;
    let kafka = folder.path().join("kafka");
    // Its ports stay its own while it is away.
    let first = Broker::start(&kafka)?;
    let bootstrap = first.bootstrap.clone();
    broker::kill(&kafka)?;
    let backend = SlowBackend::start()?;
    let (coordinator_at, node_at) = (free_address()?, free_address()?);
    let (coordinator_url, node_url) = (format!("http://{coordinator_at}"), format!("http://{node_at}"));
    let mut command = coordinator_command(&bootstrap, &coordinator_at)?;
    let _coordinator = Process::spawn(command.env("RELAY__BACKENDS__STATIC", &backend.url), &coordinator_url)?;
    let mut command = node_command("node-1", &bootstrap, &folder.path().join("objects"))?;
    command.env("RELAY__LISTEN", &node_at).env("RELAY__COORDINATOR__URL", &coordinator_url);
    let node = Process::spawn(&mut command, &node_url)?;
    wait_for_readiness(&node.url, 503, LOG)?;
    let (status, refused) = submit_text(&node.url).context("the node answers")?;
    assert_eq!(status, 503, "{refused}");
    let refused: Value = serde_json::from_str(&refused)?;
    assert_eq!(refused["error"]["retryable"], true, "{refused}");
    wait_for_readiness(&coordinator_url, 503, LOG)?;

    broker::start(&kafka)?;
    wait_for_readiness(&node.url, 200, "")?;
    assert_eq!(vad(&node.url)?["event"], "completed");

    let job_id = submit_slow(&node.url)?;
    backend.wait_for_requests(1)?;
    broker::kill(&kafka)?;
    wait_for_readiness(&node.url, 503, LOG)?;
    backend.answer();
    broker::start(&kafka)?;
    wait_for_readiness(&node.url, 200, "")?;
    let seen = events(&node.url, &job_id)?;
    assert_eq!(
        kinds(&seen).iter().filter(|kind| **kind == "completed").count(),
        1,
        "nothing accepted is lost: {seen:?}"
    );
    assert_eq!(vad(&node.url)?["event"], "completed");
    Ok(())
}

#[test]
fn the_coordinator_away_stops_nothing_and_another_store_stops_the_node() -> anyhow::Result<()> {
    relay_runtime::tls::install_provider();
    let backend = SlowBackend::start()?;
    backend.answer();
    let mut cluster = Cluster::start(1, &[&backend.url])?;
    let job_id = submit_slow(&cluster.nodes[0].url)?;
    assert_eq!(kinds(&events(&cluster.nodes[0].url, &job_id)?).last(), Some(&"completed"));
    let coordinator_at = cluster.coordinator.url.trim_start_matches("http://").to_owned();
    cluster.coordinator.kill_9()?;
    // Built-in tasks, and LocalAI with the slots that the node holds.
    assert_eq!(vad(&cluster.nodes[0].url)?["event"], "completed");
    let job_id = submit_slow(&cluster.nodes[0].url)?;
    assert_eq!(kinds(&events(&cluster.nodes[0].url, &job_id)?).last(), Some(&"completed"));
    // A node that starts meanwhile takes work too.
    let mut command = node_command("node-2", &cluster.bootstrap, &cluster.folder().join("objects"))?;
    let late = Process::start(command.env("RELAY__COORDINATOR__URL", &cluster.coordinator.url))?;
    assert_eq!(vad(&late.url)?["event"], "completed");
    cluster.coordinator = Process::start(&mut coordinator_command(&cluster.bootstrap, &coordinator_at)?)?;
    let began = Instant::now();
    loop {
        let nodes = get(&format!("{}/v1/nodes", cluster.coordinator.url)).map(|(_, body)| body).unwrap_or_default();
        if nodes.contains("node-1") && nodes.contains("node-2") {
            break;
        }
        ensure!(began.elapsed() < PATIENCE, "the nodes do not come back: {nodes}");
        std::thread::sleep(Duration::from_millis(50));
    }

    let mut stranger = node_command("node-3", &cluster.bootstrap, &cluster.folder().join("elsewhere"))?;
    let refused = stranger.stdin(Stdio::null()).output()?;
    assert!(!refused.status.success(), "it must not go on");
    let words = String::from_utf8_lossy(&refused.stderr);
    assert!(words.contains("another one than the cluster's") && words.contains("store.folder"), "{words}");
    assert!(refused.stdout.is_empty(), "it was never ready");
    Ok(())
}
