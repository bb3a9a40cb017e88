//! What every daemon of the media relay needs around its own work: settings, telemetry, metrics, identity, start and end.
//!
//! Nothing here knows a job, a stream or a topic. The pure parts ([`backoff`], [`traceparent`], the scopes of [`auth`])
//! take time and randomness as arguments; the rest are thin shells around tokio, actix-web and tracing.

pub mod admission;
pub mod auth;
pub mod backoff;
pub mod clock;
pub mod http_auth;
pub mod http_error;
pub mod http_trace;
pub mod metrics;
pub mod ops_http;
pub mod random;
pub mod reach;
pub mod settings;
pub mod shutdown;
pub mod supervise;
pub mod telemetry;
pub mod tls;
pub mod traceparent;
