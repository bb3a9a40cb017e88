//! Who should have which slots: fair by demand over time, spare slots spread. Pure; nothing is given away here.
//!
//! Slots are handed out one by one. The next goes to the claim with the lowest *served* time (slot-time received, divided
//! by its weight, as in weighted fair queueing: Demers, Keshav, Shenker, SIGCOMM 1989), so shares follow demand, and where
//! there are fewer slots than nodes they take turns. What a node holds already counts one turn in its favour: slots
//! change hands about once a turn, not with each heartbeat. Slots that nobody asked for are spread evenly, so
//! that a node that gets work can start at once.
//!
//! The work grows with the slots, the claims and the offers, not with their product: a plan is made for each heartbeat.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use relay_protocol::cluster::SlotDemand;

/// One backend's slots.
#[derive(Debug, Clone, Copy)]
pub struct Offer<'a> {
    /// Requests at a time; 0 while it is not usable.
    pub slots: u32,
    /// What it can run, sorted.
    pub models: &'a [String],
}

/// What one node wants.
#[derive(Debug, Clone)]
pub struct Claim<'a> {
    /// Jobs by model.
    pub demand: &'a [SlotDemand],
    /// Service received so far, by weight.
    pub served: u128,
    /// Share it should get, at least 1.
    pub weight: u64,
    /// Slots that it has now: (place of the offer, slots), sorted by place, each offer once.
    pub held: &'a [(usize, u32)],
    /// Whether it may have slots that nobody asked for.
    pub spare: bool,
}

/// Slots for each claim of each offer. No offer gives more slots than it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    offers: usize,
    assigned: Vec<u32>,
}

impl Plan {
    /// The claim's slots, one number for each offer; `None` if there is no such claim.
    pub fn row(&self, claim: usize) -> Option<&[u32]> {
        self.assigned.get(claim * self.offers..(claim + 1) * self.offers)
    }
}

/// Makes the plan; `turn` is the lead in service, for weight 1, that makes a slot change hands.
pub fn share_out(offers: &[Offer<'_>], claims: &[Claim<'_>], turn: u128) -> Plan {
    let mut planner = Planner::new(offers, claims);
    planner.serve_demand(turn);
    planner.spread_rest();
    planner.plan
}

/// How good an offer is for a claim, the least first: few models (others may need the versatile one), slots of it that the claim
/// has already, much room.
type Rank = (usize, bool, Reverse<u32>, usize);

/// Offers by rank; one that gave slots since may stand too far in front.
type Line = BinaryHeap<Reverse<Rank>>;

/// The offers that can run one model, or any.
struct Class {
    able: Vec<bool>,
    /// By rank as if nobody had slots of them.
    open: Line,
}

/// Jobs of one model.
struct Want {
    class: usize,
    left: u32,
    /// Those of the class of which the claim has slots.
    kept: Line,
}

struct Planner<'a> {
    offers: &'a [Offer<'a>],
    claims: &'a [Claim<'a>],
    /// Slots not yet given, by offer.
    free: Vec<u32>,
    plan: Plan,
    /// Slots of each claim in the plan.
    total: Vec<u32>,
}

