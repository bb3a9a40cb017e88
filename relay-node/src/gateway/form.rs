//! A job as `multipart/form-data`: fields, and one file that goes to the object store as it comes.

use std::time::Duration;

use actix_multipart::{Field, Multipart};
use actix_web::HttpRequest;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use relay_protocol::job::{InlineMedia, Priority};
use relay_protocol::record::parse_params;
use relay_protocol::{ErrorCode, Input, Job, JobError, limits, topics};
use relay_runtime::auth::Identity;
use serde_json::{Map, Value};

use super::submit;
use crate::job::claim_check::{Named, ObjectWriter, StoreError};
use crate::state::NodeState;

/// Largest field that is no file, in bytes.
const FIELD_BYTES_MAX: usize = limits::PARAMS_BYTES_MAX;
/// Silence of an upload after which it is given up.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Reads lane and job. Known fields: `file`, `text`, `url`, `task`, `model`, `params` (JSON), `param.NAME`, `lane`,
/// `priority`, `idempotency_key`, `deadline`, `not_before`.
///
/// # Errors
/// [`ErrorCode::BadRequest`] and the codes of a broken rule; [`ErrorCode::StoreUnavailable`].
pub async fn read(
    node: &NodeState,
    identity: &Identity,
    request: &HttpRequest,
    payload: actix_web::dev::Payload,
) -> Result<(String, Job), JobError> {
    let mut form = Multipart::new(request.headers(), payload);
    let mut input = None;
    let read = match parts(node, identity, &mut form, &mut input).await {
        Ok((fields, params)) => job(fields, params, input.clone()),
        Err(error) => Err(error),
    };
    if let (Err(_), Some(input)) = (&read, &input) {
        submit::discard(node, input).await;
    }
    read
}

/// Reads all fields; what is to be worked on is in `input`, also when a later field is wrong.
async fn parts(
    node: &NodeState,
    identity: &Identity,
    form: &mut Multipart,
    input: &mut Option<Input>,
) -> Result<(Map<String, Value>, Map<String, Value>), JobError> {
    let (mut fields, mut params) = (Map::new(), Map::new());
    while let Some(field) = next(form).await? {
        let name = field.name().unwrap_or_default().to_owned();
        if ["file", "text", "url"].contains(&name.as_str()) && input.is_some() {
            return Err(bad("only one of the fields file, text and url can be given".to_owned()));
        }
        match name.as_str() {
            "file" => *input = Some(file(node, identity, field).await?),
            "text" => *input = Some(Input::Text(text(field).await?)),
            "url" => *input = Some(Input::Url(text(field).await?)),
            "params" => params.extend(parse_params(&text(field).await?)?),
            "task" | "model" | "lane" | "priority" | "idempotency_key" | "deadline" | "not_before" => {
                fields.insert(name, Value::String(text(field).await?));
            }
            other => match other.strip_prefix("param.") {
                Some(param) => _ = params.insert(param.to_owned(), Value::String(text(field).await?)),
                None => return Err(bad(format!("there is no form field {other:?}"))),
            },
        }
    }
    Ok((fields, params))
}

fn job(
    mut fields: Map<String, Value>,
    params: Map<String, Value>,
    input: Option<Input>,
) -> Result<(String, Job), JobError> {
    let input = input.ok_or_else(|| bad("one of the fields file, text and url is needed".to_owned()))?;
    let mut take = |name: &str| match fields.remove(name) {
        Some(Value::String(text)) if !text.is_empty() => Some(text),
        _ => None,
    };
    let lane = take("lane").unwrap_or_else(|| topics::DEFAULT_LANE.to_owned());
    let task = take("task").ok_or_else(|| bad("the field task is needed".to_owned()))?;
    let task: relay_protocol::Task = task
        .parse()
        .map_err(|error: relay_protocol::task::UnknownTask| JobError::new(ErrorCode::UnknownTask, error.to_string()))?;
    let priority = take("priority").map_or(Ok(Priority::Normal), |text| text.parse()).map_err(invalid)?;
    let mut time = |name: &str| {
        take(name)
            .map(|text| relay_protocol::time::parse_rfc3339(&text).map_err(|why| invalid(format!("{name}: {why}"))))
            .transpose()
    };
    let (deadline, not_before) = (time("deadline")?, time("not_before")?);
    let job = Job {
        id: None,
        tenant: String::new(),
        subject: String::new(),
        task,
        model: take("model"),
        params,
        input,
        priority,
        idempotency_key: take("idempotency_key"),
        deadline,
        not_before,
        attempts_max: None,
        attempt: 0,
        traceparent: None,
        hops: Vec::new(),
        redrive_of: None,
    };
    Ok((lane, job))
}

