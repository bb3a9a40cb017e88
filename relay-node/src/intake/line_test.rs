//! Tenants take turns, whatever the others send; one alone is served in order.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const NAMES: [&str; 3] = ["a", "b", "c"];

fn spot(tenant: usize, came: u64) -> Spot {
    (NAMES[tenant].into(), came)
}

/// Takes whoever is next: its tenant and number.
fn take(line: &mut Line<()>, weights: [u32; 3]) -> Option<(usize, u64)> {
    let next = line.next()?;
    line.remove(&next).expect("it waits");
    let tenant = NAMES.iter().position(|name| **name == *next.0).expect("one of ours");
    line.took(&next.0, weights[tenant]);
    Some((tenant, next.1))
}

#[test]
fn a_flood_of_one_tenant_keeps_no_other_from_its_turn() {
    let mut line = Line::default();
    (0..1_000).for_each(|came| line.insert(spot(0, came), ()));
    (0..50).for_each(|_| _ = take(&mut line, [1; 3]));
    (1_000..1_003).for_each(|came| line.insert(spot(1, came), ()));
    let next: Vec<usize> = std::iter::from_fn(|| take(&mut line, [1; 3])).take(6).map(|(tenant, _)| tenant).collect();
    assert_eq!(next.iter().filter(|tenant| **tenant == 1).count(), 3, "{next:?}");
    assert_eq!(line.len(), 1_000 - 50 - 3);
}

#[test]
fn weights_are_shares_of_the_turns() {
    let mut line = Line::default();
    (0..300).for_each(|came| line.insert(spot(came as usize % 3, came), ()));
    let weights = [3, 2, 1];
    let mut turns = [0_u32; 3];
    std::iter::from_fn(|| take(&mut line, weights)).take(120).for_each(|(tenant, _)| turns[tenant] += 1);
    assert!(turns.iter().zip([60_u32, 40, 20]).all(|(had, share)| had.abs_diff(share) <= 2), "{turns:?}");
}

proptest! {
    #[test]
    fn one_tenant_is_served_as_it_came(mut came in prop::collection::hash_set(0..10_000_u64, 0..60), weight in 1..9_u32) {
        let mut line = Line::default();
        came.iter().for_each(|came| line.insert(spot(2, *came), ()));
        let served: Vec<u64> = std::iter::from_fn(|| take(&mut line, [1, 1, weight])).map(|(_, came)| came).collect();
        prop_assert!(served.is_sorted() && served.len() == came.len());
        came.retain(|came| !served.contains(came));
        prop_assert!(came.is_empty());
    }

    #[test]
    fn while_all_wait_turns_over_weights_differ_by_one_of_each(
        weights in prop::array::uniform3(1..6_u32), taken in 1..200_usize, leaves in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let mut line = Line::default();
        let mut spots: Vec<Spot> = (0..1_800).map(|came| spot(came as usize % 3, came)).collect();
        spots.iter().for_each(|spot| line.insert(spot.clone(), ()));
        for index in leaves {
            let gone = spots.swap_remove(index.index(spots.len()));
            prop_assert!(line.remove(&gone).is_some() && line.get(&gone).is_none());
        }
        let mut had = BTreeMap::<usize, f64>::new();
        for _ in 0..taken {
            let (tenant, _) = take(&mut line, weights).expect("somebody waits");
            *had.entry(tenant).or_default() += 1.0 / f64::from(weights[tenant]);
        }
        let had: Vec<f64> = (0..3).map(|tenant| had.get(&tenant).copied().unwrap_or_default()).collect();
        for (one, other) in [(0, 1), (0, 2), (1, 2)] {
            let request = |tenant: usize| 1.0 / f64::from(weights[tenant]);
            prop_assert!((had[one] - had[other]).abs() <= request(one) + request(other) + 0.01, "{had:?}");
        }
        prop_assert_eq!(line.len(), spots.len() - taken);
    }
}
