//! The view's API of a real coordinator over the embedded log.

use coordinator::Coordinator;
use relay_log::port::{ReadEvent, Start, TopicPartition};
use relay_protocol::EventKind;
use relay_protocol::record::ControlRecord;
use relay_runtime::auth::{Scope, StaticToken, TokenHash};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::{PATIENCE, call, get, until};
use crate::view_world::{accepted, ended, job_id, log, record, settings_in, started};

async fn ask(coordinator: &Coordinator, token: &str, path: &str) -> (StatusCode, Value) {
    call(Method::GET, format!("{}{path}", coordinator.url()), Some(token), None::<&()>).await
}

fn code(answer: &(StatusCode, Value)) -> (u16, &str) {
    (answer.0.as_u16(), answer.1["error"]["code"].as_str().unwrap_or(""))
}

fn token(subject: &str, tenant: &str, scopes: &[&str]) -> StaticToken {
    StaticToken {
        subject: subject.to_owned(),
        tenant: tenant.to_owned(),
        scopes: scopes.iter().map(|scope| scope.parse::<Scope>().unwrap()).collect(),
        sha256: TokenHash::of(subject),
    }
}

#[actix_web::test]
async fn jobs_are_listed_shown_and_page_by_page() {
    let folder = tempfile::tempdir().unwrap();
    let log = log(folder.path()).await;
    let coordinator = Coordinator::start(settings_in(folder.path()), log.clone()).await.unwrap();
    let mut events = vec![accepted(1), accepted(2), accepted(3), started(2, 1), started(3, 1)];
    events.push(ended(3, 1, EventKind::Failed));
    log.append(events.iter().map(|event| record("red", event)).collect()).await.unwrap();
    let failed = |answer: &(StatusCode, Value)| answer.1["jobs"][0]["state"] == "failed";
    let (_, page) = until("the events", || get(&coordinator, "/v1/jobs"), failed).await;
    assert_eq!(page["jobs"].as_array().unwrap().len(), 3);
    assert_eq!(page["next"], Value::Null);
    let caught_up = |answer: &(StatusCode, Value)| answer.1["caught_up"] == true;
    until("the end", || get(&coordinator, "/v1/jobs"), caught_up).await;

    let (_, first) = get(&coordinator, "/v1/jobs?limit=2").await;
    let cursor = first["next"].as_str().unwrap();
    let (_, second) = get(&coordinator, &format!("/v1/jobs?limit=2&cursor={cursor}")).await;
    assert_eq!((second["jobs"][0]["job_id"].clone(), &second["next"]), (json!(job_id(1)), &Value::Null));

    let (status, job) = get(&coordinator, &format!("/v1/jobs/{}", job_id(2))).await;
    assert_eq!(status, 200);
    let shown = ["state", "tenant", "task", "lane", "priority", "backend", "subject"].map(|key| job[key].clone());
    assert_eq!(json!(shown), json!(["running", "red", "probe", "default", "normal", "backend-1", "ann"]), "{job}");
    assert_eq!(job["deadline"], "2027-01-15T09:00:00.000Z", "{job}");
    assert_eq!(code(&get(&coordinator, &format!("/v1/jobs/{}", job_id(9))).await), (404, "unknown_job"));
    for (query, wanted) in [
        ("cursor=x", "bad_cursor"),
        ("status=done", "invalid_field"),
        ("since=x", "invalid_field"),
        ("limit=0", "invalid_field"),
        ("limit=x", "bad_request"),
        ("page=2", "bad_request"),
    ] {
        assert_eq!(code(&get(&coordinator, &format!("/v1/jobs?{query}")).await), (400, wanted), "{query}");
    }
    coordinator.stop().await;
}

