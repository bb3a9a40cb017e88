//! Which waiting request gets which slot. Pure: no I/O, and its clock is its caller's.
//!
//! A slot is the right to run one request on a backend. A node holds what it was granted and never uses more. A request goes where it
//! should end first, by what the backends were seen to take for such work; short ones go before long ones of their tenant and priority,
//! but none waits for ever for that. The priorities share a backend by weight, and so do the tenants of each.

mod need;
mod one;
mod plan;
mod waiting;

use std::collections::BTreeMap;

pub use self::need::Need;
use relay_protocol::Task;

use self::one::One;
use self::plan::{Best, Look};
use self::waiting::{Class, Place, Waiting};
use super::breaker::{BreakerLimits, Ended};
use super::lately::Lately;
use crate::fair::{Turns, Weights};
use crate::tenants::RuleBook;

/// Name of the backend that is built in.
pub const BUILTIN: &str = "builtin";

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

/// Names a request from when it asks to its end.
pub type Ticket = u64;

/// A request counts as come later by this part of the time that it should take: short ones go first, and none is passed by
/// those that come later than that. More of it helps the mean and hurts the longest (`bench balance`, in virtual time).
const AGEING: f64 = 0.5;
/// Time after which requests that wait for a faster backend are looked at again, in milliseconds.
const LOOK_MS: u64 = 20;
/// Time after which those that wait are looked at again while backends are ejected or at rest, in milliseconds.
const LOOK_AT_EJECTED_MS: u64 = 100;

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

/// Slots and who waits for them.
#[derive(Debug, Default)]
pub struct Slots {
    /// Whether it was ever told which LocalAI backends there are: before that nothing is refused for want of one.
    was_told: bool,
    /// Whether backends may come of which nothing is known.
    expects: bool,
    lately: Lately,
    backends: BTreeMap<String, One>,
    weights: Weights,
    tenants: RuleBook,
    breaker: BreakerLimits,
    waiting: Waiting,
    next_ticket: Ticket,
    /// Requests wait beside free slots, for faster ones.
    holds: bool,
}

impl Slots {
    /// No backends; those of each that wait share its slots by these weights of their priorities.
    pub fn new(weights: Weights, breaker: BreakerLimits) -> Self {
        Self { weights, breaker, ..Self::default() }
    }

    /// The same with these rules of the tenants, whose weights count.
    #[must_use]
    pub fn with_tenants(self, tenants: RuleBook) -> Self {
        Self { tenants, ..self }
    }

    /// Asks for a slot: under which number, and what is decided now, that number maybe among it.
    ///
    /// # Errors
    /// It would wait for ever.
    pub fn request(&mut self, need: Need, now_ms: u64) -> Result<(Ticket, Vec<Decided>), Refusal> {
        if let Some(refusal) = self.refusal(&need) {
            return Err(refusal);
        }
        self.next_ticket += 1;
        let ticket = self.next_ticket;
        let (score, class) = (self.score(&need, now_ms), Class::of(&need));
        self.waiting.keep(Place::new(&need, score, ticket), need);
        if self.holds {
            return Ok((ticket, self.look(now_ms)));
        }
        let serves =
            |(name, one): (&String, &One)| (one.has_room(now_ms) && one.serves(name, &class)).then(|| name.clone());
        let free: Vec<String> = self.backends.iter().filter_map(serves).collect();
        Ok((ticket, self.fill(&free, now_ms)))
    }

    /// Forgets a waiting request; `false` if it waits no longer.
    pub fn withdraw(&mut self, ticket: Ticket) -> bool {
        self.waiting.forget(ticket).is_some()
    }

    /// Milliseconds after which a request that has a slot of this backend counts as stalled; `None` if nobody knows.
    pub fn patience_ms(&self, name: &str, ticket: Ticket) -> Option<u64> {
        self.backends.get(name)?.patience_of(ticket)
    }

    /// The work of a request that has a slot of this backend begins now.
    pub fn began(&mut self, name: &str, ticket: Ticket, now_ms: u64) {
        if let Some(one) = self.backends.get_mut(name) {
            one.began(ticket, now_ms);
        }
    }

