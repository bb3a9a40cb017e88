//! `POST /v1/chat/completions`: a summary that holds the last sentence of the last message, whole or word by word.

use std::time::{SystemTime, UNIX_EPOCH};

use actix_web::{HttpResponse, web};
use bytes::Bytes;
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::State;
use super::super::content::summary;
use super::super::failure::Failure;
use super::super::settings::Kind;
use super::admission::{Admitted, json as parse, text};
use super::stream::{self, Sink};

/// What is said, and how it is signed.
struct Reply {
    id: String,
    created: u64,
    model: String,
    content: String,
    prompt_words: usize,
}

/// Handles a request.
pub(super) async fn complete(state: web::Data<State>, body: Bytes) -> HttpResponse {
    match start(&state, &body) {
        Ok((admitted, reply, Some(usage))) => stream::answer("text/event-stream", move |sink| async move {
            let outcome = streamed(admitted, &reply, usage, &sink).await;
            sink.end(outcome).await;
        }),
        Ok((admitted, reply, None)) => whole(admitted, &reply).await.unwrap_or_else(|failure| failure.response()),
        Err(failure) => failure.response(),
    }
}

/// Reads the request; `Some(usage)` if a stream is wanted, with or without the usage at its end.
fn start(state: &web::Data<State>, body: &[u8]) -> Result<(Admitted, Reply, Option<bool>), Failure> {
    let body = parse(body)?;
    let model = state.model(text(&body, "model"), Kind::Chat)?;
    let messages = body.get("messages").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let said: Vec<&str> = messages.iter().filter_map(|message| text(message, "content")).collect();
    let admitted = Admitted::enter_chat(state, &model)?;
    let reply = Reply {
        id: Uuid::new_v4().to_string(),
        created: SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or_default(),
        model: model.settings.id.clone(),
        content: summary(said.last().copied().unwrap_or_default()),
        prompt_words: said.iter().map(|content| content.split_whitespace().count()).sum(),
    };
    let usage = body.pointer("/stream_options/include_usage") == Some(&Value::Bool(true));
    Ok((admitted, reply, (body.get("stream") == Some(&Value::Bool(true))).then_some(usage)))
}

impl Reply {
    fn usage(&self) -> Value {
        let made = self.content.split_whitespace().count();
        json!({ "prompt_tokens": self.prompt_words, "completion_tokens": made, "total_tokens": self.prompt_words + made })
    }

    fn units(&self) -> f64 {
        (self.prompt_words + self.content.split_whitespace().count()) as f64
    }

    fn chunk(&self, finish_reason: Value, delta: Value) -> Value {
        json!({
            "created": self.created,
            "object": "chat.completion.chunk",
            "id": self.id,
            "model": self.model,
            "choices": [{ "index": 0, "finish_reason": finish_reason, "delta": delta }],
        })
    }
}

async fn whole(admitted: Admitted, reply: &Reply) -> Result<HttpResponse, Failure> {
    admitted.do_all(reply.units()).await.map(|()| {
        HttpResponse::Ok().json(json!({
            "created": reply.created,
            "object": "chat.completion",
            "id": reply.id,
            "model": reply.model,
            "choices": [{
                "index": 0,
                "finish_reason": "stop",
                "message": { "role": "assistant", "content": reply.content },
            }],
            "usage": reply.usage(),
        }))
    })
}

async fn streamed(mut admitted: Admitted, reply: &Reply, usage: bool, sink: &Sink) -> Result<(), Failure> {
    let run = async {
        let turn = admitted.turn(reply.units()).await?;
        sink.message(&reply.chunk(Value::Null, json!({ "role": "assistant", "content": null }))).await;
        let words: Vec<&str> = reply.content.split(' ').collect();
        for (at, word) in words.iter().enumerate() {
            turn.do_share(1.0 / words.len() as f64).await?;
            let space = if at == 0 { "" } else { " " };
            sink.message(&reply.chunk(Value::Null, json!({ "content": format!("{space}{word}") }))).await;
        }
        sink.message(&reply.chunk(json!("stop"), json!({ "content": null }))).await;
        if usage {
            sink.message(&json!({
                "id": reply.id,
                "created": reply.created,
                "model": reply.model,
                "object": "chat.completion.chunk",
                "choices": [],
                "usage": reply.usage(),
            }))
            .await;
        }
        Ok(())
    };
    let outcome = run.await;
    admitted.ended(outcome)
}
