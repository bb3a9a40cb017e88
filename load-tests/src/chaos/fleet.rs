//! The relay's processes: two coordinators, three nodes, two LocalAI simulators; and a proxy before each node, for its clients.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::brokers::free_ports;
use super::client_proxy::Proxy;
use super::signal;

/// How many nodes.
pub(super) const NODES: usize = 3;

/// How many coordinators: one leads.
pub(super) const COORDINATORS: usize = 2;

/// Requests that each simulator may have at a time, as the coordinators are told.
pub(super) const SLOTS: u64 = 12;

/// How many simulators.
const SIMULATORS: usize = 2;

/// Time in which a process must be ready.
const READY_PATIENCE: Duration = Duration::from_secs(60);

/// Time in which a coordinator must say whether it leads.
const LEADER_PATIENCE: Duration = Duration::from_millis(500);

/// A process that can be started again at the same address.
pub(super) struct Process {
    name: String,
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    log: PathBuf,
    url: String,
    child: Option<Child>,
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.kill());
    }
}

impl Process {
    fn new(folder: &Path, name: &str, program: &str, address: &str) -> anyhow::Result<Self> {
        let here = std::env::current_exe()?;
        let path = here.parent().context("no folder of programs")?.join(program);
        ensure!(path.exists(), "{} is not built: cargo build --workspace", path.display());
        let log = folder.join(format!("{name}.log"));
        let (arguments, environment) = (Vec::new(), Vec::new());
        let url = format!("http://{address}");
        Ok(Self { name: name.to_owned(), program: path, arguments, environment, log, url, child: None })
    }

    fn env(mut self, key: &str, value: impl Into<String>) -> Self {
        self.environment.push((key.to_owned(), value.into()));
        self
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Starts it; it gets ready later.
    pub(super) fn launch(&mut self) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", self.name))?;
        self.child = Some(child);
        Ok(())
    }

    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        self.child.take().map_or(Ok(()), |mut child| signal::kill(&mut child))
    }

    pub(super) fn freeze(&self) -> anyhow::Result<()> {
        self.child.as_ref().map_or(Ok(()), signal::freeze)
    }

    pub(super) fn thaw(&self) -> anyhow::Result<()> {
        self.child.as_ref().map_or(Ok(()), signal::thaw)
    }

    /// Starts it again if it ended by itself; says how it ended.
    pub(super) fn revive(&mut self) -> anyhow::Result<Option<String>> {
        let how = match self.child.as_mut() {
            Some(child) => child.try_wait()?.map(|status| status.to_string()),
            None => Some("never started".to_owned()),
        };
        if how.is_some() {
            self.launch()?;
        }
        Ok(how)
    }

    /// Whether it says that it leads; one that does not answer does not.
    async fn leads(&self) -> bool {
        let asked = reqwest::Client::new().get(format!("{}/readyz", self.url)).timeout(LEADER_PATIENCE).send().await;
        match asked {
            Ok(answer) => answer.json::<serde_json::Value>().await.is_ok_and(|said| said["role"] == "leader"),
            Err(_) => false,
        }
    }

    pub(super) async fn wait_until_ready(&self) -> anyhow::Result<()> {
        let (client, began) = (reqwest::Client::new(), Instant::now());
        loop {
            let asked = client.get(format!("{}/readyz", self.url)).timeout(Duration::from_secs(2)).send().await;
            if asked.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            let log = self.log.display();
            ensure!(began.elapsed() < READY_PATIENCE, "{} does not get ready, see {log}", self.name);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// All of them.
pub(super) struct Fleet {
    pub(super) coordinators: Vec<Process>,
    pub(super) nodes: Vec<Process>,
    pub(super) simulators: Vec<Process>,
    /// One before each node.
    pub(super) proxies: Vec<Proxy>,
}

impl Fleet {
    /// Starts everything and waits until it is ready.
    ///
    /// # Errors
    /// A program that is not built, or does not get ready.
    pub(super) async fn start(folder: &Path, bootstrap: &str) -> anyhow::Result<Self> {
        let ports = free_ports(COORDINATORS + NODES + SIMULATORS)?;
        let addresses: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let (coordinators_at, others_at) = addresses.split_at(COORDINATORS);
        let (nodes_at, simulators_at) = others_at.split_at(NODES);
        let simulators = simulators_at.iter().enumerate().map(|(at, address)| simulator(folder, at, address));
        let simulators: Vec<_> = simulators.collect::<anyhow::Result<_>>()?;
        let backends: Vec<_> = simulators.iter().map(|process| process.url.clone()).collect();
        let coordinators = coordinators_at.iter().enumerate().map(|(at, address)| {
            let name = format!("coordinator-{}", at + 1);
            Ok(Process::new(folder, &name, "coordinator", address)?
                .env("RELAY__LISTEN", address)
                .env("RELAY__NAME", &name)
                .env("RELAY__KAFKA__BROKERS", bootstrap)
                .env("RELAY__BACKENDS__SLOTS_DEFAULT", SLOTS.to_string())
                .env("RELAY__BACKENDS__STATIC", backends.join(",")))
        });
        let coordinators: Vec<Process> = coordinators.collect::<anyhow::Result<_>>()?;
        let urls: Vec<_> = coordinators.iter().map(|process| process.url.clone()).collect();
        let nodes = nodes_at.iter().enumerate().map(|(at, address)| {
            let name = format!("node-{}", at + 1);
            Ok(Process::new(folder, &name, "relay-node", address)?
                .env("RELAY__LISTEN", address)
                .env("RELAY__NODE__NAME", &name)
                .env("RELAY__KAFKA__BROKERS", bootstrap)
                .env("RELAY__STORE__FOLDER", folder.join("objects").to_string_lossy())
                .env("RELAY__COORDINATOR__URL", urls.join(",")))
        });
        let nodes: Vec<Process> = nodes.collect::<anyhow::Result<_>>()?;
        let mut proxies = Vec::new();
        for address in nodes_at {
            proxies.push(Proxy::start(address).await?);
        }
        let mut fleet = Self { coordinators, nodes, simulators, proxies };
        for process in fleet.all() {
            process.launch()?;
        }
        fleet.wait_until_ready().await?;
        Ok(fleet)
    }

    pub(super) fn all(&mut self) -> impl Iterator<Item = &mut Process> {
        self.coordinators.iter_mut().chain(&mut self.simulators).chain(&mut self.nodes)
    }

    /// The coordinator that leads.
    ///
    /// # Errors
    /// None does for long.
    pub(super) async fn leader(&self) -> anyhow::Result<usize> {
        let began = Instant::now();
        loop {
            for (at, coordinator) in self.coordinators.iter().enumerate() {
                if coordinator.leads().await {
                    return Ok(at);
                }
            }
            ensure!(began.elapsed() < READY_PATIENCE, "no coordinator leads");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// URLs of the simulators.
    pub(super) fn simulator_urls(&self) -> Vec<String> {
        self.simulators.iter().map(|process| process.url.clone()).collect()
    }

    /// URLs of the nodes as their clients reach them.
    pub(super) fn client_urls(&self) -> Vec<String> {
        self.proxies.iter().map(Proxy::url).collect()
    }

    pub(super) async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        for process in self.all() {
            process.wait_until_ready().await?;
        }
        Ok(())
    }
}

fn simulator(folder: &Path, at: usize, address: &str) -> anyhow::Result<Process> {
    let mut process = Process::new(folder, &format!("simulator-{}", at + 1), "localai-simulator", address)?;
    process.arguments =
        ["--listen", address, "--workers", "32", "--spread", "0.6", "--speed", "2"].map(str::to_owned).to_vec();
    Ok(process)
}
