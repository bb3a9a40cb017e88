//! Questions about the cluster, passed on to the coordinator, so that a client needs one address only.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use relay_protocol::ErrorCode;
use relay_protocol::cluster::BackendOrder;
use relay_runtime::auth::Scope;
use relay_runtime::http_auth::Caller;
use relay_runtime::http_error::ApiError;
use serde_json::Value;

use super::jobs::allow;
use crate::cluster::link::{Answer, CoordinatorLink};
use crate::state::NodeState;

/// Adds the passed-on addresses to an app.
pub fn configure(config: &mut web::ServiceConfig) {
    for path in ["/v1/cluster", "/v1/nodes", "/v1/backends", "/v1/sessions"] {
        config.service(web::resource(path).route(web::get().to(cluster)));
    }
    for path in ["/v1/backends/drain", "/v1/backends/resume"] {
        config.service(web::resource(path).route(web::post().to(order)));
    }
    config.service(web::resource("/v1/placement").route(web::get().to(placement)));
}

async fn cluster(request: HttpRequest, node: web::Data<NodeState>, caller: Caller) -> Result<HttpResponse, ApiError> {
    let identity = allow(&node, &caller, Scope::ClusterRead, "cluster.read")?;
    let mut path = request.path().to_owned();
    if path == "/v1/sessions" {
        // The coordinator knows this node, not the caller: it is told whose sessions may be shown.
        let tenant = if identity.scopes.contains(Scope::Admin) { None } else { Some(&identity.tenant) };
        let query: String = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(tenant.map(|tenant| ("tenant", tenant)))
            .finish();
        path = format!("{path}?{query}");
    }
    pass_on(&node, &path).await
}

/// An order about a backend. The coordinator knows this node, not the caller: it is told who asks.
async fn order(
    request: HttpRequest,
    node: web::Data<NodeState>,
    caller: Caller,
    order: web::Json<BackendOrder>,
) -> Result<HttpResponse, ApiError> {
    let identity = allow(&node, &caller, Scope::Admin, "backends.order")?;
    let order = BackendOrder { backend: order.into_inner().backend, subject: Some(identity.subject) };
    let body = serde_json::to_value(&order).map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))?;
    pass_on_body(&node, request.path(), &body).await
}

/// Where a client should open its session. Every caller may ask; without a coordinator it is here.
async fn placement(node: web::Data<NodeState>, _caller: Caller) -> Result<HttpResponse, ApiError> {
    pass_on(&node, "/v1/placement").await
}

/// Passes a GET on to the coordinator.
///
/// # Errors
/// There is no coordinator, or none answers.
pub(super) async fn pass_on(node: &NodeState, path: &str) -> Result<HttpResponse, ApiError> {
    answered(ask(node, path).await?)
}

/// Passes a POST on to the coordinator.
///
/// # Errors
/// As [`pass_on`].
pub(super) async fn pass_on_body(node: &NodeState, path: &str, body: &Value) -> Result<HttpResponse, ApiError> {
    answered(told(coordinator(node)?.post(path, body).await)?)
}

/// Asks the coordinator.
///
/// # Errors
/// As [`pass_on`].
pub(super) async fn ask(node: &NodeState, path: &str) -> Result<Answer, ApiError> {
    told(coordinator(node)?.get(path).await)
}

fn coordinator(node: &NodeState) -> Result<&CoordinatorLink, ApiError> {
    node.coordinator.as_ref().ok_or_else(|| ApiError::new(ErrorCode::NotFound, "this node works without a coordinator"))
}

fn told(answer: anyhow::Result<Answer>) -> Result<Answer, ApiError> {
    answer.map_err(|error| {
        ApiError::new(ErrorCode::CoordinatorUnavailable, format!("no coordinator answers: {error}")).retry_after(1)
    })
}

/// What the coordinator answered, as this node's answer.
///
/// # Errors
/// None: the answer may be a refusal.
pub(super) fn answered(answer: Answer) -> Result<HttpResponse, ApiError> {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
    Ok(HttpResponse::build(status).content_type("application/json").body(answer.body))
}
