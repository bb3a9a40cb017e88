//! The relay's own choice of slots in virtual time: what the choice is worth, without sockets and processors.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};

use relay_node::backend::breaker::{BreakerLimits, Ended};
use relay_node::backend::slots::{Decided, Known, Need, Slots, Ticket};
use relay_node::fair::Weights;
use relay_protocol::Task;

use super::backend::MODEL;
use super::trace::{Request, SLOTS, SPEEDS};

/// Microseconds, so that rounding does not show.
const UNIT: f64 = 1e3;

/// What happens next, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Next {
    Arrival(usize),
    End(usize),
    Look,
}

struct World<'a> {
    requests: &'a [Request],
    slots: Slots,
    next: BinaryHeap<Reverse<(u64, Next)>>,
    /// Requests by their ticket.
    tickets: HashMap<Ticket, usize>,
    /// Of each that runs or ran: its ticket, its backend, its begin.
    runs: Vec<Option<(Ticket, usize, u64)>>,
    took_ms: Vec<f64>,
    /// When the next look is due, if one is.
    looks_at: Option<u64>,
}

/// How long each request takes, in milliseconds.
pub(super) fn choose(requests: &[Request]) -> Vec<f64> {
    let known = Known { models: vec![MODEL.to_owned()], healthy: true, granted: SLOTS as u32 };
    let mut slots = Slots::new(Weights::default(), BreakerLimits::default());
    slots.update((0..SPEEDS.len()).map(|at| (at.to_string(), known.clone())).collect::<BTreeMap<_, _>>(), 0);
    let arrivals = requests.iter().enumerate();
    let next = arrivals.map(|(at, request)| Reverse(((request.at_ms * UNIT) as u64, Next::Arrival(at)))).collect();
    let (runs, took_ms) = (vec![None; requests.len()], vec![f64::NAN; requests.len()]);
    let mut world = World { requests, slots, next, tickets: HashMap::new(), runs, took_ms, looks_at: None };
    while let Some(Reverse((now, next))) = world.next.pop() {
        let decided = world.on(now, next);
        world.begin(decided, now);
    }
    world.took_ms
}

impl World<'_> {
    fn on(&mut self, now: u64, next: Next) -> Vec<Decided> {
        match next {
            Next::Arrival(at) => {
                let need = Need { units: self.requests[at].size_ms, ..Need::of(Task::Transcribe, Some(MODEL)) };
                let Ok((ticket, decided)) = self.slots.request(need, now) else { return Vec::new() };
                self.tickets.insert(ticket, at);
                decided
            }
            Next::End(at) => {
                let Some((ticket, backend, began)) = self.runs[at] else { return Vec::new() };
                self.took_ms[at] = now as f64 / UNIT - self.requests[at].at_ms;
                let how = Ended::Well { worked_ms: Some(now - began) };
                self.slots.release(&backend.to_string(), ticket, how, now).0
            }
            Next::Look => {
                self.looks_at = None;
                self.slots.look(now)
            }
        }
    }

    fn begin(&mut self, decided: Vec<Decided>, now: u64) {
        for Decided { ticket, answer } in decided {
            let (Some(at), Some(backend)) =
                (self.tickets.remove(&ticket), answer.ok().and_then(|name| name.parse().ok()))
            else {
                continue;
            };
            self.runs[at] = Some((ticket, backend, now));
            let end = now + (self.requests[at].work_ms / SPEEDS[backend] * UNIT) as u64;
            self.next.push(Reverse((end, Next::End(at))));
        }
        if let Some(look) = self.slots.look_at(now).filter(|_| self.looks_at.is_none()) {
            // As often as the relay looks, whatever its unit of time.
            let at = now + (look - now) * UNIT as u64;
            self.looks_at = Some(at);
            self.next.push(Reverse((at, Next::Look)));
        }
    }
}
