//! The job view over HTTP: lists, one job, cancel by filter.

use actix_web::http::StatusCode;
use actix_web::web::{Data, Json, Path, Query};
use relay_protocol::{ErrorCode, JobId};
use relay_runtime::auth::{Identity, Scope};
use relay_runtime::http_error::ApiError;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::caller::{CancelCaller, JobsCaller};
use super::handlers::own;
use crate::registry::core::Sender;
use crate::view::bulk::cancel_requests;
use crate::view::projection::JobRow;
use crate::view::query::{BadQuery, Cursor, Filters};
use crate::view::store::StoreError;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfTenant {
    tenant: Option<String>,
}

/// Body of a request to cancel by filter.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BulkCancel {
    filter: Filters,
    /// Only say which jobs it would be.
    #[serde(default)]
    dry_run: bool,
    /// Who asks, if a node asks for somebody.
    subject: Option<String>,
}

pub(super) async fn list(caller: JobsCaller, api: Data<Api>, filters: Query<Filters>) -> Result<Json<Value>, ApiError> {
    let mut filters = filters.into_inner();
    filters.tenant = tenant_of(&caller.0, filters.tenant)?;
    let caught_up = api.view.is_caught_up();
    let found = api.view.list(filters.read(api.view.page_max).map_err(refusal)?).await.map_err(unavailable)?;
    let jobs: Vec<_> = found.jobs.iter().map(JobRow::show).collect();
    Ok(Json(json!({ "jobs": jobs, "next": found.next.as_ref().map(Cursor::text), "caught_up": caught_up })))
}

pub(super) async fn show(
    caller: JobsCaller,
    api: Data<Api>,
    id: Path<JobId>,
    of: Query<OfTenant>,
) -> Result<Json<Value>, ApiError> {
    let tenant = tenant_of(&caller.0, of.into_inner().tenant)?;
    let found = api.view.get(*id, tenant).await.map_err(unavailable)?;
    let unknown = || ApiError::new(ErrorCode::UnknownJob, format!("the view has no job {id}"));
    found.map(|job| Json(json!(job.show()))).ok_or_else(unknown)
}

pub(super) async fn cancel(
    caller: CancelCaller,
    api: Data<Api>,
    request: Json<BulkCancel>,
) -> Result<Json<Value>, ApiError> {
    let BulkCancel { mut filter, dry_run, subject } = request.into_inner();
    if filter.is_everything() {
        let message = "name at least one of status, task, tenant, since: a bulk cancel without a filter is refused";
        return Err(ApiError::new(ErrorCode::InvalidField, message));
    }
    filter.tenant = tenant_of(&caller.0, filter.tenant)?;
    let may_speak = caller.0.scopes.contains(Scope::ClusterNode);
    let subject = subject.filter(|_| may_speak).unwrap_or_else(|| caller.0.subject.clone());
    let shown = json!({ "status": filter.status, "task": filter.task, "tenant": filter.tenant, "since": filter.since });
    let mut query = filter.read(api.view.page_max).map_err(refusal)?;
    query.open_only = true;
    let by = Sender { tenant: query.tenant.clone().unwrap_or_else(|| caller.0.tenant.clone()), subject };
    let caught_up = api.view.is_caught_up();
    let found = api.view.list(query).await.map_err(unavailable)?;
    let (ids, records): (Vec<JobId>, Vec<_>) =
        cancel_requests(&found.jobs, &by.subject, api.registry.now_ms()).into_iter().unzip();
    if !dry_run && !records.is_empty() {
        let written = api.log.append(records).await;
        written.map_err(|error| {
            let message = format!("{error}: some of the jobs may have been asked to end; ask again");
            ApiError::new(ErrorCode::LogUnavailable, message)
        })?;
        api.audit.cancel_requested(by, &ids, shown);
        crate::metrics::bulk_cancelled(ids.len() as u64);
    }
    let requested = if dry_run { 0 } else { ids.len() };
    let next = found.next.as_ref().map(Cursor::text);
    Ok(Json(json!({ "dry_run": dry_run, "jobs": ids, "requested": requested, "next": next, "caught_up": caught_up })))
}

/// The tenant whose jobs may be shown; `None` is everybody's. Nodes ask for their callers, and see what these may see.
fn tenant_of(caller: &Identity, wanted: Option<String>) -> Result<Option<String>, ApiError> {
    if caller.scopes.contains(Scope::ClusterNode) {
        return Ok(wanted); // admin has this scope too
    }
    match wanted {
        Some(tenant) if tenant != caller.tenant => {
            Err(ApiError::new(ErrorCode::NotFound, "there is no such tenant, or not for this token"))
        }
        _ => Ok(Some(caller.tenant.clone())),
    }
}

fn refusal(error: BadQuery) -> ApiError {
    match error {
        BadQuery::Cursor => own("bad_cursor", StatusCode::BAD_REQUEST, error.to_string(), false),
        BadQuery::Filter { .. } => ApiError::new(ErrorCode::InvalidField, error.to_string()),
    }
}

fn unavailable(error: StoreError) -> ApiError {
    tracing::error!(%error, "the job view cannot answer");
    let message = "the job view cannot answer now; the coordinator's log says why";
    own("view_unavailable", StatusCode::SERVICE_UNAVAILABLE, message, true)
}
