//! The registry's core: lives, losses, joins and leaves, placements, pages of sessions.

use coordinator::backends::BackendEntry;
use coordinator::leases::LeaseRules;
use coordinator::placement::PlacementSettings;
use coordinator::registry::core::{Happening, Sender};
use coordinator::registry::view::NodeState;
use coordinator::registry::{HeartbeatRefusal, Registry, RegistryRules};
use proptest::prelude::*;
use relay_protocol::cluster::Heartbeat;

use crate::support::{heartbeat, session};

fn rules() -> RegistryRules {
    RegistryRules {
        incarnation: 7,
        node_timeout_ms: 3_000,
        heartbeat_interval_ms: 500,
        heartbeat_fast_ms: 300,
        forget_after_ms: 60_000,
        nodes_max: 3,
        leases: LeaseRules { lease_ttl_ms: 5_000, restart_wait_ms: 0, turn_ms: 5_000 },
        placement: PlacementSettings { core_sessions: 100, mib_per_s_sessions: 10 },
    }
}

fn registry() -> Registry {
    let entry = BackendEntry { url: "http://b1".into(), via: None, slots: 1, api_key_file: None };
    Registry::new(rules(), 0, &[entry])
}

fn beat(registry: &mut Registry, now_ms: u64, beat: Heartbeat) -> Vec<(&'static str, String, u64, &'static str)> {
    let by = Sender { tenant: "t".to_owned(), subject: "s".to_owned() };
    told(registry.heartbeat(now_ms, beat, by).unwrap().1)
}

fn told(happenings: Vec<Happening>) -> Vec<(&'static str, String, u64, &'static str)> {
    let tell = |happening| match happening {
        Happening::Joined { node, incarnation, reason, by } => {
            assert_eq!((by.tenant.as_str(), by.subject.as_str()), ("t", "s"));
            ("joined", node, incarnation, reason)
        }
        Happening::Left { node, incarnation, reason, .. } => ("left", node, incarnation, reason),
    };
    happenings.into_iter().map(tell).collect()
}

fn states(registry: &Registry, now_ms: u64) -> Vec<(String, String)> {
    registry.view().nodes(now_ms).into_iter().map(|node| (node.node, node.state)).collect()
}

#[test]
fn a_node_joins_restarts_is_lost_returns_and_is_forgotten() {
    let mut registry = registry();
    assert_eq!(beat(&mut registry, 0, heartbeat("a", 5)), [("joined", "a".to_owned(), 5, "new")]);
    assert_eq!(beat(&mut registry, 500, heartbeat("a", 5)), []);
    let restarted = beat(&mut registry, 1_000, heartbeat("a", 6));
    assert_eq!(restarted, [("left", "a".to_owned(), 5, "replaced"), ("joined", "a".to_owned(), 6, "restarted")]);
    assert_eq!(told(registry.tick(3_999)), []);
    assert_eq!(states(&registry, 4_000), [("a".to_owned(), "lost".to_owned())], "readers do not wait for the tick");
    assert_eq!(told(registry.tick(4_000)), [("left", "a".to_owned(), 6, "lost")]);
    assert_eq!(told(registry.tick(4_100)), [], "told once");
    assert_eq!(beat(&mut registry, 5_000, heartbeat("a", 6)), [("joined", "a".to_owned(), 6, "returned")]);
    let drains = Heartbeat { draining: true, ..heartbeat("a", 6) };
    beat(&mut registry, 5_500, drains);
    assert_eq!(states(&registry, 5_600), [("a".to_owned(), "draining".to_owned())]);
    assert_eq!(told(registry.tick(9_000)), [("left", "a".to_owned(), 6, "drained")]);
    registry.tick(5_500 + 60_000);
    assert_eq!(states(&registry, 65_500), []);
}

#[test]
fn an_older_life_is_refused_and_changes_nothing() {
    let mut registry = registry();
    beat(&mut registry, 0, heartbeat("a", 6));
    let refused = registry.heartbeat(100, heartbeat("a", 5), Sender::default());
    assert_eq!(refused, Err(HeartbeatRefusal::Stale { node: "a".to_owned(), newest: 6, refused: 5 }));
    let node = &registry.view().nodes(1_000)[0];
    assert_eq!((node.incarnation, node.heartbeat_age_ms), (6, 1_000));
}

