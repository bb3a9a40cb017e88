//! The job view, passed on to the coordinator that keeps it. The coordinator knows this node, not the caller: it is told
//! whose jobs may be shown or cancelled, and who asks.

use actix_web::{HttpRequest, HttpResponse, web};
use relay_protocol::{ErrorCode, JobId};
use relay_runtime::auth::{Identity, Scope};
use relay_runtime::http_auth::Caller;
use relay_runtime::http_error::ApiError;
use serde_json::{Map, Value};

use super::jobs::allow;
use super::proxy::{pass_on, pass_on_body};
use crate::state::NodeState;

/// Adds the view's own addresses to an app; [`list`] shares its address with the submit.
pub fn configure(config: &mut web::ServiceConfig) {
    config
        .service(web::resource("/v1/jobs/cancel").route(web::post().to(cancel)))
        .service(web::resource("/v1/jobs/{id}/view").route(web::get().to(show)));
}

pub(super) async fn list(
    request: HttpRequest,
    node: web::Data<NodeState>,
    caller: Caller,
) -> Result<HttpResponse, ApiError> {
    let identity = allow(&node, &caller, Scope::JobsRead, "jobs.list")?;
    pass_on(&node, &format!("/v1/jobs?{}", query_of(&identity, request.query_string())?)).await
}

async fn show(
    request: HttpRequest,
    node: web::Data<NodeState>,
    caller: Caller,
    id: web::Path<JobId>,
) -> Result<HttpResponse, ApiError> {
    let identity = allow(&node, &caller, Scope::JobsRead, "jobs.view")?;
    pass_on(&node, &format!("/v1/jobs/{id}?{}", query_of(&identity, request.query_string())?)).await
}

async fn cancel(
    node: web::Data<NodeState>,
    caller: Caller,
    body: web::Json<Map<String, Value>>,
) -> Result<HttpResponse, ApiError> {
    let identity = allow(&node, &caller, Scope::JobsCancel, "jobs.cancel")?;
    let mut body = body.into_inner();
    let Some(filter) = body.get_mut("filter").and_then(Value::as_object_mut) else {
        return Err(ApiError::new(ErrorCode::BadRequest, "the body must have an object `filter`"));
    };
    // What is everything is judged by what the caller said, before its tenant is put in.
    if filter.iter().all(|(name, value)| value.is_null() || matches!(name.as_str(), "limit" | "cursor")) {
        let message = "name at least one of status, task, tenant, since: a bulk cancel without a filter is refused";
        return Err(ApiError::new(ErrorCode::InvalidField, message));
    }
    let wanted = filter.get("tenant").and_then(Value::as_str).map(str::to_owned);
    if let Some(tenant) = tenant_of(&identity, wanted)? {
        filter.insert("tenant".to_owned(), tenant.into());
    }
    body.insert("subject".to_owned(), identity.subject.into());
    pass_on_body(&node, "/v1/jobs/cancel", &Value::Object(body)).await
}

/// The caller's query with the tenant that it may see.
fn query_of(identity: &Identity, query: &str) -> Result<String, ApiError> {
    let pairs: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let wanted = pairs.iter().find(|(name, _)| name == "tenant").map(|(_, tenant)| tenant.clone());
    let tenant = tenant_of(identity, wanted)?;
    let others = pairs.into_iter().filter(|(name, _)| name != "tenant");
    Ok(url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(others)
        .extend_pairs(tenant.map(|tenant| ("tenant", tenant)))
        .finish())
}

/// The tenant to ask for; `None` is everybody's, for `admin`.
pub(super) fn tenant_of(identity: &Identity, wanted: Option<String>) -> Result<Option<String>, ApiError> {
    if identity.scopes.contains(Scope::Admin) {
        return Ok(wanted);
    }
    match wanted {
        Some(tenant) if tenant != identity.tenant => {
            Err(ApiError::new(ErrorCode::NotFound, "there is no such tenant, or not for this token"))
        }
        _ => Ok(Some(identity.tenant.clone())),
    }
}
