//! `kill -9` of the node that has the sessions: their clients go on at the other node, each event once, as soon as they have connected again.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use load_tests::broker::repository;
use serde_json::Value;

use super::kinds;
use super::processes::{Cluster, binary};
use super::slow_backend::SlowBackend;

/// Time after which the group of a dead node's lane notices its death: a resume must not wait for it.
const SESSION_TIMEOUT: Duration = Duration::from_secs(6);
/// Jobs that are submitted at most until each node runs one.
const TRIES_MAX: usize = 40;

/// A CLI that waits for a job.
struct Waiting {
    child: Child,
    lines: BufReader<ChildStdout>,
    events: Vec<Value>,
}

impl Waiting {
    /// Submits a job at the first of the servers, and reads until it has started.
    fn submit(servers: &str) -> anyhow::Result<Self> {
        let mut child = Command::new(binary("client-cli")?)
            .args(["--server", servers, "submit", "--task", "embed", "--model", "m", "--json"])
            .arg(repository().join("LICENSE"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().context("no stdout")?);
        let mut this = Self { child, lines, events: Vec::new() };
        while this.next()?["event"] != "started" {}
        Ok(this)
    }

    fn next(&mut self) -> anyhow::Result<&Value> {
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        let event = serde_json::from_str(&line).with_context(|| format!("{line:?} after {:?}", self.events))?;
        self.events.push(event);
        self.events.last().context("no event")
    }

    /// The node that runs the job.
    fn node(&self) -> Option<&str> {
        self.events.last().and_then(|event| event["node"].as_str())
    }

    /// Reads to the end; the time of the last event.
    fn finish(&mut self) -> anyhow::Result<Instant> {
        while self.next()?["event"] != "completed" {}
        let at = Instant::now();
        ensure!(self.child.wait()?.success(), "the CLI fails: {:?}", self.events);
        Ok(at)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // It may have ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn clients_of_a_killed_node_go_on_at_the_other_as_soon_as_they_have_reconnected() -> anyhow::Result<()> {
    let backend = SlowBackend::start()?;
    let mut cluster = Cluster::start(2, &[&format!("{};slots=64", backend.url)])?;
    let servers = format!("{},{}", cluster.nodes[0].url, cluster.nodes[1].url);
    let (mut own, mut others) = (None, None);
    for _ in 0..TRIES_MAX {
        let waiting = Waiting::submit(&servers)?;
        let place = if waiting.node() == Some("node-1") { &mut own } else { &mut others };
        place.get_or_insert(waiting);
        if own.is_some() && others.is_some() {
            break;
        }
    }
    let (mut own, mut others) = (own.context("node-1 runs nothing")?, others.context("node-2 runs nothing")?);
    let killed = Instant::now();
    cluster.nodes[0].kill_9()?;
    backend.answer();
    // Node 2 runs this job; only the session was on node 1.
    let took = others.finish()?.duration_since(killed);
    println!("an event came {} ms after the session's node was killed", took.as_millis());
    ensure!(took < SESSION_TIMEOUT, "{took:?}: the resume waited for a rebalance");
    assert_eq!(kinds(&others.events), ["accepted", "started", "completed"]);
    // This one died with its node, and its client sees the second attempt.
    let took = own.finish()?.duration_since(killed);
    println!("the job that ran on it was done again after {} ms", took.as_millis());
    let told: Vec<&str> = kinds(&own.events).into_iter().filter(|kind| *kind != "restarted").collect();
    assert_eq!(told, ["accepted", "started", "started", "completed"], "{:?}", own.events);
    let seqs: Vec<u64> = own.events.iter().filter_map(|event| event["seq"].as_u64()).collect();
    assert!(seqs.windows(2).all(|pair| pair[0] < pair[1]), "{seqs:?}");
    Ok(())
}
