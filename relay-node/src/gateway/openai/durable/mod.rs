//! Calls that ask for the way over the log (`x-relay-durable: true`): each becomes a job of its tenant, and its connection waits for the
//! job's end. The job goes on whatever becomes of the connection; who asks again with the same `Idempotency-Key`, at any node, gets the
//! end of the same job.

mod answer;
mod fields;
mod read;
mod work;

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::HeaderMap;
use actix_web::{HttpRequest, HttpResponse, web};
use relay_protocol::{ErrorCode, Event, EventKind, Input, Job, JobError, JobId, Priority, topics};
use relay_runtime::telemetry::current_traceparent;
use tokio::time::{Instant, timeout_at};

use self::read::Asked;
use self::work::Wanted;
use super::answer::mark;
use super::record::{Admitted, Record};
use super::{Path, error};
use crate::events::feed::Past;
use crate::gateway::submit;
use crate::gateway::watch::{Heard, Watch};
use crate::state::{NodeState, Online};

/// Asks for the way over the log.
const DURABLE: &str = "x-relay-durable";
/// Names the work: of the calls with one key one job runs.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Silence after which a waiting connection looks at nothing in particular.
const QUIET: Duration = Duration::from_secs(60);

/// Whether a call asks for the way over the log.
///
/// # Errors
/// [`ErrorCode::InvalidField`]: nobody knows what it asks for.
pub(super) fn is_wanted(headers: &HeaderMap) -> Result<bool, JobError> {
    match headers.get(DURABLE).map(|value| value.as_bytes().to_ascii_lowercase()).as_deref() {
        None | Some(b"false") => Ok(false),
        Some(b"true") => Ok(true),
        Some(_) => Err(JobError::new(ErrorCode::InvalidField, format!("{DURABLE} must be true or false"))),
    }
}

fn key(headers: &HeaderMap) -> Result<Option<String>, JobError> {
    let text = |value: &actix_web::http::header::HeaderValue| value.to_str().map(str::to_owned);
    headers
        .get(IDEMPOTENCY_KEY)
        .map(text)
        .transpose()
        .map_err(|_| JobError::new(ErrorCode::InvalidField, "Idempotency-Key must be visible ASCII characters"))
}

/// Makes a job of the call, and answers its client when that ends.
pub(super) async fn run(
    node: &web::Data<NodeState>,
    path: Path,
    request: &HttpRequest,
    payload: web::Payload,
    caller: Admitted,
) -> HttpResponse {
    let call = async {
        let key = key(request.headers())?;
        let asked = read::read(node, path, request, payload, &caller.identity).await?;
        Call::begin(node, path, asked, key, caller).await
    };
    match call.await {
        Ok(call) => call.answer().await,
        Err(refused) => error::refused(path.path, &refused),
    }
}

/// A call whose job is durable.
struct Call {
    node: Arc<NodeState>,
    online: Arc<Online>,
    watch: Watch,
    wanted: Wanted,
    record: Record,
}

impl Call {
    /// Watches the job, then makes it durable. A client that goes away meanwhile does not take back what has begun.
    ///
    /// # Errors
    /// The job was refused, or nobody knows whether it was written.
    async fn begin(
        node: &web::Data<NodeState>,
        path: Path,
        asked: Asked,
        key: Option<String>,
        caller: Admitted,
    ) -> Result<Self, JobError> {
        let Asked { model, params, input, wanted } = asked;
        let online = node.online()?.clone();
        let job_id = JobId::new(node.clock.now_ms(), online.reply_partition, node.random.next_u64());
        let traceparent = current_traceparent().to_string();
        let mut watch = Watch::new(node.clone().into_inner(), &caller.identity.tenant, job_id, 0);
        watch.begin(Past::Unwritten).await.map_err(|notice| notice.error)?;
        let job = Job {
            id: Some(job_id),
            tenant: String::new(),
            subject: String::new(),
            task: path.task,
            model: model.clone(),
            params,
            input,
            priority: Priority::Interactive,
            idempotency_key: key,
            deadline: None,
            not_before: None,
            attempts_max: None,
            attempt: 0,
            traceparent: Some(traceparent.clone()),
            hops: Vec::new(),
            redrive_of: None,
        };
        let submitting = actix_web::rt::spawn(submit(node.clone(), submit::of(&caller.identity, job)));
        submitting.await.map_err(|error| JobError::new(ErrorCode::Internal, error.to_string()))??;
        let mut record = Record::begin(path, job_id, traceparent, caller, online.audit.clone());
        record.model = model;
        record.is_durable = true;
        Ok(Self { node: node.clone().into_inner(), online, watch, wanted, record })
    }

