//! One job, submitted twice: by its id, or by its key.

use client_cli::{JobInput, JobRequest};
use relay_log::port::TopicPartition;
use relay_protocol::EventKind::{Accepted, Cancelled, Completed, Expired, Failed, Started};
use relay_protocol::event::Place;
use relay_protocol::record::DedupEntry;
use relay_protocol::{Event, EventKind, JobId, topics};
use serde_json::{Value, json};

use crate::api::{Api, expect_refusal, kinds};
use crate::cluster::{Cluster, PATIENCE, records};
use crate::tenants::entry;

/// The same work as [`crate::api::job`], over the SDK.
fn request() -> JobRequest {
    JobRequest::new("vad", JobInput::Bytes(bytes::Bytes::from_static(b"sound")))
}

fn place_of(body: &Value) -> Place {
    serde_json::from_value(body["last"]["place"].clone()).expect("a place")
}

/// Submits the job once more; where the second record lies.
async fn submit_again(cluster: &Cluster, job: &str) -> Place {
    let (status, body) = cluster.api().post(json!({ "id": job })).await;
    assert_eq!((status, body["job_id"].as_str()), (202, Some(job)), "{body}");
    place_of(&body)
}

/// One attempt and one end were written of the job, however often its receipt was.
async fn expect_one_run(cluster: &Cluster, job: &str) {
    let written = kinds(&cluster.written(job).await);
    let count = |wanted: EventKind| written.iter().filter(|kind| **kind == wanted).count();
    assert_eq!((count(Started), count(Completed)), (1, 1), "{written:?}");
    assert_eq!(written.iter().filter(|kind| kind.is_terminal()).count(), 1, "{written:?}");
}

/// The life of a job that repeats the end of `first`.
async fn repeat_of(api: &Api, job: &str, first: &str, kind: EventKind) -> Event {
    let life = api.life(job).await;
    assert_eq!(kinds(&life), [Accepted, kind]);
    let last = life.last().unwrap().clone();
    assert_eq!((last.attempt, last.duplicate_of), (0, Some(first.parse().unwrap())), "{last:?}");
    last
}

#[actix_web::test]
async fn a_key_belongs_to_its_tenant() {
    let scopes = "jobs:write+jobs:read";
    let tokens = [entry("ann", "red", scopes), entry("bob", "blue", scopes)].join(",");
    let (cluster, calls) = Cluster::staged(&[("RELAY__AUTH__TOKENS", &tokens)]).await;
    let (ann, bob) = (cluster.api_of("ann-token"), cluster.api_of("bob-token"));
    let anns = ann.submit(json!({ "idempotency_key": "one" })).await;
    let bobs = bob.submit(json!({ "idempotency_key": "one" })).await;
    assert_ne!(anns, bobs);
    for _ in 0..2 {
        calls.next().await.complete();
    }
    assert_eq!(ann.life(&anns).await.last().unwrap().event, Completed);
    assert_eq!(bob.life(&bobs).await.last().unwrap().event, Completed);
    cluster.stop().await;
}

