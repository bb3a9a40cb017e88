//! The wiring of a node: what is made of what, in which order it starts and ends. Nothing else is decided here.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::web;
use anyhow::Context as _;
use futures_util::future::join_all;
use object_store::ObjectStore;
use relay_log::port::{JoinSpec, Log, LogError, Retention, TopicSpec, TopicState};
use relay_protocol::topics;
use relay_runtime::auth::{self, Authenticator};
use relay_runtime::clock::{Clock, SystemClock};
use relay_runtime::metrics::Metrics;
use relay_runtime::ops_http::{Readiness, STARTING};
use relay_runtime::random::{Random, SystemRandom};
use relay_runtime::shutdown::Drain;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::audit::Audit;
use crate::backend::Backend;
use crate::backend::in_process::InProcess;
use crate::backend::localai::LocalAi;
use crate::backend::pool::{Connect, Pool};
use crate::cluster::fixed;
use crate::cluster::link::CoordinatorLink;
use crate::dlq::DeadLetters;
use crate::doorless::Ports;
use crate::events::catch_up::CatchUps;
use crate::events::hub::Hub;
use crate::events::write::EventRecords;
use crate::gateway::handshakes::Handshakes;
use crate::gateway::moving;
use crate::gateway::resume_token::ResumeTokens;
use crate::gateway::server;
use crate::gateway::sessions::Sessions;
use crate::hidden;
use crate::intake::core::LaneLimits;
use crate::intake::lane::{LaneHandle, LaneSettings};
use crate::intake::lost_group::{self, LaneError};
use crate::intake::room::Shares;
use crate::intake::starts::{Registrar, Starts};
use crate::job::aside;
use crate::job::claim_check::{Cache, ClaimCheck, StoreError, Sweeper, keep_swept};
use crate::job::retry::Tiers;
use crate::job::run::RunContext;
use crate::job::suspicion::SuspectPlace;
use crate::job::url_input::{Networks, UrlInputs, UrlRules};
use crate::settings::{InputSettings, Settings};
use crate::state::{NodeState, Online};
use crate::tenants::Tenants;

/// Wait before the log is asked again while it cannot be reached.
const LOG_RETRY: Duration = Duration::from_millis(500);
/// Records that a member of a lane's group reads ahead of the lane.
const MEMBER_READ_AHEAD: usize = 512;

/// What a node is made of beside its settings.
pub struct Parts {
    /// The log.
    pub log: Arc<dyn Log>,
    /// Where metrics are kept.
    pub metrics: Metrics,
    /// What does built-in tasks; `None` for the real signal processing.
    pub builtin: Option<Arc<dyn Backend>>,
}

/// A running node.
pub struct Node {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Shared state, for observers in the same process.
    pub state: Arc<NodeState>,
    server: ServerHandle,
    lanes: Arc<OnceLock<Vec<LaneHandle>>>,
    stop: CancellationToken,
    starting: tokio::task::JoinHandle<()>,
    refused: watch::Receiver<Option<String>>,
}

impl Node {
    /// Starts a node on the current actix system. It listens when this returns; `/readyz` tells when it takes work.
    ///
    /// # Errors
    /// A setting that cannot be used, or an address that cannot be bound.
    pub fn start(settings: Settings, parts: Parts) -> anyhow::Result<Self> {
        settings.check()?;
        let addresses = auth::check_bind(&settings.listen, &settings.auth)?;
        let authenticator = Authenticator::new(&settings.auth).context("section [auth]")?;
        let listeners = bind(&addresses)?;
        let addr = listeners.first().context("no address to listen on")?.local_addr()?;
        let state = Arc::new(state(advertised(settings, addr), parts.builtin)?);
        let stop = CancellationToken::new();
        let upkeep = parts.metrics.clone();
        let running = server::start(web::Data::from(state.clone()), authenticator, parts.metrics, listeners)?;
        let server = running.handle();
        actix_rt::spawn(running);
        keep_link(&state, &stop);
        // Else samples that nobody scrapes stay for ever.
        actix_rt::spawn(upkeep.upkeep(stop.clone()));
        let lanes = Arc::new(OnceLock::new());
        let (refuse, refused) = watch::channel(None);
        let starting = go_online(state.clone(), parts.log, lanes.clone(), stop.clone());
        let starting = actix_rt::spawn(async move {
            if let Err(error) = starting.await {
                tracing::error!(error = format!("{error:#}"), "refusing to start");
                // Nobody may look at it.
                _ = refuse.send(Some(format!("{error:#}")));
            }
        });
        Ok(Self { addr, state, server, lanes, stop, starting, refused })
    }

