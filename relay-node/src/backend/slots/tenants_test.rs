//! Tenants that wait at a backend share it by weight, nobody starves, and one tenant alone is served as if there were none.

use std::collections::BTreeMap;

use proptest::prelude::*;
use relay_protocol::{Priority, Task};

use super::super::breaker::{BreakerLimits, Ended};
use super::{Decided, Known, Need, Slots, Ticket};
use crate::fair::Weights;
use crate::tenants::{RuleBook, TenantSettings};

const BACKEND: &str = "only";

/// Tenants `0`, `1` and so on with these weights; others have 1.
fn rules(weights: &[u32]) -> RuleBook {
    let overrides = weights.iter().enumerate().map(|(index, weight)| format!("{index};weight={weight}")).collect();
    let settings = TenantSettings {
        calls_max: 0,
        calls_per_s: 0.0,
        calls_burst: 1,
        jobs_per_s: 0.0,
        jobs_burst: 1,
        weight: 1,
        overrides,
    };
    settings.rules().unwrap()
}

fn need(tenant: usize, units: u32) -> Need {
    Need { units: f64::from(units), tenant: tenant.to_string().into(), ..Need::of(Task::Transcribe, Some("m")) }
}

/// A backend of one slot that takes a millisecond for a unit, and is busy.
struct Busy {
    slots: Slots,
    running: Ticket,
    now_ms: u64,
}

impl Busy {
    fn new(weights: &[u32]) -> Self {
        let known = Known { models: vec!["m".to_owned()], healthy: true, granted: 1 };
        let mut slots = Slots::new(Weights::default(), BreakerLimits::default()).with_tenants(rules(weights));
        slots.update(BTreeMap::from([(BACKEND.to_owned(), known)]), 0);
        let (first, _) = slots.request(need(99, 1), 0).unwrap();
        slots.release(BACKEND, first, Ended::Well { worked_ms: Some(1) }, 0);
        let (running, _) = slots.request(need(99, 1), 0).unwrap();
        Self { slots, running, now_ms: 0 }
    }

    fn ask(&mut self, need: Need) -> Ticket {
        let (ticket, decided) = self.slots.request(need, self.now_ms).unwrap();
        assert_eq!(decided, [], "the slot is taken");
        ticket
    }

    /// What is running ends, and the next one begins.
    fn next(&mut self) -> Option<Ticket> {
        self.now_ms += 1;
        let (decided, _) = self.slots.release(BACKEND, self.running, Ended::Unknown, self.now_ms);
        let [Decided { ticket, answer: Ok(_) }] = &decided[..] else { return None };
        self.running = *ticket;
        Some(*ticket)
    }
}

#[test]
fn a_tenant_with_a_thousand_requests_does_not_starve_another() {
    let mut busy = Busy::new(&[]);
    for _ in 0..1_000 {
        busy.ask(need(0, 10));
    }
    for _ in 0..10 {
        busy.next();
    }
    let late: Vec<_> = (0..3).map(|_| busy.ask(need(1, 10))).collect();
    let next: Vec<_> = (0..6).filter_map(|_| busy.next()).collect();
    let served: Vec<_> = next.into_iter().filter(|ticket| late.contains(ticket)).collect();
    assert_eq!(served, late, "each second turn is the other's, in its own order");
}

#[test]
fn time_counts_and_not_requests() {
    let mut busy = Busy::new(&[]);
    let long: Vec<_> = (0..4).map(|_| busy.ask(need(0, 1_000))).collect();
    let short: Vec<_> = (0..40).map(|_| busy.ask(need(1, 100))).collect();
    let order: Vec<_> = std::iter::from_fn(|| busy.next()).take(22).collect();
    let of = |of: &[Ticket]| order.iter().filter(|ticket| of.contains(ticket)).count();
    assert_eq!((of(&long), of(&short)), (2, 20), "a long one for ten short ones");
}

