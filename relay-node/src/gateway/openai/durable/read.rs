//! Reads a durable call: its body becomes the parameters and the input of a job.

use actix_multipart::Multipart;
use actix_web::error::PayloadError;
use actix_web::{HttpRequest, web};
use bytes::Bytes;
use futures_util::StreamExt;
use relay_protocol::job::InlineMedia;
use relay_protocol::{ErrorCode, Input, JobError, Task};
use relay_runtime::auth::Identity;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::fields::invalid;
use super::work::{self, Content, Sound, Told, Wanted, Work};
use crate::gateway::body::Pace;
use crate::gateway::form::{self, Form};
use crate::gateway::openai::Path;
use crate::gateway::openai::request::{self, is_form};
use crate::gateway::openai::spool::Spool;
use crate::gateway::submit;
use crate::job::claim_check::Named;
use crate::state::NodeState;

/// Largest JSON body of a durable call, in bytes, but for sound: a text of 1 MiB, which is the largest that jobs take, and the rest.
const JSON_BYTES_MAX: u64 = 2_097_152;

/// A call as the job that it becomes, but for who asks.
pub(super) struct Asked {
    pub(super) model: Option<String>,
    pub(super) params: Map<String, Value>,
    pub(super) input: Input,
    pub(super) wanted: Wanted,
}

/// Reads a call to its end; what is too large for a record lies in the object store then.
///
/// # Errors
/// The body is too large, too slow, or says what a job cannot carry; the store cannot be written.
pub(super) async fn read(
    node: &NodeState,
    path: Path,
    request: &HttpRequest,
    payload: web::Payload,
    identity: &Identity,
) -> Result<Asked, JobError> {
    let body = request::body(node, payload).await?;
    if path.task == Task::Transcribe {
        return of_form(node, request, &body, identity).await;
    }
    if is_form(request) {
        return Err(JobError::new(ErrorCode::BadRequest, "the body must be JSON here"));
    }
    let work = match path.task {
        Task::Vad => parse::<Sound>(&body).await?.work()?,
        _ if body.bytes() > JSON_BYTES_MAX => {
            let message = format!("the JSON of a durable call may have {JSON_BYTES_MAX} bytes here");
            return Err(JobError::new(ErrorCode::TooLarge, message));
        }
        task => work::of_json(task, parse(&body).await?)?,
    };
    let Work { model, params, content, wanted } = work;
    let input = input(node, &identity.tenant, content).await?;
    Ok(Asked { model, params, input, wanted })
}

async fn parse<T: DeserializeOwned + Send + 'static>(body: &Spool) -> Result<T, JobError> {
    let reader = body.reader();
    let parsed = tokio::task::spawn_blocking(move || serde_json::from_reader(reader)).await;
    let parsed =
        parsed.map_err(|error| JobError::new(ErrorCode::Internal, format!("the body was not read: {error}")))?;
    parsed.map_err(|error| {
        JobError::new(ErrorCode::BadRequest, format!("the body is not the JSON object wanted here: {error}"))
    })
}

/// In the record if it fits there, else in the store.
async fn input(node: &NodeState, tenant: &str, content: Content) -> Result<Input, JobError> {
    let inline_max = node.settings.inputs.inline_bytes_max;
    let (bytes, name, media_type) = match content {
        Content::Text(text) if text.len() <= inline_max => return Ok(Input::Text(text)),
        Content::Text(text) => (Bytes::from(text), None, "text/plain"),
        Content::Wav(bytes) => (bytes, Some("sound.wav".to_owned()), "audio/wav"),
    };
    let media_type = Some(media_type.to_owned());
    if bytes.len() <= inline_max {
        return Ok(Input::Inline(InlineMedia { data: bytes, name, media_type }));
    }
    let mut writer = form::writer(node, tenant).await?;
    writer.write(bytes).await.map_err(|error| error.to_job_error())?;
    let object = writer.finish(Named { name, media_type }).await.map_err(|error| error.to_job_error())?;
    Ok(Input::Object(object))
}

/// A transcription: its file goes to the store as it is read, unless it is small.
async fn of_form(
    node: &NodeState,
    request: &HttpRequest,
    body: &Spool,
    identity: &Identity,
) -> Result<Asked, JobError> {
    let chunks = body.chunks().map(|chunk| chunk.map_err(PayloadError::Io));
    let mut form = Form::of(Multipart::new(request.headers(), chunks), Pace::of(&node.settings.gateway));
    let mut input = None;
    let read = read_form(node, identity, &mut form, &mut input).await.and_then(work::of_form);
    match (read, input) {
        (Ok(Told { model, params, wanted }), Some(input)) => Ok(Asked { model, params, input, wanted }),
        (Ok(_), None) => Err(invalid("the form field file is needed".to_owned())),
        (Err(error), input) => {
            if let Some(input) = &input {
                submit::discard(node, input).await;
            }
            Err(error)
        }
    }
}

async fn read_form(
    node: &NodeState,
    identity: &Identity,
    form: &mut Form,
    input: &mut Option<Input>,
) -> Result<Vec<(String, String)>, JobError> {
    let mut fields = Vec::new();
    while let Some(mut field) = form.next().await? {
        let name = field.name().unwrap_or_default().to_owned();
        match name.as_str() {
            "file" if input.is_some() => return Err(invalid("the form field \"file\" came twice".to_owned())),
            "file" => *input = Some(form.file(node, identity, field).await?),
            _ if fields.len() == form::FIELDS_MAX => {
                return Err(invalid(format!("the form has more than {} fields", form::FIELDS_MAX)));
            }
            _ => {
                let text = form.text(&name, &mut field).await?;
                fields.push((name, text));
            }
        }
    }
    Ok(fields)
}
