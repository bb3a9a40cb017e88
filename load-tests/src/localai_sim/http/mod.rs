//! The routes of a simulated server.

mod admission;
mod chat;
mod control;
mod other;
mod speech;
mod stream;
mod transcription;

use actix_web::dev::Service;
use actix_web::http::{Method, header};
use actix_web::{HttpRequest, HttpResponse, Resource, Route, web};

use super::State;
use super::failure::Failure;

/// Largest JSON body, in bytes: the samples of `/vad` come as text.
const JSON_BYTES_MAX: usize = 256 << 20;

/// A path that knows one method; others are 405, as recorded.
fn path(path: &str, route: Route) -> Resource {
    web::resource(path).route(route).default_service(web::to(wrong_method))
}

pub(super) fn routes(config: &mut web::ServiceConfig) {
    let open = web::scope("")
        .app_data(web::PayloadConfig::new(JSON_BYTES_MAX))
        .wrap_fn(|request, next| {
            let refused = request.app_data::<web::Data<State>>().and_then(|state| refuse(state, request.request()));
            let forward = if refused.is_none() { Ok(next.call(request)) } else { Err(request) };
            async move {
                match forward {
                    Ok(answer) => answer.await,
                    Err(request) => Ok(request.into_response(refused.unwrap_or_else(Failure::not_found).response())),
                }
            }
        })
        .service(path("/healthz", web::get().to(HttpResponse::Ok)))
        .service(path("/readyz", web::get().to(control::ready)))
        .service(path("/version", web::get().to(other::version)))
        .service(path("/v1/models", web::get().to(other::models)))
        .service(path("/system", web::get().to(other::system)))
        .service(path("/backend/monitor", web::get().to(other::monitor)))
        .service(path("/backend/load", web::post().to(other::load)))
        .service(path("/backend/shutdown", web::post().to(other::shutdown)))
        .service(path("/v1/audio/transcriptions", web::post().to(transcription::transcribe)))
        .service(path("/v1/audio/diarization", web::post().to(other::unimplemented)))
        .service(path("/v1/audio/speech", web::post().to(speech::speak)))
        .service(path("/tts", web::post().to(speech::speak)))
        .service(path("/vad", web::post().to(other::vad)))
        .service(path("/v1/chat/completions", web::post().to(chat::complete)))
        .service(path("/v1/embeddings", web::post().to(other::embed)))
        .service(path("/v1/images/generations", web::post().to(other::image)))
        .service(path("/simulator/counters", web::get().to(control::counters)))
        .service(path("/simulator/kill", web::post().to(control::kill)))
        .service(path("/simulator/ready", web::post().to(control::set_ready)))
        .default_service(web::to(not_found));
    config.service(open);
}

/// Why a request is refused before it is read: its key or its size.
fn refuse(state: &State, request: &HttpRequest) -> Option<Failure> {
    let path = request.path();
    let is_open = path == "/readyz" || path == "/healthz" || path.starts_with("/simulator/");
    if let (Some(key), false) = (&state.settings.api_key, is_open) {
        let text = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
        let bearer = text("authorization").and_then(|value| value.strip_prefix("Bearer "));
        if bearer != Some(key) && text("x-api-key") != Some(key) {
            return Some(Failure::unauthorized());
        }
    }
    let length = request.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse::<usize>().ok()?;
    (length > state.settings.upload_bytes_max).then(|| Failure::new(413, "code=413, message=Request Entity Too Large"))
}

async fn wrong_method(request: HttpRequest) -> HttpResponse {
    let allowed = if request.method() == Method::POST { "OPTIONS, GET" } else { "OPTIONS, POST" };
    let mut answer = Failure::new(405, "code=405, message=Method Not Allowed").response();
    answer.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static(allowed));
    answer
}

async fn not_found() -> HttpResponse {
    Failure::not_found().response()
}
