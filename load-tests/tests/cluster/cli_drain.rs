//! `client-cli backends drain` and `resume` against real processes: what is drained gets nothing new, what runs there ends.

use std::process::{Command, Output};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use load_tests::broker::repository;
use serde_json::Value;

use crate::processes::{Cluster, PATIENCE, binary};
use crate::slow_backend::SlowBackend;

/// Jobs of one round.
const JOBS: usize = 4;

fn cli(cluster: &Cluster, args: &[&str]) -> anyhow::Result<Output> {
    Ok(Command::new(binary("client-cli")?).args(["--server", &cluster.nodes[0].url]).args(args).output()?)
}

/// What the CLI says of a backend after an order.
fn order(cluster: &Cluster, what: &str, backend: &str) -> anyhow::Result<Value> {
    let output = cli(cluster, &["backends", what, backend, "--json"])?;
    ensure!(output.status.success(), "{output:?}");
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Waits until the CLI lists the backend so.
fn await_state(cluster: &Cluster, backend: &str, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let output = cli(cluster, &["backends", "list", "--json"])?;
        let listed: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let found = listed.as_array().and_then(|all| all.iter().find(|one| one["url"] == backend));
        if found.is_some_and(&wanted) {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "{backend} does not get there: {listed}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

fn submit(cluster: &Cluster, more: &[&str]) -> anyhow::Result<String> {
    let file = repository().join("LICENSE");
    let file = file.to_str().context("a path")?;
    let output = cli(cluster, &[&["submit", "--task", "embed", "--model", "m"], more, &[file]].concat())?;
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

#[test]
fn what_the_cli_drains_gets_nothing_new_until_it_is_resumed() -> anyhow::Result<()> {
    let (first, second) = (SlowBackend::start()?, SlowBackend::start()?);
    let cluster = Cluster::start(1, &[&first.url, &second.url])?;
    for backend in [&first, &second] {
        await_state(&cluster, &backend.url, |one| one["healthy"] == true && one["state"] == "serving")?;
    }
    // One job runs at each: slots are one.
    let running = [submit(&cluster, &["--detach"])?, submit(&cluster, &["--detach"])?];
    first.wait_for_requests(1)?;
    second.wait_for_requests(1)?;

    let drained = order(&cluster, "drain", &first.url)?;
    assert_eq!(
        (&drained["url"], &drained["state"]),
        (&first.url.clone().into(), &"draining".into()),
        "a job runs there"
    );
    second.answer();
    for _ in 0..JOBS {
        submit(&cluster, &[])?;
    }
    assert_eq!((first.requests(), second.requests()), (1, 1 + JOBS), "nothing new goes to what is drained");
    await_state(&cluster, &first.url, |one| one["state"] == "draining")?;
    first.answer();
    await_state(&cluster, &first.url, |one| one["state"] == "drained" && one["slots_in_use"] == 0)?;
    for job in &running {
        let told = super::events(&cluster.nodes[0].url, job)?;
        assert_eq!(super::kinds(&told), ["accepted", "started", "completed"], "what ran there ended as it would");
    }

    let resumed = order(&cluster, "resume", &first.url)?;
    assert_eq!(resumed["state"], "serving");
    let words = cli(&cluster, &["backends", "drain", &second.url])?;
    let said = String::from_utf8(words.stdout)?;
    ensure!(words.status.success() && said.starts_with(&format!("{}: drain", second.url)), "{said}");
    await_state(&cluster, &second.url, |one| one["state"] == "drained")?;
    for _ in 0..JOBS {
        submit(&cluster, &[])?;
    }
    assert_eq!((first.requests(), second.requests()), (1 + JOBS, 1 + JOBS), "it has requests again");
    Ok(())
}

#[test]
fn an_order_about_no_backend_fails_and_says_which_there_are() -> anyhow::Result<()> {
    let backend = SlowBackend::start()?;
    let cluster = Cluster::start(1, &[&backend.url])?;
    for what in ["drain", "resume"] {
        let output = cli(&cluster, &["backends", what, "http://nobody:1"])?;
        let words = String::from_utf8(output.stderr)?;
        ensure!(!output.status.success() && words.contains(&backend.url), "{:?} {words}", output.status);
    }
    await_state(&cluster, &backend.url, |one| one["state"] == "serving")
}
