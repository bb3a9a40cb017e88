//! Partitions of a process that was killed: in the middle of its transaction, in the middle of load, and before it comes back.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use load_tests::broker::repository;
use load_tests::chaos::topic;
use relay_protocol::{EventKind, JobId};
use serde_json::{Value, json};

use crate::processes::{Cluster, PATIENCE, Process, node_command};

/// Less than the dead member's transaction lasts (30 s); the session lasts 6.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(20);

/// Jobs that are spread over all partitions of a lane.
const JOBS: usize = 24;

/// A process of another program that ends with the test.
struct DeadMember(Child);

impl DeadMember {
    /// Starts it; returns once its transaction is open, with the partitions that it has.
    fn start(bootstrap: &str) -> anyhow::Result<(Self, Vec<u32>)> {
        let mut child = Command::new(repository().join(".cache/python/bin/python"))
            .arg(repository().join("load-tests/tests/cluster/dead_member.py"))
            .args([bootstrap, "media-relay.default", "media.jobs.default"])
            .stdout(Stdio::piped())
            .spawn()
            .context("running the member: scripts/python.sh makes its Python")?;
        let output = child.stdout.take().context("no stdout")?;
        let member = Self(child);
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        Ok((member, serde_json::from_str(&line).context("the member did not get so far")?))
    }

    fn kill_9(&mut self) -> anyhow::Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for DeadMember {
    fn drop(&mut self) {
        // Killed before, in a test that got so far.
        drop(self.kill_9());
    }
}

fn submit(url: &str) -> anyhow::Result<JobId> {
    let sample = std::fs::read(repository().join("fixtures/audio/speech.wav"))?;
    let data = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &sample[..20_000]);
    let job = json!({ "task": "probe", "input": { "inline": { "data": data, "name": "speech.wav" } } });
    let answer = reqwest::blocking::Client::new().post(format!("{url}/v1/jobs")).json(&job).send()?;
    ensure!(answer.status().as_u16() == 202, "{}", answer.text()?);
    let body: Value = answer.json()?;
    Ok(body["job_id"].as_str().context("no job id")?.parse()?)
}

/// How many ends each job has in the topic.
fn ends(bootstrap: &str) -> anyhow::Result<BTreeMap<JobId, usize>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let events = runtime.block_on(topic::read_all(bootstrap))?;
    let mut ends = BTreeMap::new();
    for event in events.iter().filter(|event| event.event == EventKind::Completed) {
        *ends.entry(event.job_id).or_default() += 1;
    }
    Ok(ends)
}

