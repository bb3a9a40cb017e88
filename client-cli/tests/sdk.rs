//! The SDK against a peer: many jobs at a time, slow readers, the end of a client.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod peer;

use std::time::Duration;

use bytes::Bytes;
use client_cli::{Client, ClientError, ClientSettings, JobInput, JobRequest};
use peer::{Cut, Peer, Plan};
use relay_protocol::JobId;
use relay_protocol::session::CancelOutcomeV1;
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;

const PATIENCE: Duration = Duration::from_secs(30);

fn settings(peer: &Peer) -> ClientSettings {
    ClientSettings { servers: peer.url.clone(), ..ClientSettings::default() }
}

fn job() -> JobRequest {
    JobRequest::new("probe", JobInput::Bytes(Bytes::from_static(b"RIFF")))
}

/// Seqs of all events of one job, each of them rising.
async fn run_one(client: &Client) -> Vec<u64> {
    let mut handle = client.submit(job()).await.unwrap();
    let mut seqs = Vec::new();
    while let Some(event) = tokio::time::timeout(PATIENCE, handle.next_event()).await.expect("an event").unwrap() {
        assert_eq!(event.job_id, handle.job_id());
        seqs.push(event.seq);
    }
    assert!(seqs.windows(2).all(|two| two[0] < two[1]), "{seqs:?}");
    seqs
}

