//! Backends over HTTP: the list, and the orders to drain them and to use them again.

use actix_web::http::StatusCode;
use actix_web::web::{Data, Json};
use relay_protocol::ErrorCode;
use relay_protocol::cluster::{BackendInfo, BackendOrder};
use relay_runtime::auth::Scope;
use relay_runtime::http_error::ApiError;
use serde_json::{Value, json};

use super::Api;
use super::caller::{AdminCaller, ReadCaller};
use super::handlers::{own, refusal};
use crate::registry::core::Sender;

/// Backends that the answer about an unknown one names.
const NAMED_MAX: usize = 20;

pub(super) async fn list(_: ReadCaller, api: Data<Api>) -> Result<Json<Value>, ApiError> {
    let view = api.registry.leading_view().map_err(refusal)?;
    Ok(Json(json!({ "backends": view.backends, "names": view.names })))
}

pub(super) async fn drain(
    caller: AdminCaller,
    api: Data<Api>,
    order: Json<BackendOrder>,
) -> Result<Json<Value>, ApiError> {
    carry_out(&caller, &api, order.into_inner(), true).await
}

pub(super) async fn resume(
    caller: AdminCaller,
    api: Data<Api>,
    order: Json<BackendOrder>,
) -> Result<Json<Value>, ApiError> {
    carry_out(&caller, &api, order.into_inner(), false).await
}

/// Does it, unless it is so already.
async fn carry_out(
    caller: &AdminCaller,
    api: &Api,
    order: BackendOrder,
    drains: bool,
) -> Result<Json<Value>, ApiError> {
    // What nodes still do at the backend only the leader knows.
    api.registry.leading_view().map_err(refusal)?;
    let backend = order.backend.trim_end_matches('/');
    let is_drained = api.drains.is_drained(backend);
    // One that is gone may still be told to serve when it comes back.
    if shown(api, backend).is_none() && !is_drained {
        return Err(unknown(api, backend));
    }
    let may_speak = caller.0.scopes.contains(Scope::ClusterNode);
    let subject = order.subject.filter(|_| may_speak).unwrap_or_else(|| caller.0.subject.clone());
    if is_drained != drains {
        api.drains.order(backend, drains.then_some(&subject)).await.map_err(|error| {
            ApiError::new(ErrorCode::LogUnavailable, format!("{error}: the order was not written, nothing changed"))
        })?;
        api.audit.backend(Sender { tenant: caller.0.tenant.clone(), subject }, backend, drains);
    }
    Ok(Json(json!({ "backend": shown(api, backend) })))
}

fn shown(api: &Api, backend: &str) -> Option<BackendInfo> {
    api.registry.view().backends.iter().find(|known| known.url == backend).cloned()
}

fn unknown(api: &Api, backend: &str) -> ApiError {
    let view = api.registry.view();
    let names: Vec<&str> = view.backends.iter().map(|known| known.url.as_str()).take(NAMED_MAX).collect();
    let message = format!("there is no backend {backend:?}; there are: {}", names.join(", "));
    own("unknown_backend", StatusCode::NOT_FOUND, message, false)
}
