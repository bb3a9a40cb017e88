//! Heartbeats to the coordinator, and questions passed on to it.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use relay_log::port::TopicPartition;
use relay_protocol::cluster::{BackendInfo, Heartbeat, HeartbeatReply, NodeLoad};
use relay_protocol::topics;
use relay_runtime::backoff::retry_delay;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::leader::Leader;
use super::lease::Lease;
use super::wire::{HttpWire, Question, Wire};
use crate::settings::CoordinatorSettings;
use crate::state::NodeState;

/// Sessions that a heartbeat lists.
const SESSIONS_LISTED_MAX: usize = 1_000;
/// First pause after a heartbeat that nobody took; doubles up to half the usual time between two.
const RETRY_MIN: Duration = Duration::from_millis(5);
/// Pause between two looks whether the lease goes on.
const LEASE_LOOK: Duration = Duration::from_millis(250);
/// How long one look at the election topic may take.
const LEASE_LOOK_TIMEOUT: Duration = Duration::from_secs(1);
/// Of a lease's time, how long one coordinator may take to answer a heartbeat: one that is frozen must not use up the time in which its
/// successor is found.
const HEARTBEAT_SHARE: u32 = 8;

/// The coordinators, of which one leads. Cheap to clone.
#[derive(Clone)]
pub struct CoordinatorLink(Arc<Inner>);

struct Inner {
    leader: Mutex<Leader>,
    wire: Box<dyn Wire>,
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
    /// How long one coordinator may take to answer.
    timeout: Duration,
}

/// What the leader lent last.
#[derive(Default)]
struct Lent {
    lease: Lease,
    /// For how long it lends.
    ttl: Option<Duration>,
    backends: Vec<BackendInfo>,
}

/// An answer passed on from the coordinator.
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Its JSON.
    pub body: Bytes,
    /// Which coordinator.
    from: String,
}

