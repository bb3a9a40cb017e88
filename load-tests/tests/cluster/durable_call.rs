//! A durable call of the OpenAI-compatible API whose node is killed: the client asks another one with the same key, and gets the one
//! result.

use std::thread::{JoinHandle, spawn};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::processes::{Cluster, PATIENCE};
use crate::slow_backend::SlowBackend;

/// Job that did the work, and the answer.
type Answer = (String, Value);

/// Makes the call at a node, on a thread of its own: its connection waits.
fn call(url: &str) -> JoinHandle<anyhow::Result<Answer>> {
    let url = format!("{url}/v1/embeddings");
    spawn(move || {
        let client = reqwest::blocking::Client::builder().no_proxy().timeout(PATIENCE).build()?;
        let call = client.post(url).header("x-relay-durable", "true").header("Idempotency-Key", "page-3");
        let answer = call.json(&json!({ "model": "m", "input": "a page" })).send()?;
        ensure!(answer.status().as_u16() == 200, "{}", answer.text()?);
        let job = answer.headers().get("x-relay-job-id").context("no job id")?.to_str()?.to_owned();
        Ok((job, answer.json()?))
    })
}

fn answered(call: JoinHandle<anyhow::Result<Answer>>) -> anyhow::Result<Answer> {
    call.join().ok().context("the thread died")?
}

/// The only job that there is.
fn the_job(url: &str) -> anyhow::Result<String> {
    let began = Instant::now();
    loop {
        let list: Value = reqwest::blocking::get(format!("{url}/v1/jobs"))?.json()?;
        if let Some(job) = list["jobs"][0]["job_id"].as_str() {
            return Ok(job.to_owned());
        }
        ensure!(began.elapsed() < PATIENCE, "there is no job: {list}");
    }
}

#[test]
fn whoever_asks_again_after_its_node_was_killed_gets_the_one_result() -> anyhow::Result<()> {
    relay_runtime::tls::install_provider();
    let backend = SlowBackend::start()?;
    let mut cluster = Cluster::start(2, &[&backend.url])?;
    let first = call(&cluster.nodes[0].url);
    backend.wait_for_requests(1)?;
    let job = the_job(&cluster.nodes[0].url)?;
    // The node that holds a connection and runs the job dies.
    let victim = cluster.node_that_runs(&job)?;
    let held = if victim == 0 { first } else { call(&cluster.nodes[victim].url) };
    cluster.nodes[victim].kill_9()?;
    ensure!(answered(held).is_err(), "its connection is broken");
    let survivor = cluster.nodes[1 - victim].url.clone();
    let again = call(&survivor);
    backend.wait_for_requests(2)?;
    backend.answer();
    let (done_by, answer) = answered(again)?;
    assert_eq!(done_by, job, "the first job did the work");
    assert_eq!(answer["data"][0]["embedding"], json!([0.5, 0.25]));
    assert_eq!(answered(call(&survivor))?, (job.clone(), answer), "and it stays so");
    assert_eq!(backend.requests(), 2, "the killed attempt, and one that was done");
    assert_eq!(cluster.terminal_events(&job)?, 1);
    Ok(())
}
