//! The API of OpenAI and LocalAI: the same paths, bodies and errors, so that a client changes its base URL and nothing else.
//!
//! A call takes a slot as a job does, before jobs of lower priority, but not the way over the log: it ends with its connection.
//! Until the first byte of an answer is there it is tried at other backends; after that it never begins anew (docs/openai-api.md).

mod answer;
mod attempt;
mod call;
mod error;
mod models;
mod record;
mod request;
mod spool;

use actix_web::{HttpRequest, HttpResponse, web};
use relay_protocol::Task;
use relay_runtime::auth::Scope;
use relay_runtime::http_auth::Caller;
use serde::Deserialize;
use tokio::sync::{Semaphore, SemaphorePermit};

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

/// What the calls of a node share.
pub struct Calls {
    /// Places of calls whose answer has not begun.
    waiting: Semaphore,
    waiting_max: usize,
}

impl Calls {
    /// No calls yet.
    pub fn new(settings: &OpenAiSettings) -> Self {
        let waiting_max = settings.waiting_max.min(Semaphore::MAX_PERMITS);
        Self { waiting: Semaphore::new(waiting_max), waiting_max }
    }

    fn place(&self) -> Option<Place<'_>> {
        let permit = self.waiting.try_acquire().ok()?;
        let place = Place { calls: self, permit: Some(permit) };
        self.show();
        Some(place)
    }

    fn show(&self) {
        let waiting = self.waiting_max - self.waiting.available_permits();
        metrics::gauge!("relay_openai_waiting_calls").set(waiting as f64);
    }
}

/// The place of a call whose answer has not begun.
struct Place<'a> {
    calls: &'a Calls,
    permit: Option<SemaphorePermit<'a>>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        drop(self.permit.take());
        self.calls.show();
    }
}

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
    let Some(_place) = calls.place() else { return error::full(path.path, calls.waiting_max) };
    match request::read(&node, path, &request, body).await {
        Ok(request) => call::run(&node, path, request, &identity).await,
        Err(refused) => error::refused(path.path, &refused),
    }
}
