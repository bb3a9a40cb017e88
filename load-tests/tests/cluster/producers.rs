//! The examples of other languages, and the conformance checks: on what is right, and on what is wrong.

use std::io::{BufRead, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context as _, ensure};
use load_tests::broker::repository;
use relay_protocol::partition;
use serde_json::Value;

use crate::lines;
use crate::processes::{Cluster, binary};

/// Partitions of a lane unless configured otherwise.
const LANE_PARTITIONS: u32 = 8;

/// A run of `load-tests conformance --brokers` that watches already.
struct Watching {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Watching {
    fn start(bootstrap: &str, junit: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new(binary("load-tests")?);
        command.args(["conformance", "--brokers", bootstrap, "--junit"]).arg(junit).args(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut output = BufReader::new(child.stdout.take().context("no stdout")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        ensure!(line == "watching media.jobs.default\n", "{line:?}");
        Ok(Self { child, output })
    }

    /// Waits for its end: whether it is content, and what it says.
    fn end(mut self) -> anyhow::Result<(bool, String)> {
        let mut text = String::new();
        self.output.read_to_string(&mut text)?;
        Ok((self.child.wait()?.success(), text))
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        // One that has ended is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The example programs, with the clients that scripts/examples.sh installs.
fn examples() -> Vec<(&'static str, Command)> {
    let (root, clients) = (repository().join("examples/producers"), repository().join(".cache/examples/producers"));
    let mut python = Command::new(clients.join("python/bin/python"));
    python.arg(root.join("python/submit.py"));
    let mut java = Command::new("java");
    java.arg("-cp").arg(clients.join("java/*")).arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn");
    java.arg(root.join("java/Submit.java"));
    let mut node = Command::new("node");
    node.env("NODE_PATH", clients.join("node/node_modules")).arg(root.join("node/submit.js"));
    vec![("python", python), ("java", java), ("node", node)]
}

#[test]
fn the_examples_in_python_java_and_node_keep_the_contract() -> anyhow::Result<()> {
    let cluster = Cluster::start(1, &[])?;
    let sample = repository().join("fixtures/audio/speech.wav");
    let junit = cluster.folder().join("report.xml");
    let watching = Watching::start(&cluster.bootstrap, &junit, &["--records", "3", "--ends"])?;
    for (language, mut program) in examples() {
        let output = program.args([&cluster.bootstrap, "loudness"]).arg(&sample).output();
        let output = output.with_context(|| format!("{language}: run scripts/examples.sh first"))?;
        assert!(output.status.success(), "{language}: {}", String::from_utf8_lossy(&output.stderr));
        let [place, end] = &lines(&output.stdout)?[..] else { anyhow::bail!("{language} prints two lines") };
        let key = format!("default/{}", place["id"].as_str().context("no id")?);
        assert_eq!(place["partition"], partition::of_key(key.as_bytes(), LANE_PARTITIONS), "{language}: {place}");
        assert_eq!((&end["job_id"], &end["event"]), (&place["id"], &Value::from("completed")), "{language}");
        assert!(end["result"]["integrated_lufs"].is_number(), "{language}: {end}");
    }
    let (content, text) = watching.end()?;
    assert!(content, "{text}");
    assert!(text.ends_with("14 passed, 0 failed, 0 skipped\n"), "{text}");
    let xml = std::fs::read_to_string(&junit)?;
    assert!(xml.contains("<testsuites tests=\"14\" failures=\"0\" skipped=\"0\">"), "{xml}");
    Ok(())
}

#[test]
fn a_wrong_producer_is_told_each_rule_that_it_breaks() -> anyhow::Result<()> {
    let cluster = Cluster::start(1, &[])?;
    let junit = cluster.folder().join("report.xml");
    let watching = Watching::start(&cluster.bootstrap, &junit, &["--records", "9", "--ends", "--timeout-s", "60"])?;
    let produced = Command::new(repository().join(".cache/examples/producers/python/bin/python"))
        .arg(repository().join("load-tests/tests/cluster/wrong_producer.py"))
        .arg(&cluster.bootstrap)
        .output()
        .context("run scripts/examples.sh first")?;
    assert!(produced.status.success(), "{}", String::from_utf8_lossy(&produced.stderr));
    let (content, text) = watching.end()?;
    assert!(!content, "{text}");
    let broken = [
        "record.body",
        "record.schema",
        "job.rules",
        "job.identity",
        "record.key",
        "record.partition",
        "record.headers",
        "record.traceparent",
        "job.same_id",
    ];
    let failed: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("FAILED  ")?.split(':').next()).collect();
    assert_eq!(failed, broken, "{text}");
    let xml = std::fs::read_to_string(&junit)?;
    for rule in broken {
        assert!(xml.contains(&format!("name=\"{rule}\"><failure message=\"media.jobs.default/")), "{rule}: {xml}");
    }
    // What no reader of this version knows is no job, in both forms: it lies in the dead-letter topic with the reason.
    let refused = lines(&produced.stdout)?;
    let reasons: Vec<_> = refused.iter().map(|letter| (letter["name"].as_str(), letter["code"].as_str())).collect();
    assert_eq!(
        reasons,
        [(Some("frame of version 2"), Some("not_a_job")), (Some("json of version 2"), Some("not_a_job"))]
    );
    Ok(())
}

#[test]
fn a_node_passes_and_what_is_none_fails() -> anyhow::Result<()> {
    let cluster = Cluster::start(1, &[])?;
    let junit = cluster.folder().join("report.xml");
    let run = |url: &str| {
        let mut command = Command::new(binary("load-tests")?);
        anyhow::Ok(command.args(["conformance", "--url", url, "--junit"]).arg(&junit).output()?)
    };
    let content = run(&cluster.nodes[0].url)?;
    let text = String::from_utf8_lossy(&content.stdout);
    assert!(content.status.success(), "{text}");
    assert!(text.ends_with("21 passed, 0 failed, 0 skipped\n"), "{text}");
    assert!(std::fs::read_to_string(&junit)?.contains("tests=\"21\" failures=\"0\""));
    // A coordinator speaks HTTP too, but is no node: it is ready, and refuses addresses that it does not know.
    let other = run(&cluster.coordinator.url)?;
    let text = String::from_utf8_lossy(&other.stdout);
    assert!(!other.status.success(), "{text}");
    for check in ["http.submit", "http.events", "session.welcome", "session.bad_frame"] {
        assert!(text.contains(&format!("FAILED  {check}:")), "{text}");
    }
    assert!(text.contains("ok      http.ready:"), "{text}");
    Ok(())
}
