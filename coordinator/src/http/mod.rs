//! The coordinator's HTTP API: JSON, errors in the one shape, scopes checked before a body is read.
//!
//! | request | scope | answer |
//! |---|---|---|
//! | `POST /v1/heartbeat` | `cluster:node` | `HeartbeatReply`; 409 `stale_incarnation` |
//! | `GET /v1/cluster` | `cluster:read` | `ClusterInfo` |
//! | `GET /v1/nodes` | `cluster:read` | `{"nodes":[NodeInfo]}` |
//! | `GET /v1/backends` | `cluster:read` | `{"backends":[BackendInfo],"names":[BackendNameInfo]}` |
//! | `POST /v1/backends/drain`, `…/resume` | `admin` | `{"backend":BackendInfo or null}`; 404 `unknown_backend` |
//! | `GET /v1/sessions?limit=&after=` | `cluster:read` | `{"sessions":[SessionInfo],"next":id or null}`, own tenant unless `admin` |
//! | `GET /v1/placement` | `cluster:read` | `Placement`; 503 `no_ready_node` |
//! | `GET /v1/jobs?status=&task=&tenant=&since=&limit=&cursor=` | `jobs:read` | `{"jobs":[…],"next":cursor or null,"caught_up":bool}` |
//! | `GET /v1/jobs/{id}?tenant=` | `jobs:read` | the job; 404 `unknown_job` |
//! | `POST /v1/jobs/cancel` | `jobs:cancel` | the jobs that were asked to end |
//!
//! Of jobs a caller sees its own tenant's, unless it has `admin`; nodes (`cluster:node`) say for which tenant they ask.

mod caller;
mod drain;
mod handlers;
mod jobs;

use std::sync::Arc;

pub use self::handlers::refusal;

use actix_web::web;
use relay_log::port::Log;
use relay_runtime::auth::Authenticator;
use relay_runtime::http_error::{json_config, path_config, query_config};

use crate::audit::AuditTrail;
use crate::backends::drains::Drains;
use crate::registry::RegistryHandle;
use crate::view::JobView;

/// Sessions on a page unless `limit` says otherwise.
pub const SESSIONS_PAGE_DEFAULT: usize = 100;
/// Sessions on a page at most.
pub const SESSIONS_PAGE_MAX: usize = 1_000;
/// Largest heartbeat, in bytes.
pub const HEARTBEAT_BYTES_MAX: usize = 2 * 1_048_576;

/// What the handlers work on. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    /// The registry.
    pub registry: RegistryHandle,
    /// Where denials are written.
    pub audit: AuditTrail,
    /// The jobs.
    pub view: JobView,
    /// Where orders about backends are given.
    pub drains: Drains,
    /// Where requests to cancel are written.
    pub log: Arc<dyn Log>,
    /// Who is who.
    pub authenticator: Arc<Authenticator>,
}

/// Adds the API to an app.
pub fn configure(api: Api) -> impl FnOnce(&mut web::ServiceConfig) {
    move |app| {
        app.app_data(web::Data::from(api.authenticator.clone()))
            .app_data(web::Data::new(api))
            .app_data(json_config(HEARTBEAT_BYTES_MAX))
            .app_data(query_config())
            .app_data(path_config())
            .service(web::resource("/v1/heartbeat").route(web::post().to(handlers::heartbeat)))
            .service(web::resource("/v1/cluster").route(web::get().to(handlers::cluster)))
            .service(web::resource("/v1/nodes").route(web::get().to(handlers::nodes)))
            .service(web::resource("/v1/backends").route(web::get().to(drain::list)))
            .service(web::resource("/v1/backends/drain").route(web::post().to(drain::drain)))
            .service(web::resource("/v1/backends/resume").route(web::post().to(drain::resume)))
            .service(web::resource("/v1/sessions").route(web::get().to(handlers::sessions)))
            .service(web::resource("/v1/placement").route(web::get().to(handlers::placement)))
            .service(web::resource("/v1/jobs").route(web::get().to(jobs::list)))
            .service(web::resource("/v1/jobs/cancel").route(web::post().to(jobs::cancel)))
            .service(web::resource("/v1/jobs/{id}").route(web::get().to(jobs::show)));
    }
}