    async fn answer(mut self) -> HttpResponse {
        let wait = Duration::from_millis(self.node.settings.openai.durable_timeout_ms);
        let answer = match timeout_at(Instant::now() + wait, self.end()).await {
            Ok(Ok(end)) => self.answer_of(end).await,
            Ok(Err(error)) => self.failed(&error),
            Err(_) => {
                let message = "the call's job goes on: ask again with the same Idempotency-Key, or for the job itself";
                self.failed(&JobError::new(ErrorCode::StillRunning, message))
            }
        };
        self.record.first_byte();
        mark(answer, &self.record)
    }

    /// The terminal event.
    async fn end(&mut self) -> Result<Event, JobError> {
        loop {
            match self.watch.next(QUIET).await {
                Some(Heard::Quiet) => {}
                Some(Heard::Event(event)) if event.kind.is_terminal() || event.kind == EventKind::Started => {
                    let event: Event = serde_json::from_slice(&event.json).map_err(|error| {
                        JobError::new(ErrorCode::Internal, format!("an event cannot be read: {error}"))
                    })?;
                    if event.event.is_terminal() {
                        return Ok(event);
                    }
                    (self.record.backend, self.record.attempts) = (event.backend, event.attempt);
                }
                Some(Heard::Event(_)) => {}
                None => {
                    let code =
                        if self.node.draining.is_cancelled() { ErrorCode::Draining } else { ErrorCode::LogUnavailable };
                    let message = "this node cannot follow the call's job, which goes on: ask again with the same Idempotency-Key";
                    return Err(JobError::new(code, message));
                }
            }
        }
    }

    async fn answer_of(&mut self, end: Event) -> HttpResponse {
        // Who asks again is told of the job that did the work.
        self.record.job_id = end.duplicate_of.unwrap_or(end.job_id);
        match (end.result, end.error) {
            (Some(result), _) => {
                let bytes_max = self.node.settings.localai.answer_bytes_max;
                let answer = answer::of_result(&self.online, self.record.job_id, result, self.wanted, bytes_max).await;
                answer.inspect(|_| self.record.ended("ok")).unwrap_or_else(|error| self.failed(&error))
            }
            (None, Some(error)) if end.event == EventKind::Failed => {
                self.record.ended("rejected");
                error::answer(&error, None)
            }
            (None, error) => {
                let error = error.unwrap_or_else(|| JobError::new(ErrorCode::Internal, "the job ended without a word"));
                self.failed(&error)
            }
        }
    }

    fn failed(&mut self, error: &JobError) -> HttpResponse {
        self.record.ended("failed");
        error::answer(error, None)
    }
}

/// Makes the job durable; what was stored for it goes with one that is refused.
async fn submit(node: web::Data<NodeState>, job: Job) -> Result<(), JobError> {
    let input = Some(job.input.clone()).filter(|input| matches!(input, Input::Object(_)));
    let accepted = submit::accept(&node, topics::DEFAULT_LANE, job, "openai").await;
    if let (Err(error), Some(input)) = (&accepted, &input)
        && submit::was_refused(error)
    {
        submit::discard(&node, input).await;
    }
    accepted.map(|_| ())
}
