//! One backend: what is known of it, what is in flight there, and what that taught. Pure.

use std::collections::HashMap;

use relay_log::planted::{Bug, is_planted};
use relay_protocol::Priority;

use super::waiting::Class;
use super::{BUILTIN, Known, Need, Ticket};
use crate::backend::breaker::{Breaker, BreakerLimits, Ended};
use crate::backend::cost::{Costs, Kind};
use crate::fair::Turns;
use crate::tenants::turns::TenantTurns;

/// A request in flight.
#[derive(Debug, Clone)]
struct Flight {
    kind: Kind,
    units: f64,
    began_ms: u64,
    /// How long it should take, if that is known.
    expected_ms: Option<f64>,
    /// After which time it counts as stalled.
    patience_ms: Option<u64>,
    /// It had failed elsewhere before, or its node had.
    is_begun: bool,
}

/// One backend.
#[derive(Debug, Default)]
pub(super) struct One {
    /// `None` once it is not listed any more; it stays while requests are in flight there.
    pub(super) known: Option<Known>,
    pub(super) turns: Turns,
    /// Of the tenants of each priority.
    shares: [TenantTurns; 3],
    breaker: Breaker,
    costs: Costs,
    flights: HashMap<Ticket, Flight>,
    newest: Ticket,
    /// The newest request when it was ejected: those up to it say nothing about how it is since.
    ejected_at: Ticket,
    /// Until when it is left alone with some kinds of work, as it asked.
    rests: HashMap<Kind, u64>,
}

/// An ejection that is over so soon is waited for, in milliseconds.
const SOON_MS: u64 = 10_000;

impl One {
    pub(super) fn new(known: Option<Known>, turns: Turns) -> Self {
        Self { known, turns, ..Self::default() }
    }

    pub(super) fn granted(&self) -> u32 {
        self.known.as_ref().map_or(0, |known| known.granted)
    }

    pub(super) fn in_use(&self) -> u32 {
        self.flights.len() as u32
    }

    /// It answers its probes.
    pub(super) fn is_healthy(&self) -> bool {
        self.known.as_ref().is_some_and(|known| known.healthy)
    }

    /// When it may have such requests again, if it answers its probes and may not now.
    fn back_at(&self, kind: &Kind, now_ms: u64) -> Option<u64> {
        let rests = self.rests.get(kind).copied().filter(|until| *until > now_ms);
        self.breaker.back_at(now_ms).max(rests)
    }

    /// It answers its probes, and may have such requests now.
    pub(super) fn answers(&self, need: &Need, now_ms: u64) -> bool {
        self.is_healthy() && self.back_at(&need.kind, now_ms).is_none()
    }

    /// It answers its probes, and may have such requests now or within seconds.
    pub(super) fn answers_soon(&self, need: &Need, now_ms: u64) -> bool {
        let is_long = |back: u64| back > now_ms.saturating_add(SOON_MS);
        self.is_healthy() && !self.back_at(&need.kind, now_ms).is_some_and(is_long)
    }

    /// It answers its probes, but may have no such requests for so much longer.
    pub(super) fn back_in(&self, need: &Need, now_ms: u64) -> Option<u64> {
        self.back_at(&need.kind, now_ms).filter(|_| self.is_healthy()).map(|back| back.saturating_sub(now_ms))
    }

    /// It answers its probes, but is ejected.
    pub(super) fn is_ejected(&self, now_ms: u64) -> bool {
        self.is_healthy() && self.breaker.back_at(now_ms).is_some()
    }

    /// Whether time alone will let it have requests again.
    pub(super) fn is_waited_for(&self, now_ms: u64) -> bool {
        self.is_ejected(now_ms) || self.rests.values().any(|until| *until > now_ms)
    }

    /// Whether another request may go there now.
    pub(super) fn has_room(&self, now_ms: u64) -> bool {
        let Some(known) = self.known.as_ref().filter(|known| known.healthy) else { return false };
        let is_trial_free = |room: u32| {
            let trials = self.flights.keys().filter(|ticket| **ticket > self.ejected_at).count();
            trials < room as usize
        };
        self.in_use() < known.granted + u32::from(is_planted(Bug::SlotTooMany))
            && self.breaker.room(now_ms).is_none_or(is_trial_free)
    }

    /// Whether requests of a class can go there at all.
    pub(super) fn serves(&self, name: &str, class: &Class) -> bool {
        let Some(known) = &self.known else { return false };
        match class {
            Class::BuiltIn => name == BUILTIN,
            Class::AnyModel => name != BUILTIN,
            Class::Model(model) => name != BUILTIN && known.models.contains(model),
        }
    }

