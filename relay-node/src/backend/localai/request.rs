//! What is asked of LocalAI.

use bytes::Bytes;
use relay_protocol::{ErrorCode, Task};
use reqwest::multipart::{Form, Part};
use serde_json::{Map, Value, json};

use crate::backend::builtin::{Limits, pcm};
use crate::backend::{BackendError, Call, in_process, text};
use crate::job::media::MediaBody;

/// Largest text input (prompt, messages, sentence), in bytes.
const TEXT_BYTES_MAX: u64 = 1_048_576;

/// Whether a flag parameter is set.
pub(super) fn flag(params: &Map<String, Value>, name: &str) -> bool {
    match params.get(name) {
        Some(Value::Bool(set)) => *set,
        Some(Value::String(text)) => text == "true",
        _ => false,
    }
}

/// A number, also one that came as text.
fn number(params: &Map<String, Value>, name: &str) -> Option<Value> {
    match params.get(name)? {
        Value::String(text) => {
            text.parse::<u64>().map(Value::from).or_else(|_| text.parse::<f64>().map(Value::from)).ok()
        }
        value => Some(value.clone()),
    }
}

/// The form of a transcription: streamed, or with words at once.
pub(super) async fn transcription(call: &Call, words: bool) -> Result<Form, BackendError> {
    let name = call.media.name.clone().unwrap_or_else(|| "audio".to_owned());
    let part = match &call.media.body {
        MediaBody::Memory(bytes) => Part::stream(bytes.clone()),
        MediaBody::File(path) => {
            let file = tokio::fs::File::open(path).await.map_err(|error| unreadable(&error))?;
            let body = reqwest::Body::wrap_stream(tokio_util::io::ReaderStream::with_capacity(file, 64 * 1024));
            Part::stream_with_length(body, call.media.bytes)
        }
    };
    let mut form = Form::new().part("file", part.file_name(name));
    if let Some(model) = &call.model {
        form = form.text("model", model.clone());
    }
    for field in ["language", "prompt"] {
        if let Some(value) = text(&call.params, field) {
            form = form.text(field, value.to_owned());
        }
    }
    if let Some(temperature) = number(&call.params, "temperature") {
        form = form.text("temperature", temperature.to_string());
    }
    if flag(&call.params, "diarize") {
        form = form.text("diarize", "true");
    }
    if call.task == Task::Translate {
        form = form.text("translate", "true");
    }
    Ok(if words {
        form.text("response_format", "verbose_json").text("timestamp_granularities[]", "word")
    } else {
        form.text("stream", "true")
    })
}

/// The body of a chat: the input is a JSON list of messages, or the text of one.
pub(super) async fn chat(call: &Call) -> Result<Value, BackendError> {
    let input = input_text(call).await?;
    let mut messages = match serde_json::from_str::<Value>(&input) {
        Ok(Value::Array(messages)) if messages.iter().all(Value::is_object) && !messages.is_empty() => messages,
        _ => vec![json!({ "role": "user", "content": input })],
    };
    if let Some(system) = text(&call.params, "system") {
        messages.insert(0, json!({ "role": "system", "content": system }));
    }
    let mut body = json!({ "messages": messages, "stream": true, "stream_options": { "include_usage": true } });
    add(&mut body, "model", call.model.clone().map(Value::String));
    for field in ["temperature", "top_p", "max_tokens", "seed"] {
        add(&mut body, field, number(&call.params, field));
    }
    for field in ["stop", "response_format"] {
        add(&mut body, field, call.params.get(field).cloned());
    }
    Ok(body)
}

/// The body of a speech request.
pub(super) async fn speech(call: &Call) -> Result<Value, BackendError> {
    let mut body = json!({ "input": input_text(call).await? });
    add(&mut body, "model", call.model.clone().map(Value::String));
    for field in ["voice", "language"] {
        add(&mut body, field, call.params.get(field).cloned());
    }
    // LocalAI knows formats in lower case only.
    add(&mut body, "response_format", text(&call.params, "format").map(|format| format.to_ascii_lowercase().into()));
    add(&mut body, "speed", number(&call.params, "speed"));
    Ok(body)
}

/// The body of an image request.
pub(super) async fn image(call: &Call) -> Result<Value, BackendError> {
    let mut body = json!({ "prompt": input_text(call).await?, "response_format": "b64_json" });
    add(&mut body, "model", call.model.clone().map(Value::String));
    add(&mut body, "size", call.params.get("size").cloned());
    for field in ["n", "step", "seed"] {
        add(&mut body, field, number(&call.params, field));
    }
    Ok(body)
}

/// The body of an embedding: the input is a JSON list of texts, or one text.
pub(super) async fn embedding(call: &Call) -> Result<Value, BackendError> {
    let input = input_text(call).await?;
    let input = match serde_json::from_str::<Value>(&input) {
        Ok(Value::Array(texts)) if texts.iter().all(Value::is_string) && !texts.is_empty() => Value::Array(texts),
        _ => Value::String(input),
    };
    let mut body = json!({ "input": input });
    add(&mut body, "model", call.model.clone().map(Value::String));
    Ok(body)
}

/// The body of a voice activity request, and the audio's duration in seconds.
pub(super) async fn vad(call: &Call) -> Result<(Value, f64), BackendError> {
    let media = call.media.clone();
    let decode = move || {
        let source = in_process::open(&media).map_err(|error| unreadable(&error))?;
        pcm::mono_16k(source, &Limits::default()).map_err(|error| in_process::rejected(&error))
    };
    let samples =
        tokio::task::spawn_blocking(decode).await.map_err(|error| BackendError::Failed(error.to_string()))??;
    let duration = samples.len() as f64 / f64::from(pcm::RATE);
    Ok((json!({ "model": call.model, "audio": samples }), duration))
}

fn add(body: &mut Value, field: &str, value: Option<Value>) {
    if let (Value::Object(fields), Some(value)) = (body, value) {
        fields.insert(field.to_owned(), value);
    }
}

async fn input_text(call: &Call) -> Result<String, BackendError> {
    let bytes: Bytes = call.media.read(TEXT_BYTES_MAX).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::FileTooLarge => {
            BackendError::Rejected { code: ErrorCode::TooLarge, reason: format!("the text is too large: {error}") }
        }
        _ => unreadable(&error),
    })?;
    String::from_utf8(bytes.to_vec()).map_err(|_| BackendError::Rejected {
        code: ErrorCode::NotMedia,
        reason: format!("task {} takes text, and the input is not UTF-8", call.task),
    })
}

fn unreadable(error: &std::io::Error) -> BackendError {
    BackendError::Failed(format!("the input cannot be read: {error}"))
}
