//! `kill -9` of the real binary: whatever was accepted ends exactly once after the restart.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use relay_protocol::EventKind::{Completed, Progress, Restarted, Started};
use relay_protocol::{Event, EventKind, topics};
use reqwest::multipart::{Form, Part};
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::api::{Api, answer, expect_sound};
use crate::cluster::{PATIENCE, open_log, records};
use crate::processes::{Relay, wav};

/// One job at a time, so that the others wait when the relay dies.
const ONE_AT_A_TIME: [(&str, &str); 2] = [("RELAY__BUILTIN__SLOTS", "1"), ("RELAY__LANES__RUNNING_MAX", "2")];
/// Length of the job that is interrupted, in seconds of sound: some seconds of work.
const LONG_S: u32 = 900;

/// Submits a job over a file of its own in the object store.
pub(crate) async fn submit_long(api: &Api, sound: &[u8]) -> String {
    let file = Part::bytes(sound.to_vec()).file_name("long.wav");
    let form = Form::new().text("task", "vad").part("file", file);
    let (status, body) = answer(api.request(Method::POST, "/v1/jobs").multipart(form)).await;
    assert_eq!(status, 202, "{body}");
    body["job_id"].as_str().unwrap().to_owned()
}

/// A small job's fields.
fn short() -> serde_json::Value {
    json!({ "task": "waveform", "input": { "inline": { "data": STANDARD.encode(wav(1)) } } })
}

/// Submits small jobs until the relay is gone; sends the ids of those that it accepted.
async fn submit_until_gone(api: Api, accepted: mpsc::UnboundedSender<String>) {
    while let Ok(response) = api.request(Method::POST, "/v1/jobs").json(&short()).send().await {
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        // A receipt that is cut off is no receipt.
        if let Ok(body) = response.json::<serde_json::Value>().await {
            accepted.send(body["job_id"].as_str().unwrap().to_owned()).unwrap();
        }
    }
}

/// Every event in the log of a relay that has ended, by job.
async fn lives(data: &Path) -> BTreeMap<String, Vec<Event>> {
    let log = open_log(&data.join("log")).await;
    let mut lives: BTreeMap<String, Vec<Event>> = BTreeMap::new();
    for record in records(&*log, topics::EVENTS).await {
        let event: Event = serde_json::from_slice(record.value.as_deref().unwrap()).unwrap();
        lives.entry(event.job_id.to_string()).or_default().push(event);
    }
    lives
}

/// One `kind` at least.
fn has(events: &[Event], kind: EventKind) -> bool {
    events.iter().any(|event| event.event == kind)
}

#[actix_web::test]
async fn a_killed_relay_ends_everything_it_accepted_once() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let relay = Relay::start(&data, &ONE_AT_A_TIME).await;
    let api = relay.api();
    let long = submit_long(&api, &wav(LONG_S)).await;
    let mut stream = api.events(&long, None).await;
    while stream.next().await.expect("the job is long").event != Progress {}
    // It works now, others wait behind it, and others are on their way in when it dies.
    let (sender, mut receipts) = mpsc::unbounded_channel();
    let submits = actix_web::rt::spawn(submit_until_gone(api.clone(), sender));
    let mut accepted = Vec::new();
    while accepted.len() < 20 {
        accepted.push(timeout(PATIENCE, receipts.recv()).await.expect("receipts in time").expect("the relay lives"));
    }
    assert_eq!(api.get(&format!("/v1/jobs/{long}")).await.1["state"], "running");
    relay.kill_9().await;
    timeout(PATIENCE, submits).await.expect("the submits end in time").unwrap();
    while let Some(more) = receipts.recv().await {
        accepted.push(more);
    }
    // The second life dies while it works off what waits.
    let relay = Relay::start(&data, &ONE_AT_A_TIME).await;
    let api = relay.api();
    let mut stream = api.events(&long, None).await;
    while stream.next().await.expect("the job is long").attempt != 2 {}
    relay.kill_9().await;
    let relay = Relay::start(&data, &ONE_AT_A_TIME).await;
    let api = relay.api();
    for job in &accepted {
        api.wait_state(job, "completed").await;
        // Sound as whoever asks gets it: `life` checks.
        api.life(job).await;
    }
    api.wait_state(&long, "completed").await;
    let life = api.life(&long).await;
    relay.stop().await;
    let last = life.last().unwrap();
    assert_eq!((last.event, last.attempt), (Completed, 3), "{life:#?}");
    assert!(has(&life, Restarted) && last.result.as_ref().unwrap()["segments"].is_array(), "{life:#?}");
    let lives = lives(&data).await;
    let lost: Vec<_> = accepted.iter().chain([&long]).filter(|job| !lives.contains_key(*job)).collect();
    assert!(lost.is_empty(), "accepted jobs are lost: {lost:?}");
    // Also what got no receipt in time ended once, if it was taken at all.
    for (job, written) in &lives {
        expect_ended_once(job, written);
    }
}

/// One terminal event, and no number given twice.
fn expect_ended_once(job: &str, written: &[Event]) {
    assert_eq!(written.iter().filter(|event| event.event.is_terminal()).count(), 1, "job {job}: {written:#?}");
    let seqs: BTreeSet<u64> = written.iter().map(|event| event.seq).collect();
    assert_eq!(seqs.len(), written.len(), "job {job}: {written:#?}");
    let last = written.iter().max_by_key(|event| event.seq).unwrap();
    assert!(last.event.is_terminal(), "job {job}: {written:#?}");
}

#[actix_web::test]
async fn what_had_ended_before_the_kill_is_not_done_again() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let relay = Relay::start(&data, &[]).await;
    let api = relay.api();
    let mut before = Vec::new();
    for _ in 0..10 {
        let job = api.submit(short()).await;
        api.wait_state(&job, "completed").await;
        before.push((api.life(&job).await, job));
    }
    relay.kill_9().await;
    let relay = Relay::start(&data, &[]).await;
    let api = relay.api();
    let after = api.submit(short()).await;
    api.wait_state(&after, "completed").await;
    for (life, job) in &before {
        assert_eq!(&api.life(job).await, life);
    }
    relay.stop().await;
    let lives = lives(&data).await;
    assert_eq!(lives.len(), 11);
    for (job, mut written) in lives {
        assert_eq!(written.iter().filter(|event| event.event == Started).count(), 1, "{job}: {written:#?}");
        written.sort_by_key(|event| event.seq);
        expect_sound(&written);
    }
}

#[actix_web::test]
async fn a_cancel_that_was_promised_before_the_kill_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let relay = Relay::start(&data, &[]).await;
    let api = relay.api();
    let mut jobs = Vec::new();
    for _ in 0..10 {
        jobs.push(api.submit(json!({ "not_before": "2199-01-01T00:00:00Z" })).await);
    }
    for job in &jobs {
        assert_eq!(api.delete(&format!("/v1/jobs/{job}")).await.0, 202);
    }
    relay.kill_9().await;
    let relay = Relay::start(&data, &[]).await;
    for job in &jobs {
        relay.api().wait_state(job, "cancelled").await;
    }
    relay.stop().await;
    for (job, mut written) in lives(&data).await {
        written.sort_by_key(|event| event.seq);
        assert_eq!(written.last().unwrap().event, EventKind::Cancelled, "{job}");
        expect_sound(&written);
    }
}
