//! Orders to drain backends, over HTTP and the embedded log: who may give them, that they are audited, durable, and forgotten.

use std::time::Duration;

use coordinator::Coordinator;
use relay_log::port::{LogReader, ReadEvent, Start, TopicPartition};
use relay_protocol::record::BackendDrain;
use relay_protocol::topics;
use relay_runtime::auth::{Scope, StaticToken, TokenHash};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::{PATIENCE, call, get, settings, unreachable_log, until};
use crate::view_world::{log, settings_in};

/// Nothing listens there.
const BACKEND: &str = "http://127.0.0.1:9";

fn token(subject: &str, scopes: &[&str]) -> StaticToken {
    StaticToken {
        subject: subject.to_owned(),
        tenant: "ops".to_owned(),
        scopes: scopes.iter().map(|scope| scope.parse::<Scope>().unwrap()).collect(),
        sha256: TokenHash::of(subject),
    }
}

async fn order(coordinator: &Coordinator, by: &str, what: &str, body: Value) -> (StatusCode, Value) {
    call(Method::POST, format!("{}/v1/backends/{what}", coordinator.url()), Some(by), Some(&body)).await
}

async fn state(coordinator: &Coordinator, by: &str) -> Value {
    let url = format!("{}/v1/backends", coordinator.url());
    call(Method::GET, url, Some(by), None::<&()>).await.1["backends"][0]["state"].clone()
}

async fn record(reader: &mut dyn LogReader) -> relay_log::port::LogRecord {
    loop {
        if let ReadEvent::Record(record) = timeout(PATIENCE, reader.next()).await.expect("a record in time").unwrap() {
            return record;
        }
    }
}

#[actix_web::test]
async fn an_admin_drains_and_resumes_and_it_is_written_down() {
    let folder = tempfile::tempdir().unwrap();
    let log = log(folder.path()).await;
    let mut settings = settings_in(folder.path());
    settings.backends.entries = vec![BACKEND.to_owned()];
    settings.auth.tokens =
        vec![token("ann", &["admin"]), token("reader", &["cluster:read"]), token("node", &["cluster:node"])];
    let coordinator = Coordinator::start(settings.clone(), log.clone()).await.unwrap();
    let body = json!({ "backend": format!("{BACKEND}/") });
    let taken = |answer: &(StatusCode, Value)| answer.0 == 200;
    // The topics are made beside the start.
    let (_, answer) = until("an order", || order(&coordinator, "ann", "drain", body.clone()), taken).await;
    assert_eq!(
        (&answer["backend"]["state"], &answer["backend"]["reason"]),
        (&"drained".into(), &"drained by ann".into())
    );

    let code = |answer: (StatusCode, Value)| (answer.0.as_u16(), answer.1["error"]["code"].clone());
    assert_eq!(code(order(&coordinator, "reader", "drain", body.clone()).await), (403, "forbidden".into()));
    let unknown = json!({ "backend": "http://nobody" });
    assert_eq!(code(order(&coordinator, "ann", "drain", unknown).await), (404, "unknown_backend".into()));
    assert_eq!(code(order(&coordinator, "ann", "resume", json!({})).await), (400, "bad_request".into()));

    let for_bob = json!({ "backend": BACKEND, "subject": "bob" });
    let (_, answer) = order(&coordinator, "node", "resume", for_bob).await;
    assert_eq!(answer["backend"]["state"], "serving");
    let (_, answer) = order(&coordinator, "ann", "drain", body).await;
    assert_eq!(answer["backend"]["reason"], "drained by ann");

    let (mut seen, mut reader) = (
        Vec::new(),
        log.read(vec![(TopicPartition::new(topics::AUDIT, audit(&settings)), Start::Earliest)]).await.unwrap(),
    );
    while seen.len() < 3 {
        let entries: Vec<Value> = serde_json::from_slice(&record(reader.as_mut()).await.value.unwrap()).unwrap();
        let of_backends = entries.into_iter().filter(|entry| entry["action"].as_str().unwrap().starts_with("backend."));
        seen.extend(of_backends.map(|entry| json!([entry["action"], entry["subject"], entry["detail"]["backend"]])));
    }
    let wanted = json!([
        ["backend.drained", "ann", BACKEND],
        ["backend.resumed", "bob", BACKEND],
        ["backend.drained", "ann", BACKEND]
    ]);
    assert_eq!(json!(seen), wanted);
    coordinator.stop().await;

    let again = Coordinator::start(settings, log.clone()).await.unwrap();
    until("what was ordered before", || state(&again, "ann"), |state| state == "drained").await;
    again.stop().await;
}

fn audit(settings: &coordinator::Settings) -> u32 {
    relay_protocol::partition::of_key(settings.name.as_bytes(), settings.topics.audit_partitions)
}

#[actix_web::test]
async fn an_order_about_what_is_listed_no_more_is_forgotten_after_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let log = log(folder.path()).await;
    let mut settings = settings_in(folder.path());
    settings.backends.entries = vec![BACKEND.to_owned()];
    settings.backends.drain_forget_ms = 1_000;
    let coordinator = Coordinator::start(settings.clone(), log.clone()).await.unwrap();
    let drain = || order(&coordinator, "", "drain", json!({ "backend": BACKEND }));
    until("an order", drain, |answer| answer.0 == 200).await;
    // Listed, it stays drained for longer than that.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(get(&coordinator, "/v1/backends").await.1["backends"][0]["state"], "drained");
    coordinator.stop().await;

    settings.backends.entries = Vec::new();
    let without = Coordinator::start(settings, log.clone()).await.unwrap();
    let mut reader = log.read(vec![(TopicPartition::new(topics::CLUSTER, 0), Start::Earliest)]).await.unwrap();
    let mut last = record(reader.as_mut()).await;
    while last.value.is_some() {
        last = record(reader.as_mut()).await;
    }
    assert_eq!(last.key.as_deref().and_then(BackendDrain::backend_of), Some(BACKEND));
    without.stop().await;
}

#[actix_web::test]
async fn where_the_log_cannot_be_written_nobody_leads_and_no_order_is_taken() {
    let mut settings = settings();
    settings.backends.entries = vec![BACKEND.to_owned()];
    let coordinator = Coordinator::start(settings, unreachable_log()).await.unwrap();
    let url = format!("{}/v1/backends/drain", coordinator.url());
    let (status, answer) = call(Method::POST, url, None, Some(&json!({ "backend": BACKEND }))).await;
    assert_eq!((status.as_u16(), &answer["error"]["code"]), (503, &"not_leader".into()), "{answer}");
    assert_eq!(answer["error"]["retryable"], true);
    coordinator.stop().await;
}
