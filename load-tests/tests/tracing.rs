//! One trace from the caller's HTTP request to the backend's, as a real OTLP receiver gets it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use relay_runtime::telemetry::{self, LogFormat, TelemetrySettings};
use serde_json::{Value, json};
use standalone::{Options, Standalone};

/// Longest wait for anything that should happen.
const PATIENCE: Duration = Duration::from_secs(20);
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// What came in.
#[derive(Default)]
struct Seen {
    spans: HashMap<String, Span>,
    backend_traceparent: Option<String>,
}

type Shared = web::Data<Mutex<Seen>>;

async fn export(seen: Shared, body: web::Bytes) -> HttpResponse {
    let request = ExportTraceServiceRequest::decode(&body[..]).expect("an export");
    let spans = request.resource_spans.into_iter().flat_map(|one| one.scope_spans).flat_map(|one| one.spans);
    // Heartbeats and questions have traces of their own.
    let ours = spans.filter(|span| hex::encode(&span.trace_id) == TRACE).map(|span| (span.name.clone(), span));
    seen.lock().expect("no panic").spans.extend(ours);
    HttpResponse::Ok().content_type("application/x-protobuf").finish()
}

async fn embed(seen: Shared, request: HttpRequest) -> HttpResponse {
    let traceparent = request.headers().get("traceparent").and_then(|value| value.to_str().ok()).map(str::to_owned);
    seen.lock().expect("no panic").backend_traceparent = traceparent;
    HttpResponse::Ok().json(json!({ "model": "m", "data": [{ "index": 0, "embedding": [0.5] }] }))
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

#[actix_rt::test]
async fn a_job_s_trace_goes_from_its_caller_to_its_backend() -> anyhow::Result<()> {
    let (url, seen) = server();
    let mut telemetry = telemetry::init(&TelemetrySettings {
        log_format: LogFormat::Text,
        log_level: "off".to_owned(),
        otlp_endpoint: Some(url.clone()),
        otlp_timeout_ms: 5_000,
        trace_ratio: 1.0,
        service_name: "tracing-test".to_owned(),
        service_instance: None,
    })?;
    let folder = tempfile::tempdir()?;
    let relay = Standalone::start(Options { backends: vec![url], ..Options::new(folder.path()) }).await?;
    let client = reqwest::Client::new();
    let submitted = client
        .post(format!("{}/v1/jobs", relay.url()))
        .header("traceparent", format!("00-{TRACE}-{CALLER}-01"))
        .json(&json!({ "task": "embed", "model": "m", "input": { "text": "one text" } }))
        .send()
        .await?;
    let job: Value = submitted.error_for_status()?.json().await?;
    let job_id = job["job_id"].as_str().expect("an id").to_owned();
    // The stream of events closes after the terminal one.
    let events = client.get(format!("{}/v1/jobs/{job_id}/events", relay.url())).send();
    let events = tokio::time::timeout(PATIENCE, events).await??.text().await?;
    assert!(events.contains("event: completed"), "{events}");
    relay.stop().await;
    web::block(move || telemetry.shutdown()).await?;

    let began = Instant::now();
    while seen.lock().expect("no panic").spans.len() < 3 {
        assert!(began.elapsed() < PATIENCE, "{:?}", seen.lock().expect("no panic").spans.keys());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let seen = seen.lock().expect("no panic");
    let of = |name: &str| seen.spans.get(name).unwrap_or_else(|| panic!("{name} in {:?}", seen.spans.keys()));
    let (request, attempt, backend) = (of("POST /v1/jobs"), of("job.attempt"), of("backend.request"));
    assert_eq!(hex::encode(&request.parent_span_id), CALLER);
    assert_eq!(attempt.parent_span_id, request.span_id);
    assert_eq!(backend.parent_span_id, attempt.span_id);
    let sent = format!("00-{TRACE}-{}-01", hex::encode(&backend.span_id));
    assert_eq!(seen.backend_traceparent.as_deref(), Some(sent.as_str()), "the backend's parent is its request");
    let attribute = |span: &Span, name: &str| span.attributes.iter().any(|one| one.key == name);
    assert!(attribute(attempt, "job.id") && attribute(attempt, "tenant") && attribute(backend, "backend"));
    Ok(())
}
