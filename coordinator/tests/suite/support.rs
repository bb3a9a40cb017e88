//! What several tests need: a coordinator on a free port without a broker, a client, heartbeats, waiting with patience.

use std::sync::Arc;
use std::time::Duration;

use coordinator::{Coordinator, Settings};
use relay_log::kafka::{KafkaLog, KafkaSettings};
use relay_log::local::{LocalLog, LocalLogSettings};
use relay_log::port::Log;
use relay_protocol::cluster::{Heartbeat, NodeLoad, SessionInfo};
use relay_protocol::id::SessionId;
use reqwest::{Client, Method, StatusCode};
use serde_json::Value;
use tokio::time::{Instant, sleep};

/// Longest wait for anything in a test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(20);

/// Defaults on a free port, quick to stop.
pub(crate) fn settings() -> Settings {
    let mut settings = Settings::defaults().unwrap();
    settings.listen = "127.0.0.1:0".to_owned();
    settings.http.threads = 1;
    settings.http.drain_timeout_ms = 500;
    settings.leases.restart_wait_ms = 0;
    settings.election.silence_ms = 0;
    settings.backends.probe_interval_ms = 100;
    settings.backends.probe_timeout_ms = 500;
    settings
}

/// A Kafka log whose brokers do not answer: nothing listens on the port.
pub(crate) fn unreachable_log() -> Arc<dyn Log> {
    let settings = KafkaSettings {
        request_timeout_ms: 500,
        delivery_timeout_ms: 1_000,
        ..KafkaSettings::single_broker("127.0.0.1:9")
    };
    Arc::new(KafkaLog::connect(settings).unwrap())
}

/// A log of its own, gone with its last user.
pub(crate) fn local_log() -> Arc<dyn Log> {
    let folder = tempfile::tempdir().unwrap();
    // The file is open: it lasts without its name.
    Arc::new(LocalLog::open(folder.path(), &LocalLogSettings::default()).unwrap())
}

/// A coordinator that leads, over a log of its own.
pub(crate) async fn start(settings: Settings) -> Coordinator {
    let coordinator = Coordinator::start(settings, local_log()).await.unwrap();
    tokio::time::timeout(PATIENCE, coordinator.wait_leading()).await.expect("it leads in time");
    coordinator
}

/// Status and JSON of one request.
pub(crate) async fn call(
    method: Method,
    url: String,
    token: Option<&str>,
    body: Option<&impl serde::Serialize>,
) -> (StatusCode, Value) {
    relay_runtime::tls::install_provider();
    let mut request = Client::new().request(method, url);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    if let Some(body) = body {
        request = request.json(body);
    }
    let response = request.send().await.unwrap();
    let status = response.status();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

pub(crate) async fn get(coordinator: &Coordinator, path: &str) -> (StatusCode, Value) {
    call(Method::GET, format!("{}{path}", coordinator.url()), None, None::<&()>).await
}

pub(crate) async fn beat(coordinator: &Coordinator, beat: &Heartbeat) -> (StatusCode, Value) {
    call(Method::POST, format!("{}/v1/heartbeat", coordinator.url()), None, Some(beat)).await
}

/// A heartbeat of a ready node that clients can reach.
pub(crate) fn heartbeat(node: &str, incarnation: u64) -> Heartbeat {
    Heartbeat {
        node: node.to_owned(),
        incarnation,
        advertised_url: Some(format!("http://{node}:8700")),
        version: "0.1.0".to_owned(),
        ready: true,
        draining: false,
        load: NodeLoad::default(),
        demand: Vec::new(),
        holds: Vec::new(),
        sessions: Vec::new(),
    }
}

/// A session of `tenant`; `number` makes its identity.
pub(crate) fn session(number: u128, tenant: &str) -> SessionInfo {
    SessionInfo {
        session_id: SessionId::new(number),
        tenant: tenant.to_owned(),
        subject: "someone".to_owned(),
        node: String::new(),
        jobs: 0,
        opened_at_ms: 1,
    }
}

/// Asks until `done`, for [`PATIENCE`] at most.
pub(crate) async fn until<T, F: Future<Output = T>>(what: &str, ask: impl Fn() -> F, done: impl Fn(&T) -> bool) -> T
where
    T: std::fmt::Debug,
{
    let began = Instant::now();
    loop {
        let answer = ask().await;
        if done(&answer) {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "{what} did not happen in time; the last answer was {answer:?}");
        sleep(LOOK).await;
    }
}