#[tokio::test]
async fn many_jobs_share_one_connection_that_is_cut_once() {
    let peer = Peer::start(Plan { cut: Some(Cut::AfterEvents(777)), ..Plan::default() }).await;
    let client = Client::connect(settings(&peer)).await.unwrap();
    assert_eq!(client.node(), "peer");
    let mut workers = JoinSet::new();
    for _ in 0..128 {
        let client = client.clone();
        workers.spawn(async move {
            for _ in 0..10 {
                let seqs = run_one(&client).await;
                assert_eq!(seqs.len(), 5, "{seqs:?}");
            }
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker.unwrap();
    }
    let seen = peer.seen.lock().unwrap();
    assert_eq!((seen.sessions, seen.jobs.len()), (2, 1_280));
    assert!(!seen.resumes.is_empty(), "what was in flight was resumed");
}

#[tokio::test]
async fn jobs_in_flight_are_bounded() {
    let peer = Peer::start(Plan { end: None, ..Plan::default() }).await;
    let client = Client::connect(ClientSettings { jobs_in_flight_max: 1, ..settings(&peer) }).await.unwrap();
    let first = client.submit(job()).await.unwrap();
    let second = client.submit(job());
    tokio::pin!(second);
    let waits = tokio::time::timeout(Duration::from_millis(100), &mut second).await;
    assert!(waits.is_err(), "the second job waits for the first");
    drop(first);
    tokio::time::timeout(PATIENCE, second).await.expect("room for the second").unwrap();
}

#[tokio::test]
async fn a_slow_reader_slows_nobody_and_gets_its_events() {
    const PROGRESS: u32 = 2_000;
    let peer = Peer::start(Plan { progress: PROGRESS, ..Plan::default() }).await;
    let client = Client::connect(settings(&peer)).await.unwrap();
    let mut slow = client.submit(job()).await.unwrap();
    // The peer answers in order: once this is answered, all events have come and most found the handle full.
    let status = tokio::time::timeout(PATIENCE, client.status(slow.job_id())).await.expect("an answer").unwrap();
    assert_eq!(status.state, "completed");
    let mut seqs = Vec::new();
    while let Some(event) = tokio::time::timeout(PATIENCE, slow.next_event()).await.expect("an event").unwrap() {
        seqs.push(event.seq);
    }
    assert!(seqs.windows(2).all(|two| two[0] < two[1]), "rising");
    assert_eq!(seqs.len(), PROGRESS as usize + 2);
    assert!(!peer.seen.lock().unwrap().resumes.is_empty(), "what was dropped was asked for again");
}

#[tokio::test]
async fn handles_that_nobody_reads_hold_up_no_submit() {
    const JOBS: usize = 40;
    const PROGRESS: u32 = 600;
    let peer = Peer::start(Plan { progress: PROGRESS, ..Plan::default() }).await;
    let client = Client::connect(settings(&peer)).await.unwrap();
    let mut handles = Vec::new();
    for _ in 0..JOBS {
        // By the second one the first one's queue is full, and so on: whoever waited for room would wait for ever.
        handles.push(tokio::time::timeout(PATIENCE, client.submit(job())).await.expect("an answer").unwrap());
    }
    for handle in &mut handles {
        let mut seqs = Vec::new();
        while let Some(event) = tokio::time::timeout(PATIENCE, handle.next_event()).await.expect("an event").unwrap() {
            seqs.push(event.seq);
        }
        assert!(seqs.windows(2).all(|two| two[0] < two[1]), "rising");
        assert_eq!(seqs.len(), PROGRESS as usize + 2);
    }
    assert_eq!(peer.seen.lock().unwrap().sessions, 1);
}

#[tokio::test]
async fn a_writer_that_waits_for_another_answer_gets_it_and_its_media() {
    // The smaller one has one part more than wait for a writer: it is the last one that finds no room.
    for bytes in [1_000_000, 6_000_000] {
        let media: Vec<u8> = (0..bytes).map(|n: u32| (n % 239) as u8).collect();
        let peer = Peer::start(Plan { media: media.clone(), ..Plan::default() }).await;
        let client = Client::connect(settings(&peer)).await.unwrap();
        let handle = client.submit(job()).await.unwrap();
        let (mut writer, mut reader) = tokio::io::duplex(1_000);
        let (fetcher, job_id) = (client.clone(), handle.job_id());
        let fetch = tokio::spawn(async move { fetcher.fetch(job_id, &mut writer).await });
        let mut read = 0;
        for until in [1, media.len() / 2, media.len()] {
            let mut part = vec![0; until - read];
            let coming = tokio::time::timeout(PATIENCE, reader.read_exact(&mut part)).await;
            coming.expect("the media goes on").unwrap();
            assert!(part[..] == media[read..until]);
            read = until;
            let answer = tokio::time::timeout(PATIENCE, client.status(job_id)).await;
            assert_eq!(answer.expect("an answer, though nobody reads the media").unwrap().state, "completed");
        }
        let fetched = tokio::time::timeout(PATIENCE, fetch).await.expect("the end").unwrap().unwrap();
        assert_eq!(fetched, media.len() as u64);
    }
}

#[tokio::test]
async fn a_job_is_watched_once_per_client() {
    let peer = Peer::start(Plan { end: None, ..Plan::default() }).await;
    let client = Client::connect(settings(&peer)).await.unwrap();
    let handle = client.submit(job()).await.unwrap();
    let mut second = client.watch(handle.job_id(), 0).await.unwrap();
    assert!(matches!(second.next_event().await, Err(ClientError::AlreadyWatched(id)) if id == handle.job_id()));
}

#[tokio::test]
async fn requests_are_answered_or_refused() {
    let peer = Peer::start(Plan::default()).await;
    let client = Client::connect(settings(&peer)).await.unwrap();
    let handle = client.submit(job()).await.unwrap();
    assert_eq!(client.status(handle.job_id()).await.unwrap().state, "completed");
    assert_eq!(client.cancel(handle.job_id()).await.unwrap(), CancelOutcomeV1::Requested);
    let unknown = client.status(JobId::from_bytes([9; 16])).await;
    assert!(matches!(unknown, Err(ClientError::Rejected(error)) if error.code == "unknown_job"));
    let missing = JobRequest::new("probe", JobInput::File("/nowhere/a.wav".into()));
    assert!(matches!(client.submit(missing).await, Err(ClientError::Io { .. })));
    let empty = JobRequest::new("probe", JobInput::Bytes(Bytes::new()));
    assert!(matches!(client.submit(empty).await, Err(ClientError::Rejected(error)) if error.code == "empty_media"));
}

#[tokio::test]
async fn a_closed_client_ends_its_handles() {
    let peer = Peer::start(Plan { end: None, ..Plan::default() }).await;
    let client = Client::connect(settings(&peer)).await.unwrap();
    let mut handle = client.submit(job()).await.unwrap();
    client.clone().close().await;
    let end = loop {
        match tokio::time::timeout(PATIENCE, handle.next_event()).await.expect("an end") {
            Ok(Some(_)) => {}
            end => break end,
        }
    };
    assert!(matches!(end, Err(ClientError::Closed)), "{end:?}");
    assert!(matches!(client.submit(job()).await, Err(ClientError::Closed)));
}

#[tokio::test]
async fn a_lost_relay_is_given_up() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let peer = runtime.spawn(Peer::start(Plan { end: None, ..Plan::default() })).await.unwrap();
    let reconnect_timeout = Duration::from_millis(300);
    let client = Client::connect(ClientSettings { reconnect_timeout, ..settings(&peer) }).await.unwrap();
    let mut handle = client.submit(job()).await.unwrap();
    runtime.shutdown_background();
    let end = loop {
        match tokio::time::timeout(PATIENCE, handle.next_event()).await.expect("an end") {
            Ok(Some(_)) => {}
            end => break end,
        }
    };
    assert!(matches!(end, Err(ClientError::NoConnection { .. })), "{end:?}");
}
