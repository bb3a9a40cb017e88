//! A job as `multipart/form-data`: fields, and one file that goes to the object store as it comes.

use std::collections::{BTreeSet, HashMap};

use actix_multipart::{Field, Multipart, MultipartError};
use actix_web::HttpRequest;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use relay_protocol::job::{InlineMedia, Priority};
use relay_protocol::record::parse_params;
use relay_protocol::task::UnknownTask;
use relay_protocol::time::parse_rfc3339;
use relay_protocol::{ErrorCode, Input, Job, JobError, limits, topics};
use relay_runtime::auth::Identity;
use serde_json::{Map, Value};

use super::body::Pace;
use super::submit;
use crate::job::claim_check::{Named, ObjectWriter, StoreError};
use crate::state::NodeState;

/// Largest field that is no file, in bytes.
const FIELD_BYTES_MAX: usize = limits::PARAMS_BYTES_MAX;
/// Most fields of one form.
pub(super) const FIELDS_MAX: usize = 64;

/// A form as it comes, and the pace that it must keep.
pub(super) struct Form {
    parts: Multipart,
    pace: Pace,
}

/// What the fields said, but for the input.
#[derive(Default)]
struct Said {
    /// Names of all fields that came.
    names: BTreeSet<String>,
    fields: HashMap<String, String>,
    params: Map<String, Value>,
}

/// Reads lane and job. Known fields: `file`, `text`, `url`, `task`, `model`, `params` (JSON), `param.NAME`, `lane`,
/// `priority`, `idempotency_key`, `deadline`, `not_before`; each at most once.
///
/// # Errors
/// [`ErrorCode::BadRequest`], [`ErrorCode::RequestTimeout`] and the codes of a broken rule;
/// [`ErrorCode::StoreUnavailable`].
pub async fn read(
    node: &NodeState,
    identity: &Identity,
    request: &HttpRequest,
    payload: actix_web::dev::Payload,
) -> Result<(String, Job), JobError> {
    let mut form = Form::of(Multipart::new(request.headers(), payload), Pace::of(&node.settings.gateway));
    let mut input = None;
    let read = match form.read(node, identity, &mut input).await {
        Ok(said) => said.job(input.clone()),
        Err(error) => Err(error),
    };
    if let (Err(_), Some(input)) = (&read, &input) {
        submit::discard(node, input).await;
    }
    read
}

impl Form {
    pub(super) fn of(parts: Multipart, pace: Pace) -> Self {
        Self { parts, pace }
    }

    /// Reads all fields; what is to be worked on is in `input`, also when a later field is wrong.
    async fn read(
        &mut self,
        node: &NodeState,
        identity: &Identity,
        input: &mut Option<Input>,
    ) -> Result<Said, JobError> {
        let mut said = Said::default();
        while let Some(mut field) = self.next().await? {
            let name = field.name().unwrap_or_default().to_owned();
            if ["file", "text", "url"].contains(&name.as_str()) && input.is_some() {
                return Err(bad("only one of the fields file, text and url can be given".to_owned()));
            }
            said.name(&name)?;
            match name.as_str() {
                "file" => *input = Some(self.file(node, identity, field).await?),
                "text" => *input = Some(Input::Text(self.text(&name, &mut field).await?)),
                "url" => *input = Some(Input::Url(self.text(&name, &mut field).await?)),
                "params" => {
                    for (param, value) in parse_params(&self.text(&name, &mut field).await?)? {
                        said.param(&param, value)?;
                    }
                }
                "task" | "model" | "lane" | "priority" | "idempotency_key" | "deadline" | "not_before" => {
                    let text = self.text(&name, &mut field).await?;
                    said.fields.insert(name, text);
                }
                other => match other.strip_prefix("param.") {
                    Some(param) => said.param(param, Value::String(self.text(&name, &mut field).await?))?,
                    None => return Err(bad(format!("there is no form field {other:?}"))),
                },
            }
        }
        Ok(said)
    }

    /// The next field; `None` at the form's end.
    ///
    /// # Errors
    /// [`ErrorCode::BadRequest`], [`ErrorCode::RequestTimeout`].
    pub(super) async fn next(&mut self) -> Result<Option<Field>, JobError> {
        self.pace.wait(self.parts.next()).await?.transpose().map_err(|error| unreadable(&error))
    }

    async fn chunk(&mut self, field: &mut Field) -> Result<Option<Bytes>, JobError> {
        let chunk = self.pace.wait(field.next()).await?.transpose().map_err(|error| unreadable(&error))?;
        self.pace.came(chunk.as_ref().map_or(0, Bytes::len));
        Ok(chunk)
    }

