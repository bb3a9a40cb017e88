//! The node's backends and their slots: who may call which backend now.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use relay_protocol::cluster::{BackendInfo, BackendState, SlotDemand, SlotGrant};
use relay_protocol::{ErrorCode, Task};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::breaker::{BreakerLimits, Ended};
use super::lent::{Hold, Lent};
use super::slots::{BUILTIN, Decided, Known, Need, Refusal, Slots, Ticket};
use super::{Backend, BackendError};
use crate::fair::Weights;
use crate::tenants::RuleBook;

/// Makes the client of a LocalAI backend.
pub type Connect = dyn Fn(&BackendInfo) -> anyhow::Result<Arc<dyn Backend>> + Send + Sync;

/// A look that is so late, in milliseconds, is not waited for.
const OVERDUE_MS: u64 = 1_000;
/// How long a backend is left alone that is too busy for a kind of work and does not say for how long, in milliseconds.
const REST_MS: u64 = 1_000;

/// The node's backends. Cheap to clone.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    connect: Box<Connect>,
    /// Begin of the time that slots are told.
    began: Instant,
    lent: Arc<Lent>,
}

struct State {
    slots: Slots,
    backends: HashMap<String, Arc<dyn Backend>>,
    /// By which names backends are reached that a name led to.
    names: HashMap<String, String>,
    waiting: HashMap<Ticket, oneshot::Sender<Result<Slot, Refusal>>>,
    /// When the next look at those who wait is due, if one is.
    looks_at: Option<u64>,
}

impl State {
    /// Sees to it that there is a client for a backend; `false` if none can be made.
    fn connect(&mut self, info: &BackendInfo, connect: &Connect) -> bool {
        if self.backends.contains_key(&info.url) && self.names.get(&info.url) == info.via.as_ref() {
            return true;
        }
        match connect(info) {
            Ok(client) => {
                self.backends.insert(info.url.clone(), client);
                match &info.via {
                    Some(via) => self.names.insert(info.url.clone(), via.clone()),
                    None => self.names.remove(&info.url),
                };
                true
            }
            Err(error) => {
                tracing::error!(backend = info.url, error = format!("{error:#}"), "a backend cannot be reached at all");
                false
            }
        }
    }

    /// Addresses come and go: a client of a backend that is gone and does nothing any more is not kept.
    fn forget_clients(&mut self) {
        let kept: BTreeSet<String> = self.slots.in_use().map(|(name, ..)| name.to_owned()).collect();
        self.backends.retain(|name, _| kept.contains(name));
        self.names.retain(|name, _| kept.contains(name));
    }
}

/// The right to call a backend once; given back when the permit is dropped.
pub struct Slot {
    /// Whom to call.
    pub backend: Arc<dyn Backend>,
    /// Gives the slot back.
    pub permit: SlotPermit,
    /// After so long without an answer the backend counts as stalled.
    patience: Option<Duration>,
}

impl Slot {
    /// What `call` of the backend returns, unless the lease of the slot ends before, or it stalls: unless nothing `came` of it for many
    /// times as long as such work takes.
    ///
    /// # Errors
    /// Those of `call`; [`BackendError::LeaseOver`] with the lease, [`BackendError::Failed`] if it stalls.
    pub async fn in_time<T, E: From<BackendError>>(
        &self,
        call: impl Future<Output = Result<T, E>>,
        came: impl Fn() -> bool,
    ) -> Result<T, E> {
        let call = self.unless_stalled(call, came);
        match self.permit.hold() {
            Some(hold) => hold.during(call).await?,
            None => call.await,
        }
    }

    async fn unless_stalled<T, E: From<BackendError>>(
        &self,
        call: impl Future<Output = Result<T, E>>,
        came: impl Fn() -> bool,
    ) -> Result<T, E> {
        let Some(patience) = self.patience else { return call.await };
        tokio::pin!(call);
        if let Ok(answer) = tokio::time::timeout(patience, &mut call).await {
            return answer;
        }
        // What is known to be at work is waited for as long as its own time-outs allow.
        if came() {
            return call.await;
        }
        metrics::counter!("relay_backend_stalls_total", "backend" => self.backend.name().to_owned()).increment(1);
        let problem = format!("no answer within {patience:?}, and such work never took nearly as long");
        Err(BackendError::Failed(problem).into())
    }
}

