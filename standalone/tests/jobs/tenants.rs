//! Who may do what: static tokens, scopes, and tenants that do not see each other.

use client_cli::{Client, ClientError, ClientSettings, JobInput, JobRequest};
use relay_protocol::EventKind::Completed;
use relay_protocol::record::AuditEntry;
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use standalone::{Options, Standalone};

use crate::api::{Api, answer_with_headers, expect_refusal};
use crate::cluster::{Cluster, PATIENCE};
use crate::stage::Calls;

const EVERYTHING: &str = "jobs:write+jobs:read+jobs:cancel";

/// `SUBJECT/TENANT/SCOPES/SHA256`, as a setting has it; the token is `SUBJECT-token`.
pub(crate) fn entry(subject: &str, tenant: &str, scopes: &str) -> String {
    format!("{subject}/{tenant}/{scopes}/{}", hex::encode(Sha256::digest(format!("{subject}-token"))))
}

/// Two tenants with every right, and three callers of the first with one right each.
async fn two_tenants() -> (Cluster, Calls) {
    let tokens = [
        entry("ann", "red", EVERYTHING),
        entry("bob", "blue", EVERYTHING),
        entry("writer", "red", "jobs:write"),
        entry("reader", "red", "jobs:read"),
        entry("canceller", "red", "jobs:cancel"),
    ];
    Cluster::staged(&[("RELAY__AUTH__TOKENS", &tokens.join(","))]).await
}

/// What the API answers to each request about a job that needs another scope than `but`.
async fn each_request(api: &Api, job: &str, but: &str) -> Vec<(&'static str, u16, HeaderMap, Value)> {
    let mut answers = Vec::new();
    let requests = [
        ("jobs:read", Method::GET, format!("/v1/jobs/{job}")),
        ("jobs:read", Method::GET, format!("/v1/jobs/{job}/events")),
        ("jobs:read", Method::GET, format!("/v1/jobs/{job}/result")),
        ("jobs:cancel", Method::DELETE, format!("/v1/jobs/{job}")),
    ];
    for (scope, method, path) in requests.into_iter().filter(|(scope, ..)| *scope != but) {
        let (status, headers, body) = answer_with_headers(api.request(method, &path)).await;
        answers.push((scope, status, headers, body));
    }
    answers
}

#[actix_web::test]
async fn without_a_valid_token_nothing_is_told() {
    let (cluster, calls) = two_tenants().await;
    let job = cluster.api_of("ann-token").submit(json!({})).await;
    calls.next().await.complete();
    for api in [cluster.api(), cluster.api_of("wrong"), cluster.api_of("")] {
        for (_, status, headers, body) in each_request(&api, &job, "").await {
            assert_eq!(headers.get("www-authenticate").map(|value| value.to_str().unwrap()), Some("Bearer"), "{body}");
            expect_refusal((status, body), 401, "unauthenticated");
        }
        expect_refusal(api.post(json!({})).await, 401, "unauthenticated");
        expect_refusal(api.get("/v1/sessions").await, 401, "unauthenticated");
    }
    let basic = cluster.api().request(Method::GET, &format!("/v1/jobs/{job}")).basic_auth("ann", Some("ann-token"));
    expect_refusal(crate::api::answer(basic).await, 401, "unauthenticated");
    for token in [None, Some("wrong")] {
        let settings = ClientSettings {
            servers: cluster.url(),
            token: token.map(str::to_owned),
            attempt_timeout: PATIENCE,
            connect_timeout: PATIENCE,
            ..ClientSettings::default()
        };
        let refused = Client::connect(settings).await.err().expect("a session without a token");
        assert!(matches!(&refused, ClientError::Rejected(error) if error.code == "unauthenticated"), "{refused:?}");
    }
    cluster.stop().await;
}

#[actix_web::test]
async fn a_token_without_the_scope_is_told_which() {
    let (cluster, calls) = two_tenants().await;
    let job = cluster.api_of("writer-token").submit(json!({})).await;
    calls.next().await.complete();
    cluster.api_of("reader-token").wait_state(&job, "completed").await;
    for (token, has) in
        [("writer-token", "jobs:write"), ("reader-token", "jobs:read"), ("canceller-token", "jobs:cancel")]
    {
        let api = cluster.api_of(token);
        for (scope, status, _, body) in each_request(&api, &job, has).await {
            let message = expect_refusal((status, body), 403, "forbidden");
            assert!(message.contains(scope), "{message}");
        }
        if has != "jobs:write" {
            let message = expect_refusal(api.post(json!({})).await, 403, "forbidden");
            assert!(message.contains("jobs:write"), "{message}");
        }
        expect_refusal(api.get("/v1/sessions").await, 403, "forbidden");
    }
    let client = cluster.client(Some("reader-token")).await;
    let input = JobInput::Bytes(bytes::Bytes::from_static(b"sound"));
    let refused = client.submit(JobRequest::new("vad", input)).await.expect_err("a submit without the scope");
    assert!(matches!(&refused, ClientError::Rejected(error) if error.code == "forbidden"), "{refused:?}");
    client.close().await;
    assert!(calls.is_empty().await);
    cluster.stop().await;
}