#[test]
fn when_slots_come_back_at_once_tenants_take_turns_for_them() {
    let mut busy = Busy::new(&[2]);
    let known = |granted| {
        BTreeMap::from([(BACKEND.to_owned(), Known { models: vec!["m".to_owned()], healthy: true, granted })])
    };
    busy.slots.update(known(0), 0);
    let greedy: Vec<_> = (0..20).map(|_| busy.ask(need(0, 1))).collect();
    let other: Vec<_> = (0..20).map(|_| busy.ask(need(1, 1))).collect();
    let decided = busy.slots.update(known(10), 0);
    let of = |of: &[Ticket]| decided.iter().filter(|one| of.contains(&one.ticket)).count();
    assert_eq!((of(&greedy), of(&other)), (6, 3), "one slot is taken, and the first has twice the weight");
}

/// Requests that come: whose, how much, whether begun before, of which priority.
fn requests(tenants: usize) -> impl Strategy<Value = Vec<(usize, u32, bool, Priority)>> {
    let priority = prop::sample::select(vec![Priority::Batch, Priority::Normal, Priority::Interactive]);
    prop::collection::vec((0..tenants, 1..5_000_u32, any::<bool>(), priority), 1..120)
}

proptest! {
    #[test]
    fn nobody_is_passed_by_more_than_its_bound(
        weights in prop::collection::vec(1..=8_u32, 2..5),
        requests in requests(4),
    ) {
        let mut busy = Busy::new(&weights);
        let weight = |tenant: usize| weights.get(tenant).copied().map_or(1.0, f64::from);
        let mut waiting = BTreeMap::new();
        for (tenant, units, is_begun, _) in requests {
            let ticket = busy.ask(Need { is_begun, ..need(tenant, units) });
            waiting.insert(ticket, (tenant, f64::from(units)));
        }
        let largest = |tenant: usize, waiting: &BTreeMap<Ticket, (usize, f64)>| {
            waiting.values().filter(|(other, _)| *other == tenant).map(|(_, units)| *units).fold(0.0, f64::max)
        };
        let largest: Vec<_> = (0..4).map(|tenant| largest(tenant, &waiting)).collect();
        // Work that others were given since a tenant's last turn, while it waits.
        let mut passed = [[0.0; 4]; 4];
        while let Some(ticket) = busy.next() {
            let (served, units) = waiting.remove(&ticket).unwrap();
            passed[served] = [0.0; 4];
            for patient in (0..4).filter(|patient| waiting.values().any(|(tenant, _)| tenant == patient && *tenant != served)) {
                passed[patient][served] += units;
                let bound = largest[served] + largest[patient] * weight(served) / weight(patient) + 1.0;
                prop_assert!(passed[patient][served] <= bound, "{served} passed {patient} with {passed:?}, {bound}");
            }
        }
        prop_assert!(waiting.is_empty(), "all are served in the end");
    }

    #[test]
    fn one_tenant_is_served_in_the_order_of_its_requests_alone(weight in 1..=20_u32, requests in requests(1)) {
        let mut busy = Busy::new(&[weight]);
        let mut waiting = Vec::new();
        for (tenant, units, is_begun, _) in requests {
            let ticket = busy.ask(Need { is_begun, ..need(tenant, units) });
            // Its time, which stands still here, and half of the time that it should take.
            waiting.push((!is_begun, u64::from(units) / 2, ticket));
        }
        waiting.sort_unstable();
        let order: Vec<_> = std::iter::from_fn(|| busy.next()).collect();
        prop_assert_eq!(order, waiting.into_iter().map(|(_, _, ticket)| ticket).collect::<Vec<_>>());
    }

    #[test]
    fn what_weight_one_tenant_has_changes_nothing(weight in 1..=20_u32, requests in requests(1), slots in 0..20_u32) {
        let run = |weight| {
            let mut busy = Busy::new(&[weight]);
            for (tenant, units, is_begun, priority) in &requests {
                busy.ask(Need { is_begun: *is_begun, priority: *priority, ..need(*tenant, *units) });
            }
            let known = Known { models: vec!["m".to_owned()], healthy: true, granted: slots + 1 };
            let at_once = busy.slots.update(BTreeMap::from([(BACKEND.to_owned(), known)]), 0);
            (at_once, std::iter::from_fn(|| busy.next()).collect::<Vec<_>>())
        };
        prop_assert_eq!(run(weight), run(1));
    }
}
