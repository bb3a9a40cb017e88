//! Cancelling: what waits, what runs, what has ended, over both doors.

use client_cli::{ClientError, JobInput, JobRequest};
use relay_protocol::Event;
use relay_protocol::EventKind::{Accepted, Cancelled, Completed, Retrying, Started};
use relay_protocol::record::ControlRecord;
use relay_protocol::session::CancelOutcomeV1;
use serde_json::json;

use crate::api::{expect_refusal, expect_sound, kinds};
use crate::cluster::{Cluster, records};

/// One job at a time: the next ones wait.
const ONE: (&str, &str) = ("RELAY__LANES__RUNNING_MAX", "1");

fn request() -> JobRequest {
    JobRequest::new("vad", JobInput::Bytes(bytes::Bytes::from_static(b"sound")))
}

/// The job was cancelled, said once.
async fn expect_cancelled(cluster: &Cluster, job: &str, attempt: u32) -> Event {
    let life = cluster.api().life(job).await;
    let last = life.last().unwrap().clone();
    assert_eq!((last.event, last.attempt), (Cancelled, attempt), "{life:#?}");
    let error = last.error.as_ref().expect("a cancelled event says why");
    assert_eq!((error.code.as_str(), error.retryable), ("cancelled", false));
    let mut written = cluster.written(job).await;
    written.sort_by_key(|event| event.seq);
    expect_sound(&written);
    last
}

#[actix_web::test]
async fn a_waiting_job_is_cancelled_and_never_runs() {
    let (cluster, calls) = Cluster::staged(&[ONE]).await;
    let api = cluster.api();
    let running = api.submit(json!({})).await;
    let call = calls.next().await;
    let waiting = api.submit(json!({})).await;
    let (status, body) = api.delete(&format!("/v1/jobs/{waiting}")).await;
    assert_eq!((status, body), (202, json!({ "job_id": waiting, "state": "cancel_requested" })));
    let last = expect_cancelled(&cluster, &waiting, 0).await;
    assert_eq!(last.last_partial_seq, None);
    call.complete();
    api.wait_state(&running, "completed").await;
    assert!(calls.is_empty().await, "a cancelled job ran");
    assert_eq!(kinds(&api.life(&waiting).await), [Accepted, Cancelled]);
    cluster.stop().await;
}

#[actix_web::test]
async fn a_running_job_is_cancelled_and_its_call_is_dropped() {
    let (cluster, calls) = Cluster::staged(&[]).await;
    let client = cluster.client(None).await;
    let mut handle = client.submit(request()).await.unwrap();
    let call = calls.next().await;
    assert_eq!(call.job_id, handle.job_id());
    call.partial("one").await;
    assert_eq!(client.cancel(handle.job_id()).await.unwrap(), CancelOutcomeV1::Requested);
    call.wait_dropped().await;
    let mut events = vec![serde_json::from_slice::<Event>(handle.accepted()).unwrap()];
    while let Some(event) = handle.next_event().await.unwrap() {
        events.push(serde_json::from_slice(&event.json).unwrap());
    }
    expect_sound(&events);
    assert_eq!(events.last().unwrap().event, Cancelled);
    expect_cancelled(&cluster, &handle.job_id().to_string(), 1).await;
    client.close().await;
    cluster.stop().await;
}

#[actix_web::test]
async fn a_job_that_waits_for_its_next_attempt_is_cancelled() {
    let env = [("RELAY__RETRY__DELAY_MS", "60000"), ("RELAY__RETRY__DELAY_MS_MAX", "60000")];
    let (cluster, calls) = Cluster::staged(&env).await;
    let api = cluster.api();
    let job = api.submit(json!({})).await;
    let mut stream = api.events(&job, None).await;
    calls.next().await.fail();
    stream.expect(Accepted).await;
    stream.expect(Started).await;
    stream.expect(Retrying).await;
    assert_eq!(api.delete(&format!("/v1/jobs/{job}")).await.0, 202);
    stream.expect(Cancelled).await;
    expect_cancelled(&cluster, &job, 1).await;
    cluster.stop().await;
}

