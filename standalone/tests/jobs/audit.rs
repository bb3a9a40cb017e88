//! The audit trail: each accept, attempt, end, denial and session, with who, what, when, for whom and the trace.

use std::time::{SystemTime, UNIX_EPOCH};

use client_cli::{JobInput, JobRequest};
use relay_protocol::record::AuditEntry;
use serde_json::json;

use crate::api::{Api, expect_refusal};
use crate::cluster::Cluster;
use crate::stage::Stage;
use crate::tenants::entry;
use crate::wire::Wire;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

fn traceparent() -> String {
    format!("00-{TRACE}-00f067aa0ba902b7-01")
}

/// A cluster with a caller who may do all with jobs, and one who may only read.
async fn cluster() -> (Cluster, crate::stage::Calls) {
    let tokens = [entry("ann", "red", "jobs:write+jobs:read+jobs:cancel"), entry("eve", "blue", "jobs:read")];
    let (stage, calls) = Stage::new();
    let env = [
        ("RELAY__AUTH__TOKENS", tokens.join(",")),
        ("RELAY__RETRY__DELAY_MS", "20".to_owned()),
        ("RELAY__LANES__RUNNING_MAX", "1".to_owned()),
    ];
    let env: Vec<_> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    (Cluster::start(&env, |options| options.builtin = Some(stage)).await, calls)
}

fn of_job<'a>(trail: &'a [AuditEntry], job: &str) -> Vec<&'a AuditEntry> {
    trail.iter().filter(|entry| entry.job_id.is_some_and(|id| id.to_string() == job)).collect()
}

fn actions<'a>(entries: &[&'a AuditEntry]) -> Vec<&'a str> {
    entries.iter().map(|entry| entry.action.as_str()).collect()
}

/// Who, for whom, where, and when: between `since` and now.
fn expect_actor(entry: &AuditEntry, subject: &str, tenant: &str, since: u64) {
    let found = (entry.subject.as_str(), entry.tenant.as_str(), entry.node.as_str());
    assert_eq!(found, (subject, tenant, "node-1"), "{entry:?}");
    assert!((since..=now_ms()).contains(&entry.at), "{entry:?}");
}

#[actix_web::test]
async fn a_jobs_life_is_written_down() {
    let since = now_ms();
    let (cluster, calls) = cluster().await;
    let ann = cluster.api_of("ann-token");
    let job = ann.submit(json!({ "traceparent": traceparent() })).await;
    calls.next().await.fail();
    calls.next().await.complete();
    ann.wait_state(&job, "completed").await;
    let trail = cluster.audit(|trail| of_job(trail, &job).len() >= 4).await;
    let mut entries = of_job(&trail, &job);
    // The end is written with the job's commit, the others beside their way: sort by what must be the order.
    entries.sort_by_key(|entry| entry.at);
    let mut found = actions(&entries);
    found.sort_unstable();
    assert_eq!(found, ["job.accepted", "job.attempt", "job.attempt", "job.outcome"]);
    for entry in &entries {
        expect_actor(entry, "ann", "red", since);
        assert_eq!(entry.trace_id.as_deref(), Some(TRACE), "{entry:?}");
    }
    let of = |action: &str| entries.iter().filter(|entry| entry.action == action).collect::<Vec<_>>();
    let accepted = of("job.accepted");
    assert_eq!(accepted[0].detail.get("task"), Some(&json!("vad")), "{accepted:?}");
    assert_eq!(accepted[0].detail.get("lane"), Some(&json!("default")), "{accepted:?}");
    assert_eq!(accepted[0].detail.get("way_in"), Some(&json!("http")), "{accepted:?}");
    let attempts: Vec<_> = of("job.attempt").iter().map(|entry| entry.detail["attempt"].clone()).collect();
    assert_eq!(attempts, [json!(1), json!(2)]);
    let outcome = of("job.outcome");
    assert_eq!(outcome[0].detail.get("outcome"), Some(&json!("completed")));
    assert_eq!(outcome[0].detail.get("attempt"), Some(&json!(2)));
    cluster.stop().await;
}

#[actix_web::test]
async fn a_cancel_is_written_down() {
    let since = now_ms();
    let (cluster, calls) = cluster().await;
    let ann = cluster.api_of("ann-token");
    let running = ann.submit(json!({})).await;
    let call = calls.next().await;
    let waiting = ann.submit(json!({ "traceparent": traceparent() })).await;
    assert_eq!(ann.delete(&format!("/v1/jobs/{waiting}")).await.0, 202);
    ann.wait_state(&waiting, "cancelled").await;
    call.complete();
    ann.wait_state(&running, "completed").await;
    let trail = cluster.audit(|trail| of_job(trail, &waiting).len() >= 3).await;
    let entries = of_job(&trail, &waiting);
    let mut found = actions(&entries);
    found.sort_unstable();
    assert_eq!(found, ["job.accepted", "job.cancel_requested", "job.outcome"]);
    for entry in &entries {
        expect_actor(entry, "ann", "red", since);
    }
    let outcome = entries.iter().find(|entry| entry.action == "job.outcome").unwrap();
    assert_eq!(outcome.detail.get("outcome"), Some(&json!("cancelled")));
    assert_eq!(outcome.detail.get("code"), Some(&json!("cancelled")));
    cluster.stop().await;
}

