//! Logs on standard error, spans over OTLP when an endpoint is configured, and the trace context of a piece of work.
//!
//! Standard output is never written: it belongs to results and to the `ready` line. Without an endpoint a span costs
//! its place in the registry and its text in log lines, and [`current_traceparent`] still names a trace to send on;
//! a span with the target [`EXPORT_ONLY`] costs nothing then.

use std::io::IsTerminal;
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{KeyValue, global};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use serde::Deserialize;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, FilterExt, FilterFn, LevelFilter};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

mod context;
#[cfg(test)]
mod export_only_test;

pub use self::context::{current_traceparent, span_with_parent, traceparent_of};

/// Target of spans that only a receiver sees: `info_span!(target: EXPORT_ONLY, "job.attempt")`. Without an endpoint they
/// are disabled at every log level: nothing is formatted or allocated for them. Log lines never show them.
pub const EXPORT_ONLY: &str = "relay_export_only";

/// Section `[telemetry]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TelemetrySettings {
    /// How log lines look.
    pub log_format: LogFormat,
    /// What is logged: a level (`info`), or directives as `tracing_subscriber::EnvFilter` reads them
    /// (`info,relay_node::gateway=debug`).
    pub log_level: String,
    /// Base URL of an OTLP receiver, http/protobuf (`http://collector:4318`); `/v1/traces` is added. Empty or absent: no export.
    #[serde(default, deserialize_with = "crate::settings::empty_is_none")]
    pub otlp_endpoint: Option<String>,
    /// Longest wait for the receiver per batch, in milliseconds.
    pub otlp_timeout_ms: u64,
    /// Part of the traces that begin here and are exported, 0.0 to 1.0. A trace begun elsewhere follows its own flag.
    pub trace_ratio: f64,
    /// `service.name` of the exported spans.
    pub service_name: String,
    /// `service.instance.id` of the exported spans: tells nodes apart.
    #[serde(default, deserialize_with = "crate::settings::empty_is_none")]
    pub service_instance: Option<String>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Why logs or traces cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// `telemetry.log_level` is no filter.
    #[error("telemetry.log_level {value:?}: {reason}")]
    LogLevel {
        /// The setting.
        value: String,
        /// What the parser said.
        reason: String,
    },
    /// `telemetry.trace_ratio` is not a part of a whole.
    #[error("telemetry.trace_ratio must be between 0.0 and 1.0, not {0}")]
    TraceRatio(f64),
    /// `telemetry.otlp_endpoint` cannot be used.
    #[error("telemetry.otlp_endpoint {value:?}: {reason}")]
    Otlp {
        /// The setting.
        value: String,
        /// Why.
        reason: String,
    },
    /// The process already has a subscriber.
    #[error("logging is already set up in this process")]
    AlreadyInstalled,
}

/// Keeps the export alive. Call [`shutdown`](Self::shutdown) as the last drain stage, or drop it: both send what is left.
#[derive(Debug)]
#[must_use = "dropping the guard ends the export of spans"]
pub struct TelemetryGuard {
    provider: Option<SdkTracerProvider>,
    patience: Duration,
}

impl TelemetryGuard {
    /// Sends the spans that are left, waiting at most the receiver's time-out. Blocks; later calls do nothing.
    pub fn shutdown(&mut self) {
        if let Some(provider) = self.provider.take()
            && let Err(error) = provider.shutdown_with_timeout(self.patience)
        {
            tracing::warn!(%error, "the last spans were not exported");
        }
    }
}

impl Drop for TelemetryGuard {
    fn drop(&mut self) {
        self.shutdown();
    }
}

/// Sets up logs and export for the whole process. Once; library code and tests in one process use [`build`].
///
/// # Errors
/// [`TelemetryError`]. An unreachable receiver is none: it is logged, and spans are dropped beyond the exporter's queue
/// (2,048).
pub fn init(settings: &TelemetrySettings) -> Result<TelemetryGuard, TelemetryError> {
    let (subscriber, guard) = build(settings, std::io::stderr, std::io::stderr().is_terminal())?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| TelemetryError::AlreadyInstalled)?;
    // tracing-actix-web reads the caller's context through this.
    global::set_text_map_propagator(TraceContextPropagator::new());
    Ok(guard)
}

