//! Backends that are as slow as each request says: a transcription endpoint with few workers and an unbounded queue before them, as
//! LocalAI has.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpResponse, HttpServer, web};
use anyhow::Context as _;
use bytes::Bytes;
use tokio::sync::Semaphore;

use super::trace::SLOTS;

/// The only model.
pub(super) const MODEL: &str = "whisper-1";
/// What it answers at once.
const EMBEDDING: &str = r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.25,-0.5,0.125]}],"model":"whisper-1","usage":{"prompt_tokens":4,"total_tokens":4}}"#;
/// In the request's sound, before the work in microseconds at speed 1: every balancer passes on the file.
pub(super) const WORK: &str = "work_us=";

/// What goes wrong with a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Mood {
    Well = 0,
    /// It takes requests and never answers; `/readyz` still does.
    Stalled = 1,
    /// Every request fails at once; `/readyz` is still well.
    Failing = 2,
}

/// One backend.
pub(super) struct Backend {
    pub(super) url: String,
    mood: Arc<AtomicU8>,
    handle: ServerHandle,
}

#[derive(Clone)]
struct State {
    speed: f64,
    workers: Arc<Semaphore>,
    mood: Arc<AtomicU8>,
}

impl Backend {
    /// Starts one that works at `speed`.
    ///
    /// # Errors
    /// No port.
    pub(super) fn start(speed: f64) -> anyhow::Result<Self> {
        let mood = Arc::new(AtomicU8::new(Mood::Well as u8));
        let state = State { speed, workers: Arc::new(Semaphore::new(SLOTS)), mood: mood.clone() };
        let server = HttpServer::new(move || {
            App::new()
                .app_data(web::Data::new(state.clone()))
                .app_data(web::PayloadConfig::new(1 << 20))
                .route("/readyz", web::get().to(HttpResponse::Ok))
                .route("/v1/models", web::get().to(models))
                .route("/v1/audio/transcriptions", web::post().to(transcribe))
                .route("/v1/embeddings", web::post().to(embed))
                .default_service(web::to(HttpResponse::NotFound))
        });
        let server = server.workers(1).disable_signals().bind(("127.0.0.1", 0)).context("no port")?;
        let address = *server.addrs().first().context("no address")?;
        let server = server.run();
        let handle = server.handle();
        std::thread::spawn(move || actix_web::rt::System::new().block_on(server));
        Ok(Self { url: format!("http://{address}"), mood, handle })
    }

    pub(super) fn set(&self, mood: Mood) {
        self.mood.store(mood as u8, Ordering::Relaxed);
    }

    /// Ends it: connections break off.
    pub(super) async fn kill(&self) {
        self.handle.stop(false).await;
    }
}

async fn models() -> HttpResponse {
    HttpResponse::Ok().json(serde_json::json!({ "object": "list", "data": [{ "id": MODEL, "object": "model" }] }))
}

async fn transcribe(state: web::Data<State>, body: Bytes) -> HttpResponse {
    match state.mood.load(Ordering::Relaxed) {
        mood if mood == Mood::Stalled as u8 => std::future::pending::<()>().await,
        mood if mood == Mood::Failing as u8 => {
            let error = serde_json::json!({ "error": { "code": 500, "message": "rpc error: broken", "type": "" } });
            return HttpResponse::InternalServerError().json(error);
        }
        _ => {}
    }
    let Some(work_us) = work_us(&body) else { return HttpResponse::BadRequest().finish() };
    let Ok(_worker) = state.workers.acquire().await else { return HttpResponse::InternalServerError().finish() };
    tokio::time::sleep(Duration::from_micros((work_us / state.speed) as u64)).await;
    HttpResponse::Ok().json(serde_json::json!({ "text": "done" }))
}

/// Takes no time. What is not read would end the connection.
async fn embed(_body: Bytes) -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(EMBEDDING)
}

fn work_us(body: &[u8]) -> Option<f64> {
    let at = body.windows(WORK.len()).position(|part| part == WORK.as_bytes())? + WORK.len();
    let digits = body[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&body[at..at + digits]).ok()?.parse().ok()
}
