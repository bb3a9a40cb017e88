//! Offsets come back as they were written, in the bytes that the metadata has for them.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[test]
fn none_is_nothing() {
    assert_eq!(Fresh::of(std::iter::empty(), 5).pack(), "");
    assert_eq!(Fresh::parse(""), Some(Fresh::default()));
}

#[test]
fn a_whole_window_is_one_run() {
    let all = Fresh::of(7..20_007, 5);
    assert!(all.pack().len() < 16, "{}", all.pack());
    assert_eq!(Fresh::parse(&all.pack()).map(|fresh| fresh.iter().count()), Some(20_000));
}

#[test]
fn of_more_than_fit_the_first_hundred_are_kept_at_least() {
    for gap in [2, 127, 129, 16_383] {
        let packed = Fresh::of((0..3_000).map(|n| n * gap), u64::MAX).pack();
        assert!(packed.len() < 470, "{gap}: {}", packed.len());
        let kept: Vec<u64> = Fresh::parse(&packed).expect("what was packed").iter().collect();
        assert!(kept.len() >= 110, "{gap}: {}", kept.len());
        assert_eq!(kept, (0..kept.len() as u64).map(|n| n * gap).collect::<Vec<_>>());
    }
}

#[test]
fn what_nobody_wrote_is_refused() {
    for text in [
        ".",
        "7",
        "7.5.*",
        "x.5.AAE",
        "7.x.AAE",
        "7.AAE",
        "7.5.AA",
        "7.5.gA",
        "18446744073709551615.5.AQE",
        "0.5.AP///////////wE",
    ] {
        assert_eq!(Fresh::parse(text), None, "{text}");
    }
}

proptest! {
    #[test]
    fn what_is_packed_comes_back(offsets in prop::collection::btree_set(any::<u32>(), 0..60), near in prop::collection::btree_set(0_u64..500, 0..100), until_ms: u64) {
        let offsets: BTreeSet<u64> = offsets.into_iter().map(u64::from).chain(near).collect();
        let fresh = Fresh::of(offsets.iter().copied(), until_ms);
        let back = Fresh::parse(&fresh.pack());
        prop_assert_eq!(back.as_ref(), Some(&fresh));
        let kept: Vec<u64> = fresh.iter().collect();
        prop_assert!(offsets.iter().copied().take(kept.len()).eq(kept.iter().copied()));
        prop_assert!(kept.len() == offsets.len() || kept.len() >= 40);
    }

    #[test]
    fn no_text_makes_it_panic(text in "[0-9]{0,20}\\.[0-9]{0,20}\\.[A-Za-z0-9+/]{0,40}") {
        if let Some(fresh) = Fresh::parse(&text) {
            prop_assert!(fresh.iter().take(100_000).count() <= 100_000);
        }
    }
}
