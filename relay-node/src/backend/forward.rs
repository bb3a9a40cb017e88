//! A request of a backend's own HTTP API that is passed on as it came.

use relay_protocol::JobId;

/// One request to pass on.
#[derive(Debug)]
pub struct Forward {
    /// Path at the backend, for example `/v1/chat/completions`.
    pub path: &'static str,
    /// The caller's `Content-Type`.
    pub content_type: String,
    /// The caller's body, byte for byte.
    pub body: reqwest::Body,
    /// Its size in bytes.
    pub bytes: u64,
    /// Identity of the call, for the backend's log.
    pub job_id: JobId,
    /// W3C trace context to pass on.
    pub traceparent: String,
}
