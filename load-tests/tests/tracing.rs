//! One trace from the caller's request to the backend's, as a real OTLP receiver gets it.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Attribute;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message;
use relay_runtime::telemetry::{self, LogFormat, TelemetrySettings};
use serde_json::{Value, json};
use standalone::{Options, Standalone};

/// Longest wait for anything that should happen.
const PATIENCE: Duration = Duration::from_secs(20);
/// Wait before the second attempt; half of it is the shortest that may come out.
const RETRY_DELAY_MS: u64 = 200;
/// Longest time that running jobs have when the cluster ends.
const DRAIN_MS: u64 = 300;
/// The caller's span.
const CALLER: &str = "00f067aa0ba902b7";

/// Inputs by which the backend knows what to do.
const ANSWER: &str = "answer";
const FAIL_ONCE: &str = "fail once";
const NEVER_ANSWER: &str = "never answer";

/// What came in.
#[derive(Default)]
struct Seen {
    spans: Vec<Span>,
    /// The trace contexts that the backend was sent, by input.
    asked: HashMap<String, Vec<Option<String>>>,
}

type Shared = web::Data<Mutex<Seen>>;

fn lock(seen: &Shared) -> MutexGuard<'_, Seen> {
    seen.lock().expect("no panic")
}

async fn export(seen: Shared, body: web::Bytes) -> HttpResponse {
    let request = ExportTraceServiceRequest::decode(&body[..]).expect("an export");
    let spans = request.resource_spans.into_iter().flat_map(|one| one.scope_spans).flat_map(|one| one.spans);
    lock(&seen).spans.extend(spans);
    HttpResponse::Ok().content_type("application/x-protobuf").finish()
}

async fn embed(seen: Shared, request: HttpRequest, body: web::Json<Value>) -> HttpResponse {
    let traceparent = request.headers().get("traceparent").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let input = body["input"].as_str().expect("one text").to_owned();
    let times = {
        let mut seen = lock(&seen);
        let asked = seen.asked.entry(input.clone()).or_default();
        asked.push(traceparent);
        asked.len()
    };
    match (input.as_str(), times) {
        (NEVER_ANSWER, _) => std::future::pending().await,
        (FAIL_ONCE, 1) => HttpResponse::InternalServerError().json(json!({ "error": { "message": "broken" } })),
        _ => HttpResponse::Ok().json(json!({ "model": "m", "data": [{ "index": 0, "embedding": [0.5] }] })),
    }
}

/// Receiver and backend in one server.
fn server() -> (String, Shared) {
    let seen = Shared::from(Arc::new(Mutex::new(Seen::default())));
    let shared = seen.clone();
    let app = move || {
        App::new()
            .app_data(shared.clone())
            .route("/v1/traces", web::post().to(export))
            .route("/v1/embeddings", web::post().to(embed))
            .route("/readyz", web::get().to(HttpResponse::Ok))
            .route(
                "/v1/models",
                web::get().to(|| async { HttpResponse::Ok().json(json!({ "data": [{ "id": "m" }] })) }),
            )
    };
    let server = HttpServer::new(app).workers(1).disable_signals().bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", server.addrs()[0]);
    actix_rt::spawn(server.run());
    (url, seen)
}

/// Two nodes before one backend.
struct Cluster {
    relay: Standalone,
    client: reqwest::Client,
    seen: Shared,
    backend: String,
    _folder: tempfile::TempDir,
}

impl Cluster {
    async fn start(backend: &str, seen: &Shared) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let env = [("RELAY__RETRY__DELAY_MS", RETRY_DELAY_MS), ("RELAY__NODE__DRAIN_TIMEOUT_MS", DRAIN_MS)];
        let options = Options {
            nodes: 2,
            backends: vec![format!("{backend};slots=4")],
            env: env.into_iter().map(|(name, value)| (name.to_owned(), value.to_string())).collect(),
            ..Options::new(folder.path())
        };
        let relay = Standalone::start(options).await?;
        let client = reqwest::Client::new();
        Ok(Self { relay, client, seen: seen.clone(), backend: backend.to_owned(), _folder: folder })
    }

    /// Submits a job; the trace context goes into the job itself, or beside it as the request's header.
    async fn submit(&self, input: &str, traceparent: &str, in_job: bool) -> anyhow::Result<String> {
        let mut job = json!({ "task": "embed", "model": "m", "input": { "text": input } });
        let mut request = self.client.post(format!("{}/v1/jobs", self.relay.url()));
        if in_job {
            job["traceparent"] = json!(traceparent);
        } else {
            request = request.header("traceparent", traceparent);
        }
        let accepted: Value = request.json(&job).send().await?.error_for_status()?.json().await?;
        Ok(accepted["job_id"].as_str().expect("an id").to_owned())
    }

    /// Waits until the job ended, and how it did.
    async fn ended(&self, job_id: &str, event: &str) -> anyhow::Result<()> {
        // The stream of events closes after the terminal one.
        let events = self.client.get(format!("{}/v1/jobs/{job_id}/events", self.relay.url())).send();
        let text = async { events.await?.text().await };
        let events = tokio::time::timeout(PATIENCE, text).await??;
        assert!(events.contains(&format!("event: {event}\n")), "{events}");
        Ok(())
    }

    async fn cancel(&self, job_id: &str) -> anyhow::Result<()> {
        self.client.delete(format!("{}/v1/jobs/{job_id}", self.relay.url())).send().await?.error_for_status()?;
        Ok(())
    }

    fn asked(&self, input: &str) -> Vec<Option<String>> {
        lock(&self.seen).asked.get(input).cloned().unwrap_or_default()
    }
}