#[test]
fn bad_heartbeats_are_refused_with_the_field() {
    let mut registry = registry();
    let mut field = |beat: Heartbeat| match registry.heartbeat(0, beat, Sender::default()) {
        Err(HeartbeatRefusal::Invalid { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(field(heartbeat("", 1)), "node");
    assert_eq!(field(heartbeat("line\nbreak", 1)), "node");
    for url in ["node:8700", "ftp://node", "http://", &format!("http://{}", "x".repeat(3_000))] {
        assert_eq!(field(Heartbeat { advertised_url: Some(url.to_owned()), ..heartbeat("a", 1) }), "advertised_url");
    }
}

#[test]
fn there_is_room_for_so_many_nodes() {
    let mut registry = registry();
    for node in ["a", "b", "c"] {
        beat(&mut registry, 0, heartbeat(node, 1));
    }
    let refused = registry.heartbeat(0, heartbeat("d", 1), Sender::default());
    assert_eq!(refused, Err(HeartbeatRefusal::TooManyNodes { nodes_max: 3 }));
    beat(&mut registry, 100, heartbeat("a", 2));
}

#[test]
fn sessions_are_placed_on_ready_reachable_nodes_and_spread_between_heartbeats() {
    let mut registry = registry();
    assert_eq!(registry.place(0), None);
    beat(&mut registry, 0, heartbeat("a", 1));
    beat(&mut registry, 0, heartbeat("b", 1));
    beat(&mut registry, 0, Heartbeat { advertised_url: None, ..heartbeat("c", 1) });
    let mut placed: Vec<String> = (0..4).map(|_| registry.place(100).unwrap().node).collect();
    placed.sort();
    assert_eq!(placed, ["a", "a", "b", "b"]);
    beat(&mut registry, 200, Heartbeat { ready: false, ..heartbeat("a", 1) });
    beat(&mut registry, 200, heartbeat("c", 1));
    assert_eq!(registry.place(300).unwrap().node, "c");
    beat(&mut registry, 400, Heartbeat { draining: true, ..heartbeat("c", 1) });
    assert_eq!(registry.place(500).unwrap().node, "b");
    assert_eq!(registry.place(3_200), None, "b is lost");
}

#[test]
fn a_loaded_node_gets_fewer_sessions_and_a_late_one_none() {
    let mut registry = registry();
    let loaded = |node: &str, cpu| {
        let mut beat = heartbeat(node, 1);
        (beat.load.sessions, beat.load.bytes_per_s, beat.load.cpu) = (0, 0, cpu);
        beat
    };
    beat(&mut registry, 0, loaded("a", 0.1));
    beat(&mut registry, 0, loaded("b", 0.0));
    let placed: Vec<String> = (0..12).map(|_| registry.place(100).unwrap().node).collect();
    let on = |name: &str| placed.iter().filter(|node| *node == name).count();
    assert_eq!((on("a"), on("b")), (1, 11), "a tenth of a core is worth ten sessions");
    let weights = |registry: &Registry| registry.view().weights(200).map(|(_, weight)| weight).collect::<Vec<_>>();
    assert_eq!(weights(&registry), [10_000, 0]);
    beat(&mut registry, 2_000, loaded("a", 9.0));
    assert_eq!(registry.place(2_100).unwrap().node, "a", "b's heartbeats are overdue");
    beat(&mut registry, 2_200, loaded("b", 0.0));
    assert_eq!(registry.place(2_300).unwrap().node, "b");
}

#[test]
fn a_backend_shows_its_last_models_and_why_it_is_down() {
    let mut registry = registry();
    let shown = |registry: &Registry| {
        let backend = registry.view().backends.remove(0);
        (backend.healthy, backend.reason, backend.models)
    };
    assert_eq!(shown(&registry), (false, Some("not probed yet".to_owned()), vec![]));
    registry.probed("http://b1", Ok(vec!["m".to_owned()]));
    assert_eq!(shown(&registry), (true, None, vec!["m".to_owned()]));
    registry.probed("http://b1", Err("gone".to_owned()));
    assert_eq!(shown(&registry), (false, Some("gone".to_owned()), vec!["m".to_owned()]));
    registry.probed("http://unknown", Ok(vec![]));
}

#[test]
fn a_reply_says_what_a_node_needs() {
    let mut registry = registry();
    registry.probed("http://b1", Ok(vec!["m".to_owned()]));
    let (reply, _) = registry.heartbeat(0, heartbeat("a", 1), Sender::default()).unwrap();
    assert_eq!((reply.coordinator_incarnation, reply.lease_ttl_ms, reply.heartbeat_interval_ms), (7, 5_000, 500));
    assert_eq!(
        reply.grants.iter().map(|grant| (grant.backend.as_str(), grant.slots)).collect::<Vec<_>>(),
        [("http://b1", 1)]
    );
    assert_eq!((reply.backends[0].slots, reply.backends[0].slots_granted), (1, 1));
    assert_eq!(registry.view().nodes_in(NodeState::Ready, 0), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pages_show_each_session_of_the_tenant_once_in_order(
        numbers in prop::collection::btree_set(any::<u128>(), 0..40),
        limit in 1_usize..10,
        tenant in prop::option::of(Just("t0")),
    ) {
        let mut registry = registry();
        let mut beats = [heartbeat("a", 1), heartbeat("b", 1)];
        for (at, number) in numbers.iter().enumerate() {
            beats[at % 2].sessions.push(session(*number, &format!("t{}", at % 3)));
        }
        let sessions = beats.iter().flat_map(|beat| &beat.sessions);
        let mut wanted: Vec<_> = sessions.filter(|s| tenant.is_none_or(|t| s.tenant == t)).map(|s| s.session_id).collect();
        wanted.sort();
        wanted.dedup();
        for one in beats {
            beat(&mut registry, 0, one);
        }
        let (view, mut seen, mut after) = (registry.view(), Vec::new(), None);
        loop {
            let page = view.sessions(100, tenant, after, limit);
            prop_assert!(page.sessions.len() <= limit);
            prop_assert!(page.sessions.iter().all(|session| !session.node.is_empty()));
            seen.extend(page.sessions.iter().map(|session| session.session_id));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        prop_assert_eq!(seen, wanted);
        prop_assert!(view.sessions(3_000, None, None, 10).sessions.is_empty(), "sessions of lost nodes are not shown");
    }
}
