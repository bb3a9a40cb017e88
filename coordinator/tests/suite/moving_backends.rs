//! Backends that come, leave and are drained while nodes hold slots: the registry's core.

use coordinator::backends::BackendEntry;
use coordinator::backends::roster::{Found, Roster};
use coordinator::leases::{LATE_HEARTBEAT_MS, LeaseRules};
use coordinator::placement::PlacementSettings;
use coordinator::registry::core::Sender;
use coordinator::registry::{Registry, RegistryRules};
use proptest::prelude::*;
use relay_protocol::cluster::{BackendInfo, BackendNameInfo, BackendState, Heartbeat, SlotDemand, SlotGrant};

use crate::support::heartbeat;

const TTL_MS: u64 = 5_000;
const NAME: &str = "http://ai";

fn registry(restart_wait_ms: u64) -> Registry {
    let rules = RegistryRules {
        incarnation: 7,
        node_timeout_ms: 3_000,
        heartbeat_interval_ms: 500,
        heartbeat_fast_ms: 300,
        forget_after_ms: 60_000,
        nodes_max: 10,
        leases: LeaseRules { lease_ttl_ms: TTL_MS, restart_wait_ms, turn_ms: 5_000 },
        placement: PlacementSettings { core_sessions: 100, mib_per_s_sessions: 10 },
    };
    Registry::new(rules, 0, &[])
}

/// A roster whose one name leads to these backends, of two slots each.
fn roster(urls: &[&str]) -> Roster {
    let entry = |url: &&str| BackendEntry { url: (*url).into(), via: Some(NAME.into()), slots: 2, api_key_file: None };
    let name = BackendNameInfo { url: NAME.to_owned(), backends: urls.len() as u32, problem: None };
    let found = Found { backends: urls.iter().map(entry).collect(), names: vec![name] };
    Roster { found, ..Roster::default() }
}

fn found(registry: &mut Registry, urls: &[&str]) {
    registry.renew(&roster(urls));
    for url in urls {
        registry.probed(url, Ok(vec!["m".to_owned()]));
    }
}

/// A heartbeat of a node that wants slots, has and uses these of `http://1`; what it gets there.
fn beat(registry: &mut Registry, now_ms: u64, node: &str, holds: u32, in_use: u32) -> u32 {
    beat_all(registry, now_ms, node, &[("http://1", holds, in_use)]).iter().map(|grant| grant.slots).sum()
}

fn beat_all(registry: &mut Registry, now_ms: u64, node: &str, holds: &[(&str, u32, u32)]) -> Vec<SlotGrant> {
    let hold = |&(url, slots, in_use): &(&str, u32, u32)| SlotGrant { backend: url.to_owned(), slots, in_use };
    let holds = holds.iter().map(hold).filter(|hold| hold.slots > 0).collect();
    let demand = vec![SlotDemand { model: Some("m".to_owned()), jobs: 4 }];
    let beat = Heartbeat { holds, demand, ..heartbeat(node, 1) };
    registry.heartbeat(now_ms, beat, Sender::default()).unwrap().0.grants
}

fn shown(registry: &Registry) -> Vec<(String, BackendState)> {
    registry.view().backends.into_iter().map(|BackendInfo { url, state, .. }| (url, state)).collect()
}

#[test]
fn one_that_comes_late_may_be_in_use_from_an_earlier_time() {
    let mut registry = registry(0);
    // The node has slots of an earlier coordinator, which this one does not know.
    beat(&mut registry, 0, "old", 2, 2);
    beat(&mut registry, 0, "new", 0, 0);
    found(&mut registry, &["http://1"]);
    assert_eq!(beat(&mut registry, 100, "new", 0, 0), 0, "the other node has not said whether it uses it");
    beat(&mut registry, 200, "old", 2, 2);
    assert_eq!(beat(&mut registry, 300, "new", 0, 0), 0, "it does");
    beat(&mut registry, 200 + LATE_HEARTBEAT_MS, "old", 0, 0);
    assert_eq!(beat(&mut registry, 600, "new", 0, 0), 1, "half of them, since both want some");
}

