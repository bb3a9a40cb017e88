//! The node's backends and their slots: who may call which backend now.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use relay_protocol::cluster::{BackendInfo, SlotDemand, SlotGrant};
use relay_protocol::{ErrorCode, Task};
use tokio::sync::oneshot;

use super::slots::{Answer, BUILTIN, Decided, Known, Need, Refusal, Slots, Ticket};
use super::{Backend, BackendError};
use crate::fair::Weights;

/// Makes the client of a LocalAI backend from its URL.
pub type Connect = dyn Fn(&str) -> Arc<dyn Backend> + Send + Sync;

/// The node's backends. Cheap to clone.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    connect: Box<Connect>,
}

struct State {
    slots: Slots,
    backends: HashMap<String, Arc<dyn Backend>>,
    waiting: HashMap<Ticket, oneshot::Sender<Result<Slot, Refusal>>>,
}

/// The right to call a backend once; given back when the permit is dropped.
pub struct Slot {
    /// Whom to call.
    pub backend: Arc<dyn Backend>,
    /// Gives the slot back.
    pub permit: SlotPermit,
}

/// Gives a slot back when dropped.
pub struct SlotPermit {
    pool: Pool,
    name: String,
}

impl Drop for SlotPermit {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        let decided = state.slots.release(&self.name);
        self.pool.hand_out(state, decided);
    }
}

