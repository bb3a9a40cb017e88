//! Uploads over HTTP that any connection to any node goes on with: `HEAD` says where an upload stands, `PUT` adds bytes,
//! `POST` ends it and answers with the object that a job may name, `DELETE` gives it up.

use actix_web::http::header::{self, HeaderMap};
use actix_web::{HttpResponse, ResponseError, web};
use futures_util::StreamExt;
use relay_protocol::limits::{MEDIA_TYPE_BYTES_MAX, NAME_BYTES_MAX, is_sha256};
use relay_protocol::{ErrorCode, Input, JobError, UploadId};
use relay_runtime::auth::{Identity, Scope};
use relay_runtime::http_auth::Caller;
use relay_runtime::http_error::ApiError;
use serde::Deserialize;
use serde_json::json;

use super::answer::api_error;
use super::body::Pace;
use super::jobs::allow;
use super::upload;
use crate::job::claim_check::{ClaimCheck, Named, StoreError, UploadEnd, UploadName, UploadState};
use crate::state::NodeState;

/// Header with the byte that comes next.
const OFFSET: &str = "Upload-Offset";
/// Header that says whether the upload is finished: `?1` or `?0`.
const COMPLETE: &str = "Upload-Complete";

/// Adds the uploads to an app.
pub fn configure(config: &mut web::ServiceConfig) {
    config.service(
        web::resource("/v1/uploads/{id}")
            .app_data(upload_ids())
            .route(web::head().to(show))
            .route(web::put().to(add))
            .route(web::post().to(end))
            .route(web::delete().to(abandon)),
    );
}

fn upload_ids() -> web::PathConfig {
    web::PathConfig::default().error_handler(|error, _| {
        let message = format!("the upload id in the path must be a UUID of your own making: {error}");
        ApiError::new(ErrorCode::InvalidField, message).into()
    })
}

/// The end of an upload, as JSON.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    bytes: u64,
    sha256: String,
    name: Option<String>,
    media_type: Option<String>,
    /// No job names it soon: it is kept as if one had.
    #[serde(default)]
    keep: bool,
}

/// Where the body of a request lies in the upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: u64,
    /// Behind the last byte, if that was said.
    end: Option<u64>,
}

/// What a request is about.
struct Asked {
    identity: Identity,
    name: UploadName,
    claims: ClaimCheck,
}

fn asked(node: &NodeState, caller: &Caller, id: UploadId) -> Result<Asked, ApiError> {
    let identity = allow(node, caller, Scope::JobsWrite, "jobs.upload")?;
    let claims = node.online().map_err(|error| api_error(&error))?.claims.clone();
    Ok(Asked { name: UploadName { tenant: identity.tenant.clone(), id }, identity, claims })
}

async fn show(node: web::Data<NodeState>, caller: Caller, id: web::Path<UploadId>) -> Result<HttpResponse, ApiError> {
    let asked = asked(&node, &caller, *id)?;
    let state = asked.claims.upload_state(&asked.name).await.map_err(store_error)?;
    if state.next == 0 {
        return Err(store_error(StoreError::UnknownUpload(id.to_string())));
    }
    let UploadState { next, complete, .. } = state;
    Ok(HttpResponse::Ok()
        .insert_header((OFFSET, next))
        .insert_header((COMPLETE, if complete { "?1" } else { "?0" }))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .finish())
}

async fn add(
    request: actix_web::HttpRequest,
    payload: web::Payload,
    node: web::Data<NodeState>,
    caller: Caller,
    id: web::Path<UploadId>,
) -> Result<HttpResponse, ApiError> {
    let asked = asked(&node, &caller, *id)?;
    let range = range_of(request.headers(), upload::limits(&node).bytes_max).map_err(|error| api_error(&error))?;
    // A task of its own: a client that goes away ends this one, and what came before is stored.
    let taking = actix_web::rt::spawn(async move {
        let mut next = None;
        let outcome = take(&node, &asked, range, payload, &mut next).await;
        (outcome, next)
    });
    let (outcome, next) = taking.await.map_err(|error| ApiError::internal(&error))?;
    match outcome {
        Ok(next) => Ok(HttpResponse::Ok().insert_header((OFFSET, next)).json(json!({ "upload": *id, "next": next }))),
        Err(error) => {
            metrics::counter!("relay_submits_refused_total", "code" => error.code.clone()).increment(1);
            let mut answer = api_error(&error).error_response();
            if let Some(next) = next {
                answer.headers_mut().insert(header::HeaderName::from_static("upload-offset"), next.into());
            }
            Ok(answer)
        }
    }
}

