//! Tenants that wait get time by weight within one request of each, and none is passed by more than that.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Tenant, TenantTurns};

/// Tenants that always wait, and how large their requests are, in turn.
#[derive(Debug, Clone)]
struct Backlog {
    weight: u32,
    works_ms: Vec<u32>,
}

fn backlogs() -> impl Strategy<Value = Vec<Backlog>> {
    let works = prop::collection::vec(1..10_000_u32, 1..5);
    let backlog = (1..=20_u32, works).prop_map(|(weight, works_ms)| Backlog { weight, works_ms });
    prop::collection::vec(backlog, 2..6)
}

fn name(index: usize) -> Tenant {
    index.to_string().into()
}

impl Backlog {
    fn work_ms(&self, number: usize) -> f64 {
        f64::from(self.works_ms[number % self.works_ms.len()])
    }

    fn largest(&self) -> f64 {
        self.works_ms.iter().copied().max().map_or(0.0, f64::from)
    }
}

/// Serves `turns` requests and tells of each: whose, and how much work.
fn serve(shares: &mut TenantTurns, backlogs: &[Backlog], turns: usize) -> Vec<(usize, f64)> {
    let mut numbers = vec![0; backlogs.len()];
    let turn = |_| {
        let next = (0..backlogs.len()).min_by_key(|index| (shares.clock(&name(*index)), *index)).unwrap();
        let work_ms = backlogs[next].work_ms(numbers[next]);
        numbers[next] += 1;
        shares.took(&name(next), Some(work_ms), backlogs[next].weight);
        (next, work_ms)
    };
    (0..turns).map(turn).collect()
}

proptest! {
    #[test]
    fn what_tenants_were_given_over_their_weights_differs_by_one_request_of_each(
        backlogs in backlogs(),
        turns in 1..400_usize,
    ) {
        let mut given = vec![0.0; backlogs.len()];
        for (index, work_ms) in serve(&mut TenantTurns::default(), &backlogs, turns) {
            given[index] += work_ms / f64::from(backlogs[index].weight);
            for (one, other) in (0..given.len()).flat_map(|one| (0..one).map(move |other| (one, other))) {
                let request = |index: usize| backlogs[index].largest() / f64::from(backlogs[index].weight);
                let difference = f64::abs(given[one] - given[other]);
                prop_assert!(difference <= request(one) + request(other) + 0.1, "{given:?}");
            }
        }
    }

    #[test]
    fn nobody_who_waits_is_passed_by_more_than_its_bound(backlogs in backlogs(), before in 0..200_usize) {
        let mut shares = TenantTurns::default();
        serve(&mut shares, &backlogs, before);
        // One who was not there before, of weight 1.
        let newcomer = Backlog { weight: 1, works_ms: vec![1] };
        let all: Vec<_> = backlogs.iter().cloned().chain([newcomer]).collect();
        let served = serve(&mut shares, &all, 100);
        let mut passed = BTreeMap::<usize, f64>::new();
        for (index, work_ms) in served.into_iter().take_while(|(index, _)| *index < backlogs.len()) {
            *passed.entry(index).or_default() += work_ms;
        }
        for (index, work_ms) in passed {
            prop_assert!(work_ms <= backlogs[index].largest(), "{index} was given {work_ms} ms first");
        }
    }
}

#[test]
fn who_did_not_wait_saves_up_nothing() {
    let mut shares = TenantTurns::default();
    let (busy, idle) = (name(0), name(1));
    for _ in 0..1_000 {
        shares.took(&busy, Some(10.0), 1);
    }
    let mut turns = [0_u32, 0];
    for _ in 0..20 {
        let next = usize::from(shares.clock(&idle) < shares.clock(&busy));
        turns[next] += 1;
        shares.took(&name(next), Some(10.0), 1);
    }
    assert!(turns[0].abs_diff(turns[1]) <= 2, "{turns:?}");
}

#[test]
fn clocks_that_say_nothing_are_forgotten() {
    let mut shares = TenantTurns::default();
    for index in 0..10_000 {
        // Each comes once, then the one that always waits.
        shares.took(&name(index), Some(1.0), 1);
        shares.took(&name(usize::MAX), Some(1.0), 1);
    }
    assert!(shares.ahead.len() <= 128, "{}", shares.ahead.len());
}
