//! Log lines, trace context, and the export to a real OTLP receiver.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use actix_web::test::{TestRequest, call_service, init_service, read_body};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use relay_runtime::http_trace::request_spans;
use relay_runtime::settings::load;
use relay_runtime::telemetry::{
    LogFormat, TelemetryError, TelemetrySettings, build, current_traceparent, span_with_parent,
};
use relay_runtime::traceparent::Traceparent;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::Instrument;
use tracing::field::Empty;

use crate::PATIENCE;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const PARENT_TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;

fn settings(format: LogFormat, level: &str, otlp: Option<&str>) -> TelemetrySettings {
    TelemetrySettings {
        log_format: format,
        log_level: level.to_owned(),
        otlp_endpoint: otlp.map(str::to_owned),
        otlp_timeout_ms: 10_000,
        trace_ratio: 1.0,
        service_name: "test-service".to_owned(),
        service_instance: Some("node-1".to_owned()),
    }
}

/// Where log lines go in a test.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Runs `work` with the subscriber of `settings`; returns what it returned and the log.
fn with<T>(settings: &TelemetrySettings, work: impl FnOnce() -> T) -> (T, String) {
    let lines = Lines::default();
    let writer = lines.clone();
    let (subscriber, _guard) = build(settings, move || writer.clone(), false).unwrap();
    let result = tracing::subscriber::with_default(subscriber, work);
    (result, lines.text())
}

