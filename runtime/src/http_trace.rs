//! One span per HTTP request, in the trace of its caller: `App::new().wrap(request_spans())`.

use actix_web::Error;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use tracing::Span;
use tracing::field::Empty;
use tracing_actix_web::{RootSpanBuilder, TracingLogger};

use crate::telemetry::span_with_parent;

/// Paths that probes and scrapers ask all the time; they get no span.
const QUIET: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// The middleware. Make it the outermost one (the last `wrap`).
pub fn request_spans() -> TracingLogger<RequestSpan> {
    TracingLogger::new()
}

/// Makes the span `request`: method, route, path, status, trace id. Never the query or a header, which may hold secrets.
#[derive(Debug, Clone, Copy)]
pub struct RequestSpan;

impl RootSpanBuilder for RequestSpan {
    fn on_request_start(request: &ServiceRequest) -> Span {
        if QUIET.contains(&request.path()) {
            return Span::none();
        }
        let route = request.match_pattern().unwrap_or_else(|| "unknown".to_owned());
        let span = tracing::info_span!(
            "request",
            otel.name = %format_args!("{} {route}", request.method()),
            otel.kind = "server",
            otel.status_code = Empty,
            http.request.method = %request.method(),
            http.route = route,
            url.path = request.path(),
            http.response.status_code = Empty,
            error.code = Empty,
            trace_id = Empty,
        );
        let traceparent = request.headers().get("traceparent").and_then(|value| value.to_str().ok());
        span_with_parent(traceparent, span)
    }

    fn on_request_end<B: MessageBody>(span: Span, outcome: &Result<ServiceResponse<B>, Error>) {
        let (status, error) = match outcome {
            Ok(response) => (response.status(), response.response().error()),
            Err(error) => (error.as_response_error().status_code(), Some(error)),
        };
        span.record("http.response.status_code", status.as_u16());
        span.record("otel.status_code", if status.is_server_error() { "ERROR" } else { "OK" });
        if let Some(error) = error.and_then(|error| error.as_error::<crate::http_error::ApiError>()) {
            span.record("error.code", error.code.as_ref());
        }
    }
}