impl<'a> Planner<'a> {
    fn new(offers: &'a [Offer<'a>], claims: &'a [Claim<'a>]) -> Self {
        Self {
            offers,
            claims,
            free: offers.iter().map(|offer| offer.slots).collect(),
            plan: Plan { offers: offers.len(), assigned: vec![0; offers.len() * claims.len()] },
            total: vec![0; claims.len()],
        }
    }

    fn serve_demand(&mut self, turn: u128) {
        let claims = self.claims;
        let (mut classes, mut wants) = self.wants();
        let held: Vec<u64> = claims.iter().map(|claim| self.held_of(claim)).collect();
        let key = |at: usize, has: u32| {
            let (claim, has) = (&claims[at], u64::from(has));
            let keeps = u64::from(has < held[at]);
            claim.served + u128::from(has + 1 - keeps) * turn / u128::from(claim.weight.max(1))
        };
        let mut line: BinaryHeap<_> = (0..claims.len()).map(|at| Reverse((key(at, 0), 0, at))).collect();
        while let Some(Reverse((_, _, at))) = line.pop() {
            // No slot for it now means none later: free slots only get fewer.
            let Some(offer) = self.best(at, &mut wants[at], &mut classes) else { continue };
            self.give(at, offer);
            line.push(Reverse((key(at, self.total[at]), self.total[at], at)));
        }
    }

    /// Slots that the claim has of offers that count.
    fn held_of(&self, claim: &Claim<'_>) -> u64 {
        let usable = claim.held.iter().filter(|(offer, _)| self.offers[*offer].slots > 0);
        usable.map(|(_, slots)| u64::from(*slots)).sum()
    }

    /// The wants of each claim, those for a certain model first ("any" takes what they leave), and the classes that they name.
    fn wants(&self) -> (Vec<Class>, Vec<Vec<Want>>) {
        let (mut classes, mut known) = (Vec::new(), BTreeMap::<Option<&str>, usize>::new());
        let mut all = Vec::with_capacity(self.claims.len());
        for claim in self.claims {
            let (certain, any): (Vec<_>, Vec<_>) = claim.demand.iter().partition(|demand| demand.model.is_some());
            let mut wants = Vec::with_capacity(claim.demand.len());
            for demand in certain.into_iter().chain(any) {
                let class = *known.entry(demand.model.as_deref()).or_insert_with(|| {
                    classes.push(self.class(demand.model.as_deref()));
                    classes.len() - 1
                });
                let kept = claim.held.iter().map(|(offer, _)| *offer).filter(|offer| classes[class].able[*offer]);
                let kept = kept.map(|offer| Reverse(self.rank(offer, false))).collect();
                wants.push(Want { class, left: demand.jobs, kept });
            }
            all.push(wants);
        }
        (classes, all)
    }

    fn class(&self, model: Option<&str>) -> Class {
        let is_able = |offer: &Offer<'_>| {
            let has = |model: &str| offer.models.binary_search_by(|known| known.as_str().cmp(model)).is_ok();
            offer.slots > 0 && model.is_none_or(has)
        };
        let able: Vec<bool> = self.offers.iter().map(is_able).collect();
        let open = (0..able.len()).filter(|at| able[*at]).map(|at| Reverse(self.rank(at, true))).collect();
        Class { able, open }
    }

    fn rank(&self, offer: usize, is_new: bool) -> Rank {
        (self.offers[offer].models.len(), is_new, Reverse(self.free[offer]), offer)
    }

    /// The best offer for the claim's first want that can still be served.
    fn best(&self, claim: usize, wants: &mut [Want], classes: &mut [Class]) -> Option<usize> {
        wants.iter_mut().filter(|want| want.left > 0).find_map(|want| {
            let kept = self.first(&mut want.kept, false, |offer| self.keeps(claim, offer));
            let open = self.first(&mut classes[want.class].open, true, |_| true);
            let best = kept.into_iter().chain(open).min();
            want.left = if best.is_some() { want.left - 1 } else { 0 };
            best.map(|(.., offer)| offer)
        })
    }

    /// The first offer of `line` that has a free slot and counts. One that does not will not later: slots are only given.
    fn first(&self, line: &mut Line, is_new: bool, counts: impl Fn(usize) -> bool) -> Option<Rank> {
        loop {
            let Reverse(first) = *line.peek()?;
            let (offer, now) = (first.3, self.rank(first.3, is_new));
            let is_there = self.free[offer] > 0 && counts(offer);
            if is_there && now == first {
                return Some(first);
            }
            line.pop();
            if is_there {
                line.push(Reverse(now));
            }
        }
    }

    /// Whether the claim has more slots of the offer than the plan gives it so far.
    fn keeps(&self, claim: usize, offer: usize) -> bool {
        let held = self.claims[claim].held;
        let held = held.binary_search_by_key(&offer, |(at, _)| *at).map_or(0, |at| held[at].1);
        self.plan.assigned[claim * self.offers.len() + offer] < held
    }

    fn spread_rest(&mut self) {
        let claims = self.claims;
        let spare = (0..claims.len()).filter(|&at| claims[at].spare);
        let mut line: BTreeSet<(u32, usize)> = spare.map(|at| (self.total[at], at)).collect();
        if line.is_empty() || self.free.iter().all(|free| *free == 0) {
            return;
        }
        let mut holders = vec![Vec::new(); self.offers.len()];
        for (at, claim) in claims.iter().enumerate() {
            claim.held.iter().for_each(|(offer, _)| holders[*offer].push(at));
        }
        for (offer, holders) in holders.iter().enumerate() {
            while self.free[offer] > 0 {
                let Some(&(least, first)) = line.first() else { return };
                let keeps = |at: &&usize| line.contains(&(least, **at)) && self.keeps(**at, offer);
                let claim = holders.iter().find(keeps).copied().unwrap_or(first);
                line.remove(&(least, claim));
                self.give(claim, offer);
                line.insert((self.total[claim], claim));
            }
        }
    }

    fn give(&mut self, claim: usize, offer: usize) {
        self.free[offer] -= 1;
        self.plan.assigned[claim * self.offers.len() + offer] += 1;
        self.total[claim] += 1;
    }
}
