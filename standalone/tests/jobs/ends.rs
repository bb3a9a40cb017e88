//! The ends of jobs that do not complete: too late, impossible, tried too often.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use relay_protocol::EventKind::{
    Accepted, Completed, DeadLettered, Expired, Failed, Partial, Restarted, Retrying, Started,
};
use relay_protocol::record::{AttemptFailure, HEADER_DEAD_ATTEMPTS, HEADER_DEAD_ERROR, HEADER_JOB_ID};
use relay_protocol::time::format_rfc3339;
use relay_protocol::{JobError, topics};
use serde_json::json;

use crate::api::{expect_refusal, expect_sound, kinds};
use crate::cluster::{Cluster, records};

/// Attempts follow each other at once.
const QUICK: [(&str, &str); 2] = [("RELAY__RETRY__DELAY_MS", "20"), ("RELAY__RETRY__DELAY_MS_MAX", "20")];
const ONE: (&str, &str) = ("RELAY__LANES__RUNNING_MAX", "1");

/// So many milliseconds from now, as a deadline is written.
fn in_ms(ms: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    format_rfc3339((now + Duration::from_millis(ms)).as_millis() as u64)
}

#[actix_web::test]
async fn a_job_whose_deadline_passes_while_it_waits_expires() {
    let (cluster, calls) = Cluster::staged(&[ONE]).await;
    let api = cluster.api();
    let running = api.submit(json!({})).await;
    let call = calls.next().await;
    let deadline = in_ms(700);
    let waiting = api.submit(json!({ "deadline": deadline })).await;
    let life = api.life(&waiting).await;
    assert_eq!(kinds(&life), [Accepted, Expired]);
    let error = life[1].error.as_ref().unwrap();
    assert_eq!((error.code.as_str(), error.retryable), ("deadline_exceeded", false));
    assert!(error.message.contains(&deadline), "{}", error.message);
    assert!(format_rfc3339(life[1].at) >= deadline, "it expired before its deadline");
    assert_eq!(life[1].attempt, 0);
    call.complete();
    api.wait_state(&running, "completed").await;
    assert!(calls.is_empty().await, "an expired job ran");
    cluster.stop().await;
}

#[actix_web::test]
async fn a_job_whose_deadline_passes_while_it_runs_expires() {
    let (cluster, calls) = Cluster::staged(&[]).await;
    let api = cluster.api();
    let job = api.submit(json!({ "deadline": in_ms(1_500) })).await;
    let call = calls.next().await;
    call.wait_dropped().await;
    let life = api.life(&job).await;
    assert_eq!(kinds(&life), [Accepted, Started, Expired]);
    expect_refusal(api.delete(&format!("/v1/jobs/{job}")).await, 409, "already_ended");
    cluster.stop().await;
}

#[actix_web::test]
async fn a_deadline_that_passed_already_is_refused() {
    let (cluster, calls) = Cluster::staged(&[]).await;
    let refused = cluster.api().post(json!({ "deadline": "2020-01-01T00:00:00Z" })).await;
    expect_refusal(refused, 504, "deadline_exceeded");
    assert!(calls.is_empty().await);
    cluster.stop().await;
}

#[actix_web::test]
async fn no_attempt_is_made_that_would_begin_after_the_deadline() {
    let env = [("RELAY__RETRY__DELAY_MS", "60000"), ("RELAY__RETRY__DELAY_MS_MAX", "60000")];
    let (cluster, calls) = Cluster::staged(&env).await;
    let api = cluster.api();
    let deadline = in_ms(20_000);
    let job = api.submit(json!({ "deadline": deadline })).await;
    calls.next().await.fail();
    let life = api.life(&job).await;
    assert_eq!(kinds(&life), [Accepted, Started, Expired]);
    assert!(format_rfc3339(life[2].at) < deadline, "it waited for a deadline that nothing could keep");
    cluster.stop().await;
}

#[actix_web::test]
async fn failures_that_may_pass_are_tried_until_the_attempts_are_used_up() {
    let env = [QUICK[0], QUICK[1], ("RELAY__RETRY__ATTEMPTS_MAX", "3")];
    let (cluster, calls) = Cluster::staged(&env).await;
    let api = cluster.api();
    let job = api.submit(json!({})).await;
    for _ in 0..3 {
        calls.next().await.fail();
    }
    let life = api.life(&job).await;
    assert_eq!(kinds(&life), [Accepted, Started, Retrying, Started, Retrying, Started, DeadLettered]);
    assert_eq!(life.iter().map(|event| event.attempt).collect::<Vec<_>>(), [0, 1, 1, 2, 2, 3, 3]);
    for retrying in life.iter().filter(|event| event.event == Retrying) {
        let error = retrying.error.as_ref().unwrap();
        assert_eq!((error.code.as_str(), error.retryable), ("backend_failed", true));
        assert!(retrying.retry_at.unwrap() >= retrying.at);
    }
    let error = life[6].error.as_ref().unwrap();
    assert_eq!((error.code.as_str(), error.retryable), ("attempts_exhausted", false));
    assert!(error.message.contains("the test says so"), "{}", error.message);
    expect_dead_letter(&cluster, &job, 3).await;
    let mut written = cluster.written(&job).await;
    written.sort_by_key(|event| event.seq);
    expect_sound(&written);
    assert!(calls.is_empty().await);
    cluster.stop().await;
}

