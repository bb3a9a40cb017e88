//! The failures that LocalAI was recorded with: status, words, type and `Retry-After`.

use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, HttpResponseBuilder};
use bytes::Bytes;
use serde_json::json;

/// One failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    status: u16,
    message: String,
    kind: &'static str,
    retry_after_s: Option<u64>,
    /// An admission refusal has no `code` in its body.
    coded: bool,
}

impl Failure {
    /// A failure without a type, as most are.
    pub(crate) fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), kind: "", retry_after_s: None, coded: true }
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(500, message)
    }

    pub(crate) fn rpc(code: &str, words: &str) -> Self {
        Self::internal(format!("rpc error: code = {code} desc = {words}"))
    }

    pub(crate) fn unknown_model(name: &str) -> Self {
        let message = format!("model \"{name}\" not found. To see available models, call GET /v1/models");
        Self { kind: "invalid_request_error", ..Self::new(404, message) }
    }

    pub(crate) fn not_found() -> Self {
        Self::new(404, "Resource not found")
    }

    pub(crate) fn bad_json(words: &str) -> Self {
        Self::new(400, format!("code=400, message=failed parsing request body: code=400, message={words}"))
    }

    pub(crate) fn undecodable(name: &str) -> Self {
        Self::rpc(
            "InvalidArgument",
            &format!("cannot decode audio: ./run/tmp/whisper/{name}: Invalid data found when processing input"),
        )
    }

    pub(crate) fn load_failed() -> Self {
        Self::internal(
            "failed to load model with internal loader: could not load model (no success): simulated load failure",
        )
    }

    pub(crate) fn cooldown(model: &str, left_s: u64, retry_after_s: u64) -> Self {
        let message = format!("model \"{model}\" load is in cooldown after a recent failure; retry after {left_s}s");
        Self { retry_after_s: Some(retry_after_s), ..Self::new(503, message) }
    }

    pub(crate) fn capacity(max: u64) -> Self {
        let message = format!("backend inference capacity reached (max_concurrent={max}); retry after 1s");
        Self { retry_after_s: Some(1), ..Self::new(503, message) }
    }

    pub(crate) fn admission(model: &str, max: u64) -> Self {
        let message = format!("model \"{model}\" is at capacity (max_concurrent={max}); retry after 3s");
        Self { retry_after_s: Some(3), kind: "admission_rejected", coded: false, ..Self::new(503, message) }
    }

    /// The worker died while it worked.
    pub(crate) fn worker_died() -> Self {
        Self::rpc("Unavailable", "error reading from server: EOF")
    }

    /// The worker is dead, and nobody noticed yet.
    pub(crate) fn worker_dead() -> Self {
        Self::rpc(
            "Unavailable",
            "connection error: desc = \"transport: Error while dialing: dial tcp 127.0.0.1:41921: connect: connection refused\"",
        )
    }

    /// The server was told to end.
    pub(crate) fn ending() -> Self {
        Self::rpc("Unavailable", "Cancelling all calls")
    }

    pub(crate) fn unauthorized() -> Self {
        Self { kind: "invalid_request_error", ..Self::new(401, "An authentication key is required") }
    }

    /// The failure as an answer.
    pub(crate) fn response(&self) -> HttpResponse {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut answer: HttpResponseBuilder = HttpResponse::build(status);
        if let Some(seconds) = self.retry_after_s {
            answer.insert_header((header::RETRY_AFTER, seconds.to_string()));
        }
        if self.status == 401 {
            answer.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
        }
        if self.coded {
            answer.json(json!({ "error": { "code": self.status, "message": self.message, "type": self.kind } }))
        } else {
            answer.json(json!({ "error": { "message": self.message, "type": self.kind } }))
        }
    }

    /// The failure as a message of a stream whose status was 200.
    pub(crate) fn event(&self) -> Bytes {
        let error = json!({ "message": self.message, "type": "server_error" });
        Bytes::from(format!("data: {}\n\n", json!({ "error": error, "type": "error" })))
    }
}