/// Gives a slot back when dropped, with what its holder said of the request.
pub struct SlotPermit {
    pool: Pool,
    name: String,
    ticket: Ticket,
    began: Option<Instant>,
    ended: Ended,
    hold: Option<Hold>,
}

impl SlotPermit {
    /// For how long the slot may be used; `None`: for as long as it is held.
    pub fn hold(&self) -> Option<&Hold> {
        self.hold.as_ref()
    }

    /// The request is sent now.
    pub fn began(&mut self) {
        self.began = Some(Instant::now());
        self.pool.lock().slots.began(&self.name, self.ticket, self.pool.now_ms());
    }

    /// The request ended as its backend's answer says.
    pub fn ended<T>(&mut self, answer: &Result<T, BackendError>) {
        let worked_ms = self.began.map(|began| began.elapsed().as_millis() as u64);
        self.ended = match answer {
            Ok(_) => Ended::Well { worked_ms },
            Err(BackendError::Rejected { .. }) => Ended::Well { worked_ms: None },
            Err(BackendError::LeaseOver) => Ended::Unknown,
            Err(BackendError::Busy { retry_after: Some(rest), .. }) => Ended::Busy { rest_ms: rest.as_millis() as u64 },
            Err(BackendError::Busy { retry_after: None, .. }) => Ended::Busy { rest_ms: REST_MS },
            Err(BackendError::Failed(_) | BackendError::Unreachable(_)) => {
                Ended::Badly { after_ms: worked_ms.unwrap_or_default() }
            }
        };
    }
}

impl Drop for SlotPermit {
    fn drop(&mut self) {
        let now_ms = self.pool.now_ms();
        let mut state = self.pool.lock();
        let (decided, is_ejected) = state.slots.release(&self.name, self.ticket, self.ended, now_ms);
        self.pool.hand_out(state, decided);
        if is_ejected {
            metrics::counter!("relay_backend_ejections_total", "backend" => self.name.clone()).increment(1);
            tracing::warn!(backend = self.name, "its requests fail: it gets none for a while");
        }
    }
}

impl Pool {
    /// A pool with the built-in backend, of `builtin_slots` slots, and no other; requests that wait share slots by
    /// `weights` of their priorities and by those of their `tenants`.
    pub fn new(
        builtin: Arc<dyn Backend>,
        builtin_slots: u32,
        weights: Weights,
        breaker: BreakerLimits,
        tenants: RuleBook,
        connect: Box<Connect>,
    ) -> Self {
        let mut slots = Slots::new(weights, breaker).with_tenants(tenants);
        slots.set_builtin(builtin_slots);
        let backends = HashMap::from([(BUILTIN.to_owned(), builtin)]);
        let state =
            Mutex::new(State { slots, backends, names: HashMap::new(), waiting: HashMap::new(), looks_at: None });
        Self(Arc::new(Inner { state, connect, began: Instant::now(), lent: Lent::own() }))
    }

