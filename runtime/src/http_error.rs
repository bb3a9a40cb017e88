//! The one shape of every HTTP error: `{"error":{"code":"…","message":"…","retryable":bool}}`.
//!
//! Handlers return [`ApiError`]. What never reaches a handler (an unknown path, a wrong method, a body that is too
//! large, a broken extractor) is brought into the shape by [`shape_errors`], which every app wraps around itself:
//! `App::new().wrap(from_fn(shape_errors)).default_service(web::route().to(not_found))`. Declare paths as
//! `web::resource(path).get(…)`: a wrong method is then a 405; with `App::route` it would be a 404.

use std::borrow::Cow;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::{JsonPayloadError, QueryPayloadError};
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderMap, HeaderValue};
use actix_web::middleware::Next;
use actix_web::{HttpRequest, HttpResponse, ResponseError, web};
use relay_protocol::ErrorCode;
use relay_protocol::limits::ERROR_MESSAGE_BYTES_MAX;
use serde::Serialize;

use crate::auth::AuthError;

/// An error as an HTTP client sees it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// Stable name for programs, in snake case.
    pub code: Cow<'static, str>,
    /// What went wrong and what to do, for people.
    pub message: String,
    /// Whether the same request may succeed later or elsewhere.
    pub retryable: bool,
    /// Sent as `Retry-After`, in seconds.
    pub retry_after_s: Option<u32>,
    /// URL of the server that would take the request, if it is known.
    pub leader: Option<String>,
}

#[derive(Serialize)]
struct Envelope<'a> {
    error: Body<'a>,
}

#[derive(Serialize)]
struct Body<'a> {
    code: &'a str,
    message: &'a str,
    retryable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    leader: Option<&'a str>,
}

impl ApiError {
    /// The error `code` with its status and retryability as the protocol has them.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        // The table holds valid statuses only; a test goes through all of them.
        let status = StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let (name, retryable) = (Cow::Borrowed(code.as_str()), code.retryable());
        Self { status, code: name, message: message.into(), retryable, retry_after_s: None, leader: None }
    }

    /// The same error under another status, where the protocol's one is too coarse.
    #[must_use]
    pub fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// The same error, worth another try after `seconds`.
    #[must_use]
    pub fn retry_after(self, seconds: u32) -> Self {
        Self { retryable: true, retry_after_s: Some(seconds), ..self }
    }

    /// 500 for a fault of the server. `cause` goes to the log only: it may name hosts and paths.
    pub fn internal(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(%cause, "request failed inside the server");
        Self::new(ErrorCode::Internal, INTERNAL_MESSAGE)
    }
}

