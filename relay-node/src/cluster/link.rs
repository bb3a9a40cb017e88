//! Heartbeats to the coordinator, and questions passed on to it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use relay_protocol::cluster::{Heartbeat, HeartbeatReply, NodeLoad};
use tokio_util::sync::CancellationToken;

use crate::settings::CoordinatorSettings;
use crate::state::NodeState;

/// Sessions that a heartbeat lists.
const SESSIONS_LISTED_MAX: usize = 1_000;
/// Largest answer of a coordinator, in bytes.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The coordinators, of which one answers. Cheap to clone.
#[derive(Clone)]
pub struct CoordinatorLink(Arc<Inner>);

struct Inner {
    urls: Vec<String>,
    token: Option<String>,
    client: reqwest::Client,
    /// Which URL answered last.
    current: AtomicUsize,
    interval: Duration,
}

/// An answer passed on from the coordinator.
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Its JSON.
    pub body: bytes::Bytes,
}

impl CoordinatorLink {
    /// `None` if the settings name no coordinator.
    ///
    /// # Errors
    /// The token file cannot be read, or no HTTP client can be made.
    pub fn new(settings: &CoordinatorSettings) -> Result<Option<Self>, anyhow::Error> {
        use anyhow::Context as _;
        if settings.url.is_empty() {
            return Ok(None);
        }
        let token = match settings.token_file.as_str() {
            "" => None,
            file => {
                let text =
                    std::fs::read_to_string(file).with_context(|| format!("reading coordinator.token_file {file}"))?;
                Some(text.trim().to_owned())
            }
        };
        let timeout = Duration::from_millis(settings.timeout_ms);
        let client = reqwest::Client::builder().timeout(timeout).no_proxy().build().context("making an HTTP client")?;
        Ok(Some(Self(Arc::new(Inner {
            urls: settings.url.iter().map(|url| url.trim_end_matches('/').to_owned()).collect(),
            token,
            client,
            current: AtomicUsize::new(0),
            interval: Duration::from_millis(settings.heartbeat_interval_ms),
        }))))
    }

    /// Sends heartbeats until `stop`, and tells the node's pool what it may use.
    pub async fn keep(self, node: Weak<NodeState>, stop: CancellationToken) {
        let mut interval = self.0.interval;
        loop {
            let Some(node) = node.upgrade() else { return };
            match self.heartbeat(&node).await {
                Ok(reply) => {
                    metrics::gauge!("relay_coordinator_reachable").set(1.0);
                    node.pool.update(&reply.backends, &reply.grants);
                    interval = Duration::from_millis(reply.heartbeat_interval_ms.clamp(50, 60_000));
                }
                Err(error) => {
                    metrics::gauge!("relay_coordinator_reachable").set(0.0);
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "no coordinator answers; going on with the slots held"
                    );
                    self.0.current.fetch_add(1, Ordering::Relaxed);
                }
            }
            drop(node);
            tokio::select! {
                biased;
                () = tokio::time::sleep(interval) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn heartbeat(&self, node: &NodeState) -> anyhow::Result<HeartbeatReply> {
        let response = self.request(reqwest::Method::POST, "/v1/heartbeat").json(&heartbeat_of(node)).send().await?;
        let status = response.status();
        if !status.is_success() {
            anyhow::bail!("the coordinator answered {status}: {}", response.text().await.unwrap_or_default());
        }
        Ok(response.json().await?)
    }

    /// Passes a GET on and its answer back.
    ///
    /// # Errors
    /// No coordinator answers.
    pub async fn get(&self, path_and_query: &str) -> anyhow::Result<Answer> {
        answer_of(self.request(reqwest::Method::GET, path_and_query).send().await?).await
    }

    /// Passes a POST of `body` on and its answer back.
    ///
    /// # Errors
    /// No coordinator answers.
    pub async fn post(&self, path: &str, body: &serde_json::Value) -> anyhow::Result<Answer> {
        answer_of(self.request(reqwest::Method::POST, path).json(body).send().await?).await
    }

    fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let inner = &self.0;
        let url = &inner.urls[inner.current.load(Ordering::Relaxed) % inner.urls.len()];
        let request = inner.client.request(method, format!("{url}{path}"));
        match &inner.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }
}

async fn answer_of(response: reqwest::Response) -> anyhow::Result<Answer> {
    let status = response.status().as_u16();
    let body = response.bytes().await?;
    anyhow::ensure!(body.len() <= ANSWER_BYTES_MAX, "the coordinator's answer has {} bytes", body.len());
    Ok(Answer { status, body })
}

fn heartbeat_of(node: &NodeState) -> Heartbeat {
    let advertised = &node.settings.node.advertised_url;
    let usage = node.pool.usage();
    Heartbeat {
        node: node.name.clone(),
        incarnation: node.incarnation,
        advertised_url: (!advertised.is_empty()).then(|| advertised.clone()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ready: node.readiness.is_ready(),
        draining: node.draining.is_cancelled(),
        load: NodeLoad {
            sessions: node.sessions.len() as u32,
            jobs_running: usage.iter().map(|(_, in_use, _)| *in_use).sum(),
            jobs_waiting: node.pool.demand().iter().map(|demand| demand.jobs).sum(),
            bytes_per_s: node.sessions.bytes_per_s(),
            cpu: 0.0,
        },
        demand: node.pool.demand(),
        holds: node.pool.holds(),
        sessions: node.sessions.list(SESSIONS_LISTED_MAX),
    }
}
