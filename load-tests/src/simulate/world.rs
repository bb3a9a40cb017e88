//! One seed: a cluster, its clients, what is done to it, and what was seen.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use coordinator::topics::{TopicSettings, specs};
use object_store::memory::InMemory;
use relay_log::port::TopicPartition;
use relay_node::job::aside::{self, SIDES};
use relay_node::settings::Settings;
use relay_protocol::record::HEADER_JOB_ID;
use relay_protocol::topics;
use relay_runtime::random::{Random, SeededRandom};
use sha2::{Digest, Sha256};
use tokio::task::LocalSet;
use tokio::time::Instant;

use super::backend::Backends;
use super::client::{ATTEMPTS_MAX, Client, Load};
use super::clock::VirtualClock;
use super::cluster::{Cluster, EVENT_PARTITIONS, LANE_PARTITIONS};
use super::coordinators::{Coordinators, HEARTBEAT_MS, URLS};
use super::counts::{Counts, Fault, Tally};
use super::faults::Injector;
use super::history::{Findings, History, Told};
use super::log::Engine;
use super::node::Surroundings;
use super::producer::Producer;

/// Everything must have ended so long after the last fault.
const PATIENCE: Duration = Duration::from_secs(150);
/// Time in which a second end would show.
const SECOND_END: Duration = Duration::from_secs(5);
/// How often the log looks at its members.
const BEAT: Duration = Duration::from_millis(200);

/// What came of one seed.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Which.
    pub seed: u64,
    /// What is wrong.
    pub findings: Findings,
    /// What happened.
    pub tally: Tally,
    /// What the log and the clients say of the jobs that something is wrong with.
    pub story: Vec<String>,
    /// Of all that was seen: the same for the same seed.
    pub digest: String,
}

/// Simulates one seed.
///
/// # Errors
/// The simulation cannot be set up.
pub(super) fn run(seed: u64) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    let local = LocalSet::new();
    let outcome = runtime.block_on(local.run_until(simulate(seed)));
    drop(local);
    outcome
}

fn settings() -> anyhow::Result<Settings> {
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    if let Some(settings) = SETTINGS.get() {
        return Ok(settings.clone());
    }
    let mut settings = Settings::load(None, Default::default()).context("the defaults of a node")?;
    settings.lanes.names = vec!["default".to_owned()];
    settings.lanes.running_max = 4;
    settings.lanes.waiting_max = 12;
    settings.lanes.revoke_grace_ms = 600;
    settings.lanes.delete_interval_ms = 900;
    settings.lanes.tenant_share_max = 0.7;
    settings.lanes.set_aside_max = 40;
    settings.retry.attempts_max = ATTEMPTS_MAX;
    settings.retry.delay_ms = 200;
    settings.retry.delay_ms_max = 4_000;
    settings.retry.tiers_ms = [700, 1_500, 3_000, 6_000, 12_000];
    settings.builtin.slots = 2;
    settings.gateway.ping_interval_ms = 1_000;
    settings.gateway.idle_timeout_ms = 6_000;
    settings.coordinator.url = URLS.map(str::to_owned).to_vec();
    settings.coordinator.heartbeat_interval_ms = HEARTBEAT_MS;
    settings.coordinator.timeout_ms = 600;
    settings.store.cache_folder = "/nonexistent".into();
    Ok(SETTINGS.get_or_init(|| settings).clone())
}

fn topic_settings() -> TopicSettings {
    TopicSettings {
        lanes: vec!["default".to_owned()],
        lane_partitions: LANE_PARTITIONS,
        event_partitions: EVENT_PARTITIONS,
        dead_letter_partitions: 1,
        audit_partitions: 1,
        control_retention_h: 48,
        dedup_retention_h: 48,
        event_retention_h: 48,
        partial_retention_h: 48,
        dead_letter_retention_h: 0,
        audit_retention_h: 0,
    }
}