/// Stores a body; what came of one that is cut is stored too. `next` is where the upload stands, as soon as that is known.
async fn take(
    node: &NodeState,
    asked: &Asked,
    range: Range,
    mut payload: web::Payload,
    next: &mut Option<u64>,
) -> Result<u64, JobError> {
    let writer = asked.claims.upload(asked.name.clone(), upload::limits(node), range.end).await;
    let mut writer = writer.map_err(|error| error.to_job_error())?;
    *next = Some(writer.next());
    if writer.next() != range.first || writer.is_complete() {
        let wrong = StoreError::WrongOffset { next: writer.next(), found: range.first };
        return Err(wrong.to_job_error());
    }
    let mut pace = Pace::of(&node.settings.gateway);
    let came = loop {
        let chunk = match pace.wait(payload.next()).await {
            Ok(None) => break Ok(()),
            Ok(Some(Ok(chunk))) => chunk,
            Ok(Some(Err(error))) => break Err(bad(format!("the body broke off: {error}"))),
            Err(error) => break Err(error),
        };
        pace.came(chunk.len());
        let at = writer.next();
        if range.end.is_some_and(|end| at + chunk.len() as u64 > end) {
            break Err(bad("the body is longer than Content-Range says".to_owned()));
        }
        if let Err(error) = writer.write(at, chunk).await {
            break Err(error.to_job_error());
        }
    };
    let stored = writer.flush().await.map_err(|error| error.to_job_error());
    *next = Some(writer.next());
    came?;
    stored?;
    if range.end.is_some_and(|end| end != writer.next()) {
        return Err(bad(format!("the body is shorter than Content-Range says: byte {} comes next", writer.next())));
    }
    Ok(writer.next())
}

async fn end(
    body: web::Json<End>,
    node: web::Data<NodeState>,
    caller: Caller,
    id: web::Path<UploadId>,
) -> Result<HttpResponse, ApiError> {
    let asked = asked(&node, &caller, *id)?;
    let End { bytes, sha256, name, media_type, keep } = body.into_inner();
    let wanted = wanted(bytes, &sha256, Named { name, media_type }).map_err(|error| api_error(&error))?;
    let object = asked.claims.finish_upload(&asked.name, wanted).await.map_err(store_error)?;
    if keep {
        let input = Input::Object(object.clone());
        asked.claims.keep(&input, node.clock.now_ms()).await.map_err(store_error)?;
    }
    tracing::debug!(tenant = asked.identity.tenant, upload_id = %id, bytes, "an upload is finished");
    Ok(HttpResponse::Created().json(object))
}

fn wanted(bytes: u64, sha256: &str, named: Named) -> Result<UploadEnd, JobError> {
    let invalid = |message: String| Err(JobError::new(ErrorCode::InvalidField, message));
    if bytes == 0 {
        return Err(upload::empty());
    }
    let mut digest = [0; 32];
    if !is_sha256(sha256) || hex::decode_to_slice(sha256, &mut digest).is_err() {
        return invalid("sha256 must be the SHA-256 of all bytes, 64 hex digits in lower case".to_owned());
    }
    if named.name.as_ref().is_some_and(|name| !relay_protocol::limits::is_name(name)) {
        return invalid(format!("name must have 1 to {NAME_BYTES_MAX} bytes and no control characters"));
    }
    if named.media_type.as_ref().is_some_and(|text| text.is_empty() || text.len() > MEDIA_TYPE_BYTES_MAX) {
        return invalid(format!("media_type must have 1 to {MEDIA_TYPE_BYTES_MAX} bytes"));
    }
    Ok(UploadEnd { bytes, sha256: digest, named })
}

async fn abandon(
    node: web::Data<NodeState>,
    caller: Caller,
    id: web::Path<UploadId>,
) -> Result<HttpResponse, ApiError> {
    let asked = asked(&node, &caller, *id)?;
    asked.claims.abandon_upload(&asked.name).await.map_err(store_error)?;
    Ok(HttpResponse::NoContent().finish())
}

/// Reads `Content-Range: bytes FIRST-LAST/SIZE` (or `/*`); without it the body begins at byte 0.
fn range_of(headers: &HeaderMap, bytes_max: u64) -> Result<Range, JobError> {
    let Some(value) = headers.get(header::CONTENT_RANGE) else { return Ok(Range { first: 0, end: None }) };
    let wrong = || bad("Content-Range must be bytes FIRST-LAST/SIZE or bytes FIRST-LAST/*".to_owned());
    let text = value.to_str().ok().and_then(|text| text.strip_prefix("bytes ")).ok_or_else(wrong)?;
    let (range, size) = text.split_once('/').ok_or_else(wrong)?;
    let (first, last) = range.split_once('-').ok_or_else(wrong)?;
    let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
    let (first, last) = (number(first)?, number(last)?);
    let size = if size == "*" { None } else { Some(number(size)?) };
    if first > last || size.is_some_and(|size| last >= size) {
        return Err(wrong());
    }
    let most = size.unwrap_or(last.saturating_add(1));
    if most > bytes_max {
        let message = format!("an upload of {most} bytes is over the limit of {bytes_max}");
        return Err(JobError::new(ErrorCode::TooLarge, message));
    }
    Ok(Range { first, end: Some(last + 1) })
}

#[expect(clippy::needless_pass_by_value, reason = "used as map_err(store_error)")]
fn store_error(error: StoreError) -> ApiError {
    api_error(&error.to_job_error())
}

fn bad(message: String) -> JobError {
    JobError::new(ErrorCode::BadRequest, message)
}
