//! The whole cluster in one process: coordinator, nodes and the embedded log. The demo runs it, and so do cluster tests.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use coordinator::Coordinator;
use relay_log::local::{LocalLog, LocalLogSettings};
use relay_log::port::Log;
use relay_node::backend::Backend;
use relay_node::node::{Node, Parts};
use relay_runtime::auth::{Scope, ScopeSet, StaticToken, TokenHash};
use relay_runtime::metrics;
use relay_runtime::random::{Random, SystemRandom};
use relay_runtime::settings::Map;
use relay_runtime::telemetry::TelemetrySettings;
use sha2::{Digest, Sha256};

/// Folder of the embedded log in the data folder.
const LOG_FOLDER: &str = "log";
/// Folder of the object store in the data folder.
const STORE_FOLDER: &str = "objects";
/// File in the data folder with the token that nodes show the coordinator.
const TOKEN_FILE: &str = "node-token";

/// The job view in the data folder; it can be deleted while nothing runs.
const VIEW_FILE: &str = "view/jobs.sqlite";

/// Variables that only the coordinator has.
const OF_COORDINATOR: [&str; 4] =
    ["RELAY__TOPICS__", "RELAY__BACKENDS__DNS", "RELAY__BACKENDS__DRAIN", "RELAY__BACKENDS__PROBE"];
/// Variables that count for the coordinator and for nodes.
const SHARED: [&str; 2] = ["RELAY__AUTH__", "RELAY__TELEMETRY__"];

/// Pause between two looks whether a node has heard from the coordinator.
const HEARTBEAT_LOOK: Duration = Duration::from_millis(2);

/// What to run.
#[derive(Clone)]
pub struct Options {
    /// Where the first node listens: HOST:PORT, port 0 for any.
    pub listen: String,
    /// Folder for everything that must last.
    pub data_dir: PathBuf,
    /// Nodes.
    pub nodes: u32,
    /// LocalAI servers: URL or URL;slots=N.
    pub backends: Vec<String>,
    /// `RELAY__…` variables for the nodes; those of `auth` and `telemetry` count for the coordinator too, those of `topics`,
    /// `backends.dns…`, `backends.drain…` and `backends.probe…` for it alone.
    pub env: Map<String, String>,
    /// The log; `None` for the embedded one in the data folder.
    pub log: Option<Arc<dyn Log>>,
    /// What does built-in tasks; `None` for the real signal processing.
    pub builtin: Option<Arc<dyn Backend>>,
}

