//! The HTTP API of a real coordinator on a free port, over a log of its own.

use std::time::Duration;

use coordinator::{Coordinator, Settings};
use relay_protocol::cluster::{Heartbeat, NodeLoad};
use relay_runtime::auth::{StaticToken, TokenHash};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{
    PATIENCE, beat, call, get, heartbeat, local_log, session, settings, start, unreachable_log, until,
};

fn assert_error(answer: &(StatusCode, Value), status: u16, code: &str, retryable: bool) {
    assert_eq!(answer.0.as_u16(), status, "{answer:?}");
    let error = &answer.1["error"];
    assert_eq!((error["code"].as_str(), error["retryable"].as_bool()), (Some(code), Some(retryable)), "{answer:?}");
    assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()));
    assert_eq!(error.as_object().unwrap().len(), 3, "{error}");
}

#[actix_web::test]
async fn nodes_register_are_seen_and_are_lost() {
    let mut settings = settings();
    settings.nodes.node_timeout_ms = 1_001;
    settings.leases.lease_ttl_ms = 1_500;
    let coordinator = start(settings).await;
    let load = NodeLoad { sessions: 3, ..NodeLoad::default() };
    let (status, reply) = beat(&coordinator, &Heartbeat { load, ..heartbeat("a", 5) }).await;
    assert_eq!(status, 200);
    assert_eq!((&reply["lease_ttl_ms"], &reply["heartbeat_interval_ms"]), (&json!(1_500), &json!(500)));
    let cluster = get(&coordinator, "/v1/cluster").await.1;
    assert_eq!((&cluster["nodes"], &cluster["nodes_ready"], &cluster["sessions"]), (&json!(1), &json!(1), &json!(3)));
    assert_eq!(cluster["coordinator_incarnation"], reply["coordinator_incarnation"]);
    let node = get(&coordinator, "/v1/nodes").await.1["nodes"][0].clone();
    assert_eq!((&node["node"], &node["state"], &node["incarnation"]), (&json!("a"), &json!("ready"), &json!(5)));
    assert_error(&beat(&coordinator, &heartbeat("a", 4)).await, 409, "stale_incarnation", false);
    let lost = |coordinator| async move { get(coordinator, "/v1/nodes").await.1["nodes"][0]["state"].clone() };
    until("the loss", || lost(&coordinator), |state| state == "lost").await;
    assert_error(&get(&coordinator, "/v1/placement").await, 503, "no_ready_node", true);
    coordinator.stop().await;
}

#[actix_web::test]
async fn placements_spread_over_nodes() {
    let coordinator = start(settings()).await;
    for node in ["a", "b"] {
        beat(&coordinator, &heartbeat(node, 1)).await;
    }
    let mut placed = Vec::new();
    for _ in 0..4 {
        let (status, placement) = get(&coordinator, "/v1/placement").await;
        assert_eq!(status, 200);
        placed.push((placement["node"].as_str().unwrap().to_owned(), placement["url"].as_str().unwrap().to_owned()));
    }
    placed.sort();
    placed.dedup();
    assert_eq!(placed, [("a".to_owned(), "http://a:8700".to_owned()), ("b".to_owned(), "http://b:8700".to_owned())]);
    coordinator.stop().await;
}

#[actix_web::test]
async fn everything_wrong_has_the_one_shape() {
    let coordinator = start(settings()).await;
    let url = |path: &str| format!("{}{path}", coordinator.url());
    assert_error(&get(&coordinator, "/v1/nothing").await, 404, "not_found", false);
    assert_error(&get(&coordinator, "/v1/heartbeat").await, 405, "method_not_allowed", false);
    for body in [json!([]), json!({"node": "a"}), json!({"surprise": 1})] {
        assert_error(&call(Method::POST, url("/v1/heartbeat"), None, Some(&body)).await, 400, "bad_request", false);
    }
    let mut unknown = serde_json::to_value(heartbeat("a", 1)).unwrap();
    unknown["surprise"] = json!(1);
    assert_error(&call(Method::POST, url("/v1/heartbeat"), None, Some(&unknown)).await, 400, "bad_request", false);
    assert_error(&beat(&coordinator, &heartbeat("", 1)).await, 400, "invalid_field", false);
    let huge = Heartbeat { version: "x".repeat(3 << 20), ..heartbeat("a", 1) };
    assert_error(&beat(&coordinator, &huge).await, 413, "too_large", false);
    for query in ["limit=0", "limit=1001", "limit=x", "after=x", "page=2"] {
        assert_error(&get(&coordinator, &format!("/v1/sessions?{query}")).await, 400, "bad_request", false);
    }
    coordinator.stop().await;
}

