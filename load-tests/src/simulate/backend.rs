//! Backends that answer, fail, hang and refuse; they count what is in flight.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use relay_node::backend::slots::BUILTIN;
use relay_node::backend::{Backend, BackendError, Call, Output, Update, Updates};
use relay_protocol::{ErrorCode, JobId};
use relay_runtime::clock::Clock;
use relay_runtime::random::{Random, SeededRandom};
use serde_json::json;

use super::clock::VirtualClock;
use super::counts::{Counts, Fault, Op, Phase};
use super::gate::Gate;
use super::history::Moment;

/// All backends.
pub(super) struct Backends {
    clock: VirtualClock,
    random: SeededRandom,
    counts: Arc<Counts>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    runs: u64,
    requests: u64,
    /// By backend: number and whose.
    in_flight: BTreeMap<String, Vec<(u64, Arc<Gate>)>>,
    overloads: Vec<(String, u32, u32)>,
    calls: BTreeMap<JobId, Vec<Moment>>,
}

impl Backends {
    /// Idle backends.
    pub(super) fn new(clock: VirtualClock, seed: u64, counts: Arc<Counts>) -> Arc<Self> {
        Arc::new(Self { clock, random: SeededRandom::new(seed), counts, state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A backend as one life of a node reaches it.
    pub(super) fn at(self: &Arc<Self>, name: &str, slots: u32, gate: Arc<Gate>) -> Arc<dyn Backend> {
        Arc::new(SimBackend { name: name.to_owned(), slots, gate, all: self.clone() })
    }

    /// Where more was in flight than there are slots.
    pub(super) fn overloads(&self) -> Vec<(String, u32, u32)> {
        self.lock().overloads.clone()
    }

    /// When which life called a backend for each job.
    pub(super) fn calls(&self) -> BTreeMap<JobId, Vec<Moment>> {
        self.lock().calls.clone()
    }

    fn rolls(&self, fault: Fault, per_mille: u64) -> bool {
        let hit = self.random.below(1_000) < per_mille;
        if hit {
            self.counts.fault(fault);
        }
        hit
    }
}

struct SimBackend {
    name: String,
    slots: u32,
    gate: Arc<Gate>,
    all: Arc<Backends>,
}

/// A request in flight.
struct InFlight<'a> {
    backend: &'a SimBackend,
    number: u64,
}

impl<'a> InFlight<'a> {
    /// Counts it: what is built in has slots of its own at each node, a LocalAI server has them once. Requests of a process that is dead
    /// have ended; those of one that stands still nobody can end (docs/balancing.md), they count once it goes on.
    fn new(backend: &'a SimBackend) -> Self {
        let mut state = backend.all.lock();
        state.requests += 1;
        let number = state.requests;
        let in_flight = state.in_flight.entry(backend.name.clone()).or_default();
        in_flight.push((number, backend.gate.clone()));
        let here = backend.gate.number;
        let counts = |gate: &Gate| gate.number == here || (backend.name != BUILTIN && gate.is_awake());
        let count = in_flight.iter().filter(|(_, gate)| counts(gate)).count() as u32;
        if count > backend.slots {
            state.overloads.push((backend.name.clone(), count, backend.slots));
        }
        Self { backend, number }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let mut state = self.backend.all.lock();
        if let Some(in_flight) = state.in_flight.get_mut(&self.backend.name) {
            in_flight.retain(|(number, _)| *number != self.number);
        }
    }
}

#[async_trait]
impl Backend for SimBackend {
    fn name(&self) -> &str {
        &self.name
    }

    async fn call(&self, call: Call, updates: Updates) -> Result<Output, BackendError> {
        let moment = Moment { life: self.gate.number, at_ms: self.all.clock.now_ms() };
        self.all.lock().calls.entry(call.job_id).or_default().push(moment);
        let _in_flight = InFlight::new(self);
        self.gate.pass(Op::Call, Phase::Before).await;
        let all = &self.all;
        // Some is longer than a lease.
        let longest = if all.random.below(8) == 0 { 6_000 } else { 700 };
        let work = Duration::from_millis(2 + all.random.below(longest));
        for n in 0..all.random.below(4) {
            tokio::time::sleep(work / 8).await;
            let update = if n == 0 { Update::Progress(0.5) } else { Update::Partial(json!({ "text": n })) };
            // Whoever reads them may have gone.
            drop(updates.send(update).await);
        }
        if all.rolls(Fault::BackendHangs, 15) {
            tokio::time::sleep(Duration::from_secs(12)).await;
        }
        tokio::time::sleep(work).await;
        if all.rolls(Fault::BackendRejects, 30) {
            let reason = "simulated: it refuses".to_owned();
            return Err(BackendError::Rejected { code: ErrorCode::InvalidParameter, reason });
        }
        if all.rolls(Fault::BackendFails, 120) {
            return Err(BackendError::Failed("simulated: it failed".to_owned()));
        }
        if all.rolls(Fault::BackendBusy, 50) {
            let retry_after = Some(Duration::from_millis(200 + all.random.below(3_000)));
            return Err(BackendError::Busy { reason: "simulated: it is busy".to_owned(), retry_after });
        }
        let run = {
            let mut state = all.lock();
            state.runs += 1;
            state.runs
        };
        self.gate.pass(Op::Call, Phase::After).await;
        Ok(Output { result: json!({ "text": format!("run {run} of {}", call.job_id) }), media: None })
    }
}