async fn next(form: &mut Multipart) -> Result<Option<Field>, JobError> {
    match tokio::time::timeout(SILENCE_MAX, form.next()).await {
        Ok(None) => Ok(None),
        Ok(Some(field)) => field.map(Some).map_err(|error| bad(format!("the form cannot be read: {error}"))),
        Err(_) => Err(silent()),
    }
}

async fn chunk(field: &mut Field) -> Result<Option<Bytes>, JobError> {
    match tokio::time::timeout(SILENCE_MAX, field.next()).await {
        Ok(None) => Ok(None),
        Ok(Some(bytes)) => bytes.map(Some).map_err(|error| bad(format!("the form cannot be read: {error}"))),
        Err(_) => Err(silent()),
    }
}

async fn text(mut field: Field) -> Result<String, JobError> {
    let name = field.name().unwrap_or_default().to_owned();
    let mut bytes = BytesMut::new();
    while let Some(chunk) = chunk(&mut field).await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > FIELD_BYTES_MAX {
            let message = format!("the form field {name:?} has more than {FIELD_BYTES_MAX} bytes");
            return Err(JobError::new(ErrorCode::TooLarge, message));
        }
    }
    String::from_utf8(bytes.to_vec()).map_err(|_| bad(format!("the form field {name:?} is not UTF-8")))
}

/// The file: inline if it is small, else an object of the store.
async fn file(node: &NodeState, identity: &Identity, mut field: Field) -> Result<Input, JobError> {
    let name = field.content_disposition().and_then(|about| about.get_filename()).map(str::to_owned);
    let media_type = field.content_type().map(ToString::to_string);
    let (mut inline, mut stored) = (BytesMut::new(), None::<ObjectWriter>);
    while let Some(chunk) = chunk(&mut field).await? {
        match &mut stored {
            Some(writer) => write(writer, chunk).await?,
            None if inline.len() + chunk.len() <= node.settings.inputs.inline_bytes_max => {
                inline.extend_from_slice(&chunk);
            }
            None => {
                let mut writer = writer(node, &identity.tenant).await?;
                write(&mut writer, inline.split().freeze()).await?;
                write(&mut writer, chunk).await?;
                stored = Some(writer);
            }
        }
    }
    let Some(writer) = stored else {
        return Ok(Input::Inline(InlineMedia { data: inline.freeze(), name, media_type }));
    };
    let object = writer.finish(Named { name, media_type }).await.map_err(|error| error.to_job_error())?;
    Ok(Input::Object(object))
}

async fn write(writer: &mut ObjectWriter, bytes: Bytes) -> Result<(), JobError> {
    writer.write(bytes).await.map_err(|error: StoreError| error.to_job_error())
}

/// Begins a new object among the tenant's uploads.
///
/// # Errors
/// [`ErrorCode::StoreUnavailable`].
pub(super) async fn writer(node: &NodeState, tenant: &str) -> Result<ObjectWriter, JobError> {
    let path = format!("{}{:016x}{:016x}", submit::uploads_of(tenant), node.random.next_u64(), node.random.next_u64());
    let writer = node.online()?.claims.writer(path, node.settings.inputs.upload_bytes_max).await;
    writer.map_err(|error| error.to_job_error())
}

fn bad(message: String) -> JobError {
    JobError::new(ErrorCode::BadRequest, message)
}

fn invalid(message: String) -> JobError {
    JobError::new(ErrorCode::InvalidField, message)
}

fn silent() -> JobError {
    bad(format!("the form was silent for {} s", SILENCE_MAX.as_secs()))
}
