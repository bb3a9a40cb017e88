//! Which waiting request gets which slot. Pure: no clock, no I/O.
//!
//! A slot is the right to run one request on a backend. A node holds what it was granted and never uses more.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use relay_log::planted::{Bug, is_planted};
use relay_protocol::Priority;
use relay_protocol::task::{Engine, Task};

use crate::fair::{Turns, Weights};

/// Name of the backend that is built in.
pub const BUILTIN: &str = "builtin";

/// What a request needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// What is to be done.
    pub task: Task,
    /// With which model.
    pub model: Option<String>,
    /// Order among those who wait.
    pub priority: Priority,
    /// It was begun before, maybe by a node that is no more: it goes before those of its priority that were not.
    pub is_begun: bool,
    /// Backends that failed this request before: taken last.
    pub avoid: Vec<String>,
    /// Those in `avoid` are not taken at all.
    pub is_strict: bool,
}

impl Need {
    /// What a job with this task and model needs that has no history.
    pub fn of(task: Task, model: Option<&str>) -> Self {
        let model = model.map(str::to_owned);
        Self { task, model, priority: Priority::Normal, is_begun: false, avoid: Vec::new(), is_strict: false }
    }
}

/// What is known of one backend.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Models that it offers; empty if not known yet.
    pub models: Vec<String>,
    /// Whether it answers its probes.
    pub healthy: bool,
    /// Slots that this node may use.
    pub granted: u32,
}

/// Names a waiting request.
pub type Ticket = u64;

/// The place of a waiting request: its priority, whether it is new, its number.
type Place = (Priority, bool, Ticket);

/// Answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A slot of this backend is taken.
    Granted(String),
    /// It waits.
    Waiting(Ticket),
    /// It would wait for ever.
    Refused(Refusal),
}

/// Why a request would wait for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The task runs on LocalAI only, and no such backend is configured.
    NeedsLocalAi,
    /// Every backend's models are known, and this one is not among them.
    UnknownModel,
}

/// A waiting request that is decided now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// Which.
    pub ticket: Ticket,
    /// Its slot's backend, or why it will get none.
    pub answer: Result<String, Refusal>,
}

#[derive(Debug, Default)]
struct Backend {
    /// `None` once it is not listed any more; it stays while requests are in flight there.
    known: Option<Known>,
    in_use: u32,
    turns: Turns,
}

/// Slots and who waits for them.
#[derive(Debug, Default)]
pub struct Slots {
    /// Whether it was ever told which LocalAI backends there are: before that nothing is refused for want of one.
    was_told: bool,
    backends: BTreeMap<String, Backend>,
    weights: Weights,
    waiting: BTreeMap<Place, Need>,
    tickets: HashMap<Ticket, Place>,
    next_ticket: Ticket,
}

impl Slots {
    /// No backends; those of each that wait share its slots by these weights of their priorities.
    pub fn new(weights: Weights) -> Self {
        Self { weights, ..Self::default() }
    }

    /// Asks for a slot.
    pub fn request(&mut self, need: Need) -> Answer {
        if let Some(refusal) = self.refusal(&need) {
            return Answer::Refused(refusal);
        }
        if let Some(name) = self.take(&need) {
            return Answer::Granted(name);
        }
        self.next_ticket += 1;
        let ticket = self.next_ticket;
        self.keep((need.priority, !need.is_begun, ticket), need);
        Answer::Waiting(ticket)
    }

    /// Forgets a waiting request; `false` if it waits no longer.
    pub fn withdraw(&mut self, ticket: Ticket) -> bool {
        let Some(place) = self.tickets.remove(&ticket) else { return false };
        self.waiting.remove(&place).is_some()
    }

    /// Gives a slot back and decides who gets it.
    pub fn release(&mut self, name: &str) -> Vec<Decided> {
        if let Some(backend) = self.backends.get_mut(name) {
            backend.in_use = backend.in_use.saturating_sub(1);
        }
        self.decide(name)
    }

    /// Takes in what is known of the LocalAI backends now. One that is missing gets no new requests.
    pub fn update(&mut self, mut known: BTreeMap<String, Known>) -> Vec<Decided> {
        self.was_told = true;
        for (name, backend) in &mut self.backends {
            if name != BUILTIN {
                backend.known = known.remove(name);
            }
        }
        let turns = Turns::new(self.weights);
        let new = |(name, known)| (name, Backend { known: Some(known), in_use: 0, turns: turns.clone() });
        self.backends.extend(known.into_iter().map(new));
        self.backends.retain(|_, backend| backend.in_use > 0 || backend.known.is_some());
        let mut decided = self.refuse();
        decided.extend(self.place());
        decided
    }

    /// Whether it was ever told which LocalAI backends there are.
    pub fn was_told(&self) -> bool {
        self.was_told
    }

    /// Whether a backend answers that the request did not fail at and that could take it once it has a free slot.
    pub fn can_run(&self, need: &Need) -> bool {
        let fits = |(name, backend): (&String, &Backend)| !need.avoid.contains(name) && backend.fits(name, need);
        let is_unknown = !self.was_told && !is_builtin(need) && need.avoid.is_empty();
        is_unknown || self.backends.iter().any(fits)
    }

    /// Whether no backend that answers could take the request, though one of those that do not might.
    pub fn is_stuck(&self, need: &Need) -> bool {
        !self.can_run(need) && self.refusal(need).is_none()
    }

    /// Sets the slots of the built-in backend.
    pub fn set_builtin(&mut self, granted: u32) {
        let known = Known { models: Vec::new(), healthy: true, granted };
        let new = || Backend { known: None, in_use: 0, turns: Turns::new(self.weights) };
        self.backends.entry(BUILTIN.to_owned()).or_insert_with(new).known = Some(known);
    }

