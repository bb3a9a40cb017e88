//! A whole cluster of real processes on a real Kafka broker: one coordinator, two nodes, the CLI, a producer in Python, and
//! `kill -9` of the node that runs a job.

#[path = "cluster/cli_drain.rs"]
mod cli_drain;
#[path = "cluster/cut_off.rs"]
mod cut_off;
#[path = "cluster/dead_letters.rs"]
mod dead_letters;
#[path = "cluster/durable_call.rs"]
mod durable_call;
#[path = "cluster/fail_over.rs"]
mod fail_over;
#[path = "cluster/hand_over.rs"]
mod hand_over;
#[path = "cluster/large_body.rs"]
mod large_body;
#[path = "cluster/lost_end.rs"]
mod lost_end;
#[path = "cluster/moved.rs"]
mod moved;
#[path = "cluster/one_key.rs"]
mod one_key;
#[path = "cluster/outages.rs"]
mod outages;
#[path = "cluster/poison.rs"]
mod poison;
#[path = "cluster/processes.rs"]
mod processes;
#[path = "cluster/producers.rs"]
mod producers;
#[path = "cluster/proxy.rs"]
mod proxy;
#[path = "cluster/resume.rs"]
mod resume;
#[path = "cluster/retention.rs"]
mod retention;
#[path = "cluster/secure.rs"]
mod secure;
#[path = "cluster/slow_backend.rs"]
mod slow_backend;
#[path = "cluster/spread.rs"]
mod spread;
#[path = "cluster/take_over.rs"]
mod take_over;

use std::process::Command;

use anyhow::Context as _;
use load_tests::broker::repository;
use processes::{Cluster, binary};
use serde_json::Value;
use slow_backend::SlowBackend;

/// The events of a job, read from the event stream of one node; ends with the terminal one.
fn events(url: &str, job_id: &str) -> anyhow::Result<Vec<Value>> {
    let output = Command::new(binary("client-cli")?)
        .args(["--server", url, "watch", "--json", job_id])
        .output()
        .context("running client-cli")?;
    lines(&output.stdout)
}

fn lines(stdout: &[u8]) -> anyhow::Result<Vec<Value>> {
    String::from_utf8(stdout.to_vec())?.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["event"].as_str()).filter(|kind| *kind != "progress").collect()
}

#[test]
fn the_cli_and_a_python_producer_get_their_jobs_done() -> anyhow::Result<()> {
    let cluster = Cluster::start(2, &[])?;
    let sample = repository().join("fixtures/audio/speech.wav");
    for node in &cluster.nodes {
        let submit = Command::new(binary("client-cli")?)
            .args(["--server", &node.url, "submit", "--task", "vad", "--json"])
            .arg(&sample)
            .output()?;
        assert!(submit.status.success(), "{}", String::from_utf8_lossy(&submit.stderr));
        let events = lines(&submit.stdout)?;
        assert_eq!(kinds(&events), ["accepted", "started", "completed"]);
        assert_eq!(events.last().context("no event")?["result"]["segments"].as_array().map(Vec::len), Some(2));
    }
    let produced = Command::new(repository().join(".cache/python/bin/python"))
        .arg(repository().join("load-tests/tests/cluster/producer.py"))
        .args([&cluster.bootstrap, &sample.to_string_lossy().into_owned()])
        .output()
        .context("running the producer: scripts/python.sh makes its Python")?;
    assert!(produced.status.success(), "{}", String::from_utf8_lossy(&produced.stderr));
    let heard = lines(&produced.stdout)?;
    let of_job = |kind: &str| heard.iter().filter(|event| event["event"] == kind).count();
    assert_eq!((of_job("accepted"), of_job("started"), of_job("completed")), (1, 1, 1), "{heard:?}");
    let refused: Vec<_> = heard.iter().filter(|event| event["dead_letter"] == true).collect();
    assert_eq!(refused.len(), 1, "the record that is no job lies in the dead-letter topic: {heard:?}");
    assert_eq!(refused[0]["code"], "not_a_job");
    Ok(())
}

#[test]
fn kill_9_of_the_node_that_runs_a_job_leads_to_exactly_one_completed() -> anyhow::Result<()> {
    let backend = SlowBackend::start()?;
    let mut cluster = Cluster::start(2, &[&backend.url])?;
    let submit = Command::new(binary("client-cli")?)
        .args(["--server", &cluster.nodes[0].url, "submit", "--task", "embed", "--model", "m", "--detach"])
        .arg(repository().join("LICENSE"))
        .output()?;
    assert!(submit.status.success(), "{}", String::from_utf8_lossy(&submit.stderr));
    let job_id = String::from_utf8(submit.stdout)?.trim().to_owned();
    backend.wait_for_requests(1)?;
    let running = cluster.node_that_runs(&job_id)?;
    cluster.nodes[running].kill_9()?;
    // The other node takes the partition over and calls the backend again; from now on the backend answers.
    backend.answer();
    let survivor = cluster.nodes[1 - running].url.clone();
    let seen = events(&survivor, &job_id)?;
    assert_eq!(kinds(&seen).iter().filter(|kind| **kind == "completed").count(), 1, "{seen:?}");
    assert_eq!(kinds(&seen).last(), Some(&"completed"));
    let attempts: Vec<u64> =
        seen.iter().filter(|event| event["event"] == "started").filter_map(|event| event["attempt"].as_u64()).collect();
    assert_eq!(attempts, [1, 2], "the second owner's attempt has a higher number");
    assert_eq!(cluster.terminal_events(&job_id)?, 1, "one terminal event lies in the topic");
    Ok(())
}

#[test]
fn a_failed_attempt_passes_a_delay_tier_and_the_next_one_succeeds() -> anyhow::Result<()> {
    let backend = SlowBackend::start()?;
    backend.fail(1);
    backend.answer();
    let cluster = Cluster::start(2, &[&backend.url])?;
    let submit = Command::new(binary("client-cli")?)
        .args(["--server", &cluster.nodes[0].url, "submit", "--task", "embed", "--model", "m", "--detach"])
        .arg(repository().join("LICENSE"))
        .output()?;
    assert!(submit.status.success(), "{}", String::from_utf8_lossy(&submit.stderr));
    let job_id = String::from_utf8(submit.stdout)?.trim().to_owned();
    let seen = events(&cluster.nodes[1].url, &job_id)?;
    assert_eq!(kinds(&seen), ["accepted", "started", "retrying", "started", "completed"], "{seen:?}");
    let started = |attempt: u64| seen.iter().find(|event| event["event"] == "started" && event["attempt"] == attempt);
    let offset = |attempt| started(attempt).and_then(|event| event["place"]["offset"].as_u64());
    assert!(offset(1) < offset(2), "it came back behind its first place: {seen:?}");
    assert_eq!(backend.requests(), 2);
    assert_eq!(cluster.terminal_events(&job_id)?, 1, "one terminal event lies in the topic");
    Ok(())
}
