//! The fair plan of slots, beside a model that makes it the plain way.

use std::cmp::Reverse;

use coordinator::leases::plan::{Claim, Offer, share_out};
use proptest::prelude::*;
use relay_protocol::cluster::SlotDemand;

fn models(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn demand_for_a_rare_model_gets_the_backend_that_has_it() {
    let (common, both) = (models(&["common"]), models(&["common", "rare"]));
    let offers = [Offer { slots: 1, models: &both }, Offer { slots: 1, models: &common }];
    let wants = |model: &str| vec![SlotDemand { model: Some(model.to_owned()), jobs: 1 }];
    let (first, second) = (wants("common"), wants("rare"));
    let claim = |demand| Claim { demand, served: 0, weight: 1, held: &[(0, 1)], spare: true };
    let plan = share_out(&offers, &[claim(&first), Claim { held: &[], ..claim(&second) }], 1);
    assert_eq!([plan.row(0), plan.row(1)], [Some([0, 1].as_slice()), Some([1, 0].as_slice())]);
}

/// The plan made the plain way: each slot looks at all claims and all offers.
struct Model<'a> {
    offers: &'a [Offer<'a>],
    claims: &'a [Claim<'a>],
    free: Vec<u32>,
    assigned: Vec<Vec<u32>>,
    left: Vec<Vec<u32>>,
}

impl<'a> Model<'a> {
    fn new(offers: &'a [Offer<'a>], claims: &'a [Claim<'a>]) -> Self {
        let free = offers.iter().map(|offer| offer.slots).collect();
        let left = claims.iter().map(|claim| claim.demand.iter().map(|demand| demand.jobs).collect()).collect();
        Self { offers, claims, free, assigned: vec![vec![0; offers.len()]; claims.len()], left }
    }

    fn share_out(mut self, turn: u128) -> Vec<Vec<u32>> {
        while let Some((claim, want, offer)) = self.next(turn) {
            self.left[claim][want] -= 1;
            self.give(claim, offer);
        }
        for offer in 0..self.offers.len() {
            while self.free[offer] > 0 {
                let spare = (0..self.claims.len()).filter(|&at| self.claims[at].spare);
                let rank = |at: &usize| (self.assigned[*at].iter().sum::<u32>(), !self.keeps(*at, offer), *at);
                let Some(claim) = spare.min_by_key(rank) else { break };
                self.give(claim, offer);
            }
        }
        self.assigned
    }

    /// The claim with the least service that can still be served, its want, and the offer for it.
    fn next(&self, turn: u128) -> Option<(usize, usize, usize)> {
        let key = |at: usize| {
            let (claim, has) = (&self.claims[at], self.assigned[at].iter().map(|slots| u64::from(*slots)).sum::<u64>());
            let held: u64 = (0..self.offers.len())
                .filter(|offer| self.offers[*offer].slots > 0)
                .map(|offer| u64::from(held(claim, offer)))
                .sum();
            let ahead = has + 1 - u64::from(has < held);
            (claim.served + u128::from(ahead) * turn / u128::from(claim.weight), has, at)
        };
        let mut in_turn: Vec<usize> = (0..self.claims.len()).collect();
        in_turn.sort_by_key(|at| key(*at));
        in_turn.into_iter().find_map(|at| self.best(at).map(|(want, offer)| (at, want, offer)))
    }

    fn best(&self, claim: usize) -> Option<(usize, usize)> {
        let demand = self.claims[claim].demand;
        let mut wants: Vec<usize> = (0..demand.len()).filter(|want| self.left[claim][*want] > 0).collect();
        wants.sort_by_key(|want| demand[*want].model.is_none());
        wants.into_iter().find_map(|want| {
            let can = |offer: &usize| {
                let model = demand[want].model.as_ref();
                self.free[*offer] > 0 && model.is_none_or(|model| self.offers[*offer].models.contains(model))
            };
            let rank = |offer: &usize| {
                (self.offers[*offer].models.len(), !self.keeps(claim, *offer), Reverse(self.free[*offer]), *offer)
            };
            (0..self.offers.len()).filter(can).min_by_key(rank).map(|offer| (want, offer))
        })
    }

    fn keeps(&self, claim: usize, offer: usize) -> bool {
        self.assigned[claim][offer] < held(&self.claims[claim], offer)
    }

    fn give(&mut self, claim: usize, offer: usize) {
        self.free[offer] -= 1;
        self.assigned[claim][offer] += 1;
    }
}

fn held(claim: &Claim<'_>, offer: usize) -> u32 {
    claim.held.iter().find(|(at, _)| *at == offer).map_or(0, |(_, slots)| *slots)
}

/// Demand (model, jobs), service, slots held, whether it may have spare ones.
type AnyClaim = (Vec<(Option<usize>, u32)>, u64, Vec<u32>, bool);

fn claims() -> impl Strategy<Value = Vec<AnyClaim>> {
    let demand = prop::collection::vec((prop::option::of(0_usize..4), 0_u32..20), 0..4);
    prop::collection::vec((demand, 0_u64..1_000_000, prop::collection::vec(0_u32..5, 4), any::<bool>()), 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_is_that_of_the_model_gives_no_slot_twice_and_leaves_none_that_somebody_can_use(
        slots in prop::collection::vec(0_u32..6, 4),
        has in prop::collection::vec(prop::collection::btree_set(0_usize..4, 0..4), 4),
        claims in claims(),
    ) {
        let names: Vec<Vec<String>> = has.iter().map(|set| set.iter().map(|m| format!("m{m}")).collect()).collect();
        let offers: Vec<_> = slots.iter().zip(&names).map(|(&slots, models)| Offer { slots, models }).collect();
        let demands: Vec<Vec<SlotDemand>> = claims.iter().map(|(demand, ..)| demand.iter()
            .map(|(model, jobs)| SlotDemand { model: model.map(|m| format!("m{m}")), jobs: *jobs }).collect()).collect();
        let held: Vec<Vec<(usize, u32)>> = claims.iter().map(|(_, _, held, _)| held.iter().copied().enumerate()
            .filter(|(_, slots)| *slots > 0).collect()).collect();
        let all: Vec<_> = claims.iter().zip(&demands).zip(&held).map(|(((_, served, _, spare), demand), held)| Claim {
            demand, served: u128::from(*served), weight: 1 + served % 7, held, spare: *spare,
        }).collect();
        let plan = share_out(&offers, &all, 1_000);
        let plan: Vec<Vec<u32>> = (0..all.len()).filter_map(|row| plan.row(row)).map(<[u32]>::to_vec).collect();
        prop_assert_eq!(&plan, &Model::new(&offers, &all).share_out(1_000), "the plain way leads to the same");

        for (at, offer) in offers.iter().enumerate() {
            let given: u32 = plan.iter().map(|row| row[at]).sum();
            prop_assert!(given <= offer.slots, "{given} of {} slots", offer.slots);
            if given < offer.slots {
                prop_assert!(all.iter().all(|claim| !claim.spare), "a slot lies idle beside a node that takes any");
                for (row, claim) in plan.iter().zip(&all) {
                    let wanted: u32 = claim.demand.iter().map(|demand| demand.jobs).sum();
                    let fits = claim.demand.iter().any(|d| d.jobs > 0
                        && d.model.as_ref().is_none_or(|m| offer.models.contains(m)));
                    prop_assert!(!fits || row.iter().sum::<u32>() > 0 || wanted == 0, "unserved beside a free slot");
                }
            }
        }
    }
}
