//! `POST /v1/jobs/retry`: the dead-lettered jobs that a filter finds in the job view run anew.
//!
//! The view says which jobs; their letters are redriven as `/v1/dlq/redrive` does it, so that each becomes one job whoever asks.
//! Jobs that ended otherwise have no letter, and their record in the lane may be gone: nothing could be run again truly.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use relay_protocol::ErrorCode;
use relay_protocol::dead_letter::LetterResult;
use relay_protocol::limits::is_tenant;
use relay_runtime::auth::{Identity, Scope};
use relay_runtime::http_auth::Caller;
use relay_runtime::http_error::ApiError;
use serde::{Deserialize, Serialize};

use super::answer::api_error;
use super::dlq::redrive_jobs;
use super::jobs::allow;
use super::proxy::{answered, ask};
use super::view::tenant_of;
use crate::state::NodeState;

/// The only state that can be retried.
const DEAD_LETTERED: &str = "dead_lettered";
/// Jobs of one request when it does not say.
const LIMIT_DEFAULT: usize = 100;

/// Which jobs: the filters of the job view.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Filter {
    status: Option<String>,
    task: Option<String>,
    tenant: Option<String>,
    since: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
}

/// Body of the request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    filter: Filter,
    /// Only say what would happen.
    #[serde(default)]
    dry_run: bool,
}

/// The answer: one result for each job that the filter found, as `/v1/dlq/redrive` gives them.
#[derive(Debug, Serialize)]
struct Retried {
    dry_run: bool,
    jobs: Vec<LetterResult>,
    /// Where to go on; `null`: there are no more.
    next: Option<String>,
    caught_up: bool,
}

/// What the view answers.
#[derive(Debug, Deserialize)]
struct Page {
    jobs: Vec<Found>,
    next: Option<String>,
    caught_up: bool,
}

#[derive(Debug, Deserialize)]
struct Found {
    job_id: String,
}

/// Adds the address to an app.
pub fn configure(config: &mut web::ServiceConfig) {
    config.service(web::resource("/v1/jobs/retry").route(web::post().to(retry)));
}

async fn retry(
    node: web::Data<NodeState>,
    caller: Caller,
    request: web::Json<Request>,
) -> Result<HttpResponse, ApiError> {
    let identity = allow(&node, &caller, Scope::JobsWrite, "jobs.retry")?;
    let Request { filter, dry_run } = request.into_inner();
    let path = path_of(&identity, filter, node.settings.dlq.page_records_max)?;
    let answer = ask(&node, &path).await?;
    if answer.status != StatusCode::OK.as_u16() {
        return answered(answer);
    }
    let Page { jobs, next, caught_up } =
        serde_json::from_slice(&answer.body).map_err(|error| ApiError::internal(&error))?;
    let ids = jobs.into_iter().map(|job| job.job_id).collect();
    // What has begun is brought to its end, also if the caller does not wait for it.
    let redriving = actix_web::rt::spawn(async move { redrive_jobs(&node, &identity, ids, dry_run).await });
    let jobs = redriving.await.map_err(|error| ApiError::internal(&error))?.map_err(|error| api_error(&error))?;
    Ok(HttpResponse::Ok().json(Retried { dry_run, jobs, next, caught_up }))
}

/// What to ask the view for.
fn path_of(identity: &Identity, filter: Filter, limit_max: usize) -> Result<String, ApiError> {
    let invalid = |message: String| ApiError::new(ErrorCode::InvalidField, message);
    let Filter { status, task, tenant, since, limit, cursor } = filter;
    if status.is_none() && task.is_none() && tenant.is_none() && since.is_none() {
        let message = "name at least one of status, task, tenant, since: a bulk retry without a filter is refused";
        return Err(invalid(message.to_owned()));
    }
    if let Some(status) = status.filter(|status| status != DEAD_LETTERED) {
        return Err(invalid(format!(
            "status {status:?} cannot be retried: of the jobs that ended only {DEAD_LETTERED} ones keep their record; submit it again"
        )));
    }
    if let Some(tenant) = tenant.as_deref().filter(|tenant| !is_tenant(tenant)) {
        return Err(invalid(format!("tenant: {tenant:?} cannot be a tenant's name")));
    }
    let limit = match limit.unwrap_or(LIMIT_DEFAULT.min(limit_max)) {
        limit if (1..=limit_max).contains(&limit) => limit.to_string(),
        limit => return Err(invalid(format!("limit: must be 1 to {limit_max}, not {limit}"))),
    };
    let tenant = tenant_of(identity, tenant)?;
    let fields = [("task", task), ("tenant", tenant), ("since", since), ("cursor", cursor)];
    let fields = fields.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let query = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("status", DEAD_LETTERED)
        .append_pair("limit", &limit)
        .extend_pairs(fields)
        .finish();
    Ok(format!("/v1/jobs?{query}"))
}
