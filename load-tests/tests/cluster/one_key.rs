//! One idempotency key over every way in, with `kill -9` of its owner in between: one run.

use std::process::Command;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use load_tests::broker::repository;
use serde_json::{Value, json};

use crate::processes::{Cluster, Process, binary, node_command};
use crate::slow_backend::SlowBackend;
use crate::{events, kinds};

const KEY: &str = "talk-17";
const PARTITIONS: u32 = 8;

fn over_cli(url: &str) -> anyhow::Result<String> {
    let submit = Command::new(binary("client-cli")?)
        .args(["--server", url, "submit", "--task", "embed", "--model", "m", "--key", KEY, "--detach"])
        .arg(repository().join("LICENSE"))
        .output()?;
    ensure!(submit.status.success(), "{}", String::from_utf8_lossy(&submit.stderr));
    Ok(String::from_utf8(submit.stdout)?.trim().to_owned())
}

fn over_http(url: &str) -> anyhow::Result<String> {
    let data = STANDARD.encode(std::fs::read(repository().join("LICENSE"))?);
    let input = json!({ "inline": { "data": data } });
    let job = json!({ "task": "embed", "model": "m", "idempotency_key": KEY, "input": input });
    let answer = reqwest::blocking::Client::new().post(format!("{url}/v1/jobs")).json(&job).send()?;
    ensure!(answer.status().as_u16() == 202, "{}", answer.text()?);
    let body: Value = answer.json()?;
    Ok(body["job_id"].as_str().context("no job id")?.to_owned())
}

/// A producer that puts it into another partition than the key's.
fn over_kafka(bootstrap: &str) -> anyhow::Result<String> {
    let home = relay_protocol::partition::of_key(format!("default/{KEY}").as_bytes(), PARTITIONS);
    let produced = Command::new(repository().join(".cache/python/bin/python"))
        .arg(repository().join("load-tests/tests/cluster/keyed.py"))
        .args([bootstrap, &repository().join("LICENSE").to_string_lossy(), KEY])
        .arg(((home + 1) % PARTITIONS).to_string())
        .output()
        .context("running the producer: scripts/python.sh makes its Python")?;
    ensure!(produced.status.success(), "{}", String::from_utf8_lossy(&produced.stderr));
    Ok(String::from_utf8(produced.stdout)?.trim().to_owned())
}

fn expect_repeats(url: &str, job: &str, first: &str) -> anyhow::Result<()> {
    let seen = events(url, job)?;
    ensure!(kinds(&seen) == ["accepted", "completed"], "{job} ran: {seen:?}");
    ensure!(seen.last().is_some_and(|last| last["duplicate_of"] == first), "{seen:?}");
    Ok(())
}

#[test]
fn one_key_over_every_way_in_is_one_run_whoever_dies() -> anyhow::Result<()> {
    relay_runtime::tls::install_provider();
    let backend = SlowBackend::start()?;
    let mut cluster = Cluster::start(2, &[&backend.url])?;
    let first = over_cli(&cluster.nodes[0].url)?;
    backend.wait_for_requests(1)?;
    let owner = cluster.node_that_runs(&first)?;
    let survivor = cluster.nodes[1 - owner].url.clone();
    let before = over_kafka(&cluster.bootstrap)?;
    cluster.nodes[owner].kill_9()?;
    // Both while the partition has no owner, or its next one has not begun.
    let (http, kafka) = (over_http(&survivor)?, over_kafka(&cluster.bootstrap)?);
    backend.answer();
    let seen = events(&survivor, &first)?;
    assert_eq!(kinds(&seen).last(), Some(&"completed"), "{seen:?}");
    let attempts: Vec<_> =
        seen.iter().filter(|event| event["event"] == "started").map(|event| &event["attempt"]).collect();
    assert_eq!(attempts, [1, 2], "the killed attempt, and one that was done");
    for job in [&before, &http, &kafka] {
        expect_repeats(&survivor, job, &first)?;
    }
    // The next owner knows the key from the log alone.
    let name = format!("node-{}", owner + 1);
    let mut command = node_command(&name, &cluster.bootstrap, &cluster.folder().join("objects"))?;
    let again = Process::start(command.env("RELAY__COORDINATOR__URL", &cluster.coordinator.url))?;
    cluster.nodes[1 - owner].kill_9()?;
    let last = over_cli(&again.url)?;
    expect_repeats(&again.url, &last, &first)?;
    assert_eq!(backend.requests(), 2, "no job was done once more");
    for job in [&first, &before, &http, &kafka, &last] {
        assert_eq!(cluster.terminal_events(job)?, 1, "{job}");
    }
    Ok(())
}