const INTERNAL_MESSAGE: &str = "the server failed; its log says why";

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        let mut response = HttpResponse::build(self.status);
        if let Some(seconds) = self.retry_after_s {
            response.insert_header((header::RETRY_AFTER, seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
        }
        let message = cut(&self.message);
        let leader = self.leader.as_deref();
        response.json(Envelope { error: Body { code: &self.code, message, retryable: self.retryable, leader } })
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

/// At most [`ERROR_MESSAGE_BYTES_MAX`] bytes of `message`, cut between characters.
fn cut(message: &str) -> &str {
    &message[..message.floor_char_boundary(ERROR_MESSAGE_BYTES_MAX)]
}

/// Settings of `web::Json`: bodies up to `body_bytes_max`, errors in shape.
pub fn json_config(body_bytes_max: usize) -> web::JsonConfig {
    web::JsonConfig::default().limit(body_bytes_max).error_handler(move |error, _| json_error(&error).into())
}

fn json_error(error: &JsonPayloadError) -> ApiError {
    match error {
        JsonPayloadError::OverflowKnownLength { limit, .. } | JsonPayloadError::Overflow { limit } => {
            ApiError::new(ErrorCode::TooLarge, format!("the body is larger than {limit} bytes"))
        }
        JsonPayloadError::ContentType => {
            let message = "send the body as JSON, with Content-Type: application/json";
            ApiError::new(ErrorCode::BadRequest, message).with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE)
        }
        other => ApiError::new(ErrorCode::BadRequest, format!("the body is not the JSON wanted here: {other}")),
    }
}

/// Settings of `web::Query`: errors in shape.
pub fn query_config() -> web::QueryConfig {
    web::QueryConfig::default().error_handler(|error, _| {
        let reason = match error {
            QueryPayloadError::Deserialize(reason) => reason.to_string(),
            other => other.to_string(),
        };
        ApiError::new(ErrorCode::BadRequest, format!("the query is not understood: {reason}")).into()
    })
}

/// Settings of `web::Path`: a segment that cannot be what the path asks for is a 404, in shape.
pub fn path_config() -> web::PathConfig {
    web::PathConfig::default()
        .error_handler(|error, _| ApiError::new(ErrorCode::NotFound, format!("no such path: {error}")).into())
}

/// The handler for paths that nothing serves; set it as the app's default service.
///
/// # Errors
/// Always: 404.
pub async fn not_found(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    Err(ApiError::new(ErrorCode::NotFound, format!("there is no {}", request.path())))
}

/// Middleware (`actix_web::middleware::from_fn`) that gives every error without a body of its own making the shape.
///
/// Errors that are JSON already pass unchanged: ours, and the OpenAI-compatible API's. Status and headers stay. A request that
/// is not even HTTP never reaches an app: actix-http answers it with a bare 400.
///
/// # Errors
/// What came up as an error is passed on as one, in shape.
pub async fn shape_errors<B>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error>
where
    B: MessageBody + 'static,
{
    // Only text is kept: a second handle on the request would make actix-web's router panic.
    let what = format!("{} {}", request.method(), request.path());
    let response = match next.call(request).await {
        Ok(response) => response.map_into_boxed_body(),
        Err(error) => {
            let response = error.error_response();
            if is_json(response.headers()) {
                return Err(error);
            }
            return Err(plain_error(response.status(), &what, Some(error.to_string())).into());
        }
    };
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) || is_json(response.headers()) {
        return Ok(response);
    }
    let reason = response.response().error().map(ToString::to_string);
    let error = plain_error(status, &what, reason);
    let body = Body { code: &error.code, message: cut(&error.message), retryable: error.retryable, leader: None };
    let text = serde_json::to_vec(&Envelope { error: body })?;
    Ok(response.map_body(|head, _| {
        head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        BoxBody::new(text)
    }))
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("application/json"))
}

/// The error for a response that only has a status, and perhaps the framework's reason.
fn plain_error(status: StatusCode, what: &str, reason: Option<String>) -> ApiError {
    let words = status.canonical_reason().unwrap_or("error");
    let (code, message) = match status {
        StatusCode::INTERNAL_SERVER_ERROR => {
            return ApiError::internal(&format!("{what}: {}", reason.as_deref().unwrap_or("no reason given")));
        }
        StatusCode::BAD_REQUEST => {
            (ErrorCode::BadRequest, reason.unwrap_or_else(|| "the request is not understood".to_owned()))
        }
        StatusCode::UNAUTHORIZED => (ErrorCode::Unauthenticated, "a valid bearer token is needed".to_owned()),
        StatusCode::FORBIDDEN => (ErrorCode::Forbidden, "this token does not allow that".to_owned()),
        StatusCode::NOT_FOUND => (ErrorCode::NotFound, format!("there is no {what}")),
        StatusCode::METHOD_NOT_ALLOWED => (ErrorCode::MethodNotAllowed, format!("the path does not take {what}")),
        StatusCode::PAYLOAD_TOO_LARGE => (ErrorCode::TooLarge, "the body is larger than this path takes".to_owned()),
        StatusCode::TOO_MANY_REQUESTS => (ErrorCode::TooManyRequests, "too many requests; slow down".to_owned()),
        _ => {
            let code = words.to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_");
            let message = reason.unwrap_or_else(|| format!("{what}: {words}"));
            let retryable = matches!(status.as_u16(), 408 | 502 | 503 | 504);
            return ApiError { status, code: code.into(), message, retryable, retry_after_s: None, leader: None };
        }
    };
    ApiError::new(code, message)
}
