//! Which trace a span belongs to, with and without an exporter.

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Registry;
use tracing_subscriber::registry::LookupSpan;

use crate::random::SystemRandom;
use crate::traceparent::Traceparent;

/// Makes `span` part of the trace that `traceparent` names; without one, or with one that is not valid, a new trace
/// begins. Work inside the span finds it by [`current_traceparent`].
///
/// Call it before the span is entered and before spans are made inside it. A span that declares the field `trace_id`
/// (`info_span!("job", trace_id = tracing::field::Empty)`) gets it filled in, so that log lines show it. A disabled span
/// comes back as it is.
pub fn span_with_parent(traceparent: Option<&str>, span: Span) -> Span {
    if span.is_disabled() {
        return span;
    }
    let parent = traceparent.and_then(|text| Traceparent::parse(text).ok());
    if let Some(parent) = parent {
        // Err means that nothing is exported; the trace is then kept beside the span, below.
        _ = span.set_parent(Context::new().with_remote_span_context(span_context(parent)));
    }
    let here = exported(&span).unwrap_or_else(|| {
        let here = parent.map_or_else(|| Traceparent::random(&SystemRandom), |parent| parent.child(&SystemRandom));
        remember(&span, here);
        here
    });
    if span.has_field("trace_id") {
        span.record("trace_id", tracing::field::display(format_args!("{:032x}", here.trace_id())));
    }
    span
}

/// What to send on with work that the current span causes: its trace and its span id.
///
/// Outside any span, or inside spans that [`span_with_parent`] never saw, it starts a new trace each time it is called.
pub fn current_traceparent() -> Traceparent {
    traceparent_of(&Span::current()).unwrap_or_else(|| Traceparent::random(&SystemRandom))
}

/// What to send on with work that `span` causes; `None` for a disabled span, and for one that belongs to no known trace.
pub fn traceparent_of(span: &Span) -> Option<Traceparent> {
    if span.is_disabled() {
        return None;
    }
    exported(span).or_else(|| remembered(span))
}

/// The context of an exported span.
fn exported(span: &Span) -> Option<Traceparent> {
    let context = span.context();
    let context = context.span().span_context().clone();
    let trace_id = u128::from_be_bytes(context.trace_id().to_bytes());
    let span_id = u64::from_be_bytes(context.span_id().to_bytes());
    Traceparent::from_parts(trace_id, span_id, context.trace_flags().to_u8()).ok()
}

fn span_context(parent: Traceparent) -> SpanContext {
    let trace_id = TraceId::from_bytes(parent.trace_id().to_be_bytes());
    let span_id = SpanId::from_bytes(parent.span_id().to_be_bytes());
    SpanContext::new(trace_id, span_id, TraceFlags::new(parent.flags()), true, TraceState::default())
}

/// Lays `here` beside the span in the registry.
fn remember(span: &Span, here: Traceparent) {
    span.with_subscriber(|(id, dispatch)| {
        if let Some(span) = dispatch.downcast_ref::<Registry>().and_then(|registry| registry.span(id)) {
            span.extensions_mut().replace(here);
        }
    });
}

/// The nearest traceparent that was laid beside the span or one of those around it.
fn remembered(span: &Span) -> Option<Traceparent> {
    span.with_subscriber(|(id, dispatch)| {
        let span = dispatch.downcast_ref::<Registry>()?.span(id)?;
        span.scope().find_map(|span| span.extensions().get::<Traceparent>().copied())
    })?
}