    /// The models of the backends that answer.
    pub fn models(&self) -> impl Iterator<Item = &String> {
        let known = self.backends.values().filter_map(|backend| backend.known.as_ref());
        known.filter(|known| known.healthy).flat_map(|known| &known.models)
    }

    /// Requests in flight at each backend.
    pub fn in_use(&self) -> impl Iterator<Item = (&str, u32, u32)> {
        self.backends.iter().map(|(name, backend)| (name.as_str(), backend.in_use, backend.granted()))
    }

    /// Requests that wait, by model.
    pub fn waiting_by_model(&self) -> BTreeMap<Option<String>, u32> {
        let mut count = BTreeMap::new();
        for need in self.waiting.values().filter(|need| !is_builtin(need)) {
            *count.entry(need.model.clone()).or_default() += 1;
        }
        count
    }

    /// Those who would wait for ever now.
    fn refuse(&mut self) -> Vec<Decided> {
        let refused = |(place, need): (&Place, &Need)| self.refusal(need).map(|refusal| (*place, refusal));
        let refused: Vec<_> = self.waiting.iter().filter_map(refused).collect();
        let decided = refused.into_iter().map(|(place, refusal)| {
            self.forget(place);
            Decided { ticket: place.2, answer: Err(refusal) }
        });
        decided.collect()
    }

    /// After news of many backends: those who wait choose, higher priority first, then those begun before, then as they came.
    fn place(&mut self) -> Vec<Decided> {
        let mut waiting: Vec<_> = self.waiting.keys().copied().collect();
        waiting.sort_by_key(|(priority, is_new, ticket)| (Reverse(*priority), *is_new, *ticket));
        let mut decided = Vec::new();
        for place in waiting {
            let Some(need) = self.forget(place) else { continue };
            match self.take(&need) {
                Some(name) => decided.push(Decided { ticket: place.2, answer: Ok(name) }),
                None => self.keep(place, need),
            }
        }
        decided
    }

    /// After a slot of one backend came free, the only one that anybody who waits could take: the priorities take turns.
    fn decide(&mut self, name: &str) -> Vec<Decided> {
        let turn = self.backends.get(name).and_then(|backend| self.turn_at(name, backend));
        let Some((place, need)) = turn.and_then(|place| Some((place, self.forget(place)?))) else { return Vec::new() };
        let Some(backend) = self.backends.get_mut(name) else { return Vec::new() };
        backend.in_use += 1;
        backend.turns.took(need.priority);
        vec![Decided { ticket: place.2, answer: Ok(name.to_owned()) }]
    }

    /// Whose turn it is at a backend, if it has a free slot.
    fn turn_at(&self, name: &str, backend: &Backend) -> Option<Place> {
        if !backend.is_free() {
            return None;
        }
        let first = |priority| {
            let mut waiting = self.waiting.range((priority, false, 0)..=(priority, true, Ticket::MAX));
            waiting.find(|(_, need)| backend.can_take(name, need)).map(|(place, _)| *place)
        };
        backend.turns.order().into_iter().find_map(first)
    }

    fn keep(&mut self, place: Place, need: Need) {
        self.tickets.insert(place.2, place);
        self.waiting.insert(place, need);
    }

    fn forget(&mut self, place: Place) -> Option<Need> {
        self.tickets.remove(&place.2);
        self.waiting.remove(&place)
    }

    fn refusal(&self, need: &Need) -> Option<Refusal> {
        if is_builtin(need) {
            return None;
        }
        if !self.was_told {
            return None;
        }
        let listed =
            || self.backends.iter().filter(|(name, _)| *name != BUILTIN).filter_map(|(_, one)| one.known.as_ref());
        if listed().next().is_none() {
            return Some(Refusal::NeedsLocalAi);
        }
        let model = need.model.as_ref()?;
        // A backend that was never probed may have it.
        let may_have = |known: &Known| known.models.is_empty() || known.models.contains(model);
        (!listed().any(may_have)).then_some(Refusal::UnknownModel)
    }

    /// Takes a slot of the best backend: one that did not fail this request, with the smallest share in use.
    fn take(&mut self, need: &Need) -> Option<String> {
        let best = self
            .backends
            .iter()
            .filter(|(name, backend)| backend.can_take(name, need))
            .min_by_key(|(name, backend)| {
                let share = u64::from(backend.in_use) * 1_000_000 / u64::from(backend.granted().max(1));
                (need.avoid.contains(name), share, Reverse(backend.granted()))
            })
            .map(|(name, _)| name.clone())?;
        self.backends.get_mut(&best)?.in_use += 1;
        Some(best)
    }
}

impl Backend {
    fn granted(&self) -> u32 {
        self.known.as_ref().map_or(0, |known| known.granted)
    }

    fn is_free(&self) -> bool {
        self.known
            .as_ref()
            .is_some_and(|known| known.healthy && self.in_use < known.granted + u32::from(is_planted(Bug::SlotTooMany)))
    }

    fn can_take(&self, name: &str, need: &Need) -> bool {
        self.fits(name, need) && self.is_free()
    }

    /// It answers and does such work.
    fn fits(&self, name: &str, need: &Need) -> bool {
        let Some(known) = &self.known else { return false };
        if need.is_strict && need.avoid.iter().any(|avoided| avoided == name) {
            return false;
        }
        let fits = if name == BUILTIN {
            is_builtin(need)
        } else {
            !is_builtin(need) && need.model.as_ref().is_none_or(|model| known.models.contains(model))
        };
        fits && known.healthy
    }
}

fn is_builtin(need: &Need) -> bool {
    match need.task.engine() {
        Engine::BuiltIn => true,
        Engine::Either => need.model.is_none(),
        Engine::LocalAi => false,
    }
}