fn with_tokens() -> Settings {
    let token = |subject: &str, tenant: &str, scopes: &[&str]| StaticToken {
        subject: subject.to_owned(),
        tenant: tenant.to_owned(),
        scopes: scopes.iter().map(|scope| scope.parse::<relay_runtime::auth::Scope>().unwrap()).collect(),
        sha256: TokenHash::of(subject),
    };
    let mut settings = settings();
    settings.auth.tokens = vec![
        token("node", "ops", &["cluster:node"]),
        token("red", "red", &["cluster:read"]),
        token("submitter", "red", &["jobs:write"]),
        token("root", "ops", &["admin"]),
    ];
    settings
}

#[actix_web::test]
async fn scopes_are_checked_and_tenants_see_their_own_sessions() {
    let mut settings = with_tokens();
    // One heartbeat must last for all the calls.
    (settings.nodes.node_timeout_ms, settings.leases.lease_ttl_ms) = (60_000, 60_001);
    settings.nodes.forget_after_ms = 60_000;
    let coordinator = start(settings).await;
    let url = |path: &str| format!("{}{path}", coordinator.url());
    let heartbeat_of = |token: Option<&'static str>, beat: Heartbeat| {
        let url = url("/v1/heartbeat");
        async move { call(Method::POST, url, token, Some(&beat)).await }
    };
    assert_error(&heartbeat_of(None, heartbeat("a", 1)).await, 401, "unauthenticated", false);
    assert_error(&heartbeat_of(Some("guess"), heartbeat("a", 1)).await, 401, "unauthenticated", false);
    assert_error(&heartbeat_of(Some("red"), heartbeat("a", 1)).await, 403, "forbidden", false);
    let sessions = vec![session(1, "red"), session(2, "blue"), session(3, "red")];
    assert_eq!(heartbeat_of(Some("node"), Heartbeat { sessions, ..heartbeat("a", 1) }).await.0, 200);

    let read = |path: &str, token: Option<&'static str>| {
        let url = url(path);
        async move { call(Method::GET, url, token, None::<&()>).await }
    };
    for path in ["/v1/cluster", "/v1/nodes", "/v1/backends", "/v1/sessions", "/v1/placement"] {
        assert_error(&read(path, None).await, 401, "unauthenticated", false);
        assert_error(&read(path, Some("submitter")).await, 403, "forbidden", false);
        assert_error(&read(path, Some("node")).await, 403, "forbidden", false);
        assert_eq!(read(path, Some("red")).await.0, 200, "{path}");
        assert_eq!(read(path, Some("root")).await.0, 200, "{path}");
    }
    let tenants = |answer: Value| -> Vec<String> {
        let sessions = answer["sessions"].as_array().unwrap().iter();
        sessions.map(|session| session["tenant"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(tenants(read("/v1/sessions", Some("red")).await.1), ["red", "red"]);
    assert_eq!(tenants(read("/v1/sessions", Some("root")).await.1).len(), 3);
    let page = read("/v1/sessions?limit=2", Some("root")).await.1;
    let rest = read(&format!("/v1/sessions?limit=2&after={}", page["next"].as_str().unwrap()), Some("root")).await.1;
    assert_eq!((tenants(page).len(), tenants(rest.clone()).len(), &rest["next"]), (2, 1, &Value::Null));
    for path in ["/healthz", "/metrics"] {
        assert_eq!(read(path, None).await.0, 200, "probes need no token");
    }
    coordinator.stop().await;
}

#[actix_web::test]
async fn without_tokens_only_loopback_is_bound() {
    let mut settings = settings();
    settings.listen = "0.0.0.0:0".to_owned();
    let refused = Coordinator::start(settings, unreachable_log()).await.err().unwrap();
    let words = format!("{refused:#}");
    assert!(words.contains("without tokens") && words.contains("RELAY__AUTH__TOKENS"), "{words}");
    let mut settings = with_tokens();
    settings.listen = "0.0.0.0:0".to_owned();
    start(settings).await.stop().await;
}

#[actix_web::test]
async fn readyz_says_that_the_log_is_away_and_nobody_leads_without_it() {
    let coordinator = Coordinator::start(settings(), unreachable_log()).await.unwrap();
    assert_eq!(get(&coordinator, "/healthz").await.0, 200);
    let ask = || get(&coordinator, "/readyz");
    let named = |answer: &(StatusCode, Value)| answer.1["reasons"].to_string().contains("\"log\"");
    let (status, answer) = until("the reason", ask, named).await;
    assert_eq!((status.as_u16(), &answer["ready"]), (503, &json!(false)));
    assert_eq!(answer["role"], "standby");
    for refused in [beat(&coordinator, &heartbeat("a", 1)).await, get(&coordinator, "/v1/nodes").await] {
        assert_error(&refused, 503, "not_leader", true);
    }
    coordinator.stop().await;
}

#[actix_web::test]
async fn a_standby_says_where_the_leader_is_and_takes_its_place_when_it_goes() {
    let (log, mut settings) = (local_log(), settings());
    settings.election.silence_ms = 2_500;
    let first = Coordinator::start(settings.clone(), log.clone()).await.unwrap();
    tokio::time::timeout(PATIENCE, first.wait_leading()).await.expect("where nobody led, the first leads at once");
    let second = Coordinator::start(settings, log).await.unwrap();
    let known = |answer: &(StatusCode, Value)| answer.1["error"]["leader"] == json!(first.url());
    until("the standby knows the leader", || get(&second, "/v1/cluster"), known).await;
    let refused = beat(&second, &heartbeat("a", 1)).await;
    assert_eq!((refused.0.as_u16(), &refused.1["error"]["code"]), (503, &json!("not_leader")));
    assert_eq!(get(&second, "/v1/jobs").await.0, 200, "the job view needs no leader");
    let before = beat(&first, &heartbeat("a", 1)).await.1["coordinator_incarnation"].as_u64();
    assert_eq!(get(&first, "/readyz").await.1["role"], "leader");
    assert_eq!(get(&second, "/readyz").await.1["role"], "standby");
    first.stop().await;
    let began = Instant::now();
    tokio::time::timeout(PATIENCE, second.wait_leading()).await.expect("the other one leads");
    assert!(began.elapsed() < Duration::from_secs(1), "nobody waits for a leader that took its leave");
    let after = beat(&second, &heartbeat("a", 1)).await.1["coordinator_incarnation"].as_u64();
    assert!(before < after, "{before:?} {after:?}");
    until("the role", || get(&second, "/readyz"), |answer| answer.1["role"] == "leader").await;
    second.stop().await;
}

#[actix_web::test]
async fn metrics_show_nodes_slots_and_heartbeats() {
    let mut settings = settings();
    settings.backends.entries = vec!["http://127.0.0.1:9".to_owned()];
    let coordinator = start(settings).await;
    beat(&coordinator, &heartbeat("a", 1)).await;
    get(&coordinator, "/v1/placement").await;
    let ask = || async { get(&coordinator, "/metrics").await.1.as_str().unwrap_or_default().to_owned() };
    let wanted = [
        "relay_cluster_nodes{state=\"ready\"}",
        "relay_cluster_slots{backend=\"http://127.0.0.1:9\"} 1",
        "relay_cluster_slots_granted{",
        "relay_cluster_slots_in_use{",
        "relay_cluster_probe_seconds_bucket{backend=\"http://127.0.0.1:9\"",
        "relay_cluster_probes_total{backend=\"http://127.0.0.1:9\",outcome=\"unreachable\"}",
        "relay_cluster_heartbeats_total{outcome=\"taken\"}",
        "relay_cluster_placements_total{outcome=\"placed\"}",
    ];
    until("every metric", ask, |text| wanted.iter().all(|name| text.contains(name))).await;
    coordinator.stop().await;
}

#[actix_web::test]
async fn stop_ends_in_time_beside_an_idle_connection() {
    let coordinator = start(settings()).await;
    let addr = coordinator.addr;
    relay_runtime::tls::install_provider();
    let client = reqwest::Client::new(); // keeps its connection open
    client.get(format!("http://{addr}/healthz")).send().await.unwrap().bytes().await.unwrap();
    let began = Instant::now();
    coordinator.stop().await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(tokio::net::TcpStream::connect(addr).await.is_err(), "nobody listens any more");
    drop(client);
}
