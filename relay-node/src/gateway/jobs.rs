//! The HTTP job API.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use relay_protocol::event::JobStatus;
use relay_protocol::{ErrorCode, Event, EventKind, Input, JobError, JobId, StoredObject};
use relay_runtime::auth::{Identity, Scope};
use relay_runtime::http_auth::Caller;
use relay_runtime::http_error::ApiError;
use tokio_util::io::ReaderStream;

use super::answer::api_error;
use super::submit::{self, Accepted, Cancel};
use super::{form, json, sse, view};
use crate::state::NodeState;
use crate::tenants::OverLimit;

/// Adds the job API to an app.
pub fn configure(config: &mut web::ServiceConfig) {
    let of_job = |path: &str| web::resource(path).app_data(job_ids());
    config
        .service(web::resource("/v1/jobs").route(web::post().to(create)).route(web::get().to(view::list)))
        .service(of_job("/v1/jobs/{id}").route(web::get().to(show)).route(web::delete().to(cancel)))
        .service(of_job("/v1/jobs/{id}/events").route(web::get().to(events)))
        .service(of_job("/v1/jobs/{id}/result").route(web::get().to(result)));
}

/// Refuses an id in a path that is none.
fn job_ids() -> web::PathConfig {
    web::PathConfig::default().error_handler(|error, _| {
        let message = format!("the job id in the path must be a UUID, as the answer to the submit has it: {error}");
        ApiError::new(ErrorCode::InvalidField, message).into()
    })
}

async fn create(
    request: HttpRequest,
    payload: web::Payload,
    node: web::Data<NodeState>,
    caller: Caller,
) -> Result<HttpResponse, ApiError> {
    let identity = allow(&node, &caller, Scope::JobsWrite, "jobs.submit")?;
    let over = |over: OverLimit| denied(&node, &identity, "jobs.submit", &over.error).retry_after(over.retry_after_s());
    node.tenants.job(&identity.tenant).map_err(over)?;
    let accepted = accept(&node, &identity, &request, payload).await;
    let accepted = accepted.map_err(|error| denied(&node, &identity, "jobs.submit", &error))?;
    Ok(HttpResponse::Accepted()
        .insert_header((header::LOCATION, format!("/v1/jobs/{}", accepted.job_id)))
        .json(JobStatus::of(accepted.event)))
}

/// Reads the job, a form or JSON, and makes it durable; what a form left in the store goes with a job that is refused.
async fn accept(
    node: &NodeState,
    identity: &Identity,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<Accepted, JobError> {
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let is_form = content_type.is_some_and(|value| value.starts_with("multipart/form-data"));
    let (lane, job) = if is_form {
        form::read(node, identity, request, payload.into_inner()).await?
    } else {
        json::read(node, payload).await?
    };
    let stored = Some(job.input.clone()).filter(|input| is_form && matches!(input, Input::Object(_)));
    let accepted = submit::accept(node, &lane, submit::of(identity, job), "http").await;
    if let (Err(error), Some(input)) = (&accepted, &stored)
        && submit::was_refused(error)
    {
        submit::discard(node, input).await;
    }
    accepted
}

async fn show(node: web::Data<NodeState>, caller: Caller, id: web::Path<JobId>) -> Result<HttpResponse, ApiError> {
    let identity = allow(&node, &caller, Scope::JobsRead, "jobs.status")?;
    let last = submit::last(&node, &identity.tenant, *id).await.map_err(|error| api_error(&error))?;
    Ok(HttpResponse::Ok().json(JobStatus::of(last)))
}

async fn cancel(node: web::Data<NodeState>, caller: Caller, id: web::Path<JobId>) -> Result<HttpResponse, ApiError> {
    let identity = allow(&node, &caller, Scope::JobsCancel, "jobs.cancel")?;
    match submit::cancel(&node, &identity, *id).await.map_err(|error| api_error(&error))? {
        Cancel::Requested => {
            Ok(HttpResponse::Accepted().json(serde_json::json!({ "job_id": *id, "state": "cancel_requested" })))
        }
        Cancel::AlreadyEnded => {
            Err(api_error(&JobError::new(ErrorCode::AlreadyEnded, format!("job {id} has ended already"))))
        }
    }
}

async fn events(
    request: HttpRequest,
    node: web::Data<NodeState>,
    caller: Caller,
    id: web::Path<JobId>,
) -> Result<HttpResponse, actix_web::Error> {
    let identity = allow(&node, &caller, Scope::JobsRead, "jobs.events")?;
    let after_seq = match request.headers().get("Last-Event-ID") {
        None => 0,
        Some(value) => value.to_str().ok().and_then(|text| text.parse().ok()).ok_or_else(|| {
            ApiError::new(ErrorCode::BadRequest, "Last-Event-ID must be the id of an event of this job")
        })?,
    };
    sse::stream(node.into_inner(), identity.tenant, *id, after_seq).await
}

async fn result(node: web::Data<NodeState>, caller: Caller, id: web::Path<JobId>) -> Result<HttpResponse, ApiError> {
    let identity = allow(&node, &caller, Scope::JobsRead, "jobs.result")?;
    let stored = stored_result(&node, &identity.tenant, *id).await.map_err(|error| api_error(&error))?;
    let unavailable = |error: &dyn std::fmt::Display| {
        api_error(&JobError::new(ErrorCode::StoreUnavailable, format!("the result cannot be read: {error}")))
    };
    let online = node.online().map_err(|error| api_error(&error))?;
    let bytes = online.claims.read(&stored, 0).await.map_err(|error| unavailable(&error))?;
    let media_type = stored.media_type.as_deref().unwrap_or("application/octet-stream").to_owned();
    let body = actix_web::body::SizedStream::new(stored.bytes, ReaderStream::with_capacity(bytes, 64 * 1024));
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, media_type))
        .insert_header(("X-Content-SHA256", stored.sha256))
        .body(body))
}

/// Where the media lies that a completed job made.
///
/// # Errors
/// [`ErrorCode::UnknownJob`], [`ErrorCode::NoResult`].
pub async fn stored_result(node: &NodeState, tenant: &str, job_id: JobId) -> Result<StoredObject, JobError> {
    let last: Event = submit::last(node, tenant, job_id).await?;
    let none = |why: &str| JobError::new(ErrorCode::NoResult, format!("job {job_id} {why}"));
    if last.event != EventKind::Completed {
        return Err(none("has not completed"));
    }
    let media = last.result.as_ref().and_then(|result| result.get("media")).cloned();
    let media = media.ok_or_else(|| none("made no media: its result is in its completed event"))?;
    serde_json::from_value(media).map_err(|_| none("made no media that can be fetched"))
}

/// The caller, if the token allows `scope`; a denial goes to the audit trail.
pub(super) fn allow(node: &NodeState, caller: &Caller, scope: Scope, what: &str) -> Result<Identity, ApiError> {
    let identity = &caller.0;
    if let Err(error) = identity.require(scope) {
        if let Some(online) = node.online.get() {
            let actor = crate::audit::Actor { tenant: &identity.tenant, subject: &identity.subject };
            online.audit.denied(actor, what, "forbidden");
        }
        return Err(error.into());
    }
    Ok(identity.clone())
}

fn denied(node: &NodeState, identity: &Identity, what: &str, error: &JobError) -> ApiError {
    if let Some(online) = node.online.get() {
        let actor = crate::audit::Actor { tenant: &identity.tenant, subject: &identity.subject };
        online.audit.denied(actor, what, &error.code);
    }
    metrics::counter!("relay_submits_refused_total", "code" => error.code.clone()).increment(1);
    api_error(error)
}
