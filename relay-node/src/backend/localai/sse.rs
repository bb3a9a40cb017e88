//! Streamed answers of LocalAI: pieces become updates, the end becomes the output. Errors come inside, under status 200.

use std::pin::pin;

use eventsource_stream::{EventStreamError, Eventsource};
use futures_util::StreamExt;
use serde_json::{Map, Value, json};

use super::paced::Limits;
use super::{failure, paced};
use crate::backend::{BackendError, Output, Update, Updates};

/// Makes pieces and the result out of a stream's messages.
trait Assemble {
    /// Takes a message; returns the piece that it holds, if any.
    fn on(&mut self, message: Value) -> Option<Value>;

    /// The result, if the stream may end here.
    fn result(self) -> Option<Value>;
}

/// Reads the stream to its end.
async fn read(
    response: reqwest::Response,
    limits: Limits,
    updates: &Updates,
    mut assemble: impl Assemble,
) -> Result<Output, BackendError> {
    let mut events = pin!(paced::lines(response, limits).eventsource());
    while let Some(event) = events.next().await {
        let event = event.map_err(|error| match error {
            EventStreamError::Transport(error) => error,
            error => BackendError::Failed(format!("the stream cannot be read: {error}")),
        })?;
        if event.data == "[DONE]" {
            break;
        }
        let Ok(message) = serde_json::from_str::<Value>(&event.data) else { continue };
        if let Some(error) = message.get("error").filter(|error| !error.is_null()) {
            let words = error.get("message").and_then(Value::as_str).unwrap_or_default();
            return Err(failure::of_words(None, words, None));
        }
        if let Some(piece) = assemble.on(message) {
            // Nobody reads on when the job has ended; the call is dropped then.
            drop(updates.send(Update::Partial(piece)).await);
        }
    }
    let result = assemble.result();
    let result = result.ok_or_else(|| BackendError::Failed("the stream ended before its result".to_owned()))?;
    Ok(Output { result, media: None })
}

/// A streamed transcription.
pub(super) async fn transcript(
    response: reqwest::Response,
    limits: Limits,
    updates: &Updates,
) -> Result<Output, BackendError> {
    read(response, limits, updates, Transcript(None)).await
}

/// A streamed chat completion.
pub(super) async fn chat(
    response: reqwest::Response,
    limits: Limits,
    updates: &Updates,
) -> Result<Output, BackendError> {
    read(response, limits, updates, Chat::default()).await
}

struct Transcript(Option<Value>);

impl Assemble for Transcript {
    fn on(&mut self, mut message: Value) -> Option<Value> {
        match message.get("type").and_then(Value::as_str) {
            Some("transcript.text.delta") => Some(json!({ "delta": message.get_mut("delta").map(Value::take) })),
            Some("transcript.text.done") => {
                if let Value::Object(fields) = &mut message {
                    fields.remove("type");
                }
                self.0 = Some(message);
                None
            }
            _ => None,
        }
    }

    fn result(self) -> Option<Value> {
        self.0
    }
}

#[derive(Default)]
struct Chat {
    text: String,
    facts: Map<String, Value>,
}

impl Assemble for Chat {
    fn on(&mut self, mut message: Value) -> Option<Value> {
        if let Some(model) = message.get("model").filter(|model| model.is_string()) {
            self.facts.insert("model".to_owned(), model.clone());
        }
        // The usage comes after the last choice, in a message without choices.
        if let Some(usage) = message.get_mut("usage").filter(|usage| usage.is_object()) {
            self.facts.insert("usage".to_owned(), usage.take());
        }
        let choice = message.pointer("/choices/0")?;
        if let Some(reason) = choice.get("finish_reason").filter(|reason| reason.is_string()) {
            self.facts.insert("finish_reason".to_owned(), reason.clone());
        }
        let delta = choice.pointer("/delta/content")?.as_str()?;
        self.text.push_str(delta);
        Some(json!({ "delta": delta }))
    }

    fn result(mut self) -> Option<Value> {
        self.facts.contains_key("finish_reason").then(|| {
            self.facts.insert("text".to_owned(), Value::String(self.text));
            Value::Object(self.facts)
        })
    }
}
