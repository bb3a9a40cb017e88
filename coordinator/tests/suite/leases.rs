//! The lease table and the fair plan: who gets what, and when slots change hands.

use coordinator::leases::{Grants, LATE_HEARTBEAT_MS, LeaseRules, LeaseTable, Offering, Report};
use relay_protocol::cluster::{SlotDemand, SlotGrant};

const RULES: LeaseRules = LeaseRules { lease_ttl_ms: 5_000, restart_wait_ms: 0, turn_ms: 2_000 };
const B1: &str = "http://b1";
const B2: &str = "http://b2";

fn models(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn table(rules: LeaseRules, slots: &[(&str, u32)]) -> LeaseTable {
    let mut table = LeaseTable::new(rules, 0, slots.iter().map(|&(name, slots)| (name.into(), slots)));
    for (name, _) in slots {
        table.offer(name, Offering::Usable(models(&["m"])));
    }
    table
}

fn demand(jobs: u32) -> Vec<SlotDemand> {
    vec![SlotDemand { model: Some("m".to_owned()), jobs }]
}

/// A node that believes what it was told and uses as much of it as it has jobs.
struct Node {
    name: &'static str,
    incarnation: u64,
    jobs: u32,
    holds: Vec<SlotGrant>,
    hand_over: bool,
}

impl Node {
    fn new(name: &'static str, jobs: u32) -> Self {
        Self { name, incarnation: 1, jobs, holds: Vec::new(), hand_over: false }
    }

    fn beat(&mut self, table: &mut LeaseTable, now_ms: u64) -> u32 {
        let demand = demand(self.jobs);
        let report = Report {
            node: self.name,
            incarnation: self.incarnation,
            draining: false,
            ready: true,
            demand: &demand,
            holds: &self.holds,
        };
        let Grants { slots, hand_over } = table.heartbeat(now_ms, report);
        (self.holds, self.hand_over) = (slots, hand_over);
        let mut left = self.jobs;
        for hold in &mut self.holds {
            hold.in_use = hold.slots.min(left);
            left -= hold.in_use;
        }
        self.total()
    }

    fn total(&self) -> u32 {
        self.holds.iter().map(|hold| hold.slots).sum()
    }
}

#[test]
fn a_lone_idle_node_has_every_slot_at_once() {
    let mut table = table(RULES, &[(B1, 2), (B2, 1)]);
    assert_eq!(Node::new("a", 0).beat(&mut table, 0), 3);
    assert_eq!(table.usage(B1), (2, 0));
}

#[test]
fn a_slot_moves_only_after_its_holder_gave_it_back() {
    let mut table = table(RULES, &[(B1, 2)]);
    let (mut a, mut b) = (Node::new("a", 0), Node::new("b", 2));
    assert_eq!(a.beat(&mut table, 0), 2);
    assert_eq!(b.beat(&mut table, 1_000), 0, "a may still use them");
    assert!(b.hand_over, "b is told to ask again soon");
    assert_eq!(a.beat(&mut table, 1_500), 0, "b has work, a has none");
    assert_eq!(b.beat(&mut table, 1_600), 0, "a has not confirmed yet");
    a.beat(&mut table, 1_500 + LATE_HEARTBEAT_MS);
    assert_eq!(b.beat(&mut table, 1_900), 2);
    assert!(!b.hand_over);
}

#[test]
fn a_running_request_keeps_its_slot_until_it_ends() {
    let mut table = table(RULES, &[(B1, 1)]);
    let (mut a, mut b) = (Node::new("a", 1), Node::new("b", 1));
    a.beat(&mut table, 0);
    let busy = vec![SlotGrant { backend: B1.to_owned(), slots: 0, in_use: 1 }];
    // Asked for more than a turn, with `a` over its share, whose one request does not end.
    for step in 1..40_u64 {
        a.holds.clone_from(&busy);
        a.beat(&mut table, step * 500);
        assert_eq!(b.beat(&mut table, step * 500 + 100), 0, "the request runs at {} ms", step * 500);
    }
    a.holds.clear();
    a.beat(&mut table, 20_500);
    assert_eq!(b.beat(&mut table, 20_600), 1);
}

#[test]
fn a_silent_nodes_slots_are_free_after_the_lease() {
    let mut table = table(RULES, &[(B1, 1)]);
    let (mut a, mut b) = (Node::new("a", 1), Node::new("b", 1));
    a.beat(&mut table, 100);
    assert_eq!(b.beat(&mut table, 5_099), 0);
    assert_eq!(b.beat(&mut table, 5_100), 1);
}

#[test]
fn a_new_life_waits_for_what_the_old_one_may_still_use() {
    let mut table = table(RULES, &[(B1, 1)]);
    let mut old = Node::new("a", 1);
    old.beat(&mut table, 0);
    let mut new = Node { incarnation: 2, ..Node::new("a", 1) };
    assert_eq!(new.beat(&mut table, 1_000), 0);
    assert_eq!(new.beat(&mut table, 5_000), 1);
}

#[test]
fn after_a_restart_only_reported_slots_are_granted_until_the_wait_is_over() {
    let rules = LeaseRules { restart_wait_ms: 5_000, ..RULES };
    let mut table = table(rules, &[(B1, 2)]);
    let mut a = Node::new("a", 2);
    a.holds = vec![SlotGrant { backend: B1.to_owned(), slots: 1, in_use: 1 }];
    assert_eq!(a.beat(&mut table, 100), 1, "adopted");
    let mut b = Node::new("b", 2);
    assert_eq!(b.beat(&mut table, 4_999), 0, "somebody else may hold the second slot");
    assert_eq!(b.beat(&mut table, 5_000), 1);
}

#[test]
fn a_backend_that_was_never_probed_leaves_holders_alone_and_gives_nothing_new() {
    let mut table = LeaseTable::new(RULES, 0, [(B1.into(), 2)]);
    let mut a = Node::new("a", 2);
    assert_eq!(a.beat(&mut table, 0), 0);
    a.holds = vec![SlotGrant { backend: B1.to_owned(), slots: 1, in_use: 0 }];
    assert_eq!(a.beat(&mut table, 500), 1);
    table.offer(B1, Offering::Down);
    assert_eq!(a.beat(&mut table, 1_000), 0);
}

#[test]
fn a_draining_node_keeps_what_runs_and_nothing_else() {
    let mut table = table(RULES, &[(B1, 3)]);
    let mut a = Node::new("a", 1);
    assert_eq!(a.beat(&mut table, 0), 3);
    let report =
        Report { node: "a", incarnation: 1, draining: true, ready: false, demand: &demand(5), holds: &a.holds };
    let grants = table.heartbeat(1_000, report);
    assert_eq!(grants.slots.iter().map(|grant| grant.slots).sum::<u32>(), 1);
}

#[test]
fn one_slot_goes_round_between_nodes_that_all_want_it() {
    let mut table = table(RULES, &[(B1, 1)]);
    let mut nodes = [Node::new("a", 5), Node::new("b", 5), Node::new("c", 5)];
    let mut held_ms = [0_u64; 3];
    for step in 0..1_200_u64 {
        for (at, node) in nodes.iter_mut().enumerate() {
            // Its requests take one heartbeat: what it was asked to give back is free with the next.
            held_ms[at] += u64::from(node.beat(&mut table, step * 300 + at as u64 * 10)) * 300;
        }
    }
    let total: u64 = held_ms.iter().sum();
    assert!(total > 1_200 * 300 / 2, "the slot is mostly held, not mostly in transit: {held_ms:?}");
    for held in held_ms {
        assert!(held * 4 > total, "each gets about a third: {held_ms:?}");
    }
}

#[test]
fn slots_follow_demand_when_it_shifts() {
    let mut table = table(RULES, &[(B1, 4), (B2, 4)]);
    let (mut a, mut b) = (Node::new("a", 40), Node::new("b", 0));
    let mut now = 0;
    let mut settle = |a: &mut Node, b: &mut Node| {
        for _ in 0..12 {
            now += 300;
            a.beat(&mut table, now);
            b.beat(&mut table, now + 10);
        }
        (a.total(), b.total())
    };
    assert_eq!(settle(&mut a, &mut b), (8, 0));
    (a.jobs, b.jobs) = (2, 40);
    let (few, many) = settle(&mut a, &mut b);
    assert!(few <= 2 && many >= 6, "{few} and {many}");
    (a.jobs, b.jobs) = (20, 20);
    for _ in 0..4 {
        settle(&mut a, &mut b);
    }
    let (half, other) = settle(&mut a, &mut b);
    assert!(half.abs_diff(other) <= 2 && half + other >= 7, "{half} and {other}");
}
