//! Which node may use which backend slots: never more in all than a backend has. Pure: time comes in as an argument.
//!
//! The table keeps, for each holder (one life of a node) and backend, a ceiling: the most that the holder may believe to
//! have. A grant never lets the ceilings of a backend add up to more than its slots. A ceiling falls only
//! - by the holder's own heartbeat, which reports fewer slots held and in use, or
//! - when the holder was silent for `lease_ttl_ms`: by then it has stopped by itself, because it counts the time from the
//!   *sending* of its last answered heartbeat, and the table from the arrival.
//!
//! A new table (after a restart) knows nothing of earlier grants: for `restart_wait_ms` it adopts what nodes report and
//! gives nothing new. A new life of a node does not inherit the slots of the one before, which may still run. A backend that
//! comes to the table later may be in use from an earlier time: until every holder has reported since, it is not given away.

mod backends;
mod ceiling;
mod holder;
pub mod plan;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use relay_log::planted::{Bug, is_planted};
use relay_protocol::cluster::{SlotDemand, SlotGrant};

use self::backends::each;
pub use self::ceiling::LATE_HEARTBEAT_MS;
use self::holder::Holder;
use self::plan::{Claim, Offer, share_out};

/// Unit of service in the fair plan: one slot for one millisecond at weight 1.
const SERVICE_UNIT: u128 = 1 << 20;

/// Times of the lease rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseRules {
    /// Silence after which a node has stopped using its slots, in milliseconds.
    pub lease_ttl_ms: u64,
    /// Time after the start in which only reported slots are granted again, in milliseconds: `lease_ttl_ms`, or 0 where no
    /// earlier table can have granted anything.
    pub restart_wait_ms: u64,
    /// How far ahead in slot-time a node may be before its slot goes to one that waits, in milliseconds.
    pub turn_ms: u64,
}

/// What is known of a backend's use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offering {
    /// Never probed: who holds slots keeps them.
    Unknown,
    /// Usable, with these models, sorted.
    Usable(Vec<String>),
    /// Not usable: its slots are asked back.
    Down,
}

/// One heartbeat, as far as slots are concerned.
#[derive(Debug, Clone, Copy)]
pub struct Report<'a> {
    /// Name of the node.
    pub node: &'a str,
    /// Its life.
    pub incarnation: u64,
    /// Whether it goes down: it gets nothing new.
    pub draining: bool,
    /// Whether it takes work: only then it gets slots that nobody asked for.
    pub ready: bool,
    /// Jobs by model.
    pub demand: &'a [SlotDemand],
    /// What it has, and uses.
    pub holds: &'a [SlotGrant],
}

/// What a node is told about its slots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    /// All that it may use from now on, sorted by backend; none with 0 slots.
    pub slots: Vec<SlotGrant>,
    /// Whether a slot can change hands with its next heartbeat: ask for it soon.
    pub hand_over: bool,
}

#[derive(Debug)]
struct BackendSlots {
    name: Arc<str>,
    slots: u32,
    offering: Offering,
    /// Nobody gets its slots any more.
    closed: bool,
    /// Slots that all holders together may believe to have.
    taken: u64,
    /// Requests that they reported.
    used: u64,
    /// Holders that did not report since it is in the table.
    silent: usize,
}

/// Name and life of a node.
type HolderId = (Arc<str>, u64);

/// The lease table: one writer, no clock.
#[derive(Debug)]
pub struct LeaseTable {
    rules: LeaseRules,
    grants_from_ms: u64,
    accrued_ms: u64,
    /// Sorted by name.
    backends: Vec<BackendSlots>,
    holders: BTreeMap<HolderId, Holder>,
}

impl LeaseTable {
    /// A table that begins at `now_ms` with these backends (name, slots); a name that comes twice counts once.
    pub fn new(rules: LeaseRules, now_ms: u64, backends: impl IntoIterator<Item = (Arc<str>, u32)>) -> Self {
        let backends: BTreeMap<_, _> = backends.into_iter().collect();
        let known = |(name, slots)| BackendSlots::new(name, slots, 0);
        let wait_ms = if is_planted(Bug::LeaderDoesNotWait) { 0 } else { rules.restart_wait_ms };
        Self {
            rules,
            grants_from_ms: now_ms.saturating_add(wait_ms),
            accrued_ms: now_ms,
            backends: backends.into_iter().map(known).collect(),
            holders: BTreeMap::new(),
        }
    }

    /// What a probe found; an unknown backend is ignored.
    pub fn offer(&mut self, backend: &str, offering: Offering) {
        if let Ok(at) = self.place_of(backend) {
            self.backends[at].offering = offering;
        }
    }

