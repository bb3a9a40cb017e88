//! The coordinators of a simulated cluster: production code of the election and of the registry with its leases. Each life has a
//! `LocalSet` of its own, as a node's has.

use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use coordinator::audit;
use coordinator::backends::BackendEntry;
use coordinator::election::candidate::Candidate;
use coordinator::election::{ElectionSettings, Office};
use coordinator::leases::LeaseRules;
use coordinator::placement::PlacementSettings;
use coordinator::registry::RegistryHandle;
use coordinator::registry::core::RegistryRules;
use relay_runtime::random::{Random, SeededRandom};
use tokio::sync::watch;
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;

use super::clock::VirtualClock;
use super::gate::Gate;
use super::log::Engine;
use super::node::{BACKENDS, drive};

/// Where nodes reach them.
pub(super) const URLS: [&str; 2] = ["http://coordinator-0", "http://coordinator-1"];
/// How long slots are lent.
pub(super) const LEASE_MS: u64 = 2_000;
/// Between two heartbeats.
pub(super) const HEARTBEAT_MS: u64 = 200;

/// A life of a coordinator, as the network reaches it.
#[derive(Clone)]
pub(super) struct Reached {
    pub(super) gate: Arc<Gate>,
    pub(super) registry: RegistryHandle,
    stop: CancellationToken,
}

/// All of them.
pub(super) struct Coordinators {
    engine: Arc<Engine>,
    clock: VirtualClock,
    random: SeededRandom,
    lives: Mutex<[Option<Reached>; 2]>,
    /// Which backends answer their probes.
    healthy: Mutex<Vec<bool>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Coordinators {
    /// None lives yet.
    pub(super) fn new(engine: Arc<Engine>, clock: VirtualClock, seed: u64) -> Arc<Self> {
        let healthy = Mutex::new(vec![true; BACKENDS.len()]);
        Arc::new(Self { engine, clock, random: SeededRandom::new(seed), lives: Mutex::default(), healthy })
    }

    /// Begins a life at `index`; what drives it runs beside the caller.
    pub(super) fn start(&self, index: usize, gate: &Arc<Gate>) {
        let local = Rc::new(LocalSet::new());
        let stop = CancellationToken::new();
        let (taking, office) = watch::channel(Office::default());
        let log = self.engine.at(gate.clone());
        let name = format!("coordinator-{index}");
        let (trail, writer) = audit::open(&name, 1, log.clone(), Arc::new(self.clock.clone()));
        let told = trail.clone();
        let registry = {
            let _entered = local.enter();
            let witness = Arc::new(move |happening| told.node(happening));
            RegistryHandle::start(rules(), backends(), witness, office, stop.clone())
        };
        let who = (format!("{name}/{:016x}", self.random.next_u64()), URLS.get(index).map(|url| (*url).to_owned()));
        let clock = Arc::new(self.clock.clone());
        let candidate = Candidate::new(&election(), who, log, (trail, clock), taking);
        local.spawn_local(writer.run());
        local.spawn_local(candidate.run(stop.clone()));
        tokio::task::spawn_local(drive(local, gate.clone()));
        if let Some(place) = lock(&self.lives).get_mut(index) {
            *place = Some(Reached { gate: gate.clone(), registry, stop });
        }
        self.probe();
    }

    /// Whoever lives at `url`.
    pub(super) fn at(&self, url: &str) -> Option<Reached> {
        let index = URLS.iter().position(|known| *known == url)?;
        lock(&self.lives).get(index)?.clone()
    }

    /// The life that leads, or believes to; else the one at `index`.
    pub(super) fn leader_or(&self, index: usize) -> Option<Reached> {
        let lives = lock(&self.lives);
        let leads = lives.iter().flatten().find(|life| life.registry.office().leads().is_some());
        leads.or_else(|| lives.get(index)?.as_ref()).cloned()
    }

    /// All lives.
    pub(super) fn all(&self) -> Vec<Reached> {
        lock(&self.lives).iter().flatten().cloned().collect()
    }

    /// What probes find from now on.
    pub(super) fn set_healthy(&self, healthy: &[bool]) {
        *lock(&self.healthy) = healthy.to_vec();
        self.probe();
    }

    fn probe(&self) {
        let healthy = lock(&self.healthy).clone();
        for life in self.all() {
            for ((url, _, models), healthy) in BACKENDS.into_iter().zip(&healthy) {
                let models = models.iter().map(|model| (*model).to_owned()).collect();
                let report = if *healthy { Ok(models) } else { Err("simulated: it is down".to_owned()) };
                let registry = life.registry.clone();
                // One that stands still takes it when it goes on; one that is dead, never.
                tokio::spawn(async move { drop(registry.probed(url.into(), report).await) });
            }
        }
    }
}

impl Reached {
    /// Lets it go in order: it tells the others that it leads no more.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }
}

fn election() -> ElectionSettings {
    ElectionSettings { silence_ms: 1_000, confirm_ms: 800, beat_ms: 200, advertised_url: String::new() }
}

fn rules() -> RegistryRules {
    RegistryRules {
        incarnation: 0,
        node_timeout_ms: 1_000,
        heartbeat_interval_ms: HEARTBEAT_MS,
        heartbeat_fast_ms: 260,
        forget_after_ms: 60_000,
        nodes_max: 100,
        leases: LeaseRules { lease_ttl_ms: LEASE_MS, restart_wait_ms: LEASE_MS, turn_ms: 500 },
        placement: PlacementSettings { core_sessions: 100, mib_per_s_sessions: 10 },
    }
}

fn backends() -> Vec<BackendEntry> {
    let entry =
        |(url, slots, _): (&str, u32, _)| BackendEntry { url: url.into(), via: None, slots, api_key_file: None };
    BACKENDS.into_iter().map(entry).collect()
}
