//! One handler for each request of the API.

use actix_web::http::StatusCode;
use actix_web::web::{Data, Json, Query};
use relay_protocol::ErrorCode;
use relay_protocol::cluster::{ClusterInfo, Heartbeat, HeartbeatReply, Placement};
use relay_protocol::id::SessionId;
use relay_runtime::auth::Scope;
use relay_runtime::http_error::ApiError;
use serde::Deserialize;
use serde_json::{Value, json};

use super::caller::{NodeCaller, ReadCaller};
use super::{Api, SESSIONS_PAGE_DEFAULT, SESSIONS_PAGE_MAX};
use crate::metrics;
use crate::registry::core::Sender;
use crate::registry::{HeartbeatRefusal, RegistryError};

/// Seconds after which a client should ask again.
const RETRY_AFTER_S: u32 = 1;

pub(super) async fn heartbeat(
    caller: NodeCaller,
    api: Data<Api>,
    beat: Json<Heartbeat>,
) -> Result<Json<HeartbeatReply>, ApiError> {
    let by = Sender { tenant: caller.0.tenant, subject: caller.0.subject };
    let answer = api.registry.heartbeat(beat.into_inner(), by).await;
    metrics::heartbeat(match &answer {
        Ok(_) => "taken",
        Err(RegistryError::Refused(HeartbeatRefusal::Stale { .. })) => "stale",
        Err(RegistryError::Refused(HeartbeatRefusal::Invalid { .. })) => "invalid",
        Err(RegistryError::NotLeader { .. }) => "not_leader",
        Err(_) => "refused",
    });
    Ok(Json(answer.map_err(refusal)?))
}

pub(super) async fn cluster(_: ReadCaller, api: Data<Api>) -> Result<Json<ClusterInfo>, ApiError> {
    let view = api.registry.leading_view().map_err(refusal)?;
    Ok(Json(view.cluster(api.registry.now_ms())))
}

pub(super) async fn nodes(_: ReadCaller, api: Data<Api>) -> Result<Json<Value>, ApiError> {
    let view = api.registry.leading_view().map_err(refusal)?;
    Ok(Json(json!({ "nodes": view.nodes(api.registry.now_ms()) })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    /// 1 to [`SESSIONS_PAGE_MAX`].
    limit: Option<usize>,
    /// The `next` of the page before.
    after: Option<SessionId>,
}

pub(super) async fn sessions(caller: ReadCaller, api: Data<Api>, page: Query<Page>) -> Result<Json<Value>, ApiError> {
    let limit = page.limit.unwrap_or(SESSIONS_PAGE_DEFAULT);
    if !(1..=SESSIONS_PAGE_MAX).contains(&limit) {
        let message = format!("limit must be 1 to {SESSIONS_PAGE_MAX}, not {limit}");
        return Err(ApiError::new(ErrorCode::BadRequest, message));
    }
    let tenant = (!caller.0.scopes.contains(Scope::Admin)).then_some(caller.0.tenant.as_str());
    let view = api.registry.leading_view().map_err(refusal)?;
    let found = view.sessions(api.registry.now_ms(), tenant, page.after, limit);
    Ok(Json(json!({ "sessions": found.sessions, "next": found.next })))
}

pub(super) async fn placement(_: ReadCaller, api: Data<Api>) -> Result<Json<Placement>, ApiError> {
    let placed = api.registry.place().await.map_err(refusal)?;
    metrics::placement(if placed.is_some() { "placed" } else { "no_ready_node" });
    let message = "no node is ready and announces an advertised_url; connect to a node directly, or wait";
    placed.map(Json).ok_or_else(|| own("no_ready_node", StatusCode::SERVICE_UNAVAILABLE, message, true))
}

/// What the API answers where the registry did not do what it was asked.
pub fn refusal(error: RegistryError) -> ApiError {
    let message = error.to_string();
    match error {
        RegistryError::Refused(HeartbeatRefusal::Stale { .. }) => {
            own("stale_incarnation", StatusCode::CONFLICT, message, false)
        }
        RegistryError::Refused(HeartbeatRefusal::Invalid { .. }) => ApiError::new(ErrorCode::InvalidField, message),
        RegistryError::Refused(HeartbeatRefusal::TooManyNodes { .. }) => {
            own("too_many_nodes", StatusCode::SERVICE_UNAVAILABLE, message, true)
        }
        RegistryError::NotLeader { leader } => {
            let refused = own("not_leader", StatusCode::SERVICE_UNAVAILABLE, message, true);
            ApiError { leader, ..refused }
        }
        RegistryError::Overloaded => ApiError::new(ErrorCode::TooManyRequests, message).retry_after(RETRY_AFTER_S),
        RegistryError::Away => ApiError::new(ErrorCode::Draining, message).retry_after(RETRY_AFTER_S),
    }
}

/// An error whose code only this API has.
pub(super) fn own(code: &'static str, status: StatusCode, message: impl Into<String>, retryable: bool) -> ApiError {
    let retry_after_s = retryable.then_some(RETRY_AFTER_S);
    ApiError { status, code: code.into(), message: message.into(), retryable, retry_after_s, leader: None }
}