/// Waits until each of `jobs` has ended, and checks that each ended once.
fn await_ends(bootstrap: &str, jobs: &[JobId]) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        // While a transaction is open the topic may not be read to its end in time.
        let ends = ends(bootstrap).unwrap_or_default();
        let missing = jobs.iter().filter(|job| !ends.contains_key(job)).count();
        if missing == 0 {
            let doubled: Vec<_> = jobs.iter().filter(|job| ends[*job] != 1).collect();
            ensure!(doubled.is_empty(), "ended more than once: {doubled:?}");
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "{missing} of {} jobs did not end", jobs.len());
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The sum of a metric over all its labels.
fn metric(url: &str, name: &str) -> anyhow::Result<f64> {
    let metrics = reqwest::blocking::get(format!("{url}/metrics"))?.text()?;
    let lines = metrics.lines().filter(|line| line.starts_with(name));
    Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

/// Waits until the node shows that something is hidden by a transaction, or that nothing is.
fn await_hidden(url: &str, expected: bool) -> anyhow::Result<()> {
    let began = Instant::now();
    while (metric(url, "relay_log_hidden_records")? > 0.0) != expected {
        ensure!(began.elapsed() < PATIENCE, "the node does not show whether something is hidden");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn killed_in_the_middle_of_a_transaction(with_coordinator: bool) -> anyhow::Result<()> {
    relay_runtime::tls::install_provider();
    let mut cluster = Cluster::start(1, &[])?;
    let node = cluster.nodes[0].url.clone();
    let (mut dead, partitions) = DeadMember::start(&cluster.bootstrap)?;
    ensure!(!partitions.is_empty(), "it has no partitions");
    let jobs: Vec<_> = (0..JOBS).map(|_| submit(&node)).collect::<anyhow::Result<_>>()?;
    await_hidden(&node, true)?;
    let killed = Instant::now();
    dead.kill_9()?;
    if with_coordinator {
        cluster.coordinator.kill_9()?;
    }
    await_ends(&cluster.bootstrap, &jobs)?;
    let took = killed.elapsed();
    println!("all jobs ended {took:?} after the kill, {partitions:?} were the dead one's");
    ensure!(took < TAKEN_OVER_WITHIN, "{took:?}: the transaction was waited for");
    // What was open ends a moment before the one who ended it counts that.
    while metric(&node, "relay_members_fenced_total")? < 1.0 {
        ensure!(killed.elapsed() < PATIENCE, "nobody was fenced");
        std::thread::sleep(Duration::from_millis(100));
    }
    await_hidden(&node, false)?;
    Ok(())
}

#[test]
fn a_member_killed_between_its_offsets_and_its_commit_holds_nobody_up() -> anyhow::Result<()> {
    killed_in_the_middle_of_a_transaction(false)
}

#[test]
fn neither_does_one_that_is_killed_together_with_the_coordinator() -> anyhow::Result<()> {
    killed_in_the_middle_of_a_transaction(true)
}

#[test]
fn nodes_killed_in_the_middle_of_load_lose_and_double_nothing() -> anyhow::Result<()> {
    const ROUNDS: usize = 3;
    relay_runtime::tls::install_provider();
    let mut cluster = Cluster::start(2, &[])?;
    let mut jobs = Vec::new();
    for round in 0..ROUNDS {
        let victim = round % 2;
        let survivor = cluster.nodes[1 - victim].url.clone();
        for number in 0..60 {
            jobs.push(submit(&survivor)?);
            if number == 30 {
                cluster.nodes[victim].kill_9()?;
            }
            if number == 30 && round == ROUNDS - 1 {
                cluster.coordinator.kill_9()?;
            }
        }
        await_ends(&cluster.bootstrap, &jobs)?;
        let store = cluster.folder().join("objects");
        let mut command = node_command(&format!("node-{}", victim + 1), &cluster.bootstrap, &store)?;
        cluster.nodes[victim] = Process::start(command.env("RELAY__COORDINATOR__URL", &cluster.coordinator.url))?;
    }
    await_ends(&cluster.bootstrap, &jobs)
}

#[test]
fn a_static_member_that_is_back_at_once_has_its_jobs_long_before_its_session_ends() -> anyhow::Result<()> {
    const SESSION_MS: &str = "60000";
    relay_runtime::tls::install_provider();
    let cluster = Cluster::start(0, &[])?;
    let store = cluster.folder().join("objects");
    let start = || {
        let mut command = node_command("node-1", &cluster.bootstrap, &store)?;
        command.env("RELAY__COORDINATOR__URL", &cluster.coordinator.url);
        command.env("RELAY__KAFKA__STATIC_MEMBERSHIP", "true").env("RELAY__KAFKA__SESSION_TIMEOUT_MS", SESSION_MS);
        Process::start(&mut command)
    };
    let mut node = start()?;
    let jobs: Vec<_> = (0..JOBS).map(|_| submit(&node.url)).collect::<anyhow::Result<_>>()?;
    node.kill_9()?;
    let killed = Instant::now();
    let again = start()?;
    let more: Vec<_> = (0..JOBS).map(|_| submit(&again.url)).collect::<anyhow::Result<_>>()?;
    await_ends(&cluster.bootstrap, &[jobs, more].concat())?;
    println!("all jobs ended {:?} after the kill", killed.elapsed());
    ensure!(killed.elapsed() < Duration::from_secs(30), "{:?}: the session was waited for", killed.elapsed());
    Ok(())
}