    /// Returns once the node takes work.
    pub async fn wait_ready(&self) {
        self.state.readiness.wait_ready().await;
    }

    /// Returns why the node can never take work, if that is so: a restart with other settings is the only way.
    pub async fn refusal(&self) -> String {
        let mut refused = self.refused.clone();
        match refused.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }

    /// Ends in order: not ready, sessions moved to other nodes, those that are left told, running jobs ended and committed, groups left, server stopped.
    pub async fn stop(self) {
        self.state.readiness.block("draining", "the node is going down");
        let grace = self.state.settings.drain_timeout();
        let lanes = self.lanes.get().cloned().unwrap_or_default();
        self.starting.abort();
        Drain::new()
            .stage("moves", self.state.settings.move_timeout(), async {
                self.state.leaving.cancel();
                moving::move_sessions(&self.state).await;
            })
            .stage("sessions", Duration::from_secs(5), async {
                self.state.draining.cancel();
                while !self.state.sessions.is_empty() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            })
            .stage("lanes", grace + Duration::from_secs(5), async {
                join_all(lanes.iter().map(|lane| lane.drain(grace))).await;
            })
            .stage("server", Duration::from_secs(10), async {
                self.stop.cancel();
                self.server.stop(true).await;
            })
            // The last entries tell of the stages before.
            .stage("audit", Duration::from_secs(2), async {
                if let Some(online) = self.state.online.get() {
                    online.audit.flush().await;
                }
            })
            .run()
            .await;
    }
}

/// `auto` as advertised URL stands for the address that was bound.
fn advertised(mut settings: Settings, addr: SocketAddr) -> Settings {
    if settings.node.advertised_url == "auto" {
        settings.node.advertised_url = format!("http://{addr}");
    }
    settings
}

