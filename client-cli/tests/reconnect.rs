//! Sessions that go elsewhere, and nodes that fall silent.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod peer;

use std::process::{Output, Stdio};
use std::time::Duration;

use bytes::Bytes;
use client_cli::{Client, ClientError, ClientSettings, JobHandle, JobInput, JobRequest};
use peer::{Peer, Plan};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinSet;

const PATIENCE: Duration = Duration::from_secs(30);

fn settings(peer: &Peer) -> ClientSettings {
    ClientSettings { servers: peer.url.clone(), ..ClientSettings::default() }
}

fn job() -> JobRequest {
    JobRequest::new("probe", JobInput::Bytes(Bytes::from_static(b"RIFF")))
}

async fn seqs(mut handle: JobHandle) -> Vec<u64> {
    let mut seqs = Vec::new();
    while let Some(event) = tokio::time::timeout(PATIENCE, handle.next_event()).await.expect("an event").unwrap() {
        seqs.push(event.seq);
    }
    seqs
}

/// Every seq after `accepted` that a job has by this plan.
fn all_seqs(plan: &Plan, handle: &JobHandle) -> Vec<u64> {
    peer::events(plan, handle.job_id()).iter().skip(1).map(|event| event.seq).collect()
}

/// `submit --json` of a file with `RIFF` in it.
async fn submit(server: &str, args: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("a.wav");
    std::fs::write(&input, b"RIFF").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_client-cli"));
    command.args(["--server", server]).args(args).args(["submit", "--json"]).arg(input).kill_on_drop(true);
    command.env_remove("RELAY_URL").env_remove("RELAY_TOKEN").env_remove("RELAY_CA_FILE").env_remove("RUST_LOG");
    command.stdin(Stdio::null());
    tokio::time::timeout(PATIENCE, command.output()).await.expect("the CLI ends in time").unwrap()
}

/// The CLI gave up, and says so.
fn assert_no_connection(output: &Output) {
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let last: Value = serde_json::from_str(text.lines().last().expect("an error in JSON")).unwrap();
    assert_eq!((&last["error"]["code"], &last["error"]["retryable"]), (&json!("no_connection"), &json!(true)));
}

#[tokio::test]
async fn a_session_that_is_moved_goes_on_there_without_gap_or_repeat() {
    for after in [1, 2, 4] {
        let plan = Plan::default();
        let there = Peer::start(plan.clone()).await;
        let here = Peer::start(Plan { end: None, moved: Some((after, there.url.clone())), ..plan.clone() }).await;
        let client = Client::connect(settings(&here)).await.unwrap();
        let handle = client.submit(job()).await.unwrap();
        let (job_id, expected) = (handle.job_id(), all_seqs(&plan, &handle));
        assert_eq!(seqs(handle).await, expected, "moved after {after} events");
        client.submit(job()).await.unwrap();

        let (here, there) = (here.seen.lock().unwrap(), there.seen.lock().unwrap());
        assert_eq!((here.sessions, there.sessions), (1, 1));
        assert_eq!(here.goodbyes, ["closing"], "the old node is told");
        // The peer ends its sending before it reads on: all four events came before the client left.
        let resumed: Vec<_> = there.resumes.concat();
        assert!(matches!(resumed[..], [(id, seq)] if id == job_id && seq >= expected[after - 1]), "{resumed:?}");
        assert_eq!((here.jobs.len(), there.jobs.len()), (1, 1), "the next job is submitted there");
    }
}

#[tokio::test]
async fn the_node_that_a_session_is_moved_to_is_not_asked_where_to_go() {
    let elsewhere = Peer::start(Plan::default()).await;
    let placement = json!({ "node": "elsewhere", "url": elsewhere.url });
    let plan = Plan { http: vec![("/v1/placement", placement)], ..Plan::default() };
    let there = Peer::start(plan.clone()).await;
    let here = Peer::start(Plan { moved: Some((2, there.url.clone())), ..Plan::default() }).await;
    let client = Client::connect(settings(&here)).await.unwrap();
    let handle = client.submit(job()).await.unwrap();
    let expected = all_seqs(&plan, &handle);
    assert_eq!(seqs(handle).await, expected);
    let sessions = |peer: &Peer| peer.seen.lock().unwrap().sessions;
    assert_eq!((sessions(&here), sessions(&there), sessions(&elsewhere)), (1, 1, 0));
}