#[actix_web::test]
async fn denials_are_written_down() {
    let since = now_ms();
    let (cluster, calls) = cluster().await;
    let eve = cluster.api_of("eve-token");
    expect_refusal(eve.post(json!({})).await, 403, "forbidden");
    expect_refusal(eve.delete("/v1/jobs/01a209ac-0cbb-70fb-8123-456789abcdef").await, 403, "forbidden");
    expect_refusal(cluster.api_of("ann-token").post(json!({ "lane": "no-such" })).await, 404, "unknown_lane");
    let client = cluster.client(Some("eve-token")).await;
    let job = JobRequest::new("vad", JobInput::Bytes(bytes::Bytes::from_static(b"sound")));
    client.submit(job).await.expect_err("eve may not submit");
    client.close().await;
    let denials = |trail: &[AuditEntry]| {
        let denied = trail.iter().filter(|entry| entry.action == "denied").cloned();
        denied.collect::<Vec<_>>()
    };
    let trail = cluster.audit(|trail| denials(trail).len() >= 4).await;
    let expected = [
        ("eve", "blue", "jobs.submit", "forbidden"),
        ("eve", "blue", "jobs.cancel", "forbidden"),
        ("ann", "red", "jobs.submit", "unknown_lane"),
        ("eve", "blue", "jobs.submit", "forbidden"),
    ];
    let denied = denials(&trail);
    assert_eq!(denied.len(), expected.len(), "{denied:#?}");
    for (entry, (subject, tenant, what, code)) in denied.iter().zip(expected) {
        expect_actor(entry, subject, tenant, since);
        assert_eq!((&entry.detail["what"], &entry.detail["code"]), (&json!(what), &json!(code)));
    }
    assert!(calls.is_empty().await);
    cluster.stop().await;
}

#[actix_web::test]
async fn sessions_are_written_down() {
    let since = now_ms();
    let (cluster, _calls) = cluster().await;
    // One says goodbye, one breaks off without a word.
    cluster.client(Some("ann-token")).await.close().await;
    let wire = Wire::open(cluster.url().trim_start_matches("http://"), Some("ann-token")).await;
    let broken = wire.welcome.session_id;
    wire.break_off();
    let of_sessions = |trail: &[AuditEntry]| {
        let entries = trail.iter().filter(|entry| entry.action.starts_with("session.")).cloned();
        entries.collect::<Vec<_>>()
    };
    let trail = cluster.audit(|trail| of_sessions(trail).len() >= 4).await;
    let (lost, polite): (Vec<_>, Vec<_>) =
        of_sessions(&trail).into_iter().partition(|entry| entry.session_id == Some(broken));
    for (entries, reason) in [(polite, "goodbye"), (lost, "lost")] {
        assert_eq!(actions(&entries.iter().collect::<Vec<_>>()), ["session.opened", "session.closed"]);
        for entry in &entries {
            expect_actor(entry, "ann", "red", since);
        }
        assert!(entries[0].session_id.is_some() && entries[0].session_id == entries[1].session_id, "{entries:?}");
        assert_eq!(entries[1].detail.get("reason"), Some(&json!(reason)), "{entries:?}");
        assert!(entries[1].detail["duration_ms"].is_u64() && entries[1].detail["bytes"].is_u64(), "{entries:?}");
    }
    cluster.stop().await;
}

#[actix_web::test]
async fn callers_without_a_valid_token_are_written_down() {
    let (cluster, _calls) = cluster().await;
    let doors: [Api; 2] = [cluster.api(), cluster.api_of("wrong")];
    for api in &doors {
        expect_refusal(api.post(json!({})).await, 401, "unauthenticated");
    }
    let of_nobody = |trail: &[AuditEntry]| {
        let refused = |entry: &&AuditEntry| entry.action == "denied" && entry.detail["code"] == "unauthenticated";
        trail.iter().filter(refused).count()
    };
    let trail = cluster.audit(|trail| of_nobody(trail) >= doors.len()).await;
    let text = serde_json::to_string(&trail).unwrap();
    assert!(text.contains("POST /v1/jobs") && !text.contains("wrong"), "no token is written down: {text}");
    cluster.stop().await;
}