fn bind(addresses: &[SocketAddr]) -> anyhow::Result<Vec<TcpListener>> {
    let listeners = addresses.iter().map(|address| {
        let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listeners.collect()
}

fn pool(settings: &Settings, builtin: Arc<dyn Backend>, connect: Box<Connect>) -> anyhow::Result<Pool> {
    let (weights, tenants) = (settings.lanes.weights, settings.tenants.rules()?);
    Ok(Pool::new(builtin, settings.builtin_slots(), weights, settings.breaker, tenants, connect))
}

fn state(settings: Settings, builtin: Option<Arc<dyn Backend>>) -> anyhow::Result<NodeState> {
    let localai = LocalAi::connector(&settings.localai).context("section [localai]")?;
    let builtin = builtin.unwrap_or_else(|| Arc::new(InProcess::default()));
    let pool = pool(&settings, builtin, localai)?;
    let coordinator = CoordinatorLink::new(&settings.coordinator)?;
    assembled(settings, pool, (Arc::new(SystemClock), Arc::new(SystemRandom)), None, coordinator)
}

/// The state of a node that reaches the world through `ports` alone.
pub(crate) fn state_on(settings: Settings, ports: Ports) -> anyhow::Result<NodeState> {
    let Ports { log: _, clock, random, builtin, connect, store, coordinators } = ports;
    let pool = pool(&settings, builtin, connect)?;
    let has_any = !settings.coordinator.url.is_empty();
    let coordinator = has_any.then(|| CoordinatorLink::over(&settings.coordinator, coordinators));
    assembled(settings, pool, (clock, random), Some(store), coordinator)
}

fn assembled(
    settings: Settings,
    pool: Pool,
    (clock, random): (Arc<dyn Clock>, Arc<dyn Random>),
    store: Option<Arc<dyn ObjectStore>>,
    coordinator: Option<CoordinatorLink>,
) -> anyhow::Result<NodeState> {
    if coordinator.is_none() {
        let grants = fixed::parse(&settings.backends.entries).map_err(anyhow::Error::msg).context("backends.static")?;
        pool.update(&fixed::infos(&grants), &grants);
    }
    let name = settings.name();
    Ok(NodeState {
        incarnation: clock.now_ms(),
        resume_tokens: ResumeTokens::open(&settings.gateway.resume_secret_file)?,
        tenants: Tenants::new(settings.tenants.rules()?),
        handshakes: Handshakes::new(settings.gateway.handshakes_max),
        name,
        settings,
        clock,
        random,
        store,
        pool,
        readiness: Readiness::starting(),
        sessions: Sessions::default(),
        coordinator,
        leaving: CancellationToken::new(),
        draining: CancellationToken::new(),
        online: OnceLock::new(),
    })
}

/// Keeps the tie to the coordinators, if there are any, until `stop`.
pub(crate) fn keep_link(state: &Arc<NodeState>, stop: &CancellationToken) {
    if let Some(link) = state.coordinator.clone() {
        actix_rt::spawn(link.clone().keep(Arc::downgrade(state), stop.clone()));
        actix_rt::spawn(link.watch_lease(Arc::downgrade(state), stop.clone()));
    }
}

/// Reaches the log, checks what lies there, and begins to work; tries again until it succeeds.
///
/// # Errors
/// Going on would lose work, now and at every further try.
pub(crate) async fn go_online(
    state: Arc<NodeState>,
    log: Arc<dyn Log>,
    lanes: Arc<OnceLock<Vec<LaneHandle>>>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    loop {
        let error = match connect(&state, &log, &stop).await {
            Ok((online, handles)) => {
                drop(state.online.set(online));
                drop(lanes.set(handles));
                state.readiness.clear("log");
                state.readiness.clear(STARTING);
                watch_log(&state, &*log, &stop).await;
                return Ok(());
            }
            Err(error) => error,
        };
        let reason = format!("{error:#}");
        if matches!(error.downcast_ref(), Some(LaneError::LostGroup(_))) {
            state.readiness.block("lane", reason);
            return Err(error);
        }
        if error.downcast_ref().is_some_and(StoreError::is_final) {
            state.readiness.block("store", reason);
            return Err(error);
        }
        tracing::warn!(error = reason, "the node cannot take work yet");
        state.readiness.block("log", reason);
        tokio::select! {
            biased;
            () = tokio::time::sleep(LOG_RETRY) => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
}

/// Keeps `/readyz` true to whether the log can be used.
async fn watch_log(state: &NodeState, log: &dyn Log, stop: &CancellationToken) {
    while !stop.is_cancelled() {
        match log.health().await {
            Ok(()) => state.readiness.clear("log"),
            Err(error) => state.readiness.block("log", error.to_string()),
        }
        tokio::select! {
            biased;
            () = tokio::time::sleep(Duration::from_secs(2)) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn connect(
    state: &Arc<NodeState>,
    log: &Arc<dyn Log>,
    stop: &CancellationToken,
) -> anyhow::Result<(Arc<Online>, Vec<LaneHandle>)> {
    let settings = &state.settings;
    let events = EventRecords::new(partitions(&**log, topics::EVENTS).await?);
    let audit_partitions = partitions(&**log, topics::AUDIT).await?;
    let dead_letters = partitions(&**log, topics::DEAD_LETTERS).await?;
    let mut lane_partitions = HashMap::new();
    for lane in &settings.lanes.names {
        let jobs = partitions(&**log, &topics::jobs(lane)).await?;
        keeps_for_ever(&**log, &topics::jobs(lane), jobs).await?;
        let sides = (0..aside::SIDES).map(|side| aside::topic(lane, side));
        for beside in [topics::control(lane), topics::dedup(lane)].into_iter().chain(sides) {
            let found = partitions(&**log, &beside).await?;
            anyhow::ensure!(
                found == jobs,
                "topic {beside} has {found} partitions, the lane's jobs have {jobs}: make it anew"
            );
        }
        for side in (0..aside::SIDES).map(|side| aside::topic(lane, side)) {
            keeps_for_ever(&**log, &side, jobs).await?;
        }
        lane_partitions.insert(lane.clone(), jobs);
    }
    let cache = cache(state);
    let claims = open_store(state, &**log, cache.clone()).await?;
    let catch_ups = CatchUps::new(log.clone(), events.clone(), state.clock.clone(), &settings.events);
    let hub = Arc::new(Hub::new(log.clone(), events.clone(), catch_ups, stop.clone()));
    let reply_partition = relay_protocol::partition::of_key(state.name.as_bytes(), events.partitions());
    hub.follow(reply_partition).await?;
    let online = Arc::new(Online {
        log: log.clone(),
        hub,
        claims,
        urls: UrlInputs::new(url_rules(&settings.inputs)?, cache),
        audit: Audit::spawn(log.clone(), state.clock.clone(), state.name.clone(), audit_partitions),
        dead_letters: DeadLetters::new(dead_letters, settings.dlq.requests_max),
        lanes: lane_partitions,
        reply_partition,
        served: OnceLock::new(),
    });
    let mut served = HashMap::new();
    let suspects = Arc::new(SuspectPlace::new(state.settings.poison));
    for lane in &settings.lanes.names {
        served.insert(lane.clone(), serve_lane(state, &online, &events, lane, dead_letters, &suspects).await?);
    }
    let handles = served.values().cloned().collect();
    drop(online.served.set(served));
    sweep(state, &online, stop);
    tokio::spawn(hidden::keep_shown(online.clone(), stop.clone()));
    Ok((online, handles))
}

fn cache(state: &NodeState) -> Cache {
    let store = &state.settings.store;
    // Not the node's name alone: a killed life of the node may have left its folder.
    let name = format!("{:016x}", state.random.next_u64());
    Cache::new(&store.cache_folder, &name, store.cache_bytes_max)
}

async fn open_store(state: &NodeState, log: &dyn Log, cache: Cache) -> anyhow::Result<ClaimCheck> {
    let settings = &state.settings.store;
    let claims = match &state.store {
        Some(store) => ClaimCheck::on(store.clone(), settings, cache),
        None => ClaimCheck::open(settings, cache).context("section [store]")?,
    };
    let new_id = format!("{:016x}{:016x}", state.random.next_u64(), state.random.next_u64());
    claims.check_shared(log, &new_id, state.clock.now_ms()).await.context("section [store]")?;
    Ok(claims)
}

fn url_rules(inputs: &InputSettings) -> anyhow::Result<UrlRules> {
    let private = Networks::parse(&inputs.url_allow_private).map_err(anyhow::Error::msg)?;
    Ok(UrlRules {
        allowed: inputs.url_allow.clone(),
        private,
        redirects_max: inputs.url_redirects_max,
        bytes_max: inputs.upload_bytes_max,
        memory_bytes_max: inputs.inline_bytes_max,
        timeout: Duration::from_millis(inputs.url_timeout_ms),
    })
}

/// Begins to sweep the store, nodes that start together not together.
fn sweep(state: &NodeState, online: &Online, stop: &CancellationToken) {
    let settings = &state.settings.store;
    let sweeper = Sweeper::new(online.claims.clone(), settings);
    let first_after = Duration::from_millis(state.random.next_u64() % settings.sweep_interval_ms.max(1));
    let interval = Duration::from_millis(settings.sweep_interval_ms);
    tokio::spawn(keep_swept(sweeper, interval, first_after, state.clock.clone(), stop.clone()));
}

async fn serve_lane(
    state: &Arc<NodeState>,
    online: &Arc<Online>,
    events: &EventRecords,
    lane: &str,
    dead_letter_partitions: u32,
    suspects: &Arc<SuspectPlace>,
) -> anyhow::Result<LaneHandle> {
    let settings = &state.settings;
    let group = group_of(lane);
    let partitions = online.lanes.get(lane).copied().unwrap_or_default();
    lost_group::check(&*online.log, &settings.kafka.brokers, &group, lane, partitions).await?;
    let registrar = Registrar::new(state.name.clone(), state.incarnation, topics::control(lane).into());
    let context = Arc::new(RunContext {
        node: state.name.clone(),
        log: online.log.clone(),
        clock: state.clock.clone(),
        random: state.random.clone(),
        pool: state.pool.clone(),
        claims: online.claims.clone(),
        urls: online.urls.clone(),
        events: events.clone(),
        hub: online.hub.clone(),
        starts: Starts::spawn(online.log.clone(), state.clock.clone(), registrar),
        audit: online.audit.clone(),
        retry: settings.retry.clone(),
        suspects: suspects.clone(),
    });
    let member = online
        .log
        .join(JoinSpec {
            group: group.clone(),
            topics: vec![topics::jobs(lane).into()],
            client_id: state.name.clone(),
            transactional_id: format!("{group}.{}", state.name),
            read_ahead_records_max: MEMBER_READ_AHEAD,
        })
        .await?;
    let lane_settings = lane_settings(settings, lane, partitions, dead_letter_partitions)?;
    Ok(LaneHandle::start(lane_settings, context, member))
}

/// The bounds of a lane on this node, from its settings.
fn lane_settings(
    settings: &Settings,
    lane: &str,
    partitions: u32,
    dead_letter_partitions: u32,
) -> Result<LaneSettings, crate::settings::Unusable> {
    Ok(LaneSettings {
        lane: lane.to_owned(),
        group: group_of(lane),
        limits: LaneLimits {
            running_max: settings.lanes.running_max,
            waiting_max: settings.lanes.waiting_max,
            weights: settings.lanes.weights,
            shares: Shares::of(
                settings.lanes.waiting_max,
                settings.lanes.tenant_share_max,
                settings.lanes.model_share_max,
            ),
            set_aside_max: settings.lanes.set_aside_max,
            tiers: Tiers::new(settings.retry.tiers_ms),
            handover_timeout_ms: settings.lanes.handover_timeout_ms,
            poison: settings.poison,
        },
        tenants: settings.tenants.rules()?,
        revoke_grace: Duration::from_millis(settings.lanes.revoke_grace_ms),
        delete_interval: Duration::from_millis(settings.lanes.delete_interval_ms),
        dead_letter_partitions,
        partitions,
        dedup_window: settings.dedup.window(),
        dedup_entries_max: settings.dedup.entries_max,
    })
}

/// The consumer group of a lane.
fn group_of(lane: &str) -> String {
    format!("media-relay.{lane}")
}

/// How many partitions a topic has.
async fn partitions(log: &dyn Log, topic: &str) -> anyhow::Result<u32> {
    let spec = TopicSpec { name: topic.into(), partitions: 1, retention: Retention::Forever };
    let states: Vec<TopicState> = log.check_topics(&[spec]).await.map_err(|error: LogError| anyhow::anyhow!(error))?;
    match states.first() {
        Some(TopicState::Ready | TopicState::Retention { .. }) => Ok(1),
        Some(TopicState::Partitions { found }) => Ok(*found),
        _ => anyhow::bail!("topic {topic} does not exist: start the coordinator, which creates it"),
    }
}

/// Checks that a lane's topic never drops a job that nobody has done yet.
async fn keeps_for_ever(log: &dyn Log, topic: &str, partitions: u32) -> anyhow::Result<()> {
    let spec = TopicSpec { name: topic.into(), partitions, retention: Retention::Forever };
    if let Some(TopicState::Retention { to_set }) = log.check_topics(&[spec]).await?.first() {
        anyhow::bail!(
            "topic {topic} would drop waiting jobs: run kafka-configs.sh --alter --entity-type topics --entity-name {topic} --add-config {to_set}"
        );
    }
    Ok(())
}