#[actix_web::test]
async fn tenants_see_their_own_jobs() {
    let folder = tempfile::tempdir().unwrap();
    let log = log(folder.path()).await;
    let mut settings = settings_in(folder.path());
    settings.auth.tokens = vec![
        token("ann", "red", &["jobs:read"]),
        token("bob", "blue", &["jobs:read", "jobs:cancel"]),
        token("submitter", "red", &["jobs:write"]),
        token("node", "ops", &["cluster:node"]),
        token("root", "ops", &["admin"]),
    ];
    let coordinator = Coordinator::start(settings, log.clone()).await.unwrap();
    log.append(vec![record("red", &accepted(1)), record("blue", &accepted(2))]).await.unwrap();
    let count = |answer: &(StatusCode, Value)| answer.1["jobs"].as_array().map_or(0, Vec::len);
    until("both", || ask(&coordinator, "root", "/v1/jobs"), |answer| count(answer) == 2).await;
    for (who, path, wanted) in [
        ("node", "/v1/jobs", 2),
        ("node", "/v1/jobs?tenant=red", 1),
        ("root", "/v1/jobs?tenant=blue", 1),
        ("ann", "/v1/jobs", 1),
        ("ann", "/v1/jobs?tenant=red", 1),
    ] {
        assert_eq!(count(&ask(&coordinator, who, path).await), wanted, "{who} {path}");
    }
    let (red, blue) = (format!("/v1/jobs/{}", job_id(1)), format!("/v1/jobs/{}", job_id(2)));
    assert_eq!(ask(&coordinator, "ann", &red).await.0, 200);
    assert_eq!(code(&ask(&coordinator, "ann", &blue).await), (404, "unknown_job"));
    assert_eq!(code(&ask(&coordinator, "ann", "/v1/jobs?tenant=blue").await), (404, "not_found"));
    assert_eq!(code(&ask(&coordinator, "ann", &format!("{blue}?tenant=blue")).await), (404, "not_found"));
    assert_eq!(code(&ask(&coordinator, "submitter", "/v1/jobs").await), (403, "forbidden"));
    assert_eq!(code(&ask(&coordinator, "nobody", "/v1/jobs").await), (401, "unauthenticated"));

    // Bulk cancel: the scope, and never another tenant's.
    let cancel = |who: &'static str, body: Value| {
        let url = format!("{}/v1/jobs/cancel", coordinator.url());
        async move { call(Method::POST, url, Some(who), Some(&body)).await }
    };
    let queued = json!({ "filter": { "status": "queued" } });
    assert_eq!(code(&cancel("ann", queued.clone()).await), (403, "forbidden"));
    assert_eq!(code(&cancel("bob", json!({ "filter": { "tenant": "red" } })).await), (404, "not_found"));
    let (_, answer) = cancel("bob", queued).await;
    assert_eq!((&answer["jobs"], &answer["requested"]), (&json!([job_id(2)]), &json!(1)));
    coordinator.stop().await;
}

#[actix_web::test]
async fn a_bulk_cancel_writes_what_a_gateway_would() {
    let folder = tempfile::tempdir().unwrap();
    let log = log(folder.path()).await;
    let coordinator = Coordinator::start(settings_in(folder.path()), log.clone()).await.unwrap();
    let events = [accepted(1), accepted(2), accepted(4), started(4, 1), ended(4, 1, EventKind::Completed)];
    log.append(events.iter().map(|event| record("red", event)).collect()).await.unwrap();
    let done = |answer: &(StatusCode, Value)| answer.1["jobs"][0]["state"] == "completed";
    until("the events", || get(&coordinator, "/v1/jobs"), done).await;

    let url = || format!("{}/v1/jobs/cancel", coordinator.url());
    let cancel = |body: Value| async move { call(Method::POST, url(), None, Some(&body)).await };
    assert_eq!(code(&cancel(json!({ "filter": {} })).await), (400, "invalid_field"));
    assert_eq!(code(&cancel(json!({ "filter": { "surprise": 1 } })).await), (400, "bad_request"));
    let probes = json!({ "task": "probe" });
    let (_, dry) = cancel(json!({ "filter": probes, "dry_run": true })).await;
    assert_eq!((&dry["jobs"], &dry["requested"]), (&json!([job_id(2)]), &json!(0)), "{dry}");
    let at = TopicPartition::new("media.control.default", 2);
    assert_eq!(log.watermarks(&at).await.unwrap().high, 0, "a dry run wrote");
    let (_, done) = cancel(json!({ "filter": probes })).await;
    assert_eq!((&done["jobs"], &done["requested"]), (&json!([job_id(2)]), &json!(1)), "{done}");

    let mut reader = log.read(vec![(at, Start::Earliest)]).await.unwrap();
    let written = loop {
        if let ReadEvent::Record(written) = timeout(PATIENCE, reader.next()).await.unwrap().unwrap() {
            break written;
        }
    };
    let written: ControlRecord = serde_json::from_slice(&written.value.unwrap()).unwrap();
    let ControlRecord::Cancel(request) = written else { panic!("another record") };
    assert_eq!((request.job_id, request.tenant.as_str()), (job_id(2), "red"));
    coordinator.stop().await;
}
