//! Dead letters on a real broker: two nodes redrive the same letters at once, and each becomes one job.

use std::collections::BTreeSet;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::processes::{Cluster, Process, binary, node_command};
use crate::{events, lines};

/// Jobs that die.
const LETTERS: usize = 3;
/// Nobody listens there, and the nodes may fetch from it.
const NOWHERE: &str = "http://127.0.0.1:1/";

fn cluster() -> anyhow::Result<Cluster> {
    let mut cluster = Cluster::start(0, &[])?;
    for name in ["node-1", "node-2"] {
        let mut command = node_command(name, &cluster.bootstrap, &cluster.folder().join("objects"))?;
        command
            .env("RELAY__COORDINATOR__URL", &cluster.coordinator.url)
            .env("RELAY__INPUTS__URL_ALLOW", NOWHERE)
            .env("RELAY__INPUTS__URL_ALLOW_PRIVATE", "127.0.0.1")
            .env("RELAY__RETRY__ATTEMPTS_MAX", "1");
        cluster.nodes.push(Process::start(&mut command)?);
    }
    Ok(cluster)
}

fn cli(url: &str, args: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(binary("client-cli")?);
    command.args(["--server", url]).args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

fn letters(output: &Output) -> anyhow::Result<Vec<Value>> {
    ensure!(matches!(output.status.code(), Some(0 | 3)), "{output:?}");
    lines(&output.stdout)
}

fn dlq(url: &str, args: &[&str]) -> anyhow::Result<Vec<Value>> {
    letters(&cli(url, &[&["dlq"], args, &["--json"]].concat())?.output()?)
}

fn last(url: &str, job: &str) -> anyhow::Result<Value> {
    events(url, job)?.pop().context("no event")
}

#[test]
fn letters_that_two_nodes_redrive_at_once_become_one_job_each() -> anyhow::Result<()> {
    let cluster = cluster()?;
    let [one, two] = [&cluster.nodes[0].url, &cluster.nodes[1].url];
    let mut dead = BTreeSet::new();
    for _ in 0..LETTERS {
        let submit = cli(one, &["submit", "--task", "probe", "--detach", NOWHERE])?.output()?;
        ensure!(submit.status.success(), "{submit:?}");
        let job = String::from_utf8(submit.stdout)?.trim().to_owned();
        assert_eq!(last(two, &job)?["event"], "dead_lettered");
        dead.insert(job);
    }
    assert_eq!(dlq(two, &["list"])?.len(), LETTERS);
    assert_eq!(dlq(two, &["redrive", "--everything", "--dry-run"])?.len(), LETTERS);
    // What dies of it again is not redriven again: it is younger.
    let these = ["dlq", "redrive", "--json", "--code", "url_failed", "--until", "1ms"];
    let ask = |url| cli(url, &these)?.spawn().context("running client-cli");
    let asking = [ask(one)?, ask(two)?];
    for asked in asking {
        letters(&asked.wait_with_output()?)?;
    }
    let redriven = dlq(one, &["list", "--state", "redriven"])?;
    let jobs: BTreeSet<&str> = redriven.iter().filter_map(|letter| letter["redriven_as"].as_str()).collect();
    assert_eq!(jobs.len(), LETTERS, "{redriven:?}");
    let mut repeated = BTreeSet::new();
    for job in jobs {
        let end = last(one, job)?;
        assert_eq!(end["event"], "dead_lettered", "{end}");
        repeated.insert(end["redrive_of"].as_str().context("it says which")?.to_owned());
        assert_eq!(cluster.terminal_events(job)?, 1);
    }
    assert_eq!(repeated, dead);
    // They have died again, once each.
    let open = dlq(two, &["list"])?;
    assert_eq!(open.len(), LETTERS, "{open:?}");
    assert!(dlq(two, &["drop", "--everything"])?.iter().all(|letter| letter["outcome"] == "dropped"));
    assert_eq!(dlq(one, &["list"])?.len(), 0);
    assert_eq!(dlq(one, &["list", "--state", "all"])?.len(), 2 * LETTERS);
    Ok(())
}
