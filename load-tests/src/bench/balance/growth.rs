//! What the coordinator's decisions cost as the cluster grows: its registry and leases alone, without sockets.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use coordinator::backends::BackendEntry;
use coordinator::leases::LeaseRules;
use coordinator::placement::PlacementSettings;
use coordinator::registry::core::Sender;
use coordinator::registry::{Registry, RegistryRules};
use relay_protocol::SessionId;
use relay_protocol::cluster::{Heartbeat, NodeLoad, SessionInfo, SlotDemand, SlotGrant};

use super::super::report::Row;
use super::backend::MODEL;
use super::trace::SLOTS;

/// (backends, nodes, sessions of all nodes).
const SIZES: [(usize, usize, usize); 8] =
    [(1, 1, 0), (10, 10, 0), (50, 10, 0), (200, 10, 0), (50, 50, 0), (200, 50, 0), (200, 50, 1_000), (200, 50, 10_000)];
/// Rounds of heartbeats that are measured, after some that are not.
const ROUNDS: usize = 40;
const ROUNDS_BEFORE: usize = 10;
/// Time between two of them, in milliseconds.
const ROUND_MS: u64 = 500;
/// Sessions that are placed for the measure.
const PLACED: usize = 1_000;

/// One line for each size.
pub(super) fn measure() -> anyhow::Result<Vec<Row>> {
    SIZES.into_iter().map(|(backends, nodes, sessions)| of_size(backends, nodes, sessions)).collect()
}

fn of_size(backends: usize, nodes: usize, sessions: usize) -> anyhow::Result<Row> {
    let before = resident_bytes()?;
    let mut registry = registry(backends);
    let mut beats: Vec<Heartbeat> = (0..nodes).map(|at| beat(at, sessions / nodes)).collect();
    let (mut now_ms, mut took) = (0, Vec::new());
    for round in 0..ROUNDS_BEFORE + ROUNDS {
        now_ms += ROUND_MS;
        for beat in &mut beats {
            let sent = beat.clone();
            let began = Instant::now();
            let (reply, _) = registry.heartbeat(now_ms, sent, Sender::default())?;
            if round >= ROUNDS_BEFORE {
                took.push(began.elapsed());
            }
            // All that it was given is in use; half of it ends in each second round.
            let used = |slots: u32| if round % 2 == 0 { slots } else { slots.div_ceil(2) };
            let held = reply.grants.into_iter();
            beat.holds = held.map(|grant| SlotGrant { in_use: used(grant.slots), ..grant }).collect();
        }
    }
    let began = Instant::now();
    for _ in 0..PLACED {
        black_box(registry.place(now_ms).context("no node takes a session")?);
    }
    let place = began.elapsed() / PLACED as u32;
    let began = Instant::now();
    black_box(registry.view());
    let view = began.elapsed();
    let kib = resident_bytes()?.saturating_sub(before) as f64 / 1_024.0;
    took.sort_unstable();
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    let figures = vec![
        ("beat p50 us".to_owned(), us(took[took.len() / 2])),
        ("beat p99 us".to_owned(), us(took[took.len() * 99 / 100])),
        ("place us".to_owned(), us(place)),
        ("view us".to_owned(), us(view)),
        ("% of a core".to_owned(), us(took.iter().sum()) / (ROUNDS as u64 * ROUND_MS * 1_000) as f64 * 100.0),
        ("KiB".to_owned(), kib),
    ];
    Ok(Row { what: format!("{backends} backends, {nodes} nodes, {sessions} sessions"), figures })
}

fn registry(backends: usize) -> Registry {
    let entries: Vec<BackendEntry> = (0..backends).map(entry).collect();
    let rules = RegistryRules {
        incarnation: 1,
        node_timeout_ms: 3_000,
        heartbeat_interval_ms: ROUND_MS,
        heartbeat_fast_ms: 100,
        forget_after_ms: 60_000,
        nodes_max: 1_000,
        leases: LeaseRules { lease_ttl_ms: 5_000, restart_wait_ms: 0, turn_ms: 5_000 },
        placement: PlacementSettings { core_sessions: 100, mib_per_s_sessions: 10 },
    };
    let mut registry = Registry::new(rules, 0, &entries);
    for entry in &entries {
        registry.probed(&entry.url, Ok(vec![MODEL.to_owned()]));
    }
    registry
}

fn entry(at: usize) -> BackendEntry {
    BackendEntry { url: format!("http://b{at}").into(), via: None, slots: SLOTS as u32, api_key_file: None }
}

/// A busy node: it always wants more than there is.
fn beat(at: usize, sessions: usize) -> Heartbeat {
    let session = |number: usize| SessionInfo {
        session_id: SessionId::new((at as u128) << 64 | number as u128),
        tenant: "tenant".to_owned(),
        subject: "subject".to_owned(),
        node: String::new(),
        jobs: 1,
        opened_at_ms: 1,
    };
    Heartbeat {
        node: format!("node-{at}"),
        incarnation: 1,
        advertised_url: Some(format!("http://node-{at}:8080")),
        version: "0".to_owned(),
        ready: true,
        draining: false,
        load: NodeLoad { sessions: sessions as u32, ..NodeLoad::default() },
        demand: vec![SlotDemand { model: Some(MODEL.to_owned()), jobs: 100 }],
        holds: Vec::new(),
        sessions: (0..sessions).map(session).collect(),
    }
}

/// Memory of this process.
fn resident_bytes() -> anyhow::Result<u64> {
    let pages = std::fs::read_to_string("/proc/self/statm")?;
    let resident: u64 = pages.split_whitespace().nth(1).context("no resident pages")?.parse()?;
    Ok(resident * 4_096)
}