#[actix_web::test]
async fn a_tenant_does_not_see_the_jobs_of_another() {
    let (cluster, calls) = two_tenants().await;
    let (ann, bob) = (cluster.api_of("ann-token"), cluster.api_of("bob-token"));
    let job = ann.submit(json!({})).await;
    let mut call = Some(calls.next().await);
    let unknown = "01a209ac-0cbb-70fb-8123-456789abcdef";
    let stranger = cluster.client(Some("bob-token")).await;
    for ended in [false, true] {
        let theirs = each_request(&bob, &job, "").await;
        let nobodys = each_request(&bob, unknown, "").await;
        for ((_, status, _, body), (_, other, _, nothing)) in theirs.into_iter().zip(nobodys) {
            // Word for word as for a job that does not exist: not even its existence is told.
            let message = body["error"]["message"].as_str().unwrap().replace(&job, unknown);
            assert_eq!(nothing["error"]["message"], message.as_str(), "ended: {ended}");
            assert_eq!(status, other);
            expect_refusal((status, body), 404, "unknown_job");
        }
        let refused = stranger.status(job.parse().unwrap()).await.expect_err("a stranger asks");
        assert!(matches!(&refused, ClientError::Rejected(error) if error.code == "unknown_job"), "{refused:?}");
        let refused = stranger.cancel(job.parse().unwrap()).await.expect_err("a stranger cancels");
        assert!(matches!(&refused, ClientError::Rejected(error) if error.code == "unknown_job"), "{refused:?}");
        let mut watch = stranger.watch(job.parse().unwrap(), 0).await.unwrap();
        let refused = watch.next_event().await.expect_err("a stranger watches");
        assert!(matches!(&refused, ClientError::Rejected(error) if error.code == "unknown_job"), "{refused:?}");
        if let Some(call) = call.take() {
            assert!(!call.dropped.is_cancelled(), "a stranger cancelled the job");
            call.complete();
            ann.wait_state(&job, "completed").await;
        }
    }
    assert_eq!(ann.life(&job).await.last().unwrap().event, Completed);
    stranger.close().await;
    cluster.stop().await;
}

#[actix_web::test]
async fn whoever_a_job_says_it_is_of_it_is_the_tokens() {
    let (cluster, calls) = two_tenants().await;
    let (ann, bob) = (cluster.api_of("ann-token"), cluster.api_of("bob-token"));
    let job = ann.submit(json!({ "tenant": "blue", "subject": "bob" })).await;
    calls.next().await.complete();
    ann.wait_state(&job, "completed").await;
    expect_refusal(bob.get(&format!("/v1/jobs/{job}")).await, 404, "unknown_job");
    let of_job = |entry: &AuditEntry| entry.job_id.is_some_and(|id| id.to_string() == job);
    let trail = cluster.audit(|entries| entries.iter().filter(|entry| of_job(entry)).count() >= 3).await;
    for entry in trail.iter().filter(|entry| of_job(entry)) {
        assert_eq!((entry.tenant.as_str(), entry.subject.as_str()), ("red", "ann"), "{entry:?}");
    }
    cluster.stop().await;
}

#[actix_web::test]
async fn two_tenants_with_one_job_id_have_a_job_each() {
    let (cluster, calls) = two_tenants().await;
    let (ann, bob) = (cluster.api_of("ann-token"), cluster.api_of("bob-token"));
    let job = ann.submit(json!({})).await;
    assert_eq!(bob.submit(json!({ "id": job })).await, job);
    let (first, second) = (calls.next().await, calls.next().await);
    // Bob cancels his own, and Ann's goes on.
    assert_eq!(bob.delete(&format!("/v1/jobs/{job}")).await.0, 202);
    let bobs_is_first = tokio::select! {
        () = first.wait_dropped() => true,
        () = second.wait_dropped() => false,
    };
    if bobs_is_first {
        second.complete()
    } else {
        first.complete()
    }
    assert_eq!(ann.life(&job).await.last().unwrap().event, Completed);
    bob.wait_state(&job, "cancelled").await;
    cluster.stop().await;
}

#[actix_web::test]
async fn an_address_that_others_reach_needs_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options::new(folder.path());
    options.listen = "0.0.0.0:0".to_owned();
    let refused = Standalone::start(options.clone()).await.err().expect("an open door");
    let message = format!("{refused:#}");
    for part in ["0.0.0.0", "without tokens", "RELAY__AUTH__TOKENS", "[auth]", "tokens = ["] {
        assert!(message.contains(part), "{part:?} is missing: {message}");
    }
    let tokens = entry("ann", "red", EVERYTHING);
    options.env.insert("RELAY__AUTH__TOKENS".to_owned(), tokens);
    options.data_dir = folder.path().join("second");
    let cluster = Standalone::start(options).await.expect("with tokens it starts");
    let port = cluster.nodes[0].addr.port();
    let api = Api::new(format!("http://127.0.0.1:{port}"), None);
    expect_refusal(api.post(json!({})).await, 401, "unauthenticated");
    cluster.stop().await;
}