#[actix_web::test]
async fn a_job_for_later_is_cancelled_before_its_time() {
    let (cluster, calls) = Cluster::staged(&[]).await;
    let api = cluster.api();
    let job = api.submit(json!({ "not_before": "2199-01-01T00:00:00Z" })).await;
    assert_eq!(api.delete(&format!("/v1/jobs/{job}")).await.0, 202);
    expect_cancelled(&cluster, &job, 0).await;
    assert!(calls.is_empty().await);
    cluster.stop().await;
}

#[actix_web::test]
async fn an_ended_job_cannot_be_cancelled() {
    let (cluster, calls) = Cluster::staged(&[]).await;
    let client = cluster.client(None).await;
    let api = cluster.api();
    let job = api.submit(json!({})).await;
    calls.next().await.complete();
    api.wait_state(&job, "completed").await;
    let before = api.life(&job).await;
    expect_refusal(api.delete(&format!("/v1/jobs/{job}")).await, 409, "already_ended");
    assert_eq!(client.cancel(job.parse().unwrap()).await.unwrap(), CancelOutcomeV1::AlreadyEnded);
    let unknown = "01a209ac-0cbb-70fb-8123-456789abcdef";
    expect_refusal(api.delete(&format!("/v1/jobs/{unknown}")).await, 404, "unknown_job");
    let refused = client.cancel(unknown.parse().unwrap()).await;
    assert!(matches!(&refused, Err(ClientError::Rejected(error)) if error.code == "unknown_job"), "{refused:?}");
    assert_eq!(api.life(&job).await, before);
    client.close().await;
    cluster.stop().await;
}

#[actix_web::test]
async fn many_cancels_are_one_end() {
    let (cluster, calls) = Cluster::staged(&[]).await;
    let api = cluster.api();
    let job = api.submit(json!({})).await;
    let call = calls.next().await;
    let path = format!("/v1/jobs/{job}");
    let (one, two, three) = tokio::join!(api.delete(&path), api.delete(&path), api.delete(&path));
    for (status, body) in [one, two, three] {
        assert!(status == 202 || (status, body["error"]["code"].as_str()) == (409, Some("already_ended")), "{body}");
    }
    call.wait_dropped().await;
    expect_cancelled(&cluster, &job, 1).await;
    cluster.stop().await;
}

#[actix_web::test]
async fn a_cancel_and_an_end_at_once_are_one_end() {
    let (cluster, calls) = Cluster::staged(&[]).await;
    let api = cluster.api();
    for _ in 0..20 {
        let job = api.submit(json!({})).await;
        let call = calls.next().await;
        let path = format!("/v1/jobs/{job}");
        let (answer, ()) = tokio::join!(api.delete(&path), async { call.complete() });
        assert!(answer.0 == 202 || answer.0 == 409, "{answer:?}");
        let last = api.life(&job).await.pop().unwrap();
        assert!(last.event == Cancelled && answer.0 == 202 || last.event == Completed, "{last:?} after {answer:?}");
        let mut written = cluster.written(&job).await;
        written.sort_by_key(|event| event.seq);
        expect_sound(&written);
    }
    cluster.stop().await;
}

#[actix_web::test]
async fn a_cancel_outlives_a_restart() {
    let env = [ONE, ("RELAY__NODE__DRAIN_TIMEOUT_MS", "200")];
    let (cluster, calls) = Cluster::staged(&env).await;
    let api = cluster.api();
    let running = api.submit(json!({})).await;
    let call = calls.next().await;
    // Cancelled while nobody can end it: the node stops in the same moment.
    let waiting = api.submit(json!({ "not_before": "2199-01-01T00:00:00Z" })).await;
    assert_eq!(api.delete(&format!("/v1/jobs/{running}")).await.0, 202);
    assert_eq!(api.delete(&format!("/v1/jobs/{waiting}")).await.0, 202);
    let cluster = cluster.restart().await;
    call.wait_dropped().await;
    expect_cancelled(&cluster, &waiting, 0).await;
    expect_cancelled(&cluster, &running, 1).await;
    assert!(calls.is_empty().await, "a cancelled job ran again");
    let control = records(&*cluster.log, "media.control.default").await;
    let cancels = control.iter().filter(|record| {
        matches!(serde_json::from_slice(record.value.as_deref().unwrap()).unwrap(), ControlRecord::Cancel(_))
    });
    assert_eq!(cancels.count(), 2);
    cluster.stop().await;
}
