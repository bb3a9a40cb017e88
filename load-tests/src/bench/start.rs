//! `bench start`: how soon a relay takes work, and what it holds in memory when it has none.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Args;

use super::report::{Report, Row};
use crate::broker::Broker;

/// What to measure.
#[derive(Debug, Args)]
pub struct StartArguments {
    /// Starts of each kind.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds without work before memory is read.
    #[arg(long, default_value_t = 5)]
    idle_seconds: u64,
    /// Where the figures go as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// A process that said it is ready; killed when dropped.
pub(super) struct Started {
    child: Child,
    pub(super) url: String,
    took: Duration,
}

impl Started {
    /// Resident memory in megabytes (10^6 bytes).
    pub(super) fn resident_mb(&self) -> anyhow::Result<f64> {
        resident_mb(self.child.id())
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // One that ended by itself is gone already.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Measures and prints.
///
/// # Errors
/// A binary that is not built or does not start, a broker that does not start.
pub fn run(arguments: &StartArguments) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut report = Report::new("bench start", serde_json::json!({ "idle_seconds": arguments.idle_seconds }));
    let alone = |round: usize| {
        let mut command = binary("standalone")?;
        command.args(["--listen", "127.0.0.1:0", "--data-dir"]).arg(folder.path().join(format!("alone-{round}")));
        Ok(command)
    };
    report.rows.push(measure("standalone on LocalLog", arguments, alone)?);
    let broker = Broker::start(&folder.path().join("kafka"))?;
    let coordinator = start(
        binary("coordinator")?
            .env("RELAY__LISTEN", "127.0.0.1:0")
            .env("RELAY__KAFKA__BROKERS", &broker.bootstrap)
            .env("RELAY__KAFKA__REPLICATION_FACTOR", "1")
            .env("RELAY__KAFKA__MIN_IN_SYNC_REPLICAS", "1"),
    )?;
    let node = |_| {
        let mut command = binary("relay-node")?;
        command
            .env("RELAY__LISTEN", "127.0.0.1:0")
            .env("RELAY__NODE__NAME", "node-1")
            .env("RELAY__KAFKA__BROKERS", &broker.bootstrap)
            .env("RELAY__COORDINATOR__URL", &coordinator.url)
            .env("RELAY__STORE__FOLDER", folder.path().join("objects"));
        Ok(command)
    };
    // The first start waits for the coordinator to have created the topics.
    drop(start(&mut node(0)?)?);
    report.rows.push(measure("relay-node on Kafka", arguments, node)?);
    report.publish(arguments.json.as_deref())
}

fn measure(
    what: &str,
    arguments: &StartArguments,
    mut command: impl FnMut(usize) -> anyhow::Result<Command>,
) -> anyhow::Result<Row> {
    let mut times = Vec::new();
    let mut resident = 0.0;
    for round in 0..arguments.rounds {
        let started = start(&mut command(round)?)?;
        times.push(started.took);
        if round + 1 == arguments.rounds {
            std::thread::sleep(Duration::from_secs(arguments.idle_seconds));
            resident = started.resident_mb()?;
        }
    }
    times.sort_unstable();
    let ms = |time: Option<&Duration>| time.map_or(f64::NAN, |time| time.as_secs_f64() * 1e3);
    Ok(Row {
        what: what.to_owned(),
        figures: vec![
            ("ready p50 ms".to_owned(), ms(times.get(times.len() / 2))),
            ("ready max ms".to_owned(), ms(times.last())),
            ("idle RSS MB".to_owned(), resident),
        ],
    })
}

pub(super) fn binary(name: &str) -> anyhow::Result<Command> {
    let here = std::env::current_exe()?;
    let path = here.parent().unwrap_or(Path::new(".")).join(name);
    ensure!(path.exists(), "{} is not built: cargo build --release", path.display());
    Ok(Command::new(path))
}

/// Starts a process and waits until it takes work: its line, and then `/readyz`.
pub(super) fn start(command: &mut Command) -> anyhow::Result<Started> {
    let began = Instant::now();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let output = child.stdout.take().context("no output")?;
    let mut started = Started { child, url: String::new(), took: Duration::ZERO };
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    started.url = line.trim().strip_prefix("ready ").context("the process did not get ready")?.to_owned();
    while !is_ready(&started.url) {
        ensure!(began.elapsed() < Duration::from_secs(60), "{} does not get ready", started.url);
        std::thread::sleep(Duration::from_millis(2));
    }
    started.took = began.elapsed();
    Ok(started)
}

fn is_ready(url: &str) -> bool {
    use std::io::{Read, Write};
    let Some(address) = url.strip_prefix("http://") else { return false };
    let answer = std::net::TcpStream::connect(address).and_then(|mut stream| {
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    });
    answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// Resident memory in megabytes (10^6 bytes).
fn resident_mb(pid: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("reading /proc")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib * 1_024.0 / 1e6)
}
