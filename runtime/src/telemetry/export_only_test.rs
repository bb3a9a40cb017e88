//! Spans that are for a receiver only: free without one, never in log lines.
//!
//! One test: tracing caches per process which spans are wanted.

use std::fmt;
use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use tracing::Span;
use tracing::field::Empty;
use tracing::level_filters::LevelFilter;

use super::{EXPORT_ONLY, LogFormat, TelemetrySettings, build, span_with_parent, traceparent_of};
use crate::traceparent::Traceparent;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

static FORMATTED: AtomicU32 = AtomicU32::new(0);

/// Counts how often it is written.
struct Counted;

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        FORMATTED.fetch_add(1, Ordering::Relaxed);
        f.write_str("counted-field")
    }
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn settings(log_level: &str, otlp_endpoint: Option<&str>) -> TelemetrySettings {
    TelemetrySettings {
        log_format: LogFormat::Text,
        log_level: log_level.to_owned(),
        otlp_endpoint: otlp_endpoint.map(str::to_owned),
        otlp_timeout_ms: 100,
        trace_ratio: 1.0,
        service_name: "test".to_owned(),
        service_instance: None,
    }
}

fn span() -> Span {
    let span = tracing::info_span!(target: EXPORT_ONLY, "work", field = %Counted, later = Empty);
    span_with_parent(Some(PARENT), span)
}

/// Makes a span and logs inside of it; answers with the log lines.
fn lines_of(settings: &TelemetrySettings, check: impl FnOnce(&Span)) -> String {
    let lines = Lines::default();
    let writer = lines.clone();
    let (subscriber, guard) = build(settings, move || writer.clone(), false).expect("settings");
    tracing::subscriber::with_default(subscriber, || {
        let span = span();
        span.record("later", tracing::field::display(Counted));
        span.in_scope(|| tracing::info!("inside"));
        check(&span);
        if settings.log_level == "info" {
            assert_eq!(LevelFilter::current(), LevelFilter::INFO, "finer events stay free too");
        }
    });
    drop(guard);
    let text = lines.0.lock().expect("no panic").clone();
    String::from_utf8(text).expect("UTF-8")
}

#[test]
fn a_span_for_a_receiver_exists_only_with_one() {
    for level in ["off", "info", "trace", "relay_export_only=trace,info"] {
        let lines = lines_of(&settings(level, None), |span| {
            assert!(span.is_disabled(), "level {level}");
            assert_eq!(traceparent_of(span), None);
        });
        assert_eq!(lines.contains("inside"), level != "off", "{lines}");
        assert_eq!(FORMATTED.load(Ordering::Relaxed), 0, "level {level}");
    }
    // Nobody listens there; what could not be exported is dropped.
    let lines = lines_of(&settings("info", Some("http://127.0.0.1:1")), |span| {
        let (here, parent) = (traceparent_of(span).expect("a trace"), Traceparent::parse(PARENT).expect("valid"));
        assert_eq!(here.trace_id(), parent.trace_id());
        assert_ne!(here.span_id(), parent.span_id());
    });
    assert!(lines.contains("inside") && !lines.contains("counted-field"), "{lines}");
    assert_eq!(FORMATTED.load(Ordering::Relaxed), 2, "once for each field that is exported");
}