impl Options {
    /// One node on any loopback port, without backends.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            listen: "127.0.0.1:0".to_owned(),
            data_dir: data_dir.into(),
            nodes: 1,
            backends: Vec::new(),
            env: Map::new(),
            log: None,
            builtin: None,
        }
    }

    /// How the process logs and traces.
    ///
    /// # Errors
    /// A variable of the nodes that cannot be used.
    pub fn telemetry(&self) -> anyhow::Result<TelemetrySettings> {
        Ok(self.of_nodes()?.telemetry)
    }

    fn of_nodes(&self) -> anyhow::Result<relay_node::settings::Settings> {
        let env = self.env_of(|name| !begins(name, &OF_COORDINATOR));
        Ok(relay_node::settings::Settings::load(None, env)?)
    }

    fn env_of(&self, wanted: impl Fn(&str) -> bool) -> Map<String, String> {
        self.env.iter().filter(|(name, _)| wanted(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}

/// A running cluster.
pub struct Standalone {
    /// The coordinator.
    pub coordinator: Coordinator,
    /// The nodes; the first listens where it was told.
    pub nodes: Vec<Node>,
    options: Options,
    token: Option<String>,
    log: Arc<dyn Log>,
}

impl Standalone {
    /// Starts everything on the current actix system and returns once all nodes take work.
    ///
    /// # Errors
    /// A setting or address that cannot be used, or a data folder that another process has open.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        anyhow::ensure!(options.nodes > 0, "--nodes must be at least 1");
        relay_runtime::tls::install_provider();
        std::fs::create_dir_all(&options.data_dir)
            .with_context(|| format!("making the data folder {}", options.data_dir.display()))?;
        let log = match &options.log {
            Some(log) => log.clone(),
            None => Arc::new(LocalLog::open(&options.data_dir.join(LOG_FOLDER), &LocalLogSettings::default())?),
        };
        let first = node_settings(&options, 1)?;
        let token = if first.auth.is_open() { None } else { Some(node_token()) };
        let coordinator = start_coordinator(&options, token.as_deref(), log.clone()).await?;
        let mut started = Self { coordinator, nodes: Vec::new(), options, token, log };
        for _ in 0..started.options.nodes {
            started.launch(started.log.clone())?;
        }
        for node in &started.nodes {
            ready(node).await;
        }
        Ok(started)
    }

    /// Starts one more node, over a log of its own that leads to the same records or over the cluster's, and returns once it
    /// takes work.
    ///
    /// # Errors
    /// As [`Standalone::start`].
    pub async fn add_node(&mut self, log: Option<Arc<dyn Log>>) -> anyhow::Result<()> {
        let node = self.launch(log.unwrap_or_else(|| self.log.clone()))?;
        ready(node).await;
        Ok(())
    }

    fn launch(&mut self, log: Arc<dyn Log>) -> anyhow::Result<&Node> {
        let mut settings = node_settings(&self.options, u32::try_from(self.nodes.len())? + 1)?;
        settings.coordinator.url = vec![self.coordinator.url()];
        if let Some(token) = &self.token {
            let file = self.options.data_dir.join(TOKEN_FILE);
            write_private(&file, token).with_context(|| format!("writing {}", file.display()))?;
            settings.coordinator.token_file = file.to_string_lossy().into_owned();
        }
        let parts = Parts { log, metrics: metrics::install()?, builtin: self.options.builtin.clone() };
        self.nodes.push(Node::start(settings, parts)?);
        self.nodes.last().context("it was started")
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        self.nodes.first().map(|node| format!("http://{}", node.addr)).unwrap_or_default()
    }

    /// Ends the nodes in order, then the coordinator.
    pub async fn stop(self) {
        let stops = self.nodes.into_iter().map(Node::stop);
        futures_util::future::join_all(stops).await;
        self.coordinator.stop().await;
    }
}

/// Waits until the node takes work.
async fn ready(node: &Node) {
    node.wait_ready().await;
    // So that the first job already hears whether its task has a backend.
    while !node.state.pool.is_known() {
        tokio::time::sleep(HEARTBEAT_LOOK).await;
    }
}

fn begins(name: &str, with: &[&str]) -> bool {
    with.iter().any(|section| name.starts_with(section))
}

fn node_settings(options: &Options, number: u32) -> anyhow::Result<relay_node::settings::Settings> {
    let mut settings = options.of_nodes()?;
    settings.listen = if number == 1 { options.listen.clone() } else { format!("{}:0", host(&options.listen)?) };
    settings.node.name = format!("node-{number}");
    settings.node.advertised_url = "auto".to_owned();
    settings.store.folder = options.data_dir.join(STORE_FOLDER);
    Ok(settings)
}

async fn start_coordinator(options: &Options, token: Option<&str>, log: Arc<dyn Log>) -> anyhow::Result<Coordinator> {
    let env = options.env_of(|name| begins(name, &OF_COORDINATOR) || begins(name, &SHARED));
    let mut settings = coordinator::Settings::load(None, env)?;
    settings.listen = "127.0.0.1:0".to_owned();
    settings.http.threads = 1;
    settings.backends.entries.clone_from(&options.backends);
    settings.view.file = options.data_dir.join(VIEW_FILE);
    // The earlier process is gone, and with it whoever held a slot.
    settings.leases.restart_wait_ms = 0;
    settings.election.silence_ms = 0;
    if let Some(token) = token {
        settings.auth.tokens.push(StaticToken {
            subject: "node".to_owned(),
            tenant: relay_runtime::auth::DEFAULT_TENANT.to_owned(),
            scopes: ScopeSet::from_iter([Scope::Admin]),
            sha256: TokenHash(Sha256::digest(token.as_bytes()).into()),
        });
    }
    Coordinator::start(settings, log).await.context("starting the coordinator")
}

fn host(listen: &str) -> anyhow::Result<String> {
    let address: SocketAddr = listen.to_socket_addrs()?.next().with_context(|| format!("--listen {listen}"))?;
    Ok(match address {
        SocketAddr::V4(v4) => v4.ip().to_string(),
        SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
    })
}

fn node_token() -> String {
    let random = SystemRandom;
    (0..4).map(|_| format!("{:016x}", random.next_u64())).collect()
}

/// Writes a file that only its owner may read.
fn write_private(file: &std::path::Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut opened = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file)?;
    opened.write_all(text.as_bytes())
}
