//! One backend: what is known of it, what is in flight there, and what that taught. Pure.

use std::collections::HashMap;

use relay_log::planted::{Bug, is_planted};

use super::waiting::Class;
use super::{BUILTIN, Known, Need, Ticket};
use crate::backend::breaker::{Breaker, BreakerLimits, Ended};
use crate::backend::cost::{Costs, Kind};
use crate::fair::Turns;

/// A request in flight.
#[derive(Debug, Clone)]
struct Flight {
    kind: Kind,
    units: f64,
    began_ms: u64,
    /// How long it should take, if that is known.
    expected_ms: Option<f64>,
}

/// One backend.
#[derive(Debug, Default)]
pub(super) struct One {
    /// `None` once it is not listed any more; it stays while requests are in flight there.
    pub(super) known: Option<Known>,
    pub(super) turns: Turns,
    breaker: Breaker,
    costs: Costs,
    flights: HashMap<Ticket, Flight>,
}

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

    /// It answers its probes and is not ejected.
    pub(super) fn answers(&self, now_ms: u64) -> bool {
        self.known.as_ref().is_some_and(|known| known.healthy) && self.breaker.back_at(now_ms).is_none()
    }

    /// It answers its probes, but is ejected for so much longer.
    pub(super) fn ejected_for(&self, now_ms: u64) -> Option<u64> {
        self.known.as_ref().filter(|known| known.healthy)?;
        self.breaker.back_at(now_ms).map(|back| back - now_ms)
    }

    /// Whether another request may go there now.
    pub(super) fn has_room(&self, now_ms: u64) -> bool {
        let Some(known) = self.known.as_ref().filter(|known| known.healthy) else { return false };
        self.in_use() < self.breaker.room(known.granted, now_ms) + u32::from(is_planted(Bug::SlotTooMany))
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

    /// A request goes there.
    pub(super) fn take(&mut self, ticket: Ticket, need: &Need, now_ms: u64) {
        let expected_ms = self.expected_ms(need);
        let flight = Flight { kind: need.kind.clone(), units: need.units, began_ms: now_ms, expected_ms };
        self.flights.insert(ticket, flight);
    }

    /// Milliseconds after which a request that has a slot counts as stalled.
    pub(super) fn patience_ms(&self, ticket: Ticket) -> Option<u64> {
        let flight = self.flights.get(&ticket)?;
        self.costs.patience_ms(&flight.kind, flight.units)
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
        match how {
            Ended::Well { worked_ms: Some(worked_ms) } => self.costs.learn(&flight.kind, flight.units, worked_ms),
            Ended::Badly { after_ms } => self.costs.gave_up(&flight.kind, after_ms),
            _ => {}
        }
        self.breaker.ended(how, self.granted(), may_eject, now_ms, limits)
    }

    /// When those in flight should have ended, in milliseconds from now; one that is late should take half as long again.
    pub(super) fn ends(&self, now_ms: u64) -> impl Iterator<Item = f64> {
        self.flights.values().map(move |flight| {
            let gone = now_ms.saturating_sub(flight.began_ms) as f64;
            let left = flight.expected_ms.unwrap_or_default() - gone;
            if left > 0.0 { left } else { gone * LATE }
        })
    }
}

/// Of the time that a late request has taken, how much more it is expected to take.
const LATE: f64 = 0.5;
