//! Heartbeats to the coordinator, and questions passed on to it.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use relay_log::port::TopicPartition;
use relay_protocol::cluster::{BackendInfo, Heartbeat, HeartbeatReply, NodeLoad};
use relay_protocol::topics;
use relay_runtime::backoff::retry_delay;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::leader::Leader;
use super::lease::Lease;
use crate::settings::CoordinatorSettings;
use crate::state::NodeState;

/// Sessions that a heartbeat lists.
const SESSIONS_LISTED_MAX: usize = 1_000;
/// First pause after a heartbeat that nobody took; doubles up to the usual time between two.
const RETRY_MIN: Duration = Duration::from_millis(5);
/// Pause between two looks whether the lease goes on.
const LEASE_LOOK: Duration = Duration::from_millis(250);
/// How long one look at the election topic may take.
const LEASE_LOOK_TIMEOUT: Duration = Duration::from_secs(1);
/// Largest answer of a coordinator, in bytes.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The coordinators, of which one leads. Cheap to clone.
#[derive(Clone)]
pub struct CoordinatorLink(Arc<Inner>);

struct Inner {
    leader: Mutex<Leader>,
    token: Option<String>,
    client: reqwest::Client,
    lease: Mutex<Lent>,
    /// Zero of the lease's clock.
    born: Instant,
    interval: Duration,
    /// Ends the pause between two heartbeats.
    hurry: Notify,
    /// Heartbeats that were begun.
    begun: AtomicU64,
    /// The number of the last one that ended, well or not.
    ended: watch::Sender<u64>,
}

/// What the leader lent last.
#[derive(Default)]
struct Lent {
    lease: Lease,
    backends: Vec<BackendInfo>,
}

