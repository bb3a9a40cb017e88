//! Which spans exist, what they cost and what they carry when nothing is exported. A process of its own with one test:
//! tracing caches per process what is enabled, so a second subscriber beside this one would change the answers.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::time::Instant;

use relay_runtime::telemetry::{LogFormat, TelemetrySettings, build, current_traceparent, span_with_parent};
use relay_runtime::traceparent::Traceparent;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[test]
fn spans_without_an_exporter() {
    // Also when logs are off: a trace must not hang on the log level.
    for (level, fine) in [("off", false), ("error", false), ("info", false), ("debug", true)] {
        let settings = TelemetrySettings {
            log_format: LogFormat::Text,
            log_level: level.to_owned(),
            otlp_endpoint: None,
            otlp_timeout_ms: 1_000,
            trace_ratio: 1.0,
            service_name: "test".to_owned(),
            service_instance: None,
        };
        let (subscriber, _guard) = build(&settings, std::io::sink, false).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            only_those_that_are_wanted_exist(level, fine);
            the_trace_is_passed_on(level);
            they_are_cheap(level);
        });
    }
}

fn only_those_that_are_wanted_exist(level: &str, fine: bool) {
    assert!(!tracing::info_span!("coarse").is_disabled(), "level {level}");
    assert_eq!(!tracing::debug_span!("fine").is_disabled(), fine, "level {level}");
    assert_eq!(tracing::enabled!(tracing::Level::DEBUG), fine, "level {level}");
}

fn the_trace_is_passed_on(level: &str) {
    let parent = Traceparent::parse(PARENT).unwrap();
    span_with_parent(Some(PARENT), tracing::info_span!("job")).in_scope(|| {
        let here = current_traceparent();
        assert_eq!(here.trace_id(), parent.trace_id(), "level {level}");
        assert_ne!(here.span_id(), parent.span_id(), "a span of its own");
        assert_eq!(current_traceparent(), here, "stable inside one span");
        let inner = tracing::info_span!("attempt").in_scope(current_traceparent);
        assert_eq!(inner.trace_id(), parent.trace_id(), "level {level}");
    });
}

fn they_are_cheap(level: &str) {
    const SPANS: u32 = 1_000;
    let round = |_| {
        let began = Instant::now();
        for n in 0..SPANS {
            tracing::info_span!("job", n).in_scope(|| std::hint::black_box(n));
        }
        began.elapsed() / SPANS
    };
    // The best of ten: whatever else the machine does is not the spans' cost.
    let per_span = (0..10).map(round).min().expect("ten rounds");
    // Unoptimised it takes about 3 microseconds; the bound leaves room for a slow machine.
    assert!(per_span.as_micros() < 50, "{per_span:?} per span at level {level}");
}