#[test]
fn json_lines_hold_fields_and_the_trace() {
    let ((), log) = with(&settings(LogFormat::Json, "info", None), || {
        let span = span_with_parent(Some(PARENT), tracing::info_span!("job", trace_id = Empty));
        span.in_scope(|| tracing::info!(job_id = 7, "done"));
        tracing::debug!("not shown");
    });
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert_eq!((&lines[0]["message"], &lines[0]["job_id"]), (&"done".into(), &7.into()));
    assert_eq!(lines[0]["span"]["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
}

#[test]
fn text_lines_follow_the_filter() {
    let ((), log) = with(&settings(LogFormat::Text, "warn,suite=debug", None), || {
        tracing::debug!("own");
        tracing::info!(target: "elsewhere", "foreign");
        tracing::warn!(target: "elsewhere", "loud");
    });
    assert!(log.contains("own") && log.contains("loud") && !log.contains("foreign"), "{log}");
}

#[test]
fn settings_that_cannot_be_meant_are_refused() {
    let refuse = |change: &dyn Fn(&mut TelemetrySettings)| {
        let mut settings = settings(LogFormat::Text, "info", None);
        change(&mut settings);
        match build(&settings, std::io::sink, false) {
            Ok(_) => panic!("must be refused"),
            Err(error) => error,
        }
    };
    let error = refuse(&|s| s.log_level = "info,a=loud".to_owned());
    assert!(matches!(error, TelemetryError::LogLevel { .. }) && error.to_string().contains("info,a=loud"), "{error}");
    assert!(matches!(refuse(&|s| s.trace_ratio = 1.5), TelemetryError::TraceRatio(_)));
    assert!(matches!(refuse(&|s| s.trace_ratio = f64::NAN), TelemetryError::TraceRatio(_)));
    let error = refuse(&|s| s.otlp_endpoint = Some("collector:4318".to_owned()));
    assert!(error.to_string().contains("collector:4318") && error.to_string().contains("http://"), "{error}");
    assert!(matches!(refuse(&|s| s.otlp_endpoint = Some("http://[".to_owned())), TelemetryError::Otlp { .. }));
}

#[test]
fn the_section_is_read_from_toml_and_variables() {
    #[derive(serde::Deserialize)]
    struct Settings {
        telemetry: TelemetrySettings,
    }
    let toml = "[telemetry]\nlog_format = \"text\"\nlog_level = \"info\"\notlp_endpoint = \"\"\notlp_timeout_ms = 5000\ntrace_ratio = 1.0\nservice_name = \"n\"\n";
    let env = [("RELAY__TELEMETRY__LOG_FORMAT".to_owned(), "json".to_owned())].into_iter().collect();
    let read = load::<Settings>(toml, None, env, &[]).unwrap().telemetry;
    assert_eq!((read.log_format, read.otlp_endpoint), (LogFormat::Json, None));
}

#[test]
fn a_new_trace_begins_without_a_usable_parent() {
    for parent in [None, Some(""), Some("garbage"), Some("00-00000000000000000000000000000000-0000000000000000-00")] {
        let ((), _) = with(&settings(LogFormat::Text, "info", None), || {
            let (one, two) = (
                span_with_parent(parent, tracing::info_span!("a")),
                span_with_parent(parent, tracing::info_span!("b")),
            );
            let one_again = one.in_scope(current_traceparent);
            assert_eq!(one.in_scope(current_traceparent), one_again);
            assert_ne!(one_again.trace_id(), two.in_scope(current_traceparent).trace_id());
            assert!(one_again.is_sampled());
        });
    }
    // No subscriber and no span at all: still something to send on.
    assert_ne!(current_traceparent().trace_id(), current_traceparent().trace_id());
}

/// One export: path, content type and body.
type Export = (String, String, Vec<u8>);

/// A real OTLP receiver on a free port; it ends with the test's runtime.
fn receiver() -> (String, mpsc::UnboundedReceiver<Export>) {
    let (exports_tx, exports) = mpsc::unbounded_channel();
    let app = move || {
        let exports = exports_tx.clone();
        App::new().default_service(web::route().to(move |request: HttpRequest, body: web::Bytes| {
            let kind = request.headers().get("content-type").unwrap().to_str().unwrap().to_owned();
            exports.send((format!("{} {}", request.method(), request.path()), kind, body.to_vec())).unwrap();
            async { HttpResponse::Ok().content_type("application/x-protobuf").finish() }
        }))
    };
    let server = HttpServer::new(app).workers(1).disable_signals().bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", server.addrs()[0]);
    actix_web::rt::spawn(server.run());
    (url, exports)
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[actix_web::test]
async fn spans_reach_a_real_receiver_with_name_and_trace() {
    let (url, mut exports) = receiver();
    // The log is off: the export must not hang on the log level.
    let (subscriber, mut guard) = build(&settings(LogFormat::Text, "off", Some(&url)), std::io::sink, false).unwrap();
    let sent_on = {
        let _here = tracing::subscriber::set_default(subscriber);
        let span = span_with_parent(Some(PARENT), tracing::info_span!("transcribe-the-speech", trace_id = Empty));
        let work = async {
            let inner = tracing::info_span!("call-the-backend").in_scope(current_traceparent);
            tracing::debug_span!("too-fine-to-export").in_scope(|| ());
            (current_traceparent(), inner)
        };
        work.instrument(span).await
    };
    assert_eq!((sent_on.0.trace_id(), sent_on.1.trace_id()), (PARENT_TRACE, PARENT_TRACE));
    assert_ne!(sent_on.0.span_id(), sent_on.1.span_id());
    web::block(move || guard.shutdown()).await.unwrap();

    let (path, kind, body) = timeout(PATIENCE, exports.recv()).await.expect("an export").unwrap();
    assert_eq!((path.as_str(), kind.as_str()), ("POST /v1/traces", "application/x-protobuf"));
    for part in ["transcribe-the-speech", "call-the-backend", "test-service", "node-1"] {
        assert!(holds(&body, part.as_bytes()), "{part} is missing");
    }
    assert!(!holds(&body, b"too-fine-to-export"));
    assert!(holds(&body, &PARENT_TRACE.to_be_bytes()), "the trace id");
    assert!(holds(&body, &0x00f0_67aa_0ba9_02b7_u64.to_be_bytes()), "the caller's span as parent");
    assert!(holds(&body, &sent_on.0.span_id().to_be_bytes()), "what was sent on is what was exported");
}

#[actix_web::test]
async fn a_trace_that_its_caller_does_not_record_is_not_exported() {
    let (url, mut exports) = receiver();
    let (subscriber, mut guard) = build(&settings(LogFormat::Text, "off", Some(&url)), std::io::sink, false).unwrap();
    {
        let _here = tracing::subscriber::set_default(subscriber);
        let unsampled = PARENT.replace("-01", "-00");
        let here =
            span_with_parent(Some(&unsampled), tracing::info_span!("unsampled-work")).in_scope(current_traceparent);
        assert_eq!(here.trace_id(), PARENT_TRACE);
        assert!(!here.is_sampled());
        span_with_parent(None, tracing::info_span!("sampled-work")).in_scope(|| ());
    }
    web::block(move || guard.shutdown()).await.unwrap();
    let (_, _, body) = timeout(PATIENCE, exports.recv()).await.expect("an export").unwrap();
    assert!(holds(&body, b"sampled-work") && !holds(&body, b"unsampled-work"));
}

#[actix_web::test]
async fn an_unreachable_receiver_delays_the_end_by_its_time_out_at_most() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    let (subscriber, guard) = build(&settings(LogFormat::Text, "off", Some(&url)), std::io::sink, false).unwrap();
    tracing::subscriber::with_default(subscriber, || tracing::info_span!("lost").in_scope(|| ()));
    // Dropped inside the runtime, as a daemon's `main` does: neither a panic nor a hang.
    let began = Instant::now();
    drop(guard);
    assert!(began.elapsed() < PATIENCE);
}

#[actix_web::test]
async fn a_request_runs_in_its_callers_trace() {
    let lines = Lines::default();
    let writer = lines.clone();
    let (subscriber, _guard) = build(&settings(LogFormat::Json, "info", None), move || writer.clone(), false).unwrap();
    let _here = tracing::subscriber::set_default(subscriber);
    let handler = || async {
        tracing::info!("handled");
        current_traceparent().to_string()
    };
    let app = App::new()
        .wrap(request_spans())
        .route("/jobs/{id}", web::get().to(handler))
        .route("/healthz", web::get().to(handler));
    let app = init_service(app).await;
    let ask = |path: &str| TestRequest::get().uri(path).insert_header(("traceparent", PARENT)).to_request();
    let body = read_body(call_service(&app, ask("/jobs/7?token=secret")).await).await;
    let here = Traceparent::parse(std::str::from_utf8(&body).unwrap()).unwrap();
    assert_eq!(here.trace_id(), PARENT_TRACE);
    let line: serde_json::Value = serde_json::from_str(lines.text().lines().next().unwrap()).unwrap();
    assert_eq!(line["span"]["http.route"], "/jobs/{id}");
    assert_eq!(line["span"]["url.path"], "/jobs/7");
    assert_eq!(line["span"]["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert!(!lines.text().contains("secret"));
    let body = read_body(call_service(&app, ask("/healthz")).await).await;
    assert_ne!(
        Traceparent::parse(std::str::from_utf8(&body).unwrap()).unwrap().trace_id(),
        PARENT_TRACE,
        "probes have no span"
    );
}