/// An answer passed on from the coordinator.
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Its JSON.
    pub body: bytes::Bytes,
    /// Which coordinator.
    from: String,
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
        let urls = settings.url.iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
        Ok(Some(Self(Arc::new(Inner {
            leader: Mutex::new(Leader::new(urls)),
            token,
            client,
            lease: Mutex::default(),
            born: Instant::now(),
            interval: Duration::from_millis(settings.heartbeat_interval_ms),
            hurry: Notify::new(),
            begun: AtomicU64::new(0),
            ended: watch::Sender::new(0),
        }))))
    }

    /// Sends heartbeats until `stop`, and tells the node's pool what it may use.
    pub async fn keep(self, node: Weak<NodeState>, stop: CancellationToken) {
        let (mut interval, mut failures) = (self.0.interval, 0_u32);
        loop {
            let Some(node) = node.upgrade() else { return };
            let number = self.0.begun.fetch_add(1, Ordering::SeqCst) + 1;
            let outcome = self.heartbeat(&node).await;
            metrics::gauge!("relay_coordinator_reachable").set(if outcome.is_ok() { 1.0 } else { 0.0 });
            let pause = match outcome {
                Ok((sent_ms, reply)) => {
                    self.take(&node, sent_ms, &reply);
                    interval = Duration::from_millis(reply.heartbeat_interval_ms.clamp(50, 60_000));
                    failures = 0;
                    interval
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    let error = format!("{error:#}");
                    tracing::warn!(error, "no coordinator leads; going on with the slots held");
                    // A new leader is found soon after it is there.
                    retry_delay(failures, RETRY_MIN, interval.max(RETRY_MIN))
                }
            };
            drop(node);
            self.0.ended.send_replace(number);
            tokio::select! {
                biased;
                () = tokio::time::sleep(pause) => {}
                () = self.0.hurry.notified() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Sends a heartbeat at once; returns when one that tells of this moment was answered, or failed. One after the other: an older
    /// answer must not undo a newer one.
    pub async fn beat_now(&self) {
        let mut ended = self.0.ended.subscribe();
        // What is under way was made before.
        let wanted = self.0.begun.load(Ordering::SeqCst) + 1;
        self.0.hurry.notify_one();
        // Err: nobody sends heartbeats any more.
        _ = ended.wait_for(|number| *number >= wanted).await;
    }

    /// The leader's answer, and when the heartbeat was sent.
    async fn heartbeat(&self, node: &NodeState) -> anyhow::Result<(u64, HeartbeatReply)> {
        let sent_ms = Cell::new(0);
        // Made anew for each try: what the node holds and uses goes on changing.
        let request = |url: &str| {
            sent_ms.set(self.now_ms());
            self.request(reqwest::Method::POST, url, "/v1/heartbeat").json(&heartbeat_of(node))
        };
        let answer = self.ask(request).await?;
        if answer.status != 200 {
            let body = String::from_utf8_lossy(&answer.body);
            anyhow::bail!("the coordinator answered {}: {body}", answer.status);
        }
        let reply: HeartbeatReply = serde_json::from_slice(&answer.body)?;
        let taken = self.leader().answered(reply.coordinator_incarnation);
        if let Err(replaced) = taken {
            metrics::counter!("relay_coordinator_replaced_total").increment(1);
            self.leader().silent(&answer.from);
            return Err(replaced.into());
        }
        Ok((sent_ms.get(), reply))
    }

    /// Tells the pool what it may use, and for how long.
    fn take(&self, node: &NodeState, sent_ms: u64, reply: &HeartbeatReply) {
        let mut lent = self.lent();
        lent.lease.answered(sent_ms, reply.lease_ttl_ms);
        lent.backends.clone_from(&reply.backends);
        node.pool.expect_backends(reply.backends_expected);
        node.pool.update(&reply.backends, &reply.grants);
    }

    /// Watches until `stop` whether the slots may still be used that the leader lent.
    pub async fn watch_lease(self, node: Weak<NodeState>, stop: CancellationToken) {
        let at = TopicPartition::new(topics::ELECTION, 0);
        loop {
            tokio::select! {
                biased;
                () = tokio::time::sleep(LEASE_LOOK) => {}
                () = stop.cancelled() => return,
            }
            let Some(node) = node.upgrade() else { return };
            let wants_look = self.lent().lease.wants_look(self.now_ms());
            if wants_look && let Some(online) = node.online.get() {
                let began_ms = self.now_ms();
                if let Ok(Ok(borders)) = timeout(LEASE_LOOK_TIMEOUT, online.log.watermarks(&at)).await {
                    self.lent().lease.looked((began_ms, self.now_ms()), borders.high);
                }
            }
            self.end_lease(&node);
        }
    }

    /// Uses the lent slots no more if the lease is over. Requests that run are let to their end.
    fn end_lease(&self, node: &NodeState) {
        let mut lent = self.lent();
        if lent.lease.ends(self.now_ms()) {
            tracing::error!(
                "no leader answers, and one may lend this node's slots to others: it uses none until one does"
            );
            metrics::counter!("relay_coordinator_leases_ended_total").increment(1);
            node.pool.update(&lent.backends, &[]);
        }
    }

    fn lent(&self) -> MutexGuard<'_, Lent> {
        self.0.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        self.0.born.elapsed().as_millis() as u64
    }

    /// Passes a GET on and its answer back.
    ///
    /// # Errors
    /// No coordinator answers.
    pub async fn get(&self, path_and_query: &str) -> anyhow::Result<Answer> {
        self.ask(|url| self.request(reqwest::Method::GET, url, path_and_query)).await
    }

    /// Passes a POST of `body` on and its answer back.
    ///
    /// # Errors
    /// No coordinator answers.
    pub async fn post(&self, path: &str, body: &serde_json::Value) -> anyhow::Result<Answer> {
        self.ask(|url| self.request(reqwest::Method::POST, url, path).json(body)).await
    }

    /// Asks one coordinator after the other until one answers that does not turn the question away; else the last refusal.
    async fn ask(&self, request: impl Fn(&str) -> reqwest::RequestBuilder) -> anyhow::Result<Answer> {
        let tries = self.leader().tries_max();
        let mut last = Err(anyhow::anyhow!("no coordinator was asked"));
        for _ in 0..tries {
            let url = self.leader().url().to_owned();
            last = answer_of(url.clone(), request(&url)).await;
            match &last {
                Ok(answer) if self.leader().turned_away(&url, answer.status, &answer.body) => {}
                Ok(_) => return last,
                Err(_) => self.leader().silent(&url),
            }
        }
        last
    }

    fn leader(&self) -> MutexGuard<'_, Leader> {
        self.0.leader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn request(&self, method: reqwest::Method, url: &str, path: &str) -> reqwest::RequestBuilder {
        let request = self.0.client.request(method, format!("{url}{path}"));
        match &self.0.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }
}

async fn answer_of(from: String, request: reqwest::RequestBuilder) -> anyhow::Result<Answer> {
    let response = request.send().await?;
    let status = response.status().as_u16();
    let body = response.bytes().await?;
    anyhow::ensure!(body.len() <= ANSWER_BYTES_MAX, "the coordinator's answer has {} bytes", body.len());
    Ok(Answer { status, body, from })
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
        draining: node.leaving.is_cancelled(),
        load: NodeLoad {
            sessions: node.sessions.len() as u32,
            jobs_running: usage.iter().map(|(_, in_use, _)| *in_use).sum(),
            jobs_waiting: node.pool.demand().iter().map(|demand| demand.jobs).sum(),
            bytes_per_s: node.sessions.bytes_per_s(),
            cpu: node.sessions.cores_in_use(),
        },
        demand: node.pool.demand(),
        holds: node.pool.holds(),
        sessions: node.sessions.list(SESSIONS_LISTED_MAX),
    }
}
