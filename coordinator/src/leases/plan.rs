//! Who should have which slots: fair by demand over time, spare slots spread. Pure; nothing is given away here.
//!
//! Slots are handed out one by one. The next goes to the claim with the lowest *served* time (slot-time received, divided
//! by its weight, as in weighted fair queueing: Demers, Keshav, Shenker, SIGCOMM 1989), so shares follow demand, and where
//! there are fewer slots than nodes they take turns. What a node holds already counts one turn in its favour: slots
//! change hands about once a turn, not with each heartbeat. Slots that nobody asked for are spread evenly, so
//! that a node that gets work can start at once.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use relay_protocol::cluster::SlotDemand;

/// One backend's slots.
#[derive(Debug, Clone, Copy)]
pub struct Offer<'a> {
    /// Requests at a time.
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
    /// Slots that it has now, one number for each offer.
    pub held: Vec<u32>,
    /// Whether it may have slots that nobody asked for.
    pub spare: bool,
}

/// Slots for each claim (rows) of each offer (columns). No column adds up to more than its offer's slots.
///
/// `turn` is the lead in service, for weight 1, that makes a slot change hands.
pub fn share_out(offers: &[Offer<'_>], claims: &[Claim<'_>], turn: u128) -> Vec<Vec<u32>> {
    let mut plan = Planner::new(offers, claims);
    plan.serve_demand(turn);
    plan.spread_rest();
    plan.assigned
}

struct Planner<'a> {
    offers: &'a [Offer<'a>],
    claims: &'a [Claim<'a>],
    /// Slots not yet given, by offer.
    free: Vec<u32>,
    /// Result: claim, offer.
    assigned: Vec<Vec<u32>>,
    /// Sum of each row.
    total: Vec<u32>,
}

/// Jobs of one model, and where they can run.
struct Want {
    offers: Vec<usize>,
    left: u32,
}

impl<'a> Planner<'a> {
    fn new(offers: &'a [Offer<'a>], claims: &'a [Claim<'a>]) -> Self {
        Self {
            offers,
            claims,
            free: offers.iter().map(|offer| offer.slots).collect(),
            assigned: vec![vec![0; offers.len()]; claims.len()],
            total: vec![0; claims.len()],
        }
    }

    fn serve_demand(&mut self, turn: u128) {
        let claims = self.claims;
        let mut wants: Vec<Vec<Want>> = self.claims.iter().map(|claim| self.wants(claim)).collect();
        let held: Vec<u64> =
            self.claims.iter().map(|claim| claim.held.iter().map(|&slots| u64::from(slots)).sum()).collect();
        let key = |at: usize, has: u32| {
            let (claim, has) = (&claims[at], u64::from(has));
            let keeps = u64::from(has < held[at]);
            claim.served + u128::from(has + 1 - keeps) * turn / u128::from(claim.weight.max(1))
        };
        let mut line: BinaryHeap<_> = (0..self.claims.len()).map(|at| Reverse((key(at, 0), 0, at))).collect();
        while let Some(Reverse((_, _, at))) = line.pop() {
            // No slot for it now means none later: free slots only get fewer.
            let Some((want, offer)) = self.best(at, &wants[at]) else { continue };
            wants[at][want].left -= 1;
            self.give(at, offer);
            line.push(Reverse((key(at, self.total[at]), self.total[at], at)));
        }
    }

    /// The claim's wants, those for a certain model first: "any" takes what they leave.
    fn wants(&self, claim: &Claim<'_>) -> Vec<Want> {
        let (certain, any): (Vec<_>, Vec<_>) = claim.demand.iter().partition(|demand| demand.model.is_some());
        let able = |model: &Option<String>, offer: &Offer<'_>| {
            model.as_ref().is_none_or(|model| offer.models.binary_search(model).is_ok())
        };
        let want = |demand: &SlotDemand| Want {
            offers: (0..self.offers.len()).filter(|&at| able(&demand.model, &self.offers[at])).collect(),
            left: demand.jobs,
        };
        certain.into_iter().chain(any).map(want).collect()
    }

    /// The want to serve next and its best offer: the one with the fewest models (others may need the versatile one),
    /// then one where the claim has slots already, then the one with the most room.
    fn best(&self, claim: usize, wants: &[Want]) -> Option<(usize, usize)> {
        let rank = |offer: &usize| {
            let keeps = self.assigned[claim][*offer] < self.claims[claim].held[*offer];
            (self.offers[*offer].models.len(), !keeps, Reverse(self.free[*offer]), *offer)
        };
        wants.iter().enumerate().filter(|(_, want)| want.left > 0).find_map(|(at, want)| {
            let offer = want.offers.iter().copied().filter(|&offer| self.free[offer] > 0).min_by_key(rank)?;
            Some((at, offer))
        })
    }

    fn spread_rest(&mut self) {
        for offer in 0..self.offers.len() {
            while self.free[offer] > 0 {
                let rank = |claim: &usize| {
                    let keeps = self.assigned[*claim][offer] < self.claims[*claim].held[offer];
                    (self.total[*claim], !keeps, *claim)
                };
                let Some(claim) = (0..self.claims.len()).filter(|&at| self.claims[at].spare).min_by_key(rank) else {
                    return;
                };
                self.give(claim, offer);
            }
        }
    }

    fn give(&mut self, claim: usize, offer: usize) {
        self.free[offer] -= 1;
        self.assigned[claim][offer] += 1;
        self.total[claim] += 1;
    }
}