    /// Never with slots whose lease is over: whoever comes first after the end, or after a stand-still, ends it.
    fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if self.0.lent.is_past() && state.slots.revoke() {
            self.0.lent.end();
        }
        state
    }

    /// Slots of LocalAI backends may be used until `at`, and no longer. To be called before [`update`](Self::update) with them.
    pub fn lend_until(&self, at: Instant) {
        self.0.lent.until(at);
    }

    /// The lease is over: no slot is handed out, and what runs on one is cut off.
    pub fn end_lease(&self) {
        self.lock().slots.revoke();
        self.0.lent.end();
    }

    /// Milliseconds since the pool was made.
    fn now_ms(&self) -> u64 {
        self.0.began.elapsed().as_millis() as u64
    }

    /// Waits for a slot of a backend that can do what is needed. Cancel safe.
    ///
    /// # Errors
    /// [`BackendError::Rejected`] if no backend ever could.
    pub async fn acquire(&self, need: Need) -> Result<Slot, BackendError> {
        let (task, model) = (need.kind.task, need.kind.model.clone());
        let refused = |refusal| self.refused(refusal, task, model.as_deref());
        let (ticket, answer) = self.ask(need).map_err(refused)?;
        let _withdraw = Withdraw { pool: self, ticket };
        match answer.await {
            Ok(Ok(slot)) => Ok(slot),
            Ok(Err(refusal)) => Err(refused(refusal)),
            Err(_) => Err(BackendError::Failed("the backend was removed".to_owned())),
        }
    }

    /// Asks for a slot; the answer may be there already.
    fn ask(&self, need: Need) -> Result<(Ticket, oneshot::Receiver<Result<Slot, Refusal>>), Refusal> {
        let (sender, answer) = oneshot::channel();
        let mut state = self.lock();
        let (ticket, decided) = state.slots.request(need, self.now_ms())?;
        state.waiting.insert(ticket, sender);
        self.hand_out(state, decided);
        Ok((ticket, answer))
    }

    /// Whether a job with this task and model could ever get a slot, by what is known now.
    ///
    /// # Errors
    /// [`BackendError::Rejected`] if not.
    pub fn check(&self, task: Task, model: Option<&str>) -> Result<(), BackendError> {
        let refusal = self.lock().slots.refusal(&Need::of(task, model));
        refusal.map_or(Ok(()), |refusal| Err(self.refused(refusal, task, model)))
    }

    /// Whether some backend answers, beside those in `avoid`, that can do `task` with `model`: now, or once it has a free
    /// slot. True before the cluster's backends are known.
    pub fn can_run(&self, task: Task, model: Option<&str>, avoid: &[String]) -> bool {
        let need = Need { avoid: avoid.to_vec(), ..Need::of(task, model) };
        self.lock().slots.can_run(&need, self.now_ms())
    }

    /// Whether this node has slots, free or not, of a backend that the request did not fail at and that answers.
    pub fn has_slots_elsewhere(&self, need: &Need) -> bool {
        self.lock().slots.has_slots_elsewhere(need, self.now_ms())
    }

    /// Whether a job with this task and model can only wait for a backend to come back.
    pub fn is_stuck(&self, task: Task, model: Option<&str>) -> bool {
        self.lock().slots.is_stuck(&Need::of(task, model), self.now_ms())
    }

    /// Whether a parked job with this task and model may go on, or must be refused.
    pub fn may_go_on(&self, task: Task, model: Option<&str>) -> bool {
        self.lock().slots.may_go_on(&Need::of(task, model), self.now_ms())
    }

    /// How long it takes until a backend that could do such work is back from its ejection, if none is there now.
    pub fn back_in(&self, task: Task, model: Option<&str>) -> Option<Duration> {
        self.lock().slots.back_in(&Need::of(task, model), self.now_ms()).map(Duration::from_millis)
    }

    /// Whether backends may come of which nothing is known: nothing is refused for want of one then.
    pub fn expect_backends(&self, expected: bool) {
        self.lock().slots.expect_backends(expected);
    }

    /// Takes in the cluster's backends and what of them this node may use.
    pub fn update(&self, backends: &[BackendInfo], grants: &[SlotGrant]) {
        let granted = |url: &str| grants.iter().find(|grant| grant.backend == url).map_or(0, |grant| grant.slots);
        let mut state = self.lock();
        let reached = backends.iter().filter(|info| state.connect(info, &*self.0.connect));
        let known: BTreeMap<String, Known> = reached
            .map(|info| {
                let healthy = info.healthy && info.state == BackendState::Serving;
                (info.url.clone(), Known { models: info.models.clone(), healthy, granted: granted(&info.url) })
            })
            .collect();
        let urls: Vec<_> = known.keys().cloned().collect();
        let now_ms = self.now_ms();
        state.slots.remember_models(now_ms, backends.iter().flat_map(|info| &info.models));
        let decided = state.slots.update(known, now_ms);
        state.forget_clients();
        let ejected: BTreeSet<String> = state.slots.ejected(self.now_ms()).map(str::to_owned).collect();
        self.hand_out(state, decided);
        for url in urls {
            let is_ejected = f64::from(u8::from(ejected.contains(&url)));
            metrics::gauge!("relay_backend_ejected", "backend" => url).set(is_ejected);
        }
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

    fn slot(&self, state: &State, ticket: Ticket, name: String) -> Option<Slot> {
        let backend = state.backends.get(&name)?.clone();
        let patience = state.slots.patience_ms(&name, ticket).map(Duration::from_millis);
        let hold = if name == BUILTIN { None } else { self.0.lent.hold() };
        let permit = SlotPermit { pool: self.clone(), name, ticket, began: None, ended: Ended::Unknown, hold };
        Some(Slot { backend, permit, patience })
    }

    /// Tells those who waited; outside the lock, because an answer that nobody takes gives its slot back.
    fn hand_out(&self, mut state: MutexGuard<'_, State>, decided: Vec<Decided>) {
        let mut answers = Vec::with_capacity(decided.len());
        for Decided { ticket, answer } in decided {
            let slot = answer.map(|name| self.slot(&state, ticket, name));
            answers.push((state.waiting.remove(&ticket), slot));
        }
        self.look_later(&mut state);
        drop(state);
        for (sender, slot) in answers {
            match (sender, slot) {
                (Some(sender), Ok(Some(slot))) => drop(sender.send(Ok(slot))),
                (Some(sender), Err(refusal)) => drop(sender.send(Err(refusal))),
                (_, slot) => drop(slot),
            }
        }
    }

    /// Sees to it that those who wait are looked at when time alone decides something for them.
    fn look_later(&self, state: &mut State) {
        let now_ms = self.now_ms();
        let Some(at) = state.slots.look_at(now_ms) else { return };
        let Ok(runtime) = Handle::try_current() else { return };
        // One that is overdue will not come: its runtime has ended.
        if state.looks_at.is_some_and(|due| due <= at && due + OVERDUE_MS > now_ms) {
            return;
        }
        state.looks_at = Some(at);
        let pool = Arc::downgrade(&self.0);
        runtime.spawn(async move {
            tokio::time::sleep(Duration::from_millis(at - now_ms)).await;
            if let Some(inner) = pool.upgrade() {
                Self(inner).look(at);
            }
        });
    }

    fn look(&self, at: u64) {
        let mut state = self.lock();
        if state.looks_at == Some(at) {
            state.looks_at = None;
        }
        let decided = state.slots.look(self.now_ms());
        self.hand_out(state, decided);
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

/// Models that a refusal names.
const MODELS_NAMED_MAX: usize = 50;

impl Pool {
    fn refused(&self, refusal: Refusal, task: Task, model: Option<&str>) -> BackendError {
        match refusal {
            Refusal::NeedsLocalAi => BackendError::Rejected {
                code: ErrorCode::NeedsLocalAi,
                reason: format!(
                    "task {task} needs a LocalAI backend, and none is configured: start with --backend URL, or list it in RELAY__BACKENDS__STATIC of the coordinator"
                ),
            },
            Refusal::UnknownModel => {
                let models = self.models();
                let named: Vec<&str> = models.iter().take(MODELS_NAMED_MAX).map(String::as_str).collect();
                let more = if models.len() > named.len() { ", … (`client-cli backends` lists all)" } else { "" };
                let model = model.unwrap_or_default();
                let reason = format!("no backend has the model {model:?}; there are: {}{more}", named.join(", "));
                BackendError::Rejected { code: ErrorCode::UnknownModel, reason }
            }
        }
    }
}