/// The spans of one trace.
struct Trace {
    id: String,
    spans: Vec<Span>,
}

impl Trace {
    fn of(seen: &Shared, traceparent: &str) -> Self {
        let id = traceparent[3..35].to_owned();
        let spans = lock(seen).spans.iter().filter(|span| hex::encode(&span.trace_id) == id).cloned().collect();
        Self { id, spans }
    }

    /// Those of that name, in the order they began.
    fn named(&self, name: &str) -> Vec<&Span> {
        let mut found: Vec<_> = self.spans.iter().filter(|span| span.name == name).collect();
        found.sort_by_key(|span| span.start_time_unix_nano);
        found
    }

    fn one(&self, name: &str) -> &Span {
        let found = self.named(name);
        assert_eq!(found.len(), 1, "{name} in {:?}", self.spans.iter().map(|span| &span.name).collect::<Vec<_>>());
        found[0]
    }

    fn traceparent(&self, span: &Span) -> Option<String> {
        Some(format!("00-{}-{}-01", self.id, hex::encode(&span.span_id)))
    }
}

fn traceparent(trace: u128) -> String {
    format!("00-{:032x}-{CALLER}-01", 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_0000_u128 + trace)
}

fn attribute(span: &Span, name: &str) -> Option<String> {
    let value = span.attributes.iter().find(|one| one.key == name)?.value.as_ref()?.value.as_ref()?;
    match value {
        Attribute::StringValue(text) => Some(text.clone()),
        Attribute::IntValue(number) => Some(number.to_string()),
        _ => None,
    }
}

fn is_error(span: &Span) -> bool {
    span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error)
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn in_time<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::time::timeout(PATIENCE * 3, work).await?
}

/// One test: logs and traces are set up once in a process, and the first part is about the time before.
#[actix_rt::test]
async fn a_job_s_trace_goes_from_its_caller_to_its_backend() -> anyhow::Result<()> {
    let (url, seen) = server();
    in_time(without_export_the_callers_context_goes_on_as_it_came(&url)).await?;

    let mut telemetry = telemetry::init(&TelemetrySettings {
        log_format: LogFormat::Text,
        log_level: "off".to_owned(),
        otlp_endpoint: Some(url.clone()),
        otlp_timeout_ms: 5_000,
        trace_ratio: 1.0,
        service_name: "tracing-test".to_owned(),
        service_instance: None,
    })?;
    let cluster = in_time(Cluster::start(&url, &seen)).await?;
    let (header, retried, cancelled, abandoned) = (traceparent(1), traceparent(2), traceparent(3), traceparent(4));
    let job_id = in_time(cluster.submit(ANSWER, &header, false)).await?;
    cluster.ended(&job_id, "completed").await?;
    let retried_id = in_time(cluster.submit(FAIL_ONCE, &retried, true)).await?;
    cluster.ended(&retried_id, "completed").await?;
    let cancelled_id = in_time(cluster.submit(NEVER_ANSWER, &cancelled, true)).await?;
    until("the backend is asked", || !cluster.asked(NEVER_ANSWER).is_empty()).await;
    in_time(cluster.cancel(&cancelled_id)).await?;
    cluster.ended(&cancelled_id, "cancelled").await?;
    let asked_so_far = cluster.asked(NEVER_ANSWER).len();
    in_time(cluster.submit(NEVER_ANSWER, &abandoned, true)).await?;
    until("the backend is asked again", || cluster.asked(NEVER_ANSWER).len() > asked_so_far).await;
    let (asked, asked_twice) = (cluster.asked(ANSWER), cluster.asked(FAIL_ONCE));
    let backend = cluster.backend.clone();
    cluster.relay.stop().await;
    // Sends what is left, and returns when the receiver has it.
    web::block(move || telemetry.shutdown()).await?;

    one_attempt(&Trace::of(&seen, &header), &job_id, &backend, &asked);
    two_attempts(&Trace::of(&seen, &retried), &retried_id, &asked_twice);
    a_cancelled_attempt(&Trace::of(&seen, &cancelled), &cancelled_id);
    abandoned_attempts(&Trace::of(&seen, &abandoned));
    Ok(())
}

