//! Which node gets the next session.

use coordinator::placement::{Candidate, Recent, SETTLE_MS, least_loaded};
use proptest::prelude::*;

fn candidate(node: &str, sessions: u64, bytes_per_s: u64, cpu: f32) -> Candidate<'_> {
    Candidate { node, url: "http://x", sessions, bytes_per_s, cpu }
}

#[test]
fn sessions_count_first_then_bytes_then_processor_then_name() {
    let best = |all: &[Candidate<'static>]| least_loaded(all.iter().copied()).map(|best| best.node);
    assert_eq!(best(&[]), None);
    assert_eq!(best(&[candidate("a", 2, 0, 0.0), candidate("b", 1, 9, 9.0)]), Some("b"));
    assert_eq!(best(&[candidate("a", 1, 2, 0.0), candidate("b", 1, 1, 9.0)]), Some("b"));
    assert_eq!(best(&[candidate("a", 1, 1, 0.5), candidate("b", 1, 1, 0.25)]), Some("b"));
    assert_eq!(best(&[candidate("b", 1, 1, 0.5), candidate("a", 1, 1, 0.5)]), Some("a"));
}

#[test]
fn a_placement_counts_until_the_nodes_own_count_has_it() {
    let mut recent = Recent::default();
    recent.sent(1_000);
    recent.sent(1_000);
    recent.sent(1_400);
    assert_eq!(recent.pending(), 3);
    recent.counted(1_000 + SETTLE_MS - 1);
    assert_eq!(recent.pending(), 3, "the clients may still be on their way");
    recent.counted(1_000 + SETTLE_MS);
    assert_eq!(recent.pending(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nobody_has_fewer_sessions_than_the_chosen_one(loads in prop::collection::vec((0_u64..5, 0_u64..5, 0.0_f32..2.0), 1..8)) {
        let names: Vec<String> = (0..loads.len()).map(|at| format!("n{at}")).collect();
        let all: Vec<_> = loads.iter().zip(&names).map(|(&(s, b, c), name)| candidate(name, s, b, c)).collect();
        let best = least_loaded(all.iter().copied()).unwrap();
        for other in &all {
            prop_assert!(best.sessions <= other.sessions);
            prop_assert!(best.sessions < other.sessions || best.bytes_per_s <= other.bytes_per_s);
        }
        let mut reversed = all.clone();
        reversed.reverse();
        prop_assert_eq!(least_loaded(reversed).map(|other| other.node), Some(best.node), "the order says nothing");
    }
}