#[actix_web::test]
async fn a_job_that_is_submitted_again_while_it_runs_has_one_life() {
    let (cluster, calls) = Cluster::staged(&[]).await;
    let api = cluster.api();
    let job = api.submit(json!({})).await;
    let mut stream = api.events(&job, None).await;
    stream.expect(Accepted).await;
    stream.expect(Started).await;
    let call = calls.next().await;
    let place = submit_again(&cluster, &job).await;
    let (began, at) = (tokio::time::Instant::now(), TopicPartition::new("media.jobs.default", place.partition));
    // The second record is done with while the first still runs.
    while !second_is_finished(&cluster, &at, place.offset).await {
        assert!(began.elapsed() < PATIENCE, "the second record is not settled");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    call.complete();
    stream.expect(Completed).await;
    assert!(stream.next().await.is_none());
    assert_eq!(cluster.work_off(&calls, &place).await, 0, "it ran again");
    assert_eq!(kinds(&api.life(&job).await), [Accepted, Started, Completed]);
    expect_one_run(&cluster, &job).await;
    cluster.stop().await;
}

/// Whether the commit says that the record is finished, though one below it is not.
async fn second_is_finished(cluster: &Cluster, at: &TopicPartition, offset: u64) -> bool {
    let committed = cluster.log.committed("media-relay.default", at).await.unwrap();
    committed.is_some_and(|committed| relay_node::intake::progress::Progress::unpack(&committed).is_finished(offset))
}

#[actix_web::test]
async fn an_ended_job_that_is_submitted_again_keeps_its_life() {
    let (cluster, calls) = Cluster::staged(&[]).await;
    let api = cluster.api();
    let job = api.submit(json!({})).await;
    calls.next().await.complete();
    api.wait_state(&job, "completed").await;
    let before = api.life(&job).await;
    let place = submit_again(&cluster, &job).await;
    assert_eq!(cluster.work_off(&calls, &place).await, 0, "it ran again");
    assert_eq!(api.life(&job).await, before);
    assert_eq!(api.get(&format!("/v1/jobs/{job}")).await.1["state"], "completed");
    expect_one_run(&cluster, &job).await;
    // Whoever submits it over the SDK hears its end all the same.
    let client = cluster.client(None).await;
    let again = JobRequest { job_id: Some(job.parse().unwrap()), ..request() };
    let mut handle = client.submit(again).await.unwrap();
    assert_eq!(handle.job_id().to_string(), job);
    let mut last = None;
    while let Some(event) = tokio::time::timeout(PATIENCE, handle.next_event()).await.expect("in time").unwrap() {
        last = Some(event);
    }
    assert!(last.unwrap().terminal);
    expect_one_run(&cluster, &job).await;
    client.close().await;
    cluster.stop().await;
}

#[actix_web::test]
async fn jobs_with_one_key_run_once_and_end_alike() {
    let (cluster, calls) = Cluster::staged(&[]).await;
    let (api, key) = (cluster.api(), json!({ "idempotency_key": "talk-17" }));
    let first = api.submit(key.clone()).await;
    let call = calls.next().await;
    let waits = api.submit(key.clone()).await;
    assert_ne!(waits, first);
    assert_eq!(api.get(&format!("/v1/jobs/{waits}")).await.1["state"], "queued");
    call.complete();
    api.wait_state(&first, "completed").await;
    let result = api.life(&first).await.last().unwrap().result.clone();
    assert_eq!(repeat_of(&api, &waits, &first, Completed).await.result, result);
    // Also after the end, over another door, and after a restart.
    let client = cluster.client(None).await;
    let again = JobRequest { idempotency_key: Some("talk-17".to_owned()), ..request() };
    let mut handle = client.submit(again).await.unwrap();
    let third = handle.job_id().to_string();
    while tokio::time::timeout(PATIENCE, handle.next_event()).await.expect("in time").unwrap().is_some() {}
    assert_eq!(repeat_of(&api, &third, &first, Completed).await.result, result);
    client.close().await;
    let cluster = cluster.restart().await;
    let api = cluster.api();
    let fourth = api.submit(key).await;
    assert_eq!(repeat_of(&api, &fourth, &first, Completed).await.result, result);
    // A duplicate that comes again is the same duplicate.
    let again = json!({ "id": fourth, "idempotency_key": "talk-17" });
    let place = place_of(&api.post(again).await.1);
    assert_eq!(cluster.work_off(&calls, &place).await, 0);
    assert_eq!(cluster.written(&fourth).await.iter().filter(|event| event.event.is_terminal()).count(), 1);
    assert!(calls.is_empty().await, "it ran again");
    expect_one_run(&cluster, &first).await;
    cluster.stop().await;
}

#[actix_web::test]
async fn a_duplicate_that_waits_ends_by_itself_when_its_own_time_has_come() {
    let (cluster, calls) = Cluster::staged(&[]).await;
    let (api, key) = (cluster.api(), json!({ "idempotency_key": "one" }));
    let first = api.submit(key.clone()).await;
    let call = calls.next().await;
    let cancelled = api.submit(key.clone()).await;
    assert_eq!(api.delete(&format!("/v1/jobs/{cancelled}")).await.0, 202);
    repeat_of(&api, &cancelled, &first, Cancelled).await;
    let deadline = relay_protocol::time::format_rfc3339(now_ms() + 300);
    let late = api.submit(json!({ "idempotency_key": "one", "deadline": deadline })).await;
    repeat_of(&api, &late, &first, Expired).await;
    assert_eq!(api.get(&format!("/v1/jobs/{first}")).await.1["state"], "running");
    // The end of the first is that of whoever waits for it, whatever it is.
    let last = api.submit(key).await;
    call.reject();
    let failed = repeat_of(&api, &last, &first, Failed).await;
    assert_eq!(failed.error.unwrap().code, "corrupt_media");
    assert!(calls.is_empty().await);
    cluster.stop().await;
}

fn now_ms() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64
}