    /// A field's text.
    ///
    /// # Errors
    /// As [`Form::next`]; [`ErrorCode::TooLarge`].
    pub(super) async fn text(&mut self, name: &str, field: &mut Field) -> Result<String, JobError> {
        let mut bytes = BytesMut::new();
        while let Some(chunk) = self.chunk(field).await? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > FIELD_BYTES_MAX {
                return Err(too_large(format!("the form field {name:?} has more than {FIELD_BYTES_MAX} bytes")));
            }
        }
        String::from_utf8(bytes.to_vec()).map_err(|_| bad(format!("the form field {name:?} is not UTF-8")))
    }

    /// The file: inline if it is small, else an object of the store.
    ///
    /// # Errors
    /// As [`Form::next`]; the store cannot be written.
    pub(super) async fn file(
        &mut self,
        node: &NodeState,
        identity: &Identity,
        mut field: Field,
    ) -> Result<Input, JobError> {
        let name = field.content_disposition().and_then(|about| about.get_filename()).map(str::to_owned);
        let media_type = field.content_type().map(ToString::to_string);
        let (mut inline, mut stored) = (BytesMut::new(), None::<ObjectWriter>);
        while let Some(chunk) = self.chunk(&mut field).await? {
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
}

impl Said {
    /// Notes that a field came.
    fn name(&mut self, name: &str) -> Result<(), JobError> {
        if self.names.len() == FIELDS_MAX {
            return Err(too_large(format!("the form has more than {FIELDS_MAX} fields")));
        }
        if !self.names.insert(name.to_owned()) {
            return Err(bad(format!("the form field {name:?} came twice: send it once")));
        }
        Ok(())
    }

    fn param(&mut self, name: &str, value: Value) -> Result<(), JobError> {
        match self.params.insert(name.to_owned(), value) {
            None => Ok(()),
            Some(_) => Err(bad(format!("the parameter {name:?} came twice: send it in params or as param.{name}"))),
        }
    }

    /// A field's text, unless it is empty.
    fn take(&mut self, name: &str) -> Option<String> {
        self.fields.remove(name).filter(|text| !text.is_empty())
    }

    fn time(&mut self, name: &str) -> Result<Option<u64>, JobError> {
        let parse = |text: String| parse_rfc3339(&text).map_err(|why| invalid(format!("{name}: {why}")));
        self.take(name).map(parse).transpose()
    }

    fn job(mut self, input: Option<Input>) -> Result<(String, Job), JobError> {
        let input = input.ok_or_else(|| bad("one of the fields file, text and url is needed".to_owned()))?;
        let task = self.take("task").ok_or_else(|| bad("the field task is needed".to_owned()))?;
        let unknown = |error: UnknownTask| JobError::new(ErrorCode::UnknownTask, error.to_string());
        let job = Job {
            id: None,
            tenant: String::new(),
            subject: String::new(),
            task: task.parse().map_err(unknown)?,
            priority: self.take("priority").map_or(Ok(Priority::Normal), |text| text.parse()).map_err(invalid)?,
            deadline: self.time("deadline")?,
            not_before: self.time("not_before")?,
            model: self.take("model"),
            idempotency_key: self.take("idempotency_key"),
            params: std::mem::take(&mut self.params),
            input,
            attempts_max: None,
            attempt: 0,
            traceparent: None,
            hops: Vec::new(),
            redrive_of: None,
        };
        Ok((self.take("lane").unwrap_or_else(|| topics::DEFAULT_LANE.to_owned()), job))
    }
}

async fn write(writer: &mut ObjectWriter, bytes: Bytes) -> Result<(), JobError> {
    writer.write(bytes).await.map_err(|error: StoreError| error.to_job_error())
}

/// Begins a new object among the tenant's uploads.
///
/// # Errors
/// [`ErrorCode::StoreUnavailable`], [`ErrorCode::QuotaExceeded`].
pub(super) async fn writer(node: &NodeState, tenant: &str) -> Result<ObjectWriter, JobError> {
    let path = format!("{}{:016x}{:016x}", submit::uploads_of(tenant), node.random.next_u64(), node.random.next_u64());
    let writer = node.online()?.claims.writer(tenant, path, node.settings.inputs.upload_bytes_max).await;
    writer.map_err(|error| error.to_job_error())
}

fn bad(message: String) -> JobError {
    JobError::new(ErrorCode::BadRequest, message)
}

fn invalid(message: String) -> JobError {
    JobError::new(ErrorCode::InvalidField, message)
}

fn too_large(message: String) -> JobError {
    JobError::new(ErrorCode::TooLarge, message)
}

fn unreadable(error: &MultipartError) -> JobError {
    bad(format!("the form cannot be read: {error}"))
}
