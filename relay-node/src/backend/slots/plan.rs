//! Where a request should end first: at a free slot, or at a busy backend that is so much faster that waiting for it is
//! sooner. Pure.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use super::one::One;
use super::waiting::Class;
use super::{Need, Slots, Ticket};

/// A free slot is left for a busy, faster backend only if the request should end there in less than this part of the time:
/// what is expected is not what comes (`bench balance`, in virtual time).
const WORTH_WAITING: f64 = 0.6;
/// Requests that one look leaves waiting for a faster backend; those behind them take what is free.
const HELD_MAX: usize = 64;

/// Where a request should go.
pub(super) enum Best {
    /// To a free slot of this backend.
    Now(String),
    /// To this backend, once a slot there is free.
    Later(String),
}

/// What one look has decided so far.
#[derive(Default)]
pub(super) struct Look {
    /// Requests that wait for a faster backend.
    pub(super) held: HashSet<Ticket>,
    /// When the slots of busy backends come free, in milliseconds from now.
    free: HashMap<String, Vec<f64>>,
}

impl Look {
    /// Whether further requests may be left waiting.
    fn may_hold(&self) -> bool {
        self.held.len() < HELD_MAX
    }

    /// When the next slot of a busy backend comes free, and which one that is.
    fn next_free(&mut self, name: &str, one: &One, now_ms: u64) -> Option<(usize, f64)> {
        let times = self.free.entry(name.to_owned()).or_insert_with(|| one.ends(now_ms).collect());
        times.iter().copied().enumerate().min_by(|(_, a), (_, b)| a.total_cmp(b))
    }

    /// A request waits for that slot, and will have it for so long.
    pub(super) fn hold(&mut self, ticket: Ticket, name: &str, one: &One, need: &Need, now_ms: u64) {
        self.held.insert(ticket);
        if let Some((slot, at)) = self.next_free(name, one, now_ms)
            && let Some(times) = self.free.get_mut(name)
        {
            times[slot] = at + one.expected_ms(need).unwrap_or_default();
        }
    }
}

impl Slots {
    /// Where a request should go, if there is a free slot for it.
    pub(super) fn best(&self, need: &Need, look: &mut Look, now_ms: u64) -> Option<Best> {
        let fits = || self.backends.iter().filter(|(name, one)| one.fits(name, need) && one.answers(need, now_ms));
        // What was never tried may be as fast as the fastest.
        let known = fits().filter_map(|(_, one)| one.expected_ms(need)).min_by(f64::total_cmp);
        let expected = |one: &One| one.expected_ms(need).or(known).unwrap_or_default();
        let (name, one) = fits().filter(|(_, one)| one.has_room(now_ms)).min_by(|a, b| {
            let rank = |(name, one): &(&String, &One)| {
                let share = u64::from(one.in_use()) * 1_000_000 / u64::from(one.granted().max(1));
                (need.avoids(name), expected(one), share, Reverse(one.granted()))
            };
            let (a, b) = (rank(a), rank(b));
            a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)).then((a.2, a.3).cmp(&(b.2, b.3)))
        })?;
        let now = Best::Now(name.clone());
        if need.avoids(name) || known.is_none() || !look.may_hold() {
            return Some(now);
        }
        let worth = expected(one) * WORTH_WAITING;
        let busy = fits().filter(|(name, one)| {
            !one.has_room(now_ms) && one.granted() > 0 && !need.avoids(name) && !self.is_besieged(name, one, need)
        });
        let sooner = busy
            .filter_map(|(name, one)| {
                let work = one.expected_ms(need).filter(|work| *work < worth)?;
                let (_, free) = look.next_free(name, one, now_ms)?;
                Some((name, free + work))
            })
            .filter(|(_, end)| *end < worth)
            .min_by(|a, b| a.1.total_cmp(&b.1));
        Some(sooner.map_or(now, |(name, _)| Best::Later(name.clone())))
    }

    /// Whether requests of another class wait for a busy backend too: nobody knows how long they take.
    fn is_besieged(&self, name: &str, busy: &One, need: &Need) -> bool {
        let own = Class::of(need);
        self.waiting.classes().any(|class| *class != own && busy.serves(name, class))
    }
}
