//! The processes of a cluster: a broker of the test's own, a coordinator and nodes; all end with the test.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use load_tests::broker::Broker;
use relay_log::kafka::{KafkaLog, KafkaSettings};
use relay_log::port::{Log, ReadEvent, Start, TopicPartition};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Longest wait for anything that should happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A binary of the workspace; `cargo test --workspace` builds them all.
pub(crate) fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let here = std::env::current_exe()?;
    let folder = here.parent().and_then(|deps| deps.parent()).context("no target folder")?;
    let path = folder.join(name);
    ensure!(path.exists(), "{} is not built: cargo build --workspace", path.display());
    Ok(path)
}

/// A process that said `ready URL`.
pub(crate) struct Process {
    pub(crate) url: String,
    child: Child,
}

impl Process {
    /// Starts one that may not get ready for a while; `url` is where it was told to listen.
    pub(crate) fn spawn(command: &mut Command, url: &str) -> anyhow::Result<Self> {
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(Self { url: url.to_owned(), child })
    }

    /// Starts one and waits until it is ready.
    pub(crate) fn start(command: &mut Command) -> anyhow::Result<Self> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let output = child.stdout.take().context("no stdout")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let url = line.trim().strip_prefix("ready ").context("the process did not get ready")?.to_owned();
        Ok(Self { url, child })
    }

    pub(crate) fn kill_9(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Process {
    /// The most memory that it ever had.
    pub(crate) fn memory_peak_bytes(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        Ok(peak.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }

    /// Tells it to end.
    pub(crate) fn terminate(&self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)
    }

    /// Waits until it has ended; whether it ended well.
    pub(crate) fn wait(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.wait()?.success())
    }

    /// Stops it where it is: its connections stay open, nothing answers.
    pub(crate) fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?).context("a process without a number")?;
        Ok(kill_process(pid, signal)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A process that was killed before is gone already.
        drop(self.kill_9());
    }
}

/// A broker, a coordinator, nodes; they end in the order of the fields.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Process>,
    pub(crate) coordinator: Process,
    pub(crate) bootstrap: String,
    _broker: Broker,
    folder: tempfile::TempDir,
}

impl Cluster {
    pub(crate) fn start(nodes: usize, backends: &[&str]) -> anyhow::Result<Self> {
        Self::start_with(nodes, backends, &[], &[])
    }

    /// With further settings for the coordinator and for each node.
    pub(crate) fn start_with(
        nodes: usize,
        backends: &[&str],
        of_coordinator: &[(&str, &str)],
        of_nodes: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let broker = Broker::start(&folder.path().join("kafka"))?;
        let bootstrap = broker.bootstrap.clone();
        let mut command = coordinator_command(&bootstrap, "127.0.0.1:0")?;
        command.env("RELAY__BACKENDS__STATIC", backends.join(",")).envs(of_coordinator.iter().copied());
        let coordinator = Process::start(&mut command)?;
        let store = folder.path().join("objects");
        let started = (1..=nodes).map(|number| {
            Process::start(
                node_command(&format!("node-{number}"), &bootstrap, &store)?
                    .env("RELAY__COORDINATOR__URL", &coordinator.url)
                    .envs(of_nodes.iter().copied()),
            )
        });
        let nodes = started.collect::<anyhow::Result<_>>()?;
        Ok(Self { nodes, coordinator, bootstrap, _broker: broker, folder })
    }

    /// The folder that holds everything.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Which node's `started` event the job has.
    pub(crate) fn node_that_runs(&self, job_id: &str) -> anyhow::Result<usize> {
        let began = Instant::now();
        loop {
            let status = Command::new(binary("client-cli")?)
                .args(["--server", &self.nodes[0].url, "status", "--json", job_id])
                .output()?;
            let status: Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
            match status["last"]["node"].as_str() {
                Some("node-1") => return Ok(0),
                Some("node-2") => return Ok(1),
                _ => ensure!(began.elapsed() < PATIENCE, "the job does not start: {status}"),
            }
        }
    }

    /// Terminal events of a job in the event topic, duplicates included.
    pub(crate) fn terminal_events(&self, job_id: &str) -> anyhow::Result<usize> {
        let log: Arc<dyn Log> = Arc::new(KafkaLog::connect(KafkaSettings::single_broker(&self.bootstrap))?);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        runtime.block_on(async {
            let mut open: Vec<_> = (0..8).map(|partition| TopicPartition::new("media.events", partition)).collect();
            let mut reader = log.read(open.iter().map(|at| (at.clone(), Start::Earliest)).collect()).await?;
            let mut count = 0;
            while !open.is_empty() {
                match tokio::time::timeout(PATIENCE, reader.next()).await?? {
                    ReadEvent::End { at, .. } => open.retain(|still| *still != at),
                    ReadEvent::Record(record) => {
                        let event: Value = serde_json::from_slice(record.value.as_deref().unwrap_or_default())?;
                        let ended = ["completed", "failed", "cancelled", "expired", "dead_lettered"];
                        let is_end = event["event"].as_str().is_some_and(|kind| ended.contains(&kind));
                        count += usize::from(event["job_id"] == job_id && is_end);
                    }
                }
            }
            Ok(count)
        })
    }
}

/// A coordinator for one broker.
pub(crate) fn coordinator_command(bootstrap: &str, listen: &str) -> anyhow::Result<Command> {
    let mut command = Command::new(binary("coordinator")?);
    command
        .env("RELAY__LISTEN", listen)
        .env("RELAY__KAFKA__BROKERS", bootstrap)
        .env("RELAY__KAFKA__REPLICATION_FACTOR", "1")
        .env("RELAY__KAFKA__MIN_IN_SYNC_REPLICAS", "1")
        .env("RELAY__LEASES__RESTART_WAIT_MS", "0");
    Ok(command)
}

/// A node without a coordinator, on any port.
pub(crate) fn node_command(name: &str, bootstrap: &str, store: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new(binary("relay-node")?);
    command
        .env("RELAY__LISTEN", "127.0.0.1:0")
        .env("RELAY__NODE__NAME", name)
        .env("RELAY__KAFKA__BROKERS", bootstrap)
        .env("RELAY__STORE__FOLDER", store);
    Ok(command)
}

/// A port that nobody listens on.
pub(crate) fn free_address() -> anyhow::Result<String> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}