async fn without_export_the_callers_context_goes_on_as_it_came(url: &str) -> anyhow::Result<()> {
    let (backend, seen) = server();
    assert_ne!(backend, url, "a backend of its own");
    let cluster = Cluster::start(&backend, &seen).await?;
    let mine = traceparent(0);
    let job_id = cluster.submit(ANSWER, &mine, true).await?;
    cluster.ended(&job_id, "completed").await?;
    assert_eq!(cluster.asked(ANSWER), [Some(mine)]);
    cluster.relay.stop().await;
    assert!(lock(&seen).spans.is_empty());
    Ok(())
}

/// Caller, request at the gateway, attempt, request to the backend: each is the parent of the next.
fn one_attempt(trace: &Trace, job_id: &str, backend_url: &str, asked: &[Option<String>]) {
    let (request, attempt, backend) =
        (trace.one("POST /v1/jobs"), trace.one("job.attempt"), trace.one("backend.request"));
    assert_eq!(hex::encode(&request.parent_span_id), CALLER);
    assert_eq!(attempt.parent_span_id, request.span_id);
    assert_eq!(backend.parent_span_id, attempt.span_id);
    assert_eq!(asked, [trace.traceparent(backend)], "the backend's parent is its request");
    let expected = [
        ("job_id", job_id),
        ("tenant", "default"),
        ("task", "embed"),
        ("lane", "default"),
        ("attempt", "1"),
        ("backend", backend_url),
        ("outcome", "completed"),
    ];
    for (name, value) in expected {
        assert_eq!(attribute(attempt, name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(attribute(backend, "backend").as_deref(), Some(backend_url));
    assert!(!is_error(attempt) && !is_error(backend));
}

/// A job that brings its context along has no request between its caller and its attempts.
fn two_attempts(trace: &Trace, job_id: &str, asked: &[Option<String>]) {
    let (attempts, backends) = (trace.named("job.attempt"), trace.named("backend.request"));
    let ([first, second], [failed, answered]) = (&attempts[..], &backends[..]) else {
        panic!("{} attempts, {} requests", attempts.len(), backends.len())
    };
    for (attempt, backend) in [(first, failed), (second, answered)] {
        assert_eq!(hex::encode(&attempt.parent_span_id), CALLER);
        assert_eq!(backend.parent_span_id, attempt.span_id);
        assert_eq!(attribute(attempt, "job_id").as_deref(), Some(job_id));
    }
    assert_eq!(asked, [trace.traceparent(failed), trace.traceparent(answered)]);
    let told = |span, name| attribute(span, name).unwrap_or_default();
    assert_eq!((told(first, "attempt").as_str(), told(first, "outcome").as_str()), ("1", "retrying"));
    assert_eq!((told(second, "attempt").as_str(), told(second, "outcome").as_str()), ("2", "completed"));
    assert!(is_error(first) && is_error(failed) && !is_error(second) && !is_error(answered));
    assert_eq!(told(first, "error.code"), "backend_failed");
    let between = Duration::from_nanos(second.start_time_unix_nano.saturating_sub(first.end_time_unix_nano));
    assert!(
        between >= Duration::from_millis(RETRY_DELAY_MS / 2 - 10),
        "the wait is no part of an attempt: {between:?}"
    );
}

fn a_cancelled_attempt(trace: &Trace, job_id: &str) {
    let (attempt, backend) = (trace.one("job.attempt"), trace.one("backend.request"));
    assert_eq!(backend.parent_span_id, attempt.span_id);
    assert_eq!(attribute(attempt, "job_id").as_deref(), Some(job_id));
    assert_eq!(attribute(attempt, "outcome").as_deref(), Some("cancelled"));
    assert!(!is_error(attempt));
}

/// The cluster ended while the job ran; the node that ends later may have begun it once more.
fn abandoned_attempts(trace: &Trace) {
    let attempts = trace.named("job.attempt");
    assert!(!attempts.is_empty());
    for attempt in attempts {
        assert_eq!(attribute(attempt, "outcome").as_deref(), Some("abandoned"));
    }
}
