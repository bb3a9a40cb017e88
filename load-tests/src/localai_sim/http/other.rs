//! Models and their state, voice activity, embeddings, images.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io::Cursor;
use std::sync::Arc;

use actix_web::{HttpResponse, web};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

use super::super::State;
use super::super::failure::Failure;
use super::super::model::Model;
use super::super::settings::Kind;
use super::super::{audio, content};
use super::admission::{Admitted, json as parse, text};

/// Numbers in an embedding.
const DIMENSIONS: u32 = 64;
/// Edge of a square of a made picture, in pixels.
const SQUARE: u32 = 8;

type Answer = Result<HttpResponse, Failure>;

fn respond(answer: Answer) -> HttpResponse {
    answer.unwrap_or_else(|failure| failure.response())
}

/// `GET /version`.
pub(super) async fn version() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "version": "v4.9.0 (simulator)" }))
}

/// `GET /v1/models`, in random order as LocalAI's list is.
pub(super) async fn models(state: web::Data<State>) -> HttpResponse {
    let mut names: Vec<&String> = state.models.keys().collect();
    let order = RandomState::new();
    names.sort_by_key(|name| order.hash_one(name));
    let data: Vec<Value> = names.iter().map(|name| json!({ "id": name, "object": "model" })).collect();
    HttpResponse::Ok().json(json!({ "object": "list", "data": data }))
}

/// `GET /system`.
pub(super) async fn system(state: web::Data<State>) -> HttpResponse {
    let loaded = state.models.iter().filter(|(_, model)| model.is_loaded());
    let loaded: Vec<Value> = loaded.map(|(id, _)| json!({ "id": id, "backend": "simulator" })).collect();
    HttpResponse::Ok().json(json!({ "backends": ["simulator"], "loaded_models": loaded }))
}

/// `GET /backend/monitor?model=M`: waits behind running work, as LocalAI's does.
pub(super) async fn monitor(state: web::Data<State>, query: web::Query<HashMap<String, String>>) -> HttpResponse {
    let Some(name) = query.get("model") else {
        return Failure::new(400, "code=400, message=model query parameter is required").response();
    };
    match state.models.get(name).filter(|model| model.is_loaded()) {
        None => Failure::internal(format!("backend {name} is not currently loaded")).response(),
        Some(model) => {
            let mut visit = model.visit();
            let waited = visit.queue(&state.ending).await;
            visit.end(&waited);
            respond(waited.map(|()| {
                let memory = json!({ "total": 171_249_664, "breakdown": { "rss": 171_249_664 } });
                HttpResponse::Ok().json(json!({ "state": 2, "memory": memory }))
            }))
        }
    }
}

fn named(state: &State, body: &[u8]) -> Result<Arc<Model>, Failure> {
    let body = parse(body)?;
    let name = text(&body, "model").unwrap_or_default();
    state.models.get(name).cloned().ok_or_else(|| Failure::unknown_model(name))
}

/// `POST /backend/load`.
pub(super) async fn load(state: web::Data<State>, body: Bytes) -> HttpResponse {
    let load = async {
        let model = named(&state, &body)?;
        model.load().await?;
        let loaded = json!({ "loaded": [model.settings.id], "message": "model loaded" });
        Ok(HttpResponse::Ok().json(loaded))
    };
    respond(load.await)
}

/// `POST /backend/shutdown`.
pub(super) async fn shutdown(state: web::Data<State>, body: Bytes) -> HttpResponse {
    respond(named(&state, &body).and_then(|model| match model.unload() {
        true => Ok(HttpResponse::Ok().json(json!({ "message": "model stopped" }))),
        false => Err(Failure::not_found()),
    }))
}

/// Routes that no recorded model knew.
pub(super) async fn unimplemented() -> HttpResponse {
    Failure::rpc("Unimplemented", "Method not implemented!").response()
}

/// Does `units` of work at the model of `kind` that the body names.
async fn work(state: &web::Data<State>, body: &Value, kind: Kind, units: f64) -> Result<Arc<Model>, Failure> {
    let model = state.model(text(body, "model"), kind)?;
    let mut admitted = Admitted::enter(state, &model)?;
    if model.settings.kind != kind {
        return admitted.ended(Err(Failure::rpc("Unimplemented", "Method not implemented!")));
    }
    admitted.do_all(units).await.map(|()| model)
}

/// `POST /vad`.
pub(super) async fn vad(state: web::Data<State>, body: Bytes) -> HttpResponse {
    let answer = async {
        let body = parse(&body)?;
        let samples: Vec<f32> = body
            .get("audio")
            .and_then(Value::as_array)
            .map(|samples| samples.iter().filter_map(Value::as_f64).map(|sample| sample as f32).collect())
            .unwrap_or_default();
        work(&state, &body, Kind::Vad, samples.len() as f64 / 16_000.0).await?;
        let segments: Vec<Value> =
            audio::voice(&samples).iter().map(|(start, end)| json!({ "start": start, "end": end })).collect();
        Ok(HttpResponse::Ok().json(json!({ "segments": segments })))
    };
    respond(answer.await)
}

/// `POST /v1/embeddings`.
pub(super) async fn embed(state: web::Data<State>, body: Bytes) -> HttpResponse {
    let answer = async {
        let body = parse(&body)?;
        let texts: Vec<&str> = match body.get("input") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let words: usize = texts.iter().map(|text| text.split_whitespace().count()).sum();
        let model = work(&state, &body, Kind::Embedding, words as f64).await?;
        let vector = |(index, text): (u32, &&str)| json!({ "index": index, "object": "embedding", "embedding": content::embedding(text, DIMENSIONS) });
        let data: Vec<Value> = (0..).zip(&texts).map(vector).collect();
        let usage = json!({ "prompt_tokens": words, "completion_tokens": 0, "total_tokens": words });
        let answer = json!({ "object": "list", "model": model.settings.id, "data": data, "usage": usage });
        Ok(HttpResponse::Ok().json(answer))
    };
    respond(answer.await)
}

/// `POST /v1/images/generations`: a picture of squares whose colours follow from the prompt.
pub(super) async fn image(state: web::Data<State>, body: Bytes) -> HttpResponse {
    let answer = async {
        let body = parse(&body)?;
        work(&state, &body, Kind::Image, 1.0).await?;
        let picture = picture(text(&body, "prompt").unwrap_or_default())?;
        let data = json!([{ "b64_json": STANDARD.encode(picture) }]);
        Ok(HttpResponse::Ok().json(json!({ "created": 0, "data": data })))
    };
    respond(answer.await)
}

fn picture(prompt: &str) -> Result<Vec<u8>, Failure> {
    let colours = content::squares(prompt);
    let pixel = |x: u32, y: u32| image::Rgb(colours[((y / SQUARE) * 8 + x / SQUARE) as usize]);
    let mut png = Cursor::new(Vec::new());
    image::RgbImage::from_fn(8 * SQUARE, 8 * SQUARE, pixel)
        .write_to(&mut png, image::ImageFormat::Png)
        .map_err(|error| Failure::internal(error.to_string()))?;
    Ok(png.into_inner())
}