#[actix_web::test]
async fn a_key_with_another_body_is_refused() {
    let (cluster, calls) = Cluster::staged(&[]).await;
    let api = cluster.api();
    let first = api.submit(json!({ "idempotency_key": "one" })).await;
    let call = calls.next().await;
    for other in [
        json!({ "idempotency_key": "one", "params": { "threshold": 0.5 } }),
        json!({ "idempotency_key": "one", "input": { "inline": { "data": "AAAA" } } }),
    ] {
        let said = expect_refusal(api.post(other).await, 409, "idempotency_key_reused");
        assert!(said.contains(&first), "{said}");
    }
    call.complete();
    api.wait_state(&first, "completed").await;
    let other = json!({ "idempotency_key": "one", "task": "loudness" });
    expect_refusal(api.post(other).await, 409, "idempotency_key_reused");
    // The same in other words is no other body.
    let named = json!({ "inline": { "data": "c291bmQ=", "name": "talk.wav", "media_type": "audio/wav" } });
    let job = api.submit(json!({ "idempotency_key": "one", "input": named })).await;
    repeat_of(&api, &job, &first, Completed).await;
    assert!(calls.is_empty().await);
    cluster.stop().await;
}

#[actix_web::test]
async fn what_ended_is_in_the_dedup_topic_beside_its_offset() {
    let (cluster, calls) = Cluster::staged(&[("RELAY__DEDUP__WINDOW_H", "2")]).await;
    let api = cluster.api();
    let first = api.submit(json!({ "idempotency_key": "one" })).await;
    calls.next().await.complete();
    api.wait_state(&first, "completed").await;
    let second = api.submit(json!({ "idempotency_key": "one" })).await;
    let (first_life, second_life) = (api.life(&first).await, api.life(&second).await);
    let written = records(&*cluster.log, &topics::dedup("default")).await;
    let entries: Vec<DedupEntry> =
        written.iter().map(|record| serde_json::from_slice(record.value.as_deref().unwrap()).unwrap()).collect();
    let [one, two] = &entries[..] else { panic!("one for each: {entries:#?}") };
    assert!(written.iter().all(|record| record.key.as_deref() == Some(b"default/one")));
    assert!(written.iter().all(|record| record.at.partition == one.place.partition));
    for (entry, life) in [(one, &first_life), (two, &second_life)] {
        let (receipt, last) = (&life[0], life.last().unwrap());
        assert_eq!(
            (entry.job_id, entry.seq, entry.outcome, entry.ended_at),
            (last.job_id, last.seq, Completed, last.at)
        );
        assert_eq!((Some(&entry.place), entry.expires_at), (receipt.place.as_ref(), last.at + 2 * 3_600_000));
    }
    assert_eq!((one.idempotency_key.as_deref(), one.duplicate_of), (Some("one"), None));
    assert_eq!(one.body_sha256.as_ref().map(String::len), Some(64));
    // The key stands for the first; the second is known by its id.
    let first: JobId = first.parse().unwrap();
    assert_eq!((&two.idempotency_key, &two.body_sha256, two.duplicate_of), (&None, &None, Some(first)));
    cluster.stop().await;
}