#[tokio::test]
async fn all_jobs_move_with_their_session() {
    let plan = Plan::default();
    let there = Peer::start(plan.clone()).await;
    let here = Peer::start(Plan { moved: Some((77, there.url.clone())), ..plan.clone() }).await;
    let client = Client::connect(settings(&here)).await.unwrap();
    let mut jobs = JoinSet::new();
    for _ in 0..64 {
        let (client, plan) = (client.clone(), plan.clone());
        jobs.spawn(async move {
            let handle = client.submit(job()).await.unwrap();
            let expected = all_seqs(&plan, &handle);
            assert_eq!(seqs(handle).await, expected);
        });
    }
    while let Some(job) = jobs.join_next().await {
        job.unwrap();
    }
    assert_eq!((here.seen.lock().unwrap().sessions, there.seen.lock().unwrap().sessions), (1, 1));
}

#[tokio::test]
async fn a_session_that_is_moved_to_nowhere_comes_back() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for url in [format!("http://{gone}"), "nowhere".to_owned()] {
        let plan = Plan { moved: Some((2, url)), ..Plan::default() };
        let peer = Peer::start(plan.clone()).await;
        let client = Client::connect(settings(&peer)).await.unwrap();
        let handle = client.submit(job()).await.unwrap();
        let expected = all_seqs(&plan, &handle);
        assert_eq!(seqs(handle).await, expected);
        client.close().await;
        let sessions = peer.seen.lock().unwrap().sessions;
        assert_eq!(sessions, 2);
    }
}

#[tokio::test]
async fn a_node_that_falls_silent_is_left_and_its_jobs_are_resumed() {
    let plan = Plan { silent_sessions: 1, ping_interval_ms: 50, ..Plan::default() };
    let peer = Peer::start(plan.clone()).await;
    let idle_timeout = Duration::from_millis(300);
    let client = Client::connect(ClientSettings { idle_timeout, ..settings(&peer) }).await.unwrap();
    // Never answered on the first session: sent again on the second.
    let handle = tokio::time::timeout(PATIENCE, client.submit(job())).await.expect("an answer").unwrap();
    let expected = all_seqs(&plan, &handle);
    assert_eq!(seqs(handle).await, expected);
    let seen = peer.seen.lock().unwrap();
    assert_eq!((seen.sessions, seen.jobs.len()), (2, 1));
}

#[tokio::test]
async fn pings_keep_a_quiet_session() {
    let peer = Peer::start(Plan { end: None, ping_interval_ms: 40, ..Plan::default() }).await;
    let idle_timeout = Duration::from_millis(400);
    let client = Client::connect(ClientSettings { idle_timeout, ..settings(&peer) }).await.unwrap();
    let _handle = client.submit(job()).await.unwrap();
    let long = async {
        while peer.seen.lock().unwrap().pings < 25 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, long).await.expect("the client pings");
    assert_eq!(peer.seen.lock().unwrap().sessions, 1, "nothing but pongs came, for longer than the time-out");
}

#[tokio::test]
async fn nodes_that_only_welcome_are_given_up() {
    let peer = Peer::start(Plan { silent_sessions: usize::MAX, ping_interval_ms: 50, ..Plan::default() }).await;
    let times = ["--idle-timeout", "200ms", "--reconnect-timeout", "700ms"];
    assert_no_connection(&submit(&peer.url, &times).await);
    assert!(peer.seen.lock().unwrap().sessions >= 2, "the client came back once at least");

    let client = ClientSettings {
        idle_timeout: Duration::from_millis(200),
        reconnect_timeout: Duration::from_millis(300),
        servers: peer.url.clone(),
        ..ClientSettings::default()
    };
    let client = Client::connect(client).await.unwrap();
    let given_up = tokio::time::timeout(PATIENCE, client.submit(job())).await.expect("an end");
    assert!(matches!(given_up, Err(ClientError::NoConnection { .. })), "{given_up:?}");
}

#[tokio::test]
async fn a_server_that_takes_connections_and_says_nothing_is_no_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    // Connections are taken, as long as the test runs, and nothing is read of them.
    let _mute = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            open.push(stream);
        }
    });
    assert_no_connection(&submit(&server, &["--connect-timeout", "400ms"]).await);
}