/// What [`init`] installs, for a caller that installs it itself; log lines go to `writer`, coloured if `ansi`.
///
/// # Errors
/// [`TelemetryError`], but never `AlreadyInstalled`.
pub fn build<W>(
    settings: &TelemetrySettings,
    writer: W,
    ansi: bool,
) -> Result<(impl Subscriber + Send + Sync + for<'a> LookupSpan<'a>, TelemetryGuard), TelemetryError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(&settings.log_level)
        .map_err(|error| TelemetryError::LogLevel { value: settings.log_level.clone(), reason: error.to_string() })?;
    // Without a hint of its own, the second filter would open every level for the first.
    let for_lines = FilterFn::new(is_for_lines as fn(&Metadata<'_>) -> bool).with_max_level_hint(LevelFilter::TRACE);
    let filter = filter.and(for_lines);
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines = match settings.log_format {
        LogFormat::Text => lines.with_ansi(ansi).with_filter(filter).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_filter(filter).boxed(),
    };
    let provider = provider(settings)?;
    let spans = match &provider {
        Some(provider) => {
            let tracer = provider.tracer("media-relay");
            tracing_opentelemetry::layer().with_tracer(tracer).with_filter(LevelFilter::INFO).boxed()
        }
        None => KeepSpans.with_filter(info_spans()).boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(lines).with(spans);
    let patience = Duration::from_millis(settings.otlp_timeout_ms);
    Ok((subscriber, TelemetryGuard { provider, patience }))
}

/// Does nothing but want spans of level info, so that they exist, and carry their trace, whatever the log level is.
struct KeepSpans;

impl<S: Subscriber> Layer<S> for KeepSpans {}

fn is_for_lines(metadata: &Metadata<'_>) -> bool {
    metadata.target() != EXPORT_ONLY
}

fn info_spans() -> FilterFn {
    let filter: fn(&Metadata<'_>) -> bool =
        |metadata| metadata.is_span() && *metadata.level() <= Level::INFO && is_for_lines(metadata);
    FilterFn::new(filter).with_max_level_hint(LevelFilter::INFO)
}

fn provider(settings: &TelemetrySettings) -> Result<Option<SdkTracerProvider>, TelemetryError> {
    if !(0.0..=1.0).contains(&settings.trace_ratio) {
        return Err(TelemetryError::TraceRatio(settings.trace_ratio));
    }
    let Some(endpoint) = settings.otlp_endpoint.as_deref().filter(|endpoint| !endpoint.is_empty()) else {
        return Ok(None);
    };
    let refuse = |reason: String| TelemetryError::Otlp { value: endpoint.to_owned(), reason };
    if !(endpoint.starts_with("http://") || endpoint.starts_with("https://")) {
        return Err(refuse("write a URL, such as http://collector:4318".to_owned()));
    }
    crate::tls::install_provider();
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(traces_url(endpoint))
        .with_timeout(Duration::from_millis(settings.otlp_timeout_ms))
        .build()
        .map_err(|error| refuse(error.to_string()))?;
    let mut resource = Resource::builder().with_service_name(settings.service_name.clone());
    if let Some(instance) = &settings.service_instance {
        resource = resource.with_attribute(KeyValue::new("service.instance.id", instance.clone()));
    }
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.trace_ratio)));
    let builder = SdkTracerProvider::builder().with_sampler(sampler).with_resource(resource.build());
    // The batch processor has a thread of its own without a tokio reactor, hence the exporter's blocking client.
    Ok(Some(builder.with_batch_exporter(exporter).build()))
}

fn traces_url(endpoint: &str) -> String {
    let base = endpoint.trim_end_matches('/');
    if base.ends_with("/v1/traces") { base.to_owned() } else { format!("{base}/v1/traces") }
}
