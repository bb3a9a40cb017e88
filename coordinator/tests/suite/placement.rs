//! Which node gets the next session.

use coordinator::placement::{Candidate, PlacementSettings, Recent, SETTLE_MS, least_loaded};
use proptest::prelude::*;
use relay_protocol::cluster::NodeLoad;

/// A session's weight.
const SESSION: u64 = 1_000;
const WORTH: PlacementSettings = PlacementSettings { core_sessions: 100, mib_per_s_sessions: 10 };

fn load(sessions: u32, bytes_per_s: u64, cpu: f32) -> NodeLoad {
    NodeLoad { sessions, bytes_per_s, cpu, ..NodeLoad::default() }
}

fn candidate(node: &str, weight: u64, pending: u64) -> Candidate<'_> {
    Candidate { node, url: "http://x", weight, pending, is_late: false }
}

#[test]
fn sessions_traffic_and_processors_add_up() {
    assert_eq!(WORTH.weight(&load(3, 0, 0.0)), 3 * SESSION);
    assert_eq!(WORTH.weight(&load(3, 2 * 1_048_576, 0.0)), 23 * SESSION);
    assert_eq!(WORTH.weight(&load(3, 1_048_576, 0.5)), 63 * SESSION);
    assert_eq!(WORTH.weight(&load(3, 0, 0.09)), 3 * SESSION, "what a node does for itself decides nothing");
    assert_eq!(PlacementSettings::default().weight(&load(3, u64::MAX, 64.0)), 3 * SESSION, "0 does not count");
}

#[test]
fn numbers_that_no_node_can_mean_are_bounded() {
    for cpu in [f32::NAN, f32::NEG_INFINITY, -1.0] {
        assert_eq!(WORTH.weight(&load(1, 0, cpu)), SESSION);
    }
    assert!(WORTH.weight(&load(u32::MAX, u64::MAX, f32::INFINITY)) > WORTH.weight(&load(1, 0, 1.0)));
}

#[test]
fn the_least_weight_wins_then_the_name_and_late_nodes_come_last() {
    let best = |all: &[Candidate<'static>]| least_loaded(all.iter().copied()).map(|best| best.node);
    assert_eq!(best(&[]), None);
    assert_eq!(best(&[candidate("a", 2_000, 0), candidate("b", 1_000, 0)]), Some("b"));
    assert_eq!(best(&[candidate("a", 0, 2), candidate("b", 1_000, 0)]), Some("b"));
    assert_eq!(best(&[candidate("b", 1_000, 0), candidate("a", 0, 1)]), Some("a"));
    let late = Candidate { is_late: true, ..candidate("a", 0, 0) };
    assert_eq!(best(&[late, candidate("b", 9_000, 9)]), Some("b"));
    assert_eq!(best(&[late]), Some("a"), "better than none");
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
    fn nobody_will_carry_less_than_the_chosen_one(loads in prop::collection::vec((0_u64..5_000, 0_u64..5, any::<bool>()), 1..8)) {
        let names: Vec<String> = (0..loads.len()).map(|at| format!("n{at}")).collect();
        let all: Vec<_> = loads.iter().zip(&names).map(|(&(weight, pending, is_late), name)| {
            Candidate { is_late, ..candidate(name, weight, pending) }
        }).collect();
        let best = least_loaded(all.iter().copied()).unwrap();
        for other in &all {
            prop_assert!((best.is_late, best.expected()) <= (other.is_late, other.expected()));
        }
        let mut reversed = all.clone();
        reversed.reverse();
        prop_assert_eq!(least_loaded(reversed).map(|other| other.node), Some(best.node), "the order says nothing");
    }

    #[test]
    fn a_burst_between_two_reports_fills_the_valleys(
        loads in prop::collection::vec((0_u32..50, 0_u64..4_000_000, 0.0_f32..0.5), 2..8),
        burst in 1_usize..200,
    ) {
        let names: Vec<String> = (0..loads.len()).map(|at| format!("n{at}")).collect();
        let mut all: Vec<_> = loads.iter().zip(&names).map(|(&(sessions, bytes_per_s, cpu), name)| {
            candidate(name, WORTH.weight(&load(sessions, bytes_per_s, cpu)), 0)
        }).collect();
        let mut recent = vec![Recent::default(); all.len()];
        for at in 0..burst {
            let best = least_loaded(all.iter().copied()).unwrap().node;
            let best = names.iter().position(|name| name == best).unwrap();
            recent[best].sent(at as u64);
            all[best].pending = recent[best].pending();
        }
        prop_assert_eq!(all.iter().map(|node| node.pending).sum::<u64>(), burst as u64);
        // Not by the code under test.
        let carries = |node: &Candidate<'_>| node.weight + node.pending * SESSION;
        let highest_taker = all.iter().filter(|node| node.pending > 0).map(carries).max().unwrap();
        for node in &all {
            prop_assert!(highest_taker <= carries(node) + SESSION, "{} has room left: {all:?}", node.node);
        }
    }
}