    /// A request gives its slot back: who gets it, and whether the backend was ejected for how the request ended.
    pub fn release(&mut self, name: &str, ticket: Ticket, how: Ended, now_ms: u64) -> (Vec<Decided>, bool) {
        // What is built in fails by the requests' own doing.
        let how = if name == BUILTIN && matches!(how, Ended::Badly { .. }) { Ended::Unknown } else { how };
        let (may_eject, limits) = (self.may_eject(now_ms), self.breaker);
        let is_ejected =
            self.backends.get_mut(name).is_some_and(|one| one.ended(ticket, how, may_eject, now_ms, &limits));
        if self.waiting.is_empty() {
            return (Vec::new(), is_ejected);
        }
        let decided = if self.holds { self.look(now_ms) } else { self.fill(&[name.to_owned()], now_ms) };
        (decided, is_ejected)
    }

    /// Whether backends may come of which nothing is known.
    pub fn expect_backends(&mut self, expected: bool) {
        self.expects = expected;
    }

    /// Some backend lists these models now. For a while nothing is refused for want of them, whatever is listed next.
    pub fn remember_models<'a>(&mut self, now_ms: u64, models: impl IntoIterator<Item = &'a String>) {
        self.lately.listed(now_ms, models);
    }

    /// Takes in what is known of the LocalAI backends now. One that is missing gets no new requests.
    pub fn update(&mut self, mut known: BTreeMap<String, Known>, now_ms: u64) -> Vec<Decided> {
        self.was_told = true;
        for (name, one) in &mut self.backends {
            if name != BUILTIN {
                one.known = known.remove(name);
            }
        }
        let turns = Turns::new(self.weights);
        let new = |(name, known)| (name, One::new(Some(known), turns.clone()));
        self.backends.extend(known.into_iter().map(new));
        self.backends.retain(|_, one| one.in_use() > 0 || one.known.is_some());
        let mut decided = self.refuse();
        decided.extend(self.place(now_ms));
        decided
    }

    /// Takes all slots of LocalAI backends back; whether there were any. What runs on one counts until it ends.
    pub fn revoke(&mut self) -> bool {
        let local_ai = self.backends.iter_mut().filter(|(name, _)| *name != BUILTIN);
        let granted = local_ai.filter_map(|(_, one)| one.known.as_mut()).map(|known| &mut known.granted);
        granted.map(std::mem::take).sum::<u32>() > 0
    }

    /// What time alone decides: ejections that are over, and faster backends that did not come free as expected.
    pub fn look(&mut self, now_ms: u64) -> Vec<Decided> {
        let free = |(name, one): (&String, &One)| one.has_room(now_ms).then(|| name.clone());
        let free: Vec<String> = self.backends.iter().filter_map(free).collect();
        self.fill(&free, now_ms)
    }

    /// When to look next, unless something happens before.
    pub fn look_at(&self, now_ms: u64) -> Option<u64> {
        if self.waiting.is_empty() {
            return None;
        }
        let is_out = self.backends.values().any(|one| one.is_waited_for(now_ms));
        let wait = if self.holds { Some(LOOK_MS) } else { is_out.then_some(LOOK_AT_EJECTED_MS) };
        wait.map(|wait| now_ms + wait)
    }

    /// Whether it was ever told which LocalAI backends there are.
    pub fn was_told(&self) -> bool {
        self.was_told
    }

    /// Whether a backend answers that the request did not fail at and that could take it once it has a free slot; one whose
    /// ejection or rest is over within seconds counts.
    pub fn can_run(&self, need: &Need, now_ms: u64) -> bool {
        let fits =
            |(name, one): (&String, &One)| !need.avoids(name) && one.fits(name, need) && one.answers_soon(need, now_ms);
        let is_unknown = !self.was_told && !need.is_builtin() && need.avoid.is_empty();
        is_unknown || self.backends.iter().any(fits)
    }

    /// Whether this node has slots, free or not, of a backend that the request did not fail at and that answers.
    pub fn has_slots_elsewhere(&self, need: &Need, now_ms: u64) -> bool {
        self.backends.iter().any(|(name, one)| {
            one.granted() > 0 && !need.avoids(name) && one.fits(name, need) && one.answers_soon(need, now_ms)
        })
    }

    /// Whether no backend that answers could take the request, though one of those that do not might.
    pub fn is_stuck(&self, need: &Need, now_ms: u64) -> bool {
        !self.can_run(need, now_ms) && self.refusal(need).is_none()
    }

    /// Whether a request that was put off for want of a backend is worth another look. Before it was told which backends there are
    /// a node knows no better than whoever put it off.
    pub fn may_go_on(&self, need: &Need, now_ms: u64) -> bool {
        (self.was_told || need.is_builtin()) && !self.is_stuck(need, now_ms)
    }

    /// Milliseconds until a backend that could take the request is back from its ejection, if none is there.
    pub fn back_in(&self, need: &Need, now_ms: u64) -> Option<u64> {
        let fits = || self.backends.iter().filter(|(name, one)| one.fits(name, need));
        let back = fits().filter_map(|(_, one)| one.back_in(need, now_ms)).min();
        back.filter(|_| !fits().any(|(_, one)| one.answers(need, now_ms)))
    }

    /// Sets the slots of the built-in backend.
    pub fn set_builtin(&mut self, granted: u32) {
        let known = Known { models: Vec::new(), healthy: true, granted };
        let new = || One::new(None, Turns::new(self.weights));
        self.backends.entry(BUILTIN.to_owned()).or_insert_with(new).known = Some(known);
    }

    /// The models of the backends that answer.
    pub fn models(&self) -> impl Iterator<Item = &String> {
        let known = self.backends.values().filter_map(|one| one.known.as_ref());
        known.filter(|known| known.healthy).flat_map(|known| &known.models)
    }

    /// Requests in flight at each backend, and how many may be.
    pub fn in_use(&self) -> impl Iterator<Item = (&str, u32, u32)> {
        self.backends.iter().map(|(name, one)| (name.as_str(), one.in_use(), one.granted()))
    }

    /// The backends that are ejected now.
    pub fn ejected(&self, now_ms: u64) -> impl Iterator<Item = &str> {
        self.backends.iter().filter(move |(_, one)| one.is_ejected(now_ms)).map(|(name, _)| name.as_str())
    }

    /// Requests that wait, by model.
    pub fn waiting_by_model(&self) -> BTreeMap<Option<String>, u32> {
        let mut count = BTreeMap::new();
        for (_, need) in self.waiting.iter().filter(|(_, need)| !need.is_builtin()) {
            *count.entry(need.kind.model.clone()).or_default() += 1;
        }
        count
    }

    /// When a request counts as come: later for longer work.
    fn score(&self, need: &Need, now_ms: u64) -> u64 {
        let fits = self.backends.iter().filter(|(name, one)| one.fits(name, need));
        let expected = fits.filter_map(|(_, one)| one.expected_ms(need)).min_by(f64::total_cmp);
        now_ms.saturating_add((expected.unwrap_or_default() * AGEING) as u64)
    }

    fn may_eject(&self, now_ms: u64) -> bool {
        let healthy = self.backends.iter().filter(|(name, one)| *name != BUILTIN && one.is_healthy()).count();
        self.ejected(now_ms).count() < self.breaker.ejected_max(healthy)
    }

    /// Those who would wait for ever now.
    fn refuse(&mut self) -> Vec<Decided> {
        let refused = |(place, need): (&Place, &Need)| Some((place.ticket, self.refusal(need)?));
        let refused: Vec<_> = self.waiting.iter().filter_map(refused).collect();
        let decided = refused.into_iter().map(|(ticket, refusal)| {
            self.waiting.forget(ticket);
            Decided { ticket, answer: Err(refusal) }
        });
        decided.collect()
    }

    /// After news of many backends: those who wait choose, higher priority first, tenants in turn.
    fn place(&mut self, now_ms: u64) -> Vec<Decided> {
        let (mut look, mut decided) = (Look::default(), Vec::new());
        for place in self.waiting.in_order(|tenant| self.tenants.of(tenant).weight) {
            let best = self.waiting.get(place).and_then(|need| self.best(need, &mut look, now_ms));
            match best {
                Some(Best::Now(name)) => decided.extend(self.grant(&name, place, now_ms)),
                Some(Best::Later(name)) => self.hold(&mut look, &name, place, now_ms),
                None => {}
            }
        }
        self.holds = !look.held.is_empty();
        decided
    }

    /// Free slots of these backends go to those who wait; at each backend the priorities take turns, and the tenants of each.
    fn fill(&mut self, free: &[String], now_ms: u64) -> Vec<Decided> {
        let (mut look, mut decided) = (Look::default(), Vec::new());
        for name in free {
            while let Some(place) = self.turn_at(name, &look, now_ms) {
                let best = self.waiting.get(place).and_then(|need| self.best(need, &mut look, now_ms));
                match best {
                    // Another free slot may be better, if it is this request's turn there too.
                    Some(Best::Now(other)) if self.turn_at(&other, &look, now_ms) == Some(place) => {
                        decided.extend(self.grant(&other, place, now_ms));
                    }
                    Some(Best::Later(other)) => self.hold(&mut look, &other, place, now_ms),
                    Some(Best::Now(other)) if self.is_avoided(place, name) => {
                        // Whose turn it is there goes first; then this one is looked at again.
                        let first = self.turn_at(&other, &look, now_ms);
                        decided.extend(first.and_then(|first| self.grant(&other, first, now_ms)));
                    }
                    _ => decided.extend(self.grant(name, place, now_ms)),
                }
            }
        }
        self.holds = !look.held.is_empty();
        decided
    }

    fn is_avoided(&self, place: Place, name: &str) -> bool {
        self.waiting.get(place).is_some_and(|need| need.avoids(name))
    }

    /// Whose turn it is at a backend, if it has a free slot.
    fn turn_at(&self, name: &str, look: &Look, now_ms: u64) -> Option<Place> {
        let one = self.backends.get(name).filter(|one| one.has_room(now_ms))?;
        let serves = |class: &Class| one.serves(name, class);
        let fits = |place: &Place, need: &Need| {
            !look.held.contains(&place.ticket) && one.fits(name, need) && one.answers(need, now_ms)
        };
        let first = |priority| {
            let clock = |tenant: &str| one.shares(priority).clock(tenant);
            self.waiting.first(priority, serves, fits, clock)
        };
        one.turns.order().into_iter().find_map(first)
    }

    fn grant(&mut self, name: &str, place: Place, now_ms: u64) -> Option<Decided> {
        let (_, need) = self.waiting.forget(place.ticket)?;
        let patience_ms = self.patience(name, &need);
        let one = self.backends.get_mut(name)?;
        one.take(place.ticket, &need, patience_ms, now_ms);
        if self.waiting.is_empty() {
            one.all_even();
        } else {
            one.turn_taken(&need, self.tenants.of(&need.tenant).weight);
        }
        Some(Decided { ticket: place.ticket, answer: Ok(name.to_owned()) })
    }

    /// After which time the request counts as stalled at a backend: what it takes there, or what the slowest backend took for such
    /// work. Of chats nobody knows how long their answers are, and the built-in tasks cannot be given up.
    fn patience(&self, name: &str, need: &Need) -> Option<u64> {
        if name == BUILTIN || need.kind.task == Task::Chat {
            return None;
        }
        self.backends.get(name)?.patience_ms(need)?;
        self.backends.values().filter_map(|one| one.patience_ms(need)).max()
    }

    fn hold(&self, look: &mut Look, name: &str, place: Place, now_ms: u64) {
        if let (Some(one), Some(need)) = (self.backends.get(name), self.waiting.get(place)) {
            look.hold(place.ticket, name, one, need, now_ms);
        }
    }

    /// Why a request would wait for ever.
    pub fn refusal(&self, need: &Need) -> Option<Refusal> {
        if need.is_builtin() || !self.was_told || self.expects {
            return None;
        }
        let mut listed = self
            .backends
            .iter()
            .filter(|(name, _)| *name != BUILTIN)
            .filter_map(|(_, one)| one.known.as_ref())
            .peekable();
        if listed.peek().is_none() {
            return Some(Refusal::NeedsLocalAi);
        }
        let model = need.kind.model.as_ref()?;
        // A backend that was never probed may have it.
        let may_have = |known: &Known| known.models.is_empty() || known.models.contains(model);
        (!listed.any(may_have) && !self.lately.has(model)).then_some(Refusal::UnknownModel)
    }
}

#[cfg(test)]
mod choice_test;
#[cfg(test)]
mod slots_test;
#[cfg(test)]
mod tenants_test;
