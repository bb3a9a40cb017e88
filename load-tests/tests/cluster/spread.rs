//! Sessions of real clients on real nodes: they spread, and a node that carries more gets fewer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use client_cli::{Client, ClientSettings};
use serde_json::Value;

use crate::processes::{Cluster, PATIENCE};

/// Under this use of a core a node is idle; over the other one it is busy.
const IDLE_CORES: f64 = 0.1;
const BUSY_CORES: f64 = 0.3;

fn settings(servers: &str, placement: bool) -> ClientSettings {
    // A client that gets no answer in time stays where it asked: that is not what is tested here.
    let patient = ClientSettings {
        placement_timeout: PATIENCE,
        attempt_timeout: PATIENCE,
        connect_timeout: PATIENCE,
        ..ClientSettings::default()
    };
    ClientSettings { servers: servers.to_owned(), placement, ..patient }
}

/// Opens so many sessions at the same time.
async fn sessions(count: usize, settings: &ClientSettings) -> anyhow::Result<Vec<Client>> {
    let clients = (0..count).map(|_| Client::connect(settings.clone()));
    Ok(futures_util::future::try_join_all(clients).await?)
}

fn on(clients: &[Client], node: &str) -> usize {
    clients.iter().filter(|client| client.node() == node).count()
}

/// Asks the coordinator for its nodes until they are as wanted; loads by name of the node.
async fn await_loads(cluster: &Cluster, wanted: impl Fn(&[(String, Value)]) -> bool) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let nodes: Value = reqwest::get(format!("{}/v1/nodes", cluster.coordinator.url)).await?.json().await?;
        let nodes = nodes["nodes"].as_array().context("no nodes")?;
        let ready = nodes.iter().filter(|node| node["state"] == "ready");
        let loads: Vec<(String, Value)> =
            ready.map(|node| (node["node"].as_str().unwrap_or_default().to_owned(), node["load"].clone())).collect();
        if loads.len() == cluster.nodes.len() && wanted(&loads) {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "the loads do not come: {loads:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_sessions_spreads_and_a_node_that_has_many_gets_fewer() -> anyhow::Result<()> {
    relay_runtime::tls::install_provider();
    // Processors that other tests keep busy must not count here.
    let worth = [("RELAY__PLACEMENT__CORE_SESSIONS", "0")];
    let reachable = [("RELAY__NODE__ADVERTISED_URL", "auto")];
    let cluster = tokio::task::block_in_place(|| Cluster::start_with(3, &[], &worth, &reachable))?;
    await_loads(&cluster, |_| true).await?;
    let pinned = sessions(12, &settings(&cluster.nodes[0].url, false)).await?;
    assert_eq!(on(&pinned, "node-1"), 12);
    await_loads(&cluster, |loads| loads.iter().any(|(node, load)| node == "node-1" && load["sessions"] == 12)).await?;

    // All ask the loaded node, and all between two of its heartbeats or so.
    let placed = sessions(24, &settings(&cluster.nodes[0].url, true)).await?;
    let counts = ["node-1", "node-2", "node-3"].map(|node| on(&placed, node));
    println!("of 24 sessions beside 12 on node-1: {counts:?}");
    // What was placed is counted by its node's next heartbeat, sooner or later than another's: not to the session.
    ensure!(counts[0] <= 6, "{counts:?}: the loaded node gets fewer");
    ensure!(counts[1].abs_diff(counts[2]) <= 10, "{counts:?}: no other node gets nearly all");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_processors_are_busy_gets_no_sessions_while_others_are_idle() -> anyhow::Result<()> {
    relay_runtime::tls::install_provider();
    let worth = [("RELAY__PLACEMENT__CORE_SESSIONS", "1000")];
    let reachable = [("RELAY__NODE__ADVERTISED_URL", "auto")];
    let cluster = tokio::task::block_in_place(|| Cluster::start_with(2, &[], &worth, &reachable))?;
    let stop = Arc::new(AtomicBool::new(false));
    let http = reqwest::Client::new();
    let hammers: Vec<_> = (0..8)
        .map(|_| {
            let (http, stop, url) = (http.clone(), stop.clone(), format!("{}/metrics", cluster.nodes[0].url));
            tokio::spawn(async move { while !stop.load(Ordering::Relaxed) && http.get(&url).send().await.is_ok() {} })
        })
        .collect();
    let cores = |load: &Value| load["cpu"].as_f64().unwrap_or(f64::NAN);
    await_loads(&cluster, |loads| {
        let of = |name: &str| loads.iter().find(|(node, _)| node == name).map(|(_, load)| cores(load));
        of("node-1").is_some_and(|busy| busy > BUSY_CORES) && of("node-2").is_some_and(|idle| idle < IDLE_CORES)
    })
    .await?;
    let placed = sessions(6, &settings(&cluster.nodes[0].url, true)).await?;
    stop.store(true, Ordering::Relaxed);
    for hammer in hammers {
        hammer.await?;
    }
    assert_eq!((on(&placed, "node-1"), on(&placed, "node-2")), (0, 6));
    Ok(())
}