impl CoordinatorLink {
    /// `None` if the settings name no coordinator.
    ///
    /// # Errors
    /// The token file cannot be read, or no HTTP client can be made.
    pub fn new(settings: &CoordinatorSettings) -> Result<Option<Self>, anyhow::Error> {
        if settings.url.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self::over(settings, Box::new(HttpWire::new(settings)?))))
    }

    /// Reaches the coordinators of the settings over `wire`.
    pub fn over(settings: &CoordinatorSettings, wire: Box<dyn Wire>) -> Self {
        let urls = settings.url.iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
        Self(Arc::new(Inner {
            leader: Mutex::new(Leader::new(urls)),
            wire,
            lease: Mutex::default(),
            born: Instant::now(),
            interval: Duration::from_millis(settings.heartbeat_interval_ms),
            hurry: Notify::new(),
            begun: AtomicU64::new(0),
            ended: watch::Sender::new(0),
            timeout: Duration::from_millis(settings.timeout_ms),
        }))
    }

    /// Sends heartbeats until `stop`, and tells the node's pool what it may use.
    pub async fn keep(self, node: Weak<NodeState>, stop: CancellationToken) {
        let (mut interval, mut failures) = (self.0.interval, 0_u32);
        loop {
            let Some(node) = node.upgrade() else { return };
            let number = self.0.begun.fetch_add(1, Ordering::SeqCst) + 1;
            // After a stand-still nothing is said of slots that are not held any more.
            self.end_lease(&node);
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
                    retry_delay(failures, RETRY_MIN, (interval / 2).max(RETRY_MIN))
                }
            };
            drop(node);
            self.0.ended.send_replace(number);
            tokio::select! {
                biased;
                () = sleep(pause) => {}
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
        let share = self.lent().ttl.map(|ttl| ttl / HEARTBEAT_SHARE);
        let timeout = share.map_or(self.0.timeout, |share| share.min(self.0.timeout));
        // Made anew for each try: what the node holds and uses goes on changing.
        let question = |url: &str| {
            sent_ms.set(self.now_ms());
            let body = serde_json::to_vec(&heartbeat_of(node))?;
            let timeout = self.leader().patience(url, timeout);
            Ok(Question { timeout, ..self.question(url, "/v1/heartbeat", Some(body.into())) })
        };
        let answer = self.ask(question).await?;
        if answer.status != 200 {
            let body = String::from_utf8_lossy(&answer.body);
            anyhow::bail!("the coordinator answered {}: {body}", answer.status);
        }
        let reply: HeartbeatReply = serde_json::from_slice(&answer.body)?;
        let taken = self.leader().answered(reply.coordinator_incarnation);
        if let Err(replaced) = taken {
            metrics::counter!("relay_coordinator_replaced_total").increment(1);
            self.leader().next_after(&answer.from);
            return Err(replaced.into());
        }
        Ok((sent_ms.get(), reply))
    }

    /// Tells the pool what it may use, and for how long.
    fn take(&self, node: &NodeState, sent_ms: u64, reply: &HeartbeatReply) {
        let mut lent = self.lent();
        let taken = lent.lease.answered(self.now_ms(), sent_ms, reply.lease_ttl_ms);
        if taken.ended {
            self.over_now(node, &lent);
        }
        if !taken.counts {
            tracing::warn!("an answer of the leader came too late to lend anything");
            return;
        }
        lent.ttl = Some(Duration::from_millis(reply.lease_ttl_ms));
        lent.backends.clone_from(&reply.backends);
        self.tell_end(node, &lent);
        node.pool.expect_backends(reply.backends_expected);
        node.pool.update(&reply.backends, &reply.grants);
    }

    /// Watches until `stop` whether the slots may still be used that the leader lent.
    pub async fn watch_lease(self, node: Weak<NodeState>, stop: CancellationToken) {
        loop {
            let over = self.over_at();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = until(over) => {}
                () = sleep(LEASE_LOOK) => {}
            }
            let Some(node) = node.upgrade() else { return };
            self.end_lease(&node);
            if self.lent().lease.wants_look(self.now_ms()) {
                // A log that does not answer must not put the end off.
                tokio::select! {
                    biased;
                    () = until(self.over_at()) => {}
                    () = self.look(&node) => {}
                }
                self.end_lease(&node);
            }
        }
    }

    /// Looks whether anyone leads.
    async fn look(&self, node: &NodeState) {
        let Some(online) = node.online.get() else { return };
        let (at, began_ms) = (TopicPartition::new(topics::ELECTION, 0), self.now_ms());
        if let Ok(Ok(borders)) = timeout(LEASE_LOOK_TIMEOUT, online.log.watermarks(&at)).await {
            let mut lent = self.lent();
            lent.lease.looked((began_ms, self.now_ms()), borders.high);
            self.tell_end(node, &lent);
        }
    }

    /// Tells the pool until when slots may be used: it looks at the clock itself, whatever else stands still.
    fn tell_end(&self, node: &NodeState, lent: &Lent) {
        if let Some(over) = lent.lease.over_at().and_then(|over| self.at(over)) {
            node.pool.lend_until(over);
        }
    }

    /// When the lease is over, if there is one.
    fn over_at(&self) -> Option<Instant> {
        let over_ms = self.lent().lease.over_at()?;
        self.at(over_ms)
    }

    fn at(&self, ms: u64) -> Option<Instant> {
        self.0.born.checked_add(Duration::from_millis(ms))
    }

    /// Uses the lent slots no more if the lease is over: what runs on them is cut off.
    fn end_lease(&self, node: &NodeState) {
        let mut lent = self.lent();
        if lent.lease.ends(self.now_ms()) {
            self.over_now(node, &lent);
        }
    }

    fn over_now(&self, node: &NodeState, lent: &Lent) {
        tracing::error!(
            "no leader answers, and one may lend this node's slots to others: it uses none until one does, and ends what runs on them"
        );
        metrics::counter!("relay_coordinator_leases_ended_total").increment(1);
        node.pool.end_lease();
        node.pool.update(&lent.backends, &[]);
        self.leader().forget();
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
        self.ask(|url| Ok(self.question(url, path_and_query, None))).await
    }

    /// Passes a POST of `body` on and its answer back.
    ///
    /// # Errors
    /// No coordinator answers.
    pub async fn post(&self, path: &str, body: &serde_json::Value) -> anyhow::Result<Answer> {
        let body = Bytes::from(serde_json::to_vec(body)?);
        self.ask(|url| Ok(self.question(url, path, Some(body.clone())))).await
    }

    fn question(&self, url: &str, path_and_query: &str, body: Option<Bytes>) -> Question {
        Question { url: url.to_owned(), path_and_query: path_and_query.to_owned(), body, timeout: self.0.timeout }
    }

    /// Asks one coordinator after the other until one answers that does not turn the question away; else the last refusal.
    async fn ask(&self, question: impl Fn(&str) -> anyhow::Result<Question>) -> anyhow::Result<Answer> {
        let tries = self.leader().tries_max();
        let mut last = Err(anyhow::anyhow!("no coordinator was asked"));
        for _ in 0..tries {
            let url = self.leader().url().to_owned();
            let answer = self.0.wire.ask(question(&url)?).await;
            if answer.is_ok() {
                self.leader().spoke(&url);
            }
            last = answer.map(|(status, body)| Answer { status, body, from: url.clone() });
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
}

/// Returns at `at`; never without one.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
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
