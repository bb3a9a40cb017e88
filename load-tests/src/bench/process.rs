//! Processes that benches start: binaries beside this one, ready when they are returned, killed when they are dropped.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

/// A process that said it is ready; killed when dropped.
pub(super) struct Started {
    child: Child,
    /// Where it listens.
    pub(super) url: String,
    /// From the start of the process until it took work.
    pub(super) took: Duration,
}

impl Started {
    /// Of the process.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

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

/// A coordinator on the one broker at `bootstrap`.
pub(super) fn coordinator(bootstrap: &str) -> anyhow::Result<Command> {
    let mut command = binary("coordinator")?;
    command
        .env("RELAY__LISTEN", "127.0.0.1:0")
        .env("RELAY__KAFKA__BROKERS", bootstrap)
        .env("RELAY__KAFKA__REPLICATION_FACTOR", "1")
        .env("RELAY__KAFKA__MIN_IN_SYNC_REPLICAS", "1");
    Ok(command)
}

/// A node of the coordinator at `coordinator`, whose object store lies in `folder`.
pub(super) fn node(name: &str, bootstrap: &str, coordinator: &str, folder: &Path) -> anyhow::Result<Command> {
    let mut command = binary("relay-node")?;
    command
        .env("RELAY__LISTEN", "127.0.0.1:0")
        .env("RELAY__NODE__NAME", name)
        .env("RELAY__KAFKA__BROKERS", bootstrap)
        .env("RELAY__COORDINATOR__URL", coordinator)
        .env("RELAY__STORE__FOLDER", folder.join("objects"));
    Ok(command)
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