    /// It does such work, and this request may go there.
    pub(super) fn fits(&self, name: &str, need: &Need) -> bool {
        let Some(known) = &self.known else { return false };
        let has = |model: &String| known.models.contains(model);
        let serves = if name == BUILTIN {
            need.is_builtin()
        } else {
            !need.is_builtin() && need.kind.model.as_ref().is_none_or(has)
        };
        serves && !(need.is_strict && need.avoids(name))
    }

    /// How long it should take for the request, in milliseconds, if it has done such work.
    pub(super) fn expected_ms(&self, need: &Need) -> Option<f64> {
        self.costs.ms_per_unit(&need.kind).map(|rate| rate * need.units)
    }

    /// Milliseconds after which such a request counts as stalled there.
    pub(super) fn patience_ms(&self, need: &Need) -> Option<u64> {
        self.costs.patience_ms(&need.kind, need.units)
    }

    /// A request goes there; after `patience_ms` it counts as stalled.
    pub(super) fn take(&mut self, ticket: Ticket, need: &Need, patience_ms: Option<u64>, now_ms: u64) {
        let expected_ms = self.expected_ms(need);
        self.newest = self.newest.max(ticket);
        let (kind, units, is_begun) = (need.kind.clone(), need.units, need.is_begun);
        let flight = Flight { kind, units, began_ms: now_ms, expected_ms, patience_ms, is_begun };
        self.flights.insert(ticket, flight);
    }

    /// The shares of the tenants whose requests of this priority wait.
    pub(super) fn shares(&self, priority: Priority) -> &TenantTurns {
        &self.shares[usize::from(priority.to_wire())]
    }

    /// A request took its turn, while others wait.
    pub(super) fn turn_taken(&mut self, need: &Need, weight: u32) {
        self.turns.took(need.priority);
        let work_ms = self.expected_ms(need);
        self.shares[usize::from(need.priority.to_wire())].took(&need.tenant, work_ms, weight);
    }

    /// Nobody waits any more.
    pub(super) fn all_even(&mut self) {
        self.shares.iter_mut().for_each(TenantTurns::clear);
    }

    /// After which time a request that has a slot counts as stalled.
    pub(super) fn patience_of(&self, ticket: Ticket) -> Option<u64> {
        self.flights.get(&ticket)?.patience_ms
    }

    /// Its work begins now.
    pub(super) fn began(&mut self, ticket: Ticket, now_ms: u64) {
        if let Some(flight) = self.flights.get_mut(&ticket) {
            flight.began_ms = now_ms;
        }
    }

    /// A request ended; whether the backend was ejected for that.
    pub(super) fn ended(
        &mut self,
        ticket: Ticket,
        how: Ended,
        may_eject: bool,
        now_ms: u64,
        limits: &BreakerLimits,
    ) -> bool {
        let Some(flight) = self.flights.remove(&ticket) else { return false };
        let counts = !self.breaker.is_doubted() || ticket > self.ejected_at;
        match how {
            Ended::Well { worked_ms } => {
                if let Some(worked_ms) = worked_ms {
                    self.costs.learn(&flight.kind, flight.units, worked_ms);
                }
                if counts {
                    self.breaker.succeeded(self.granted());
                }
            }
            Ended::Badly { after_ms } => {
                let is_stall = flight.patience_ms.is_some_and(|patience| after_ms >= patience);
                if is_stall {
                    self.costs.gave_up(&flight.kind, after_ms);
                }
                // One that failed elsewhere too says more about itself than about its backends.
                if counts && !flight.is_begun && self.breaker.failed(is_stall, may_eject, now_ms, limits) {
                    self.ejected_at = self.newest;
                    return true;
                }
            }
            Ended::Busy { rest_ms } => {
                self.rests.retain(|_, until| *until > now_ms);
                self.rests.insert(flight.kind, now_ms + rest_ms.min(limits.ejection_ms_max));
            }
            Ended::Unknown => {}
        }
        false
    }

    /// When those in flight should have ended, in milliseconds from now; one that is late should take half as long again.
    pub(super) fn ends(&self, now_ms: u64) -> impl Iterator<Item = f64> {
        self.flights.values().map(move |flight| {
            let gone = now_ms.saturating_sub(flight.began_ms) as f64;
            // One of which nothing is known is not waited for.
            let left = flight.expected_ms.unwrap_or(f64::INFINITY) - gone;
            if left > 0.0 { left } else { gone * LATE }
        })
    }
}

/// Of the time that a late request has taken, how much more it is expected to take.
const LATE: f64 = 0.5;
