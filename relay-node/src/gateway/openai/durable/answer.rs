//! The end of a durable call's job, in the shape that a backend's own answer has.

use actix_web::HttpResponse;
use actix_web::body::SizedStream;
use actix_web::http::header;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use relay_protocol::{ErrorCode, JobError, JobId, StoredObject};
use serde_json::{Map, Value, json};
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use super::work::Wanted;
use crate::state::Online;

/// Bytes that are read from the store at once.
const CHUNK_BYTES: usize = 65_536;
/// End of the paths under which results lie that are too large for an event.
const LARGE_RESULT: &str = "-result";

/// The answer for what the job `job_id` made.
///
/// # Errors
/// [`ErrorCode::StoreUnavailable`], [`ErrorCode::NoResult`] if what it made is not there any more.
pub(super) async fn of_result(
    online: &Online,
    job_id: JobId,
    result: Value,
    wanted: Wanted,
    bytes_max: usize,
) -> Result<HttpResponse, JobError> {
    let media = |result: &Value| serde_json::from_value::<StoredObject>(result.get("media")?.clone()).ok();
    let result = match media(&result).filter(|stored| stored.path.ends_with(LARGE_RESULT)) {
        Some(stored) => {
            let text = read(online, &stored, bytes_max).await?;
            serde_json::from_slice(&text).map_err(|error| unavailable(&error))?
        }
        None => result,
    };
    match (wanted, media(&result)) {
        (Wanted::Speech, Some(sound)) => spoken(online, sound).await,
        (Wanted::Image, Some(picture)) => {
            let picture = read(online, &picture, bytes_max).await?;
            Ok(HttpResponse::Ok().json(drawn(job_id, result, &picture)))
        }
        (Wanted::Speech | Wanted::Image, None) => {
            Err(JobError::new(ErrorCode::NoResult, format!("job {job_id} made no media")))
        }
        (wanted, _) => Ok(HttpResponse::Ok().json(shaped(job_id, result, wanted))),
    }
}

fn unavailable(error: &dyn std::fmt::Display) -> JobError {
    let message = format!("the result cannot be read: {error}; ask again with the same Idempotency-Key");
    JobError::new(ErrorCode::StoreUnavailable, message)
}

async fn read(online: &Online, stored: &StoredObject, bytes_max: usize) -> Result<Bytes, JobError> {
    let bytes = online.claims.read(stored, 0).await.map_err(|error| unavailable(&error))?;
    let mut read = Vec::new();
    bytes.take(bytes_max as u64).read_to_end(&mut read).await.map_err(|error| unavailable(&error))?;
    if read.len() as u64 != stored.bytes {
        return Err(unavailable(&format!("{} bytes instead of {}", read.len(), stored.bytes)));
    }
    Ok(read.into())
}

async fn spoken(online: &Online, sound: StoredObject) -> Result<HttpResponse, JobError> {
    let bytes = online.claims.read(&sound, 0).await.map_err(|error| unavailable(&error))?;
    let name = sound.name.as_deref().unwrap_or("speech");
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, sound.media_type.as_deref().unwrap_or("application/octet-stream")))
        .insert_header((header::CONTENT_DISPOSITION, format!("attachment; filename={name:?}")))
        .body(SizedStream::new(sound.bytes, ReaderStream::with_capacity(bytes, CHUNK_BYTES))))
}

fn drawn(job_id: JobId, mut result: Value, picture: &[u8]) -> Value {
    let created = result.get_mut("created").map(Value::take).filter(|created| !created.is_null());
    let created = created.unwrap_or_else(|| json!(made_at_s(job_id)));
    json!({ "created": created, "data": [{ "b64_json": STANDARD.encode(picture) }] })
}

/// Seconds since the Unix epoch: the same whoever asks again.
fn made_at_s(job_id: JobId) -> u64 {
    job_id.made_at_ms().unwrap_or_default() / 1_000
}

/// A result that holds no media.
fn shaped(job_id: JobId, mut result: Value, wanted: Wanted) -> Value {
    let mut take = |name: &str| result.get_mut(name).map(Value::take).unwrap_or_default();
    match wanted {
        Wanted::Chat => json!({
            "created": made_at_s(job_id),
            "object": "chat.completion",
            "id": job_id,
            "model": take("model"),
            "choices": [{
                "index": 0,
                "finish_reason": take("finish_reason"),
                "message": { "role": "assistant", "content": take("text") },
            }],
            "usage": take("usage"),
        }),
        Wanted::Embeddings { in_base64 } => {
            let vectors = if let Value::Array(vectors) = take("embeddings") { vectors } else { Vec::new() };
            let entry = |(index, vector): (u32, Value)| {
                let vector = if in_base64 { packed(&vector) } else { vector };
                json!({ "index": index, "object": "embedding", "embedding": vector })
            };
            let data: Vec<Value> = (0..).zip(vectors).map(entry).collect();
            json!({ "object": "list", "model": take("model"), "data": data, "usage": take("usage") })
        }
        Wanted::Vad => json!({ "segments": take("segments") }),
        Wanted::Transcript { is_brief: true } => {
            let facts = ["text", "language", "duration"].map(|name| (name.to_owned(), take(name)));
            Value::Object(facts.into_iter().filter(|(_, fact)| !fact.is_null()).collect::<Map<_, _>>())
        }
        Wanted::Transcript { is_brief: false } | Wanted::Speech | Wanted::Image => result,
    }
}

/// A vector as base64 of its numbers in 32 bits, little endian.
fn packed(vector: &Value) -> Value {
    let numbers = vector.as_array().into_iter().flatten().filter_map(Value::as_f64);
    let bytes: Vec<u8> = numbers.flat_map(|number| (number as f32).to_le_bytes()).collect();
    Value::String(STANDARD.encode(bytes))
}

#[cfg(test)]
#[path = "answer_test.rs"]
mod tests;