async fn simulate(seed: u64) -> anyhow::Result<Outcome> {
    let (random, began, counts) = (SeededRandom::new(seed), Instant::now(), Arc::new(Counts::default()));
    let engine = Engine::new(VirtualClock::new(began), random.next_u64(), counts.clone());
    engine.make_topics(&specs(&topic_settings())?);
    let backends = Backends::new(VirtualClock::new(began), random.next_u64(), counts.clone());
    let around = Surroundings {
        engine: engine.clone(),
        backends: backends.clone(),
        coordinators: Coordinators::new(engine.clone(), VirtualClock::new(began), random.next_u64()),
        store: Arc::new(InMemory::new()),
        settings: settings()?,
    };
    let nodes = 2 + random.below(2) as usize;
    let cluster = Cluster::new(around, counts.clone(), began, nodes, random.next_u64());
    let history = Rc::new(RefCell::new(History::default()));
    let injector = Injector::new(cluster.clone(), random.next_u64());
    bring_to_life(&engine, &injector, nodes);
    let within = Duration::from_millis(6_000 + random.below(10_000));
    let mut work = Vec::new();
    for n in 0..2 {
        let load = Load { jobs: 3 + random.below(6), within };
        counts.add("jobs of clients", load.jobs);
        let client = Client::new(&format!("client-{n}"), cluster.clone(), history.clone(), random.next_u64(), load);
        work.push(tokio::task::spawn_local(client.run()));
    }
    let load = Load { jobs: 3 + random.below(8), within };
    counts.add("records of producers", load.jobs);
    let producer = Producer::new(cluster.clone(), history.clone(), random.next_u64());
    work.push(tokio::task::spawn_local(producer.run(load)));
    injector.clone().run(Instant::now() + within).await;
    injector.heal();
    settle(&cluster, &history, work).await;
    tokio::time::sleep(SECOND_END).await;
    let mut history = std::mem::take(&mut *history.borrow_mut());
    history.unsettled = cluster.waiting();
    history.overloads = backends.overloads();
    history.calls = backends.calls();
    collect(&engine, &mut history);
    counts.add("virtual seconds", began.elapsed().as_secs());
    counts.add("events", history.events.len() as u64);
    counts.add("attempts told of twice", history.told_twice());
    (0..history.cut_off()).for_each(|_| counts.fault(Fault::CutOff));
    counts.add("commits", history.commits.len() as u64);
    let (digest, findings) = (digest(&history), history.check());
    let mut story = history.story(&findings);
    if findings.named.iter().any(|finding| finding.contains("never ended") || finding.contains("all ran")) {
        story.extend(lane(&engine));
    }
    Ok(Outcome { seed, findings, tally: counts.tally(), story, digest })
}

/// The log's heartbeats, coordinators and nodes, each in some life as long as the simulation lasts.
fn bring_to_life(engine: &Arc<Engine>, injector: &Rc<Injector>, nodes: usize) {
    let beats = engine.clone();
    tokio::task::spawn_local(async move {
        loop {
            tokio::time::sleep(BEAT).await;
            beats.beat();
        }
    });
    for index in 0..URLS.len() {
        tokio::task::spawn_local(injector.clone().keep_coordinator(index));
    }
    for index in 0..nodes {
        tokio::task::spawn_local(injector.clone().keep_alive(index));
    }
}

/// Waits until all that was accepted has ended, and whoever waits has heard of it.
async fn settle(cluster: &Cluster, history: &RefCell<History>, work: Vec<tokio::task::JoinHandle<()>>) {
    let until = Instant::now() + PATIENCE;
    for one in work {
        drop(tokio::time::timeout_at(until, one).await);
    }
    let accepted: Vec<_> = history.borrow().jobs.iter().filter(|(_, job)| job.accepted).map(|(id, _)| *id).collect();
    for job in accepted {
        while Instant::now() < until && !cluster.has_end(job) {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

/// What lies in the lane and beside it, and how far it is done: where a job that did not end may be.
fn lane(engine: &Engine) -> Vec<String> {
    let sides = (0..SIDES).map(|side| aside::topic("default", side));
    let all: Vec<String> = std::iter::once(topics::jobs("default")).chain(sides).collect();
    let mut found = Vec::new();
    for at in all.iter().flat_map(|topic| (0..LANE_PARTITIONS).map(|n| TopicPartition::new(topic.as_str(), n))) {
        if let Some(committed) = engine.committed_now("media-relay.default", &at) {
            found.push(format!("{at}: committed {} {}", committed.next, committed.metadata));
        }
        for record in engine.records(&at) {
            let headers: Vec<_> = record
                .headers
                .iter()
                .map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value)))
                .collect();
            let job = record.value.as_ref().and_then(|value| relay_protocol::record::decode_job(value).ok());
            let named = job.map(|job| (job.id, job.idempotency_key, job.model));
            found.push(format!("{at}/{}: {named:?} {}", record.offset, headers.join(" ")));
        }
    }
    found
}

fn collect(engine: &Engine, history: &mut History) {
    for partition in 0..EVENT_PARTITIONS {
        for record in engine.records(&TopicPartition::new(topics::EVENTS, partition)) {
            let event = record.value.as_deref().and_then(|value| serde_json::from_slice(value).ok());
            let place = (record.at.clone(), record.offset);
            history.events.extend(event.map(|event| Told { place, event }));
        }
    }
    for record in engine.records(&TopicPartition::new(topics::DEAD_LETTERS, 0)) {
        let id = record.header(HEADER_JOB_ID).and_then(|id| std::str::from_utf8(id).ok());
        history.letters.extend(id.and_then(|id| id.parse::<relay_protocol::JobId>().ok()));
    }
    history.commits = engine.commits();
    history.starts = engine.starts();
}

fn digest(history: &History) -> String {
    let mut sha = Sha256::new();
    for told in &history.events {
        sha.update(format!("{:?} {}\n", told.place, serde_json::to_string(&told.event).unwrap_or_default()));
    }
    sha.update(format!("{:?}\n{:?}\n{:?}", history.heard, history.commits, history.jobs));
    hex::encode(sha.finalize())
}
