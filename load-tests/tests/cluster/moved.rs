//! A node with many sessions is told to end while their jobs run: each client goes on at another node, each durable event comes once and in
//! order, and no client sees an error.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use client_cli::{Client, ClientSettings, JobHandle, JobInput, JobRequest};
use load_tests::chaos::topic;
use relay_protocol::{Event, EventKind, JobId};
use tokio::task::JoinSet;

use crate::processes::{Cluster, PATIENCE};
use crate::slow_backend::SlowBackend;

/// Clients; each has a session of its own.
const CLIENTS: usize = 30;
/// Jobs of each client before the node is told to end; one more comes right after.
const JOBS_BEFORE: usize = 2;
/// Sessions move at once: clients do not wait until they notice that their node is gone.
const MOVED_WITHIN: Duration = Duration::from_secs(8);

/// Durable events that one client got of one job.
type Told = (JobId, Vec<(u64, EventKind)>);

fn job() -> JobRequest {
    JobRequest {
        model: Some("m".to_owned()),
        ..JobRequest::new("embed", JobInput::Bytes(Bytes::from_static(b"words")))
    }
}

/// Follows a job to its end.
async fn follow(mut handle: JobHandle) -> anyhow::Result<Told> {
    let event = |json: &Bytes| serde_json::from_slice::<Event>(json).context("an event");
    let first = event(handle.accepted())?;
    let mut told = vec![(first.seq, first.event)];
    while let Some(next) = tokio::time::timeout(PATIENCE, handle.next_event()).await.context("no event in time")?? {
        let event = event(&next.json)?;
        if !matches!(event.event, EventKind::Progress | EventKind::Partial) {
            told.push((event.seq, event.event));
        }
    }
    Ok((handle.job_id(), told))
}

/// Waits until no client is at the node; how long it took.
async fn await_moved(clients: &[Client], node: &str) -> anyhow::Result<Duration> {
    let began = Instant::now();
    loop {
        let left = clients.iter().filter(|client| client.node() == node).count();
        if left == 0 {
            return Ok(began.elapsed());
        }
        ensure!(began.elapsed() < MOVED_WITHIN, "{left} sessions are still at {node}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A count of the node's metrics.
async fn metric(url: &str, name: &str) -> anyhow::Result<usize> {
    let text = reqwest::get(format!("{url}/metrics")).await?.text().await?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
    Ok(line.trim().parse::<f64>()? as usize)
}

/// What lies in the log of each job, by seq.
async fn logged(bootstrap: &str) -> anyhow::Result<HashMap<JobId, Vec<(u64, EventKind)>>> {
    let mut all: HashMap<JobId, Vec<(u64, EventKind)>> = HashMap::new();
    for event in topic::read_all(bootstrap).await? {
        all.entry(event.job_id).or_default().push((event.seq, event.event));
    }
    for events in all.values_mut() {
        events.sort_unstable_by_key(|(seq, _)| *seq);
        events.dedup_by_key(|(seq, _)| *seq);
    }
    Ok(all)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sessions_of_a_node_that_ends_move_and_lose_and_double_nothing() -> anyhow::Result<()> {
    relay_runtime::tls::install_provider();
    let backend = SlowBackend::start()?;
    let reachable = [("RELAY__NODE__ADVERTISED_URL", "auto")];
    let worth = [("RELAY__PLACEMENT__CORE_SESSIONS", "0")];
    let slots = format!("{};slots=128", backend.url);
    let mut cluster = tokio::task::block_in_place(|| Cluster::start_with(3, &[&slots], &worth, &reachable))?;
    let servers = cluster.nodes.iter().map(|node| node.url.as_str()).collect::<Vec<_>>().join(",");
    let settings = ClientSettings { servers, ..ClientSettings::default() };
    let clients = (0..CLIENTS).map(|_| Client::connect(settings.clone()));
    let clients = futures_util::future::try_join_all(clients).await?;
    let here = clients.iter().filter(|client| client.node() == "node-1").count();
    ensure!(here >= CLIENTS / 5, "{here} sessions at node-1");
    let mut follows = JoinSet::new();
    for client in &clients {
        for _ in 0..JOBS_BEFORE {
            follows.spawn(follow(client.submit(job()).await?));
        }
    }
    tokio::task::block_in_place(|| backend.wait_for_requests(CLIENTS * JOBS_BEFORE))?;

    cluster.nodes[0].terminate()?;
    for client in clients.clone() {
        follows.spawn(async move { follow(client.submit(job()).await?).await });
    }
    let took = await_moved(&clients, "node-1").await?;
    println!("{here} sessions moved within {} ms", took.as_millis());
    // It goes on until its jobs have ended, which the backend holds.
    let left = metric(&cluster.nodes[0].url, "relay_sessions_moved_total{outcome=\"left\"}").await?;
    assert_eq!(left, here, "each was told where to go, and went");
    let refused = Client::connect(ClientSettings {
        servers: cluster.nodes[0].url.clone(),
        placement: false,
        connect_timeout: Duration::from_millis(500),
        ..ClientSettings::default()
    });
    ensure!(refused.await.is_err(), "a node that goes down takes no session");
    backend.answer();

    let mut told = Vec::new();
    while let Some(one) = follows.join_next().await {
        told.push(one?.context("a client saw an error")?);
    }
    assert_eq!(told.len(), CLIENTS * (JOBS_BEFORE + 1));
    ensure!(tokio::task::block_in_place(|| cluster.nodes[0].wait())?, "it ended well");
    let logged = logged(&cluster.bootstrap).await?;
    for (job_id, events) in &told {
        assert_eq!(Some(events), logged.get(job_id), "{job_id}: each durable event once and in order");
        assert_eq!(events.last().map(|(_, kind)| *kind), Some(EventKind::Completed));
    }
    Ok(())
}