/// The job lies in the dead-letter topic once, with the reason and every attempt.
async fn expect_dead_letter(cluster: &Cluster, job: &str, attempts: u32) {
    let letters = records(&*cluster.log, topics::DEAD_LETTERS).await;
    let letters: Vec<_> =
        letters.iter().filter(|letter| letter.header(HEADER_JOB_ID).is_some_and(|id| id == job.as_bytes())).collect();
    assert_eq!(letters.len(), 1);
    let error: JobError = serde_json::from_slice(letters[0].header(HEADER_DEAD_ERROR).unwrap()).unwrap();
    assert_eq!(error.code, "attempts_exhausted");
    let failures: Vec<AttemptFailure> =
        serde_json::from_slice(letters[0].header(HEADER_DEAD_ATTEMPTS).unwrap()).unwrap();
    assert_eq!(failures.iter().map(|failure| failure.attempt).collect::<Vec<_>>(), (1..=attempts).collect::<Vec<_>>());
    assert!(failures.iter().all(|failure| failure.error.code == "backend_failed"), "{failures:?}");
    let kept = relay_protocol::record::decode_job(letters[0].value.as_ref().unwrap()).unwrap();
    assert_eq!(kept.id.unwrap().to_string(), job);
}

#[actix_web::test]
async fn a_job_that_took_backends_too_long_is_not_tried_again() {
    let tiers = ("RELAY__RETRY__TIERS_MS", "20,600,900,1200,1500");
    let env = [QUICK[0], tiers, ("RELAY__RETRY__ATTEMPTS_MAX", "9"), ("RELAY__RETRY__BACKEND_S_MAX", "1")];
    let (cluster, calls) = Cluster::staged(&env).await;
    let job = cluster.api().submit(json!({})).await;
    // Set aside in between, it is still known what the first attempt cost.
    for _ in 0..2 {
        let call = calls.next().await;
        tokio::time::sleep(Duration::from_millis(600)).await;
        call.fail();
    }
    let life = cluster.api().life(&job).await;
    assert_eq!(kinds(&life), [Accepted, Started, Retrying, Started, DeadLettered]);
    let error = life[4].error.as_ref().unwrap();
    assert!(error.message.contains("failed attempts took backends 1 s"), "{}", error.message);
    expect_dead_letter(&cluster, &job, 2).await;
    assert!(calls.is_empty().await);
    cluster.stop().await;
}

#[actix_web::test]
async fn a_job_may_ask_for_fewer_attempts() {
    let (cluster, calls) = Cluster::staged(&QUICK).await;
    let api = cluster.api();
    let job = api.submit(json!({ "attempts_max": 1 })).await;
    calls.next().await.fail();
    assert_eq!(kinds(&api.life(&job).await), [Accepted, Started, DeadLettered]);
    cluster.stop().await;
}

#[actix_web::test]
async fn a_failure_that_lasts_ends_the_job_at_once() {
    let (cluster, calls) = Cluster::staged(&QUICK).await;
    let api = cluster.api();
    let job = api.submit(json!({})).await;
    calls.next().await.reject();
    let life = api.life(&job).await;
    assert_eq!(kinds(&life), [Accepted, Started, Failed]);
    let error = life[2].error.as_ref().unwrap();
    assert_eq!((error.code.as_str(), error.retryable), ("corrupt_media", false));
    assert_eq!(error.message, "the test says so");
    assert!(records(&*cluster.log, topics::DEAD_LETTERS).await.is_empty(), "a failed job is no dead letter");
    cluster.stop().await;
}

#[actix_web::test]
async fn partials_of_a_failed_attempt_are_taken_back() {
    let (cluster, calls) = Cluster::staged(&QUICK).await;
    let api = cluster.api();
    let job = api.submit(json!({})).await;
    let call = calls.next().await;
    call.partial("wrong").await;
    call.fail();
    let call = calls.next().await;
    call.partial("right").await;
    call.complete();
    let life = api.life(&job).await;
    let expected = [Accepted, Started, Partial, Retrying, Restarted, Started, Partial, Completed];
    assert_eq!(kinds(&life), expected);
    assert_eq!(life[7].last_partial_seq, Some(life[6].seq));
    cluster.stop().await;
}
