//! What a call says that the relay must know: its model. Everything else is between the client and the backend.

use actix_multipart::Multipart;
use actix_web::error::PayloadError;
use actix_web::http::header;
use actix_web::{HttpRequest, web};
use futures_util::StreamExt;
use relay_protocol::{ErrorCode, JobError, Task};
use serde::Deserialize;
use serde_json::Value;

use super::Path;
use super::spool::Spool;
use crate::backend::size;
use crate::gateway::body::Pace;
use crate::state::NodeState;

/// Longest name of a model, in bytes.
const MODEL_BYTES_MAX: usize = 512;
/// Body that the thread of the connection reads itself, in bytes: some ten microseconds.
const READ_AT_ONCE_BYTES: usize = 16_384;

/// One call.
pub(super) struct Request {
    /// With which model, if the client says so.
    pub(super) model: Option<String>,
    /// How much work it is: [`size`].
    pub(super) units: f64,
    pub(super) content_type: String,
    pub(super) body: Spool,
}

#[derive(Deserialize)]
struct Head {
    model: Option<String>,
    /// Of pictures.
    size: Option<Value>,
    /// How many of them.
    n: Option<Value>,
}

/// What the relay reads of a body.
struct Read {
    model: Option<String>,
    units: f64,
}

/// Reads a call to its end.
///
/// # Errors
/// The body is too large, too slow, or cannot be read; there is no model where one is needed.
pub(super) async fn read(
    node: &NodeState,
    path: Path,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<Request, JobError> {
    let body = body(node, payload).await?;
    let Read { model, units } =
        if is_form(request) { of_form(request, &body).await? } else { of_json(path.task, &body).await? };
    let model = model.filter(|model| !model.is_empty());
    if model.is_none() && path.task == Task::Vad {
        return Err(JobError::new(ErrorCode::InvalidField, "name the model that finds voices, in the field \"model\""));
    }
    Ok(Request { model, units, content_type: content_type(request).to_owned(), body })
}

/// Takes a body to its end.
///
/// # Errors
/// It is too large or too slow, or cannot be kept.
pub(super) async fn body(node: &NodeState, payload: web::Payload) -> Result<Spool, JobError> {
    let pace = Pace::of(&node.settings.gateway);
    Spool::fill(payload, &node.settings.openai, &node.settings.store.cache_folder, pace).await
}

fn content_type(request: &HttpRequest) -> &str {
    let value = request.headers().get(header::CONTENT_TYPE);
    value.and_then(|value| value.to_str().ok()).unwrap_or("application/json")
}

/// Whether the body is a form, by its media type.
pub(super) fn is_form(request: &HttpRequest) -> bool {
    content_type(request).to_ascii_lowercase().starts_with("multipart/form-data")
}

async fn of_json(task: Task, body: &Spool) -> Result<Read, JobError> {
    match head(body).await {
        Ok(Ok(head)) => {
            let picture = || {
                size::of_picture(head.size.as_ref().and_then(Value::as_str), head.n.as_ref().and_then(Value::as_u64))
            };
            let units = match task {
                Task::Image => picture(),
                Task::Vad => size::of_samples(body.bytes()),
                _ => size::of_text(body.bytes()),
            };
            Ok(Read { model: head.model, units })
        }
        Ok(Err(error)) => {
            Err(JobError::new(ErrorCode::BadRequest, format!("the body is not the JSON object wanted here: {error}")))
        }
        Err(error) => Err(JobError::new(ErrorCode::Internal, format!("the body was not read: {error}"))),
    }
}

/// The fields that matter. A short body is read at once: handing it to another thread costs more.
async fn head(body: &Spool) -> Result<serde_json::Result<Head>, tokio::task::JoinError> {
    if let Spool::Memory(bytes) = body
        && bytes.len() <= READ_AT_ONCE_BYTES
    {
        return Ok(serde_json::from_slice(bytes));
    }
    let reader = body.reader();
    tokio::task::spawn_blocking(move || serde_json::from_reader::<_, Head>(reader)).await
}

async fn of_form(request: &HttpRequest, body: &Spool) -> Result<Read, JobError> {
    let bad = |why: String| JobError::new(ErrorCode::BadRequest, format!("the form cannot be read: {why}"));
    let chunks = body.chunks().map(|chunk| chunk.map_err(PayloadError::Io));
    let mut parts = Multipart::new(request.headers(), chunks);
    let mut read = Read { model: None, units: size::of_text(body.bytes()) };
    while let Some(part) = parts.next().await {
        let mut field = part.map_err(|error| bad(error.to_string()))?;
        let (is_model, is_file) = (field.name() == Some("model"), field.name() == Some("file"));
        let kept_max = if is_model { MODEL_BYTES_MAX + 1 } else { size::HEAD_BYTES };
        let (mut kept, mut bytes) = (Vec::new(), 0);
        while let Some(chunk) = field.next().await {
            let chunk = chunk.map_err(|error| bad(error.to_string()))?;
            bytes += chunk.len() as u64;
            kept.extend_from_slice(&chunk[..chunk.len().min(kept_max - kept.len())]);
        }
        if is_file {
            read.units = size::of_sound(&kept, bytes);
        }
        if is_model && kept.len() > MODEL_BYTES_MAX {
            return Err(bad(format!("the name of the model has more than {MODEL_BYTES_MAX} bytes")));
        }
        if is_model {
            let name = String::from_utf8(kept);
            read.model = Some(name.map_err(|_| bad("the name of the model is not UTF-8".to_owned()))?);
        }
    }
    Ok(read)
}
