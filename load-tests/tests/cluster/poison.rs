//! A job that kills whatever node runs it, among seven that do not: it ends as dead letter, the others complete, each once. Jobs
//! that take long and kill nobody are not held up by each other for their whole time.

use std::io::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::processes::{Cluster, Process, binary, node_command};
use crate::slow_backend::{NEVER, SlowBackend};
use crate::{events, kinds, lines};

/// Jobs that run when the node dies first.
const JOBS: usize = 8;
/// Which of them kills.
const KILLER: usize = 3;
/// Crashes that it is charged with until it is not run again.
const CRASHES_MAX: usize = 3;
/// Longer than the tests: no suspect makes room.
const NO_TURNS_MS: u32 = 600_000;
/// Longest wait for suspects to make room.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node on which a suspect makes room for the next after `turns_ms`, over the number of suspects.
fn node(cluster: &Cluster, turns_ms: u32) -> anyhow::Result<Process> {
    let mut command = node_command("node-1", &cluster.bootstrap, &cluster.folder().join("objects"))?;
    command
        .env("RELAY__COORDINATOR__URL", &cluster.coordinator.url)
        .env("RELAY__POISON__SUSPECT_AFTER", "1")
        .env("RELAY__POISON__TURNS_MS", turns_ms.to_string())
        .env("RELAY__POISON__CRASHES_MAX", CRASHES_MAX.to_string());
    Process::start(&mut command)
}

fn submit(url: &str, text: &str) -> anyhow::Result<String> {
    let mut file = tempfile::NamedTempFile::with_suffix(".txt")?;
    file.write_all(text.as_bytes())?;
    let submit = Command::new(binary("client-cli")?)
        .args(["--server", url, "submit", "--task", "embed", "--model", "m", "--detach"])
        .arg(file.path())
        .output()?;
    ensure!(submit.status.success(), "{}", String::from_utf8_lossy(&submit.stderr));
    Ok(String::from_utf8(submit.stdout)?.trim().to_owned())
}

/// The metric's value on a node, 0 if it is not there.
fn metric(url: &str, name: &str) -> anyhow::Result<f64> {
    let text = reqwest::blocking::get(format!("{url}/metrics"))?.text()?;
    let line = text.lines().find(|line| line.starts_with(name));
    Ok(line.and_then(|line| line.rsplit(' ').next()).and_then(|value| value.parse().ok()).unwrap_or_default())
}

#[test]
fn a_job_that_kills_its_node_ends_as_dead_letter_and_the_others_complete_once() -> anyhow::Result<()> {
    relay_runtime::tls::install_provider();
    let backend = SlowBackend::start()?;
    let url = format!("{};slots=16", backend.url);
    let mut cluster = Cluster::start(0, &[&url])?;
    cluster.nodes.push(node(&cluster, NO_TURNS_MS)?);
    let text = |number| if number == KILLER { NEVER.to_owned() } else { format!("harmless {number}") };
    let first = cluster.nodes[0].url.clone();
    let jobs = (0..JOBS).map(|number| submit(&first, &text(number))).collect::<anyhow::Result<Vec<_>>>()?;
    backend.wait_for_requests(JOBS)?;
    cluster.nodes[0].kill_9()?;
    backend.answer();

    for crash in 1..=CRASHES_MAX {
        cluster.nodes[0] = node(&cluster, NO_TURNS_MS)?;
        let beside = backend.wait_for_held(1 + crash)?;
        assert_eq!(beside, 0, "another suspect runs beside it");
        // An ordinary job is not held up by it.
        let ordinary = submit(&cluster.nodes[0].url, "on the way")?;
        assert_eq!(kinds(&events(&cluster.nodes[0].url, &ordinary)?), ["accepted", "started", "completed"]);
        cluster.nodes[0].kill_9()?;
    }
    cluster.nodes[0] = node(&cluster, NO_TURNS_MS)?;
    let url = cluster.nodes[0].url.clone();
    for (number, job) in jobs.iter().enumerate() {
        let seen = events(&url, job)?;
        let end = if number == KILLER { "dead_lettered" } else { "completed" };
        assert_eq!(kinds(&seen).last(), Some(&end), "{number}: {seen:?}");
        assert_eq!(cluster.terminal_events(job)?, 1, "{number} ended once");
    }
    assert_eq!(backend.held(), 1 + CRASHES_MAX, "it is not run again");
    let last = events(&url, &jobs[KILLER])?.pop().context("no event")?;
    assert_eq!(last["error"]["code"], "poison", "{last}");
    assert_eq!(metric(&url, r#"relay_jobs_suspected_total{lane="default",as="poison"}"#)?, 1.0);
    let shown = Command::new(binary("client-cli")?)
        .args(["--server", &url, "dlq", "show", "--json", &jobs[KILLER]])
        .output()?;
    let letter = lines(&shown.stdout)?.pop().context("no letter")?;
    let attempts = letter["attempts"].as_array().context("no attempts")?;
    assert_eq!(attempts.len(), 1 + CRASHES_MAX, "{letter}");
    assert!(attempts.iter().all(|attempt| attempt["error"]["code"] == "attempt_lost"), "{letter}");

    // Redriven, it is a new job: it kills again, and so it is asked for once more.
    let redriven = Command::new(binary("client-cli")?)
        .args(["--server", &url, "dlq", "redrive", "--json", &jobs[KILLER]])
        .output()?;
    assert!(redriven.status.success(), "{redriven:?}");
    backend.wait_for_held(2 + CRASHES_MAX)?;
    Ok(())
}

#[test]
fn suspects_that_live_on_make_room_for_the_next_and_are_charged_with_nothing() -> anyhow::Result<()> {
    const LONG: usize = 3;
    relay_runtime::tls::install_provider();
    let backend = SlowBackend::start()?;
    let url = format!("{};slots=16", backend.url);
    let mut cluster = Cluster::start(0, &[&url])?;
    cluster.nodes.push(node(&cluster, 1_000)?);
    let url = cluster.nodes[0].url.clone();
    for _ in 0..LONG {
        submit(&url, NEVER)?;
    }
    backend.wait_for_held(LONG)?;
    // More crashes than a job may be charged with: it runs again after each.
    for life in 2..CRASHES_MAX + 3 {
        cluster.nodes[0].kill_9()?;
        // Turns grow with the crashes; the test's time need not.
        let turns_ms = 1_000 / 4_u32.pow(u32::try_from(life)? - 2);
        cluster.nodes[0] = node(&cluster, turns_ms)?;
        backend.wait_for_held(life * LONG)?;
        let url = &cluster.nodes[0].url;
        let began = Instant::now();
        while metric(url, r#"relay_suspects_made_room_total{lane="default"}"#)? < LONG as f64 {
            ensure!(began.elapsed() < PATIENCE, "they hold each other up in life {life}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}
