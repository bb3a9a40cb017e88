//! The API of OpenAI and LocalAI: the same paths, bodies and errors, so that a client changes its base URL and nothing else.
//!
//! A call takes a slot as a job does, before jobs of lower priority, but not the way over the log: it ends with its connection.
//! Until the first byte of an answer is there it is tried at other backends; after that it never begins anew (docs/openai-api.md).
//! One that asks for it becomes a job (`durable`).

mod answer;
mod attempt;
mod call;
mod durable;
mod error;
mod models;
mod places;
mod record;
mod request;
mod spool;

use actix_web::{HttpRequest, HttpResponse, web};
use relay_protocol::Task;
use relay_runtime::auth::Scope;
use relay_runtime::http_auth::Caller;
use serde::Deserialize;

pub use self::places::Calls;
use self::record::Admitted;
use super::jobs::allow;
use crate::state::NodeState;

/// Section `[openai]`; meaning and defaults are in `config/relay-node.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/relay-node.toml is their documentation")]
pub struct OpenAiSettings {
    pub body_bytes_max: u64,
    pub memory_bytes_max: usize,
    pub waiting_max: usize,
    pub wait_timeout_ms: u64,
    pub client_timeout_ms: u64,
    pub attempts_max: u32,
    pub durable_max: usize,
    pub durable_timeout_ms: u64,
}

impl OpenAiSettings {
    /// Checks the bounds that types do not say.
    ///
    /// # Errors
    /// The first setting that cannot be used.
    pub fn check(&self) -> Result<(), crate::settings::Unusable> {
        if self.waiting_max == 0 || self.attempts_max == 0 || self.body_bytes_max == 0 {
            let problem = "openai.attempts_max and openai.body_bytes_max must be at least 1".to_owned();
            return Err(crate::settings::Unusable { key: "openai.waiting_max", problem });
        }
        if self.durable_max == 0 || self.durable_timeout_ms == 0 {
            let problem = "and openai.durable_timeout_ms must be at least 1".to_owned();
            return Err(crate::settings::Unusable { key: "openai.durable_max", problem });
        }
        Ok(())
    }
}

/// One path whose requests are passed on.
#[derive(Debug, Clone, Copy)]
struct Path {
    path: &'static str,
    task: Task,
}

/// What is passed on, and the work that it is: it decides which backends can do it.
const PATHS: [Path; 6] = [
    Path { path: "/v1/audio/transcriptions", task: Task::Transcribe },
    Path { path: "/v1/audio/speech", task: Task::Speak },
    Path { path: "/v1/chat/completions", task: Task::Chat },
    Path { path: "/v1/embeddings", task: Task::Embed },
    Path { path: "/v1/images/generations", task: Task::Image },
    Path { path: "/vad", task: Task::Vad },
];

/// Adds the API to an app.
pub fn configure(config: &mut web::ServiceConfig) {
    for path in PATHS {
        let forward =
            move |request: HttpRequest, body, node, calls, caller| pass_on(path, request, body, node, calls, caller);
        config.service(web::resource(path.path).route(web::post().to(forward)));
    }
    config
        .service(web::resource("/v1/models").route(web::get().to(models::list)))
        .service(web::resource("/v1/models/{id:.+}").route(web::get().to(models::show)));
}

async fn pass_on(
    path: Path,
    request: HttpRequest,
    body: web::Payload,
    node: web::Data<NodeState>,
    calls: web::Data<Calls>,
    caller: Caller,
) -> HttpResponse {
    let identity = match allow(&node, &caller, Scope::JobsWrite, "openai.call") {
        Ok(identity) => identity,
        Err(refused) => return error::of_api(&refused),
    };
    let held = match node.tenants.call(&identity.tenant) {
        Ok(held) => held,
        Err(over) => return error::over_limit(path.path, &over),
    };
    let caller = Admitted { identity, _held: held };
    let is_durable = match durable::is_wanted(request.headers()) {
        Ok(is_durable) => is_durable,
        Err(refused) => return error::refused(path.path, &refused),
    };
    let places = if is_durable { &calls.durable } else { &calls.direct };
    let Some(_place) = places.take() else { return error::full(path.path, places.max()) };
    if is_durable {
        return durable::run(&node, path, &request, body, caller).await;
    }
    match request::read(&node, path, &request, body).await {
        Ok(request) => call::run(&node, path, request, caller).await,
        Err(refused) => error::refused(path.path, &refused),
    }
}
