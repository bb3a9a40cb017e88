//! Errors in the shape that clients of OpenAI's API read: `{"error":{"message","type","param","code"}}`.

use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, HttpResponseBuilder};
use relay_protocol::{ErrorCode, JobError};
use relay_runtime::http_error::ApiError;
use serde_json::{Value, json};

use crate::tenants::OverLimit;

/// Seconds after which a refused call should come again.
const RETRY_AFTER_S: u64 = 1;

/// The error as the body has it.
pub(super) fn envelope(code: &str, status: u16, message: &str) -> Value {
    let kind = match status {
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        400..500 => "invalid_request_error",
        _ => "server_error",
    };
    json!({ "error": { "message": message, "type": kind, "param": null, "code": code } })
}

fn response(code: &str, status: u16, message: &str, retry_after_s: Option<u64>) -> HttpResponse {
    let known = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = HttpResponseBuilder::new(known);
    if let Some(seconds) = retry_after_s {
        response.insert_header((header::RETRY_AFTER, seconds));
    }
    response.json(envelope(code, status, message))
}

/// The relay's own answer for `error`.
pub(super) fn answer(error: &JobError, retry_after_s: Option<u64>) -> HttpResponse {
    let status = error.known_code().unwrap_or(ErrorCode::Internal).http_status();
    let retry_after_s = retry_after_s.or_else(|| error.retryable.then_some(RETRY_AFTER_S));
    response(&error.code, status, &error.message, retry_after_s)
}

/// The same for a call that never had a slot.
pub(super) fn refused(path: &'static str, error: &JobError) -> HttpResponse {
    count_refused(path);
    answer(error, None)
}

fn count_refused(path: &'static str) {
    metrics::counter!("relay_openai_calls_total", "path" => path, "outcome" => "refused").increment(1);
}

/// An error that some other part of the node has made.
pub(super) fn of_api(error: &ApiError) -> HttpResponse {
    response(&error.code, error.status.as_u16(), &error.message, error.retry_after_s.map(u64::from))
}

/// The tenant may not make the call now.
pub(super) fn over_limit(path: &'static str, over: &OverLimit) -> HttpResponse {
    count_refused(path);
    answer(&over.error, Some(u64::from(over.retry_after_s())))
}

/// As many calls wait as may.
pub(super) fn full(path: &'static str, limit: usize) -> HttpResponse {
    let message = format!("{limit} calls wait already on this node, which is the limit: try again later");
    refused(path, &JobError::new(ErrorCode::TooManyRequests, message))
}
