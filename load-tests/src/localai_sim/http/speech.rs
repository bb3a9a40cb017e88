//! `POST /v1/audio/speech` and `/tts`: a WAV file with a tone for each byte of the text. Other formats are not simulated.

use actix_web::http::header;
use actix_web::{HttpResponse, web};
use bytes::Bytes;
use serde_json::Value;

use super::super::State;
use super::super::audio;
use super::super::failure::Failure;
use super::super::settings::Kind;
use super::admission::{Admitted, json, text};
use super::stream;

/// Bytes of a piece of streamed sound.
const PIECE_BYTES: usize = 16 * 1024;

/// Handles a request.
pub(super) async fn speak(state: web::Data<State>, body: Bytes) -> HttpResponse {
    match start(&state, &body) {
        Ok((admitted, words, true)) => stream::answer("audio/wav", move |sink| async move {
            // A stream of sound that fails just ends: there is no place in it for words.
            drop(streamed(admitted, &words, &sink).await);
        }),
        Ok((admitted, words, false)) => whole(admitted, &words).await.unwrap_or_else(|failure| failure.response()),
        Err(failure) => failure.response(),
    }
}

fn start(state: &web::Data<State>, body: &[u8]) -> Result<(Admitted, String, bool), Failure> {
    let body = json(body)?;
    let model = state.model(text(&body, "model"), Kind::Speech)?;
    let words = text(&body, "input").unwrap_or_default();
    if words.is_empty() {
        return Err(Failure::internal("error during TTS: empty text"));
    }
    if text(&body, "response_format").is_some_and(|format| format != "wav") {
        return Err(Failure::rpc("Unimplemented", "the simulator speaks wav only"));
    }
    let stream = body.get("stream") == Some(&Value::Bool(true));
    Ok((Admitted::enter(state, &model)?, words.to_owned(), stream))
}

fn units(words: &str) -> f64 {
    words.split_whitespace().count() as f64
}

async fn whole(admitted: Admitted, words: &str) -> Result<HttpResponse, Failure> {
    admitted.do_all(units(words)).await.map(|()| {
        HttpResponse::Ok()
            .content_type("audio/wav")
            .insert_header((header::CONTENT_DISPOSITION, "attachment; filename=\"tts_1.wav\""))
            .body(audio::spoken(words, false))
    })
}

async fn streamed(mut admitted: Admitted, words: &str, sink: &stream::Sink) -> Result<(), Failure> {
    let run = async {
        let turn = admitted.turn(units(words)).await?;
        let sound = Bytes::from(audio::spoken(words, true));
        for at in (0..sound.len()).step_by(PIECE_BYTES) {
            let piece = sound.slice(at..sound.len().min(at + PIECE_BYTES));
            turn.do_share(piece.len() as f64 / sound.len() as f64).await?;
            sink.bytes(piece).await;
        }
        Ok(())
    };
    let outcome = run.await;
    admitted.ended(outcome)
}