    /// Takes a node's report and says what it may use. Lives below `report.incarnation` keep what they may hold until
    /// their time is over, but want nothing any more.
    pub fn heartbeat(&mut self, now_ms: u64, report: Report<'_>) -> Grants {
        self.pass_time(now_ms);
        let id: HolderId = (report.node.into(), report.incarnation);
        for (_, holder) in self.holders.range_mut((id.0.clone(), 0)..id.clone()) {
            holder.wants_nothing();
        }
        let least_served = self.holders.values().filter(|holder| holder.wants() > 0).map(|holder| holder.served).min();
        let backends = &mut self.backends;
        let holder = match self.holders.entry(id.clone()) {
            Entry::Occupied(known) => {
                let holder = known.into_mut();
                each(backends, holder, BackendSlots::discount);
                holder
            }
            Entry::Vacant(new) => new.insert(Holder::new(backends.len())),
        };
        holder.report(now_ms, report, least_served.unwrap_or(0), |name| {
            backends.binary_search_by(|known| (*known.name).cmp(name)).ok()
        });
        holder.sum_up();
        let targets = self.targets(&id);
        let Some(holder) = self.holders.get_mut(&id) else { return Grants::default() };
        let settled = now_ms >= self.grants_from_ms;
        let grants = grant(&self.backends, holder, now_ms, settled, &targets);
        holder.sum_up();
        each(&mut self.backends, holder, BackendSlots::count);
        grants
    }

    /// Forgets holders whose time is over.
    pub fn pass_time(&mut self, now_ms: u64) {
        let elapsed = u128::from(now_ms.saturating_sub(self.accrued_ms));
        self.accrued_ms = self.accrued_ms.max(now_ms);
        let ttl = self.rules.lease_ttl_ms;
        let backends = &mut self.backends;
        self.holders.retain(|_, holder| {
            let lives = now_ms < holder.heard_ms.saturating_add(ttl);
            if !lives {
                each(backends, holder, BackendSlots::discount);
            }
            lives
        });
        for holder in self.holders.values_mut() {
            let busy = holder.occupied.min(holder.wants());
            holder.served += elapsed * u128::from(busy) * SERVICE_UNIT / u128::from(holder.weight());
        }
    }

    /// The holder's fair slots, one number for each backend.
    fn targets(&self, id: &HolderId) -> Vec<u32> {
        let offers: Vec<_> = self.backends.iter().map(BackendSlots::offer).collect();
        let claims: Vec<_> = self.holders.values().map(Holder::claim).collect();
        let plan = share_out(&offers, &claims, u128::from(self.rules.turn_ms) * SERVICE_UNIT);
        let row = self.holders.keys().position(|known| known == id).and_then(|row| plan.row(row));
        row.map_or_else(|| vec![0; offers.len()], <[u32]>::to_vec)
    }

    /// Slots that holders may believe to have (at most what there is: reports that cross can add up to more for a moment),
    /// and slots in use by their last word.
    pub fn usage(&self, backend: &str) -> (u32, u32) {
        let Ok(at) = self.place_of(backend) else { return (0, 0) };
        let known = &self.backends[at];
        let used = u32::try_from(known.used).unwrap_or(u32::MAX);
        (u32::try_from(known.taken).unwrap_or(u32::MAX).min(known.slots), used)
    }

    /// What a life of a node was granted last, with what it uses.
    pub fn granted(&self, node: &str, incarnation: u64) -> Vec<SlotGrant> {
        let Some(holder) = self.holders.get(&(Arc::from(node), incarnation)) else { return Vec::new() };
        let pairs = self.backends.iter().zip(&holder.held).filter(|(_, held)| held.granted > 0 || held.in_use > 0);
        let grant = |(backend, held): (&BackendSlots, &holder::Held)| SlotGrant {
            backend: backend.name.to_string(),
            slots: held.granted,
            in_use: held.in_use,
        };
        pairs.map(grant).collect()
    }
}

impl BackendSlots {
    /// Its part in the fair plan.
    fn offer(&self) -> Offer<'_> {
        match &self.offering {
            Offering::Usable(models) if !self.closed => Offer { slots: self.slots, models },
            Offering::Usable(_) | Offering::Unknown | Offering::Down => Offer { slots: 0, models: &[] },
        }
    }
}

impl Holder {
    /// Its part in the fair plan.
    fn claim(&self) -> Claim<'_> {
        Claim {
            demand: if self.draining { &[] } else { &self.demand },
            served: self.served,
            weight: self.weight(),
            held: &self.granted,
            spare: self.spare,
        }
    }
}

/// Gives `holder`, which is not counted in `backends`, its targets as far as nobody else may still hold them.
fn grant(backends: &[BackendSlots], holder: &mut Holder, now_ms: u64, settled: bool, targets: &[u32]) -> Grants {
    let mut answer = Grants::default();
    for ((backend, held), &fair) in backends.iter().zip(&mut holder.held).zip(targets) {
        let settled = settled && backend.silent == 0;
        let room = u64::from(backend.slots).saturating_sub(backend.taken) as u32;
        let target = match backend.offering {
            _ if backend.closed => 0,
            _ if holder.draining => held.in_use,
            Offering::Unknown => held.reported,
            Offering::Usable(_) => fair,
            Offering::Down => 0,
        };
        let granted = target.min(room).min(if settled { u32::MAX } else { held.reported });
        held.granted = granted;
        held.ceiling.raise(now_ms, granted.max(held.reported).max(held.in_use));
        // It can give back unused slots, or others can, who are asked to.
        answer.hand_over |= held.reported > granted.max(held.in_use);
        answer.hand_over |= settled && granted < target && backend.used < backend.taken;
        if granted > 0 {
            answer.slots.push(SlotGrant { backend: backend.name.to_string(), slots: granted, in_use: 0 });
        }
    }
    answer
}
