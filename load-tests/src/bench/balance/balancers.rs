//! Balancers side by side: the relay with nothing set by hand, the others as their experts set them (`others.rs`).

use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::ValueEnum;

use super::super::process::{Started, binary, coordinator, node, start};
use super::others;
use crate::broker::Broker;

/// Time in which one must accept connections: the slowest is a large Python program.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    /// Nobody: the client asks the first backend itself.
    Direct,
    /// The relay's OpenAI-compatible API, standalone.
    Relay,
    /// The same over the log (`x-relay-durable`), on the embedded one.
    RelayDurable,
    /// The same over a real broker: one coordinator, one node.
    RelayKafka,
    /// HAProxy: `balance first`, `maxconn` as many as the backend's slots, the fastest first.
    Haproxy,
    /// nginx: `least_conn`.
    Nginx,
    /// Envoy: least request.
    Envoy,
    /// `LiteLLM`: least busy.
    Litellm,
}

impl Kind {
    /// Whether its requests go over the log.
    pub(super) fn is_durable(self) -> bool {
        matches!(self, Self::RelayDurable | Self::RelayKafka)
    }
}

/// One that runs; it ends when dropped.
pub(super) enum Balancer {
    Direct(String),
    Relay(Started),
    /// They end in this order.
    Cluster {
        node: Started,
        coordinator: Started,
        _broker: Broker,
    },
    Other(Other),
}

/// Another project's balancer.
pub(super) struct Other {
    child: Child,
    url: String,
}

impl Drop for Other {
    fn drop(&mut self) {
        // One that ended by itself is gone already.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

impl Balancer {
    /// Starts one before these backends, the fastest first, each of `slots` slots.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub(super) fn start(kind: Kind, folder: &Path, backends: &[String], slots: usize) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let addresses: Vec<&str> = backends.iter().filter_map(|url| url.strip_prefix("http://")).collect();
        let child = match kind {
            Kind::Direct => return Ok(Self::Direct(backends.first().context("no backend")?.clone())),
            Kind::Relay | Kind::RelayDurable => return relay(folder, backends, slots).map(Self::Relay),
            Kind::RelayKafka => return cluster(folder, backends, slots),
            Kind::Haproxy => others::haproxy(folder, port, &addresses, slots)?,
            Kind::Nginx => others::nginx(folder, port, &addresses)?,
            Kind::Envoy => others::envoy(folder, port, &addresses)?,
            Kind::Litellm => others::litellm(folder, port, backends)?,
        };
        let other = Other { child, url: format!("http://127.0.0.1:{port}") };
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            ensure!(began.elapsed() < START_PATIENCE, "{kind:?} does not accept connections");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self::Other(other))
    }

    pub(super) fn url(&self) -> &str {
        match self {
            Self::Direct(url) => url,
            Self::Relay(node) | Self::Cluster { node, .. } => &node.url,
            Self::Other(other) => &other.url,
        }
    }

    /// Processor time that it has taken, with its children; without the broker.
    ///
    /// # Errors
    /// It is gone.
    pub(super) fn cpu(&self) -> anyhow::Result<Duration> {
        let of_all = match self {
            Self::Direct(_) => Vec::new(),
            Self::Relay(relay) => vec![relay.id()],
            Self::Cluster { node, coordinator, .. } => vec![node.id(), coordinator.id()],
            Self::Other(other) => vec![other.child.id()],
        };
        let with_children = of_all.into_iter().flat_map(|id| {
            let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
            let ids: Vec<u32> = children.split_whitespace().filter_map(|child| child.parse().ok()).collect();
            ids.into_iter().chain([id])
        });
        with_children.map(cpu_of).sum()
    }
}

fn cpu_of(id: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    let after_name = stat.rsplit_once(')').context("no stat")?.1;
    let ticks = after_name.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    let ticks: u64 = ticks.sum::<Result<u64, _>>()?;
    // A tick is a hundredth of a second on Linux.
    Ok(Duration::from_millis(ticks * 10))
}

fn relay(folder: &Path, backends: &[String], slots: usize) -> anyhow::Result<Started> {
    let mut command = binary("standalone")?;
    command.arg("--data-dir").arg(folder.join("data")).args(["--listen", "127.0.0.1:0"]);
    for backend in backends {
        command.args(["--backend", &format!("{backend};slots={slots}")]);
    }
    start(&mut command)
}

fn cluster(folder: &Path, backends: &[String], slots: usize) -> anyhow::Result<Balancer> {
    let broker = Broker::start(&folder.join("kafka"))?;
    let entries: Vec<String> = backends.iter().map(|backend| format!("{backend};slots={slots}")).collect();
    let coordinator = start(coordinator(&broker.bootstrap)?.env("RELAY__BACKENDS__STATIC", entries.join(",")))?;
    let node = start(&mut node("balance-1", &broker.bootstrap, &coordinator.url, folder)?)?;
    Ok(Balancer::Cluster { node, coordinator, _broker: broker })
}