#[test]
fn one_that_leaves_stays_until_its_work_has_ended() {
    let mut registry = registry(0);
    found(&mut registry, &["http://1"]);
    assert_eq!(beat(&mut registry, 0, "a", 0, 0), 2);
    registry.renew(&roster(&[]));
    assert_eq!(shown(&registry), [("http://1".to_owned(), BackendState::Draining)]);
    assert_eq!(registry.view().backends[0].reason.as_deref(), Some("http://ai leads there no more"));
    assert_eq!(beat(&mut registry, 500, "a", 2, 1), 0, "all slots are asked back");
    registry.tick(1_000);
    assert_eq!(shown(&registry), [("http://1".to_owned(), BackendState::Draining)], "its request runs");
    assert_eq!(beat(&mut registry, 1_000, "a", 0, 0), 0);
    registry.tick(1_100);
    assert_eq!(shown(&registry), []);
    assert!(beat_reply(&mut registry, 1_200).backends_expected, "its name leads nowhere now");
}

fn beat_reply(registry: &mut Registry, now_ms: u64) -> relay_protocol::cluster::HeartbeatReply {
    registry.heartbeat(now_ms, heartbeat("a", 1), Sender::default()).unwrap().0
}

#[test]
fn one_whose_node_died_leaves_when_the_lease_is_over() {
    let mut registry = registry(0);
    found(&mut registry, &["http://1"]);
    beat(&mut registry, 0, "a", 0, 0);
    registry.renew(&roster(&[]));
    registry.tick(TTL_MS - 1);
    assert_eq!(shown(&registry).len(), 1);
    registry.tick(TTL_MS);
    assert_eq!(shown(&registry), []);
}

#[test]
fn one_that_comes_back_serves_again() {
    let mut registry = registry(0);
    found(&mut registry, &["http://1"]);
    assert_eq!(beat(&mut registry, 0, "a", 0, 0), 2);
    registry.renew(&roster(&[]));
    assert_eq!(beat(&mut registry, 500, "a", 2, 0), 0);
    found(&mut registry, &["http://1"]);
    assert_eq!(shown(&registry), [("http://1".to_owned(), BackendState::Serving)]);
    assert_eq!(beat(&mut registry, 1_000, "a", 0, 0), 2);
}

#[test]
fn after_a_restart_nothing_is_called_drained_before_nodes_had_time_to_speak() {
    let mut registry = registry(TTL_MS);
    let mut told = roster(&["http://1"]);
    told.orders.take(3, "http://1", Some("ann"));
    registry.renew(&told);
    registry.tick(TTL_MS - 1);
    assert_eq!(shown(&registry), [("http://1".to_owned(), BackendState::Draining)]);
    registry.tick(TTL_MS);
    assert_eq!(shown(&registry), [("http://1".to_owned(), BackendState::Drained)]);
    assert_eq!(registry.view().backends[0].reason.as_deref(), Some("drained by ann"));
}

proptest! {
    /// Nodes that do as they are told, beside backends that come, go and are drained: never more in use than slots.
    #[test]
    fn no_slot_is_used_twice(steps in prop::collection::vec((0_usize..3, 0_u8..4, any::<bool>(), 0_u32..3), 1..80)) {
        let urls = ["http://1", "http://2"];
        let mut registry = registry(0);
        let (mut roster, mut offset) = (roster(&urls), 0);
        // By node and backend: believed, running.
        let mut nodes = [[(0_u32, 0_u32); 2]; 3];
        for (step, (node, listed, drains, wanted)) in steps.into_iter().enumerate() {
            let now_ms = step as u64 * 300;
            let these: Vec<&str> = (0..2).filter(|at| listed & (1 << at) != 0).map(|at| urls[at]).collect();
            roster.found = self::roster(&these).found;
            offset += 1;
            roster.orders.take(offset, urls[0], drains.then_some("ann"));
            registry.renew(&roster);
            these.iter().for_each(|url| registry.probed(url, Ok(vec!["m".to_owned()])));
            for (at, of_node) in nodes.iter_mut().enumerate() {
                let holds: Vec<_> = (0..2).map(|b| (urls[b], of_node[b].0.max(of_node[b].1), of_node[b].1)).collect();
                let grants = beat_all(&mut registry, now_ms, &format!("n{at}"), &holds);
                for backend in 0..2 {
                    let granted = grants.iter().find(|grant| grant.backend == urls[backend]).map_or(0, |grant| grant.slots);
                    of_node[backend].0 = granted;
                    if at == node {
                        // New requests only within what it has; those that run may end.
                        of_node[backend].1 = if granted > of_node[backend].1 { granted.min(wanted).max(of_node[backend].1) } else { of_node[backend].1.min(wanted) };
                    }
                }
            }
            for backend in 0..2 {
                let running: u32 = nodes.iter().map(|node| node[backend].1).sum();
                prop_assert!(running <= 2, "{running} run at {}", urls[backend]);
            }
        }
    }
}
