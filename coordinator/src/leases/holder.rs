//! One life of a node as the lease table sees it.

use relay_protocol::cluster::SlotDemand;

use super::Report;
use super::ceiling::Ceiling;

/// Largest weight in the fair plan: a deeper backlog gets no larger share.
const WEIGHT_MAX: u64 = 65_536;

/// What a holder has on one backend.
#[derive(Debug, Clone, Default)]
pub(super) struct Held {
    /// The most that it may believe to have.
    pub(super) ceiling: Ceiling,
    /// Slots in the last answer.
    pub(super) granted: u32,
    /// Slots that it reported.
    pub(super) reported: u32,
    /// Requests that it reported.
    pub(super) in_use: u32,
    /// Whether it reported at all since the backend is in the table.
    pub(super) told: bool,
}

#[derive(Debug)]
pub(super) struct Holder {
    /// When its last heartbeat came.
    pub(super) heard_ms: u64,
    pub(super) draining: bool,
    /// Whether it may have slots that nobody asked for.
    pub(super) spare: bool,
    pub(super) demand: Vec<SlotDemand>,
    /// Jobs that it has, running or waiting: the sum of its demand.
    wants: u64,
    /// Slots that it may use or still uses.
    pub(super) occupied: u64,
    /// Slots in the last answer: (place of the backend, slots), without those of 0.
    pub(super) granted: Vec<(usize, u32)>,
    /// One for each backend, in the table's order.
    pub(super) held: Vec<Held>,
    /// Slot-time received, divided by weight.
    pub(super) served: u128,
}

impl Holder {
    pub(super) fn new(backends: usize) -> Self {
        Self {
            heard_ms: 0,
            draining: false,
            spare: false,
            demand: Vec::new(),
            wants: 0,
            occupied: 0,
            granted: Vec::new(),
            held: vec![Held::default(); backends],
            served: 0,
        }
    }

    /// Takes over what the node says. Who comes back to work starts at `least_served`: idle time earns no credit.
    pub(super) fn report(
        &mut self,
        now_ms: u64,
        report: Report<'_>,
        least_served: u128,
        index_of: impl Fn(&str) -> Option<usize>,
    ) {
        let first = self.heard_ms == 0;
        if self.wants == 0 {
            self.served = self.served.max(least_served);
        }
        self.heard_ms = self.heard_ms.max(now_ms);
        self.draining = report.draining;
        self.spare = report.ready && !report.draining;
        self.demand = report.demand.to_vec();
        self.wants = self.demand.iter().map(|demand| u64::from(demand.jobs)).sum();
        for held in &mut self.held {
            (held.reported, held.in_use, held.told) = (0, 0, true);
        }
        for hold in report.holds {
            if let Some(at) = index_of(&hold.backend) {
                let held = &mut self.held[at];
                held.reported = held.reported.saturating_add(hold.slots);
                held.in_use = held.in_use.saturating_add(hold.in_use);
            }
        }
        for held in &mut self.held {
            held.ceiling.sign(now_ms, held.reported.max(held.in_use));
            if first {
                held.granted = held.reported; // by an earlier table: it keeps its slots in the fair plan
            }
        }
    }

    /// It wants nothing any more.
    pub(super) fn wants_nothing(&mut self) {
        self.demand.clear();
        self.wants = 0;
        self.spare = false;
    }

    /// Jobs that it has, running or waiting.
    pub(super) fn wants(&self) -> u64 {
        self.wants
    }

    pub(super) fn weight(&self) -> u64 {
        self.wants.clamp(1, WEIGHT_MAX)
    }

    /// Adds up what changed in `held`.
    pub(super) fn sum_up(&mut self) {
        self.occupied = self.held.iter().map(|held| u64::from(held.granted.max(held.in_use))).sum();
        self.granted.clear();
        let granted = self.held.iter().enumerate().map(|(at, held)| (at, held.granted));
        self.granted.extend(granted.filter(|(_, slots)| *slots > 0));
    }
}
