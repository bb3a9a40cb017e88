//! Whole answers of LocalAI as outputs.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::backend::{BackendError, Output, OutputMedia};

fn parse(body: &[u8]) -> Result<Value, BackendError> {
    serde_json::from_slice(body).map_err(|error| unexpected(&format!("an answer that is not JSON ({error})")))
}

fn unexpected(what: &str) -> BackendError {
    BackendError::Failed(format!("LocalAI sent {what}"))
}

/// A transcription with words.
pub(super) fn transcript(body: &[u8]) -> Result<Output, BackendError> {
    let result = parse(body)?;
    if !result.get("text").is_some_and(Value::is_string) {
        return Err(unexpected("a transcription without text"));
    }
    Ok(Output { result, media: None })
}

/// Spoken audio.
pub(super) fn speech(media_type: &str, bytes: Bytes) -> Result<Output, BackendError> {
    if bytes.is_empty() || !media_type.starts_with("audio/") {
        return Err(unexpected(&format!("{} bytes of {media_type} instead of audio", bytes.len())));
    }
    let extension = media_type.trim_start_matches("audio/").split(';').next().unwrap_or_default();
    let name = format!("speech.{}", if extension == "mpeg" { "mp3" } else { extension });
    Ok(Output { result: json!({}), media: Some(OutputMedia { media_type: media_type.to_owned(), name, bytes }) })
}

/// A made image; of several the first is the media, the others are left out of the result.
pub(super) fn image(body: &[u8]) -> Result<Output, BackendError> {
    let answer = parse(body)?;
    let data = answer.pointer("/data/0/b64_json").and_then(Value::as_str);
    let bytes = data.and_then(|text| STANDARD.decode(text).ok()).ok_or_else(|| unexpected("no image"))?;
    let media = OutputMedia { media_type: "image/png".to_owned(), name: "image.png".to_owned(), bytes: bytes.into() };
    Ok(Output { result: json!({ "created": answer.get("created") }), media: Some(media) })
}

/// Vectors, in the order of the texts.
pub(super) fn embeddings(body: &[u8]) -> Result<Output, BackendError> {
    let mut answer = parse(body)?;
    let data = answer.get_mut("data").and_then(Value::as_array_mut).ok_or_else(|| unexpected("no embeddings"))?;
    data.sort_by_key(|entry| entry.get("index").and_then(Value::as_u64));
    let vectors: Vec<Value> = data.iter_mut().map(|entry| entry["embedding"].take()).collect();
    if vectors.is_empty() || !vectors.iter().all(Value::is_array) {
        return Err(unexpected("no embeddings"));
    }
    let result = json!({ "embeddings": vectors, "model": answer.get("model"), "usage": answer.get("usage") });
    Ok(Output { result, media: None })
}

/// Speech segments; one that is still open at the end (`end` is 0) ends with the audio.
pub(super) fn vad(body: &[u8], duration: f64) -> Result<Output, BackendError> {
    let answer = parse(body)?;
    let segments = match answer.get("segments") {
        Some(Value::Array(segments)) => segments.clone(),
        // No speech at all is said by leaving the list out.
        Some(Value::Null) | None => Vec::new(),
        Some(_) => return Err(unexpected("segments that are no list")),
    };
    let second = |segment: &Value, name: &str| segment.get(name).and_then(Value::as_f64).unwrap_or(0.0);
    let segments: Vec<Value> = segments
        .iter()
        .map(|segment| {
            let (start, end) = (second(segment, "start"), second(segment, "end"));
            json!({ "start": start, "end": if end == 0.0 { duration } else { end } })
        })
        .collect();
    Ok(Output { result: json!({ "segments": segments, "duration_s": duration }), media: None })
}
