//! The models of all backends together.

use actix_web::{HttpResponse, web};
use relay_protocol::{ErrorCode, JobError};
use relay_runtime::auth::Scope;
use relay_runtime::http_auth::Caller;
use serde_json::{Value, json};

use super::error;
use crate::gateway::jobs::allow;
use crate::state::NodeState;

fn model(id: &str) -> Value {
    json!({ "id": id, "object": "model", "created": 0, "owned_by": "localai" })
}

/// `GET /v1/models`, sorted by name.
pub(super) async fn list(node: web::Data<NodeState>, caller: Caller) -> HttpResponse {
    if let Err(refused) = allow(&node, &caller, Scope::JobsWrite, "openai.models") {
        return error::of_api(&refused);
    }
    let data: Vec<Value> = node.pool.models().iter().map(|id| model(id)).collect();
    HttpResponse::Ok().json(json!({ "object": "list", "data": data }))
}

/// `GET /v1/models/{id}`.
pub(super) async fn show(node: web::Data<NodeState>, caller: Caller, id: web::Path<String>) -> HttpResponse {
    if let Err(refused) = allow(&node, &caller, Scope::JobsWrite, "openai.models") {
        return error::of_api(&refused);
    }
    if node.pool.models().contains(&*id) {
        return HttpResponse::Ok().json(model(&id));
    }
    let message = format!("model {id:?} not found. To see available models, call GET /v1/models");
    error::answer(&JobError::new(ErrorCode::UnknownModel, message), None)
}
