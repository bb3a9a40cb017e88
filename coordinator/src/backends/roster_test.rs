//! Orders count by their offset.

use proptest::prelude::*;

use super::{ORDERS_MAX, Orders};

#[test]
fn an_older_order_that_comes_late_changes_nothing() {
    let mut orders = Orders::default();
    assert!(!orders.take(5, "http://a", None), "it was not drained before");
    assert!(!orders.take(4, "http://a", Some("ann")));
    assert_eq!(orders.drained_by("http://a"), None);
    assert!(orders.take(6, "http://a", Some("bob")));
    assert_eq!(orders.drained_by("http://a").map(|by| &**by), Some("bob"));
    assert!(!orders.take(6, "http://a", None), "the same record again");
}

#[test]
fn there_is_room_for_new_orders_where_old_ones_were_undone() {
    let mut orders = Orders::default();
    for number in 0..ORDERS_MAX as u64 {
        orders.take(number, &format!("http://b{number}"), (number > 0).then_some("ann"));
    }
    let next = ORDERS_MAX as u64;
    assert!(orders.take(next, "http://new", Some("ann")), "the undone one made room");
    assert!(!orders.take(next + 1, "http://more", Some("ann")), "the limit holds");
    assert_eq!(orders.drained().count(), ORDERS_MAX);
}

proptest! {
    #[test]
    fn the_order_of_arrival_does_not_matter(told in prop::collection::vec((0_u8..4, any::<bool>()), 0..40), seed in any::<u64>()) {
        let records: Vec<(u64, String, Option<&str>)> = told
            .iter()
            .enumerate()
            .map(|(offset, (backend, drains))| (offset as u64, format!("http://{backend}"), drains.then_some("ann")))
            .collect();
        let drained = |records: &[(u64, String, Option<&str>)]| {
            let mut orders = Orders::default();
            records.iter().for_each(|(offset, backend, by)| _ = orders.take(*offset, backend, *by));
            orders.drained().cloned().collect::<Vec<_>>()
        };
        let mut shuffled = records.clone();
        shuffled.sort_by_key(|(offset, ..)| (offset + 1).wrapping_mul(seed | 1));
        prop_assert_eq!(drained(&records), drained(&shuffled));
    }
}