impl Pool {
    /// A pool with the built-in backend, of `builtin_slots` slots, and no other; requests that wait share slots by `weights`.
    pub fn new(builtin: Arc<dyn Backend>, builtin_slots: u32, weights: Weights, connect: Box<Connect>) -> Self {
        let mut slots = Slots::new(weights);
        slots.set_builtin(builtin_slots);
        let backends = HashMap::from([(BUILTIN.to_owned(), builtin)]);
        let state = Mutex::new(State { slots, backends, waiting: HashMap::new() });
        Self(Arc::new(Inner { state, connect }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a slot of a backend that can do what is needed. Cancel safe.
    ///
    /// # Errors
    /// [`BackendError::Rejected`] if no backend ever could.
    pub async fn acquire(&self, need: Need) -> Result<Slot, BackendError> {
        let (task, model) = (need.task, need.model.clone());
        let model = model.as_deref();
        let (ticket, answer) = {
            let mut state = self.lock();
            match state.slots.request(need) {
                Answer::Granted(name) => return self.slot(&mut state, name).ok_or_else(gone),
                Answer::Refused(refusal) => return Err(refused(refusal, task, model)),
                Answer::Waiting(ticket) => {
                    let (sender, answer) = oneshot::channel();
                    state.waiting.insert(ticket, sender);
                    (ticket, answer)
                }
            }
        };
        let _withdraw = Withdraw { pool: self, ticket };
        match answer.await {
            Ok(Ok(slot)) => Ok(slot),
            Ok(Err(refusal)) => Err(refused(refusal, task, model)),
            Err(_) => Err(gone()),
        }
    }

    /// Whether a job with this task and model could ever get a slot, by what is known now.
    ///
    /// # Errors
    /// [`BackendError::Rejected`] if not.
    pub fn check(&self, task: Task, model: Option<&str>) -> Result<(), BackendError> {
        let mut state = self.lock();
        match state.slots.request(Need::of(task, model)) {
            Answer::Refused(refusal) => Err(refused(refusal, task, model)),
            Answer::Waiting(ticket) => {
                state.slots.withdraw(ticket);
                Ok(())
            }
            Answer::Granted(name) => {
                let decided = state.slots.release(&name);
                self.hand_out(state, decided);
                Ok(())
            }
        }
    }

    /// Whether some backend answers, beside those in `avoid`, that can do `task` with `model`: now, or once it has a free
    /// slot. True before the cluster's backends are known.
    pub fn can_run(&self, task: Task, model: Option<&str>, avoid: &[String]) -> bool {
        let need = Need { avoid: avoid.to_vec(), ..Need::of(task, model) };
        self.lock().slots.can_run(&need)
    }

    /// Whether a job with this task and model can only wait for a backend to come back.
    pub fn is_stuck(&self, task: Task, model: Option<&str>) -> bool {
        self.lock().slots.is_stuck(&Need::of(task, model))
    }

    /// Takes in the cluster's backends and what of them this node may use.
    pub fn update(&self, backends: &[BackendInfo], grants: &[SlotGrant]) {
        let granted = |url: &str| grants.iter().find(|grant| grant.backend == url).map_or(0, |grant| grant.slots);
        let known: BTreeMap<String, Known> = backends
            .iter()
            .map(|info| {
                let granted = granted(&info.url);
                (info.url.clone(), Known { models: info.models.clone(), healthy: info.healthy, granted })
            })
            .collect();
        let mut state = self.lock();
        for url in known.keys() {
            if !state.backends.contains_key(url) {
                state.backends.insert(url.clone(), (self.0.connect)(url));
            }
        }
        let decided = state.slots.update(known);
        self.hand_out(state, decided);
    }

    /// The models of the backends that answer, each once, by name.
    pub fn models(&self) -> BTreeSet<String> {
        self.lock().slots.models().cloned().collect()
    }

    /// Whether the cluster's backends are known; before that, no job is refused for want of one.
    pub fn is_known(&self) -> bool {
        self.lock().slots.was_told()
    }

    /// What this node holds, and uses of it.
    pub fn holds(&self) -> Vec<SlotGrant> {
        let state = self.lock();
        let local_ai = state.slots.in_use().filter(|(name, ..)| *name != BUILTIN);
        local_ai
            .map(|(name, in_use, granted)| SlotGrant { backend: name.to_owned(), slots: granted.max(in_use), in_use })
            .filter(|grant| grant.slots > 0)
            .collect()
    }

    /// What this node wants: requests that wait and, under no model, those that run.
    pub fn demand(&self) -> Vec<SlotDemand> {
        let state = self.lock();
        let running: u32 =
            state.slots.in_use().filter(|(name, ..)| *name != BUILTIN).map(|(_, in_use, _)| in_use).sum();
        let mut demand = state.slots.waiting_by_model();
        if running > 0 {
            *demand.entry(None).or_default() += running;
        }
        demand.into_iter().map(|(model, jobs)| SlotDemand { model, jobs }).collect()
    }

    /// Requests in flight at each backend: name, in use, granted.
    pub fn usage(&self) -> Vec<(String, u32, u32)> {
        let state = self.lock();
        state.slots.in_use().map(|(name, in_use, granted)| (name.to_owned(), in_use, granted)).collect()
    }

    fn slot(&self, state: &mut State, name: String) -> Option<Slot> {
        let backend = state.backends.get(&name)?.clone();
        Some(Slot { backend, permit: SlotPermit { pool: self.clone(), name } })
    }

    /// Tells those who waited; outside the lock, because an answer that nobody takes gives its slot back.
    fn hand_out(&self, mut state: MutexGuard<'_, State>, decided: Vec<Decided>) {
        let mut answers = Vec::with_capacity(decided.len());
        for Decided { ticket, answer } in decided {
            let slot = answer.map(|name| self.slot(&mut state, name));
            answers.push((state.waiting.remove(&ticket), slot));
        }
        drop(state);
        for (sender, slot) in answers {
            match (sender, slot) {
                (Some(sender), Ok(Some(slot))) => drop(sender.send(Ok(slot))),
                (Some(sender), Err(refusal)) => drop(sender.send(Err(refusal))),
                (_, slot) => drop(slot),
            }
        }
    }
}

/// Forgets a request whose caller waits no longer.
struct Withdraw<'a> {
    pool: &'a Pool,
    ticket: Ticket,
}

impl Drop for Withdraw<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        state.slots.withdraw(self.ticket);
        state.waiting.remove(&self.ticket);
    }
}

fn gone() -> BackendError {
    BackendError::Failed("the backend was removed".to_owned())
}

fn refused(refusal: Refusal, task: Task, model: Option<&str>) -> BackendError {
    match refusal {
        Refusal::NeedsLocalAi => BackendError::Rejected {
            code: ErrorCode::NeedsLocalAi,
            reason: format!(
                "task {task} needs a LocalAI backend, and none is configured: start with --backend URL, or list it in RELAY__BACKENDS__STATIC of the coordinator"
            ),
        },
        Refusal::UnknownModel => BackendError::Rejected {
            code: ErrorCode::UnknownModel,
            reason: format!(
                "no backend has the model {:?}; `client-cli backends` lists what there is",
                model.unwrap_or_default()
            ),
        },
    }
}
