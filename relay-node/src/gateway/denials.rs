//! Callers without a valid token are written down. Their number has the bound of the audit trail's queue: beyond it entries
//! are counted (`relay_audit_dropped_total`) and dropped.

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::middleware::Next;
use actix_web::{Error, web};
use relay_protocol::ErrorCode;

use crate::audit::Actor;
use crate::state::NodeState;

/// The middleware.
pub(super) async fn audit<B: MessageBody>(request: ServiceRequest, next: Next<B>) -> Result<ServiceResponse<B>, Error> {
    let node = request.app_data::<web::Data<NodeState>>().cloned();
    let response = next.call(request).await?;
    let online = node.as_ref().and_then(|node| node.online.get());
    if let (StatusCode::UNAUTHORIZED, Some(online)) = (response.status(), online) {
        let request = response.request();
        // The pattern, not the path: what a stranger sends does not belong in the trail.
        let what = format!("{} {}", request.method(), request.match_pattern().unwrap_or_default());
        let nobody = Actor { tenant: "", subject: "" };
        online.audit.denied(nobody, &what, ErrorCode::Unauthenticated.as_str());
    }
    Ok(response)
}
