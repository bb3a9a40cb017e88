//! A client's session: submit, watch, ask, cancel, fetch.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use relay_protocol::event::JobStatus;
use relay_protocol::session::{CancelOutcomeV1, SubmitInputV1, SubmitV1, UploadBeginV2};
use relay_protocol::{ErrorCode, JobError, JobId, UploadId};
use tokio::io::AsyncWrite;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use crate::clock::{now_ms, now_us, random_u64};
use crate::connection::{self, ACCEPTED_SEQ, Answer, Command, Facts, JobShared, Listener, Receipt, Submitted};
use crate::error::ClientError;
use crate::fetch;
use crate::job::{ClientEvent, JobHandle, JobInput, JobRequest};
use crate::settings::ClientSettings;
use crate::upload::{self, Progress, Source, Uploaded};

/// Events of one job that may wait for its handle.
const EVENTS_MAX: usize = 256;

/// Times that one upload begins again because an earlier connection of it left bytes meanwhile.
const OVERTAKEN_MAX: u32 = 8;

/// A session with the relay. Cheap to clone; every clone uses the same connection.
#[derive(Clone)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    facts: watch::Receiver<Facts>,
    jobs: Arc<Semaphore>,
}

/// The connection's and the caller's end of a job that is watched.
struct Ends {
    listener: Listener,
    events: mpsc::Receiver<ClientEvent>,
    shared: Arc<JobShared>,
}

impl Client {
    /// Opens a session. From then on a lost connection is opened again, on whichever server answers, and its jobs are
    /// resumed, until `reconnect_timeout` has passed without success.
    ///
    /// # Errors
    /// [`ClientError::NoConnection`] after `connect_timeout`, [`ClientError::Rejected`] for a wrong token or without a
    /// common version, [`ClientError::Settings`].
    pub async fn connect(settings: ClientSettings) -> Result<Self, ClientError> {
        let jobs = Arc::new(Semaphore::new(settings.jobs_in_flight_max));
        let (commands, facts) = connection::start(settings).await?;
        Ok(Self { commands, facts, jobs })
    }

    /// Name of the node that welcomed the client last.
    pub fn node(&self) -> String {
        self.facts.borrow().node.clone()
    }

    /// Submits a job and returns once it is durable; waits while `jobs_in_flight_max` jobs are in flight.
    ///
    /// If it returns [`ClientError::NoConnection`], the job may or may not run: submit it again with the same `job_id` or
    /// `idempotency_key`.
    ///
    /// # Errors
    /// [`ClientError::Rejected`] with the broken rule, [`ClientError::Io`] for the input, [`ClientError::NoConnection`].
    pub async fn submit(&self, job: JobRequest) -> Result<JobHandle, ClientError> {
        self.submit_with_progress(job, &|_, _| {}).await
    }

    /// The same; `progress` is told the bytes that the node has of an upload, and the size in all.
    ///
    /// # Errors
    /// As [`Client::submit`].
    pub async fn submit_with_progress(
        &self,
        job: JobRequest,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<JobHandle, ClientError> {
        let (receipt, ends) = self.submit_any(&job, true, progress).await?;
        let (events, shared) = ends.ok_or(ClientError::Closed)?;
        Ok(JobHandle {
            job_id: receipt.job_id,
            accepted: receipt.json,
            events,
            shared,
            commands: self.commands.clone(),
            last_seq: ACCEPTED_SEQ,
            ended: false,
        })
    }

    /// Submits a job without watching it; returns its id and its `accepted` event once it is durable.
    ///
    /// # Errors
    /// As [`Client::submit`].
    pub async fn submit_detached(
        &self,
        job: JobRequest,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<(JobId, Bytes), ClientError> {
        let (receipt, _) = self.submit_any(&job, false, progress).await?;
        Ok((receipt.job_id, receipt.json))
    }

    #[allow(clippy::type_complexity, reason = "the two ends that a handle is made of")]
    async fn submit_any(
        &self,
        job: &JobRequest,
        watched: bool,
        progress: Progress<'_>,
    ) -> Result<(Receipt, Option<(mpsc::Receiver<ClientEvent>, Arc<JobShared>)>), ClientError> {
        let partition = self.facts.borrow().reply_partition;
        let job_id = job.job_id.unwrap_or_else(|| JobId::new(now_ms(), partition, random_u64()));
        let upload_id = UploadId::new(u128::from(random_u64()) << 64 | u128::from(random_u64()));
        // A job that the caller named may have been submitted before: its past counts then.
        let (mut again, mut overtaken) = (job.job_id.is_some(), 0);
        loop {
            let Some((input, payload)) = self.input(job, (upload_id, &mut overtaken), progress).await? else {
                continue;
            };
            let (listener, kept) = if watched {
                let Ends { listener, events, shared } = self.ends().await?;
                (Some(listener), Some((events, shared)))
            } else {
                (None, None)
            };
            let submit = Box::new(submit_of(job, job_id, input, watched));
            let submitted = self.ask(|answer| Command::Submit { submit, payload, again, listener, answer }).await?;
            match submitted {
                Submitted::Accepted(receipt) => return Ok((receipt, kept)),
                Submitted::UploadLost => again = true,
            }
        }
    }

    /// The input as the submit names it, uploaded if need be; `None` if the upload was cut with its connection.
    async fn input(
        &self,
        job: &JobRequest,
        (upload_id, overtaken): (UploadId, &mut u32),
        progress: Progress<'_>,
    ) -> Result<Option<(SubmitInputV1, Bytes)>, ClientError> {
        let (mut source, bytes) = match &job.input {
            JobInput::Url(url) => return Ok(Some((SubmitInputV1::Url(url.clone()), Bytes::new()))),
            JobInput::Bytes(bytes) => (Source::Bytes(bytes.clone()), bytes.len() as u64),
            JobInput::File(path) => Source::open(path).await?,
        };
        let (inline_bytes_max, upload_bytes_max) = {
            let facts = self.facts.borrow();
            (facts.inline_bytes_max, facts.upload_bytes_max)
        };
        if bytes <= inline_bytes_max as u64 {
            return match all(&mut source, inline_bytes_max).await? {
                payload if payload.is_empty() => Err(rejected(ErrorCode::EmptyMedia, "the input is empty".to_owned())),
                payload => Ok(Some((SubmitInputV1::Inline, payload))),
            };
        }
        if bytes > upload_bytes_max {
            let message = format!("an input of {bytes} bytes is over the node's limit of {upload_bytes_max}");
            return Err(rejected(ErrorCode::TooLarge, message));
        }
        let begin = UploadBeginV2 {
            request: 0,
            upload_id,
            bytes: Some(bytes),
            name: job.name.clone().unwrap_or_default(),
            media_type: job.media_type.clone().unwrap_or_default(),
        };
        Ok(match upload::upload(&self.commands, begin, &mut source, progress).await? {
            Uploaded::Stored(upload) => Some((SubmitInputV1::Upload(upload), Bytes::new())),
            Uploaded::Lost if self.commands.is_closed() => return Err(ClientError::Closed),
            Uploaded::Lost => None,
            Uploaded::Overtaken(error) if *overtaken == OVERTAKEN_MAX => return Err(ClientError::Rejected(error)),
            Uploaded::Overtaken(_) => {
                *overtaken += 1;
                None
            }
        })
    }

    /// Watches a job from its first event after `after_seq` on (0: from `accepted`). Whether there is such a job is told by
    /// the first [`JobHandle::next_event`].
    ///
    /// # Errors
    /// [`ClientError::Closed`].
    pub async fn watch(&self, job_id: JobId, after_seq: u64) -> Result<JobHandle, ClientError> {
        let Ends { listener, events, shared } = self.ends().await?;
        self.send(Command::Watch { job_id, after_seq, listener }).await?;
        Ok(JobHandle {
            job_id,
            accepted: Bytes::new(),
            events,
            shared,
            commands: self.commands.clone(),
            last_seq: after_seq,
            ended: false,
        })
    }

    /// A job's state.
    ///
    /// # Errors
    /// As [`Client::status_json`], and an answer that is no state.
    pub async fn status(&self, job_id: JobId) -> Result<JobStatus, ClientError> {
        let json = self.status_json(job_id).await?;
        serde_json::from_slice(&json)
            .map_err(|error| rejected(ErrorCode::Internal, format!("the node's answer is no state: {error}")))
    }

    /// A job's state as the node sent it ([`JobStatus`]).
    ///
    /// # Errors
    /// [`ClientError::Rejected`] (`unknown_job`), [`ClientError::NoConnection`].
    pub async fn status_json(&self, job_id: JobId) -> Result<Bytes, ClientError> {
        self.ask(|answer| Command::Status { job_id, answer }).await
    }

    /// Asks to cancel a job; the wish is durable when this returns.
    ///
    /// # Errors
    /// [`ClientError::Rejected`] (`unknown_job`), [`ClientError::NoConnection`].
    pub async fn cancel(&self, job_id: JobId) -> Result<CancelOutcomeV1, ClientError> {
        self.ask(|answer| Command::Cancel { job_id, answer }).await
    }

    /// Writes the media that a completed job made to `writer` and returns its size, which is checked; the digest, which
    /// `result.media` names, is for the caller to check. A writer slower than the network slows the connection down.
    ///
    /// # Errors
    /// [`ClientError::Rejected`] (`unknown_job`, `no_result`), [`ClientError::Io`] of the writer or if bytes are missing,
    /// [`ClientError::NoConnection`].
    pub async fn fetch<W: AsyncWrite + Unpin>(&self, job_id: JobId, writer: &mut W) -> Result<u64, ClientError> {
        fetch::fetch(&self.commands, job_id, writer).await
    }

    /// Says goodbye. Jobs go on; their handles end with [`ClientError::Closed`].
    pub async fn close(self) {
        let (done, closed) = oneshot::channel();
        if self.commands.send(Command::Close { done }).await.is_ok() {
            // An error says that the connection had ended already.
            _ = closed.await;
        }
    }

    async fn ends(&self) -> Result<Ends, ClientError> {
        let permit: OwnedSemaphorePermit = self.jobs.clone().acquire_owned().await.map_err(|_| ClientError::Closed)?;
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let shared = Arc::new(JobShared::default());
        Ok(Ends { listener: Listener { events: sender, shared: shared.clone(), _permit: permit }, events, shared })
    }

    async fn send(&self, command: Command) -> Result<(), ClientError> {
        self.commands.send(command).await.map_err(|_| ClientError::Closed)
    }

    async fn ask<T>(&self, command: impl FnOnce(Answer<T>) -> Command) -> Result<T, ClientError> {
        let (answer, answered) = oneshot::channel();
        self.send(command(answer)).await?;
        answered.await.unwrap_or(Err(ClientError::Closed))
    }
}

fn submit_of(job: &JobRequest, job_id: JobId, input: SubmitInputV1, watch: bool) -> SubmitV1 {
    let params =
        if job.params.is_empty() { "{}".to_owned() } else { serde_json::Value::Object(job.params.clone()).to_string() };
    SubmitV1 {
        request: 0,
        job_id,
        lane: job.lane.clone(),
        task: job.task.clone(),
        model: job.model.clone().unwrap_or_default(),
        params,
        input,
        name: job.name.clone().unwrap_or_default(),
        media_type: job.media_type.clone().unwrap_or_default(),
        priority: job.priority.to_wire(),
        idempotency_key: job.idempotency_key.clone(),
        deadline_ms: job.deadline_ms,
        not_before_ms: job.not_before_ms,
        traceparent: job.traceparent.clone(),
        sent_at_us: now_us(),
        watch,
    }
}

/// All of a small source. A file that grew meanwhile is cut at `bytes_max`, so that memory stays bounded.
async fn all(source: &mut Source, bytes_max: usize) -> Result<Bytes, ClientError> {
    if let Source::Bytes(bytes) = source {
        return Ok(std::mem::take(bytes));
    }
    let mut whole = BytesMut::new();
    while whole.len() < bytes_max {
        let chunk = source.chunk().await?;
        if chunk.is_empty() {
            break;
        }
        whole.extend_from_slice(&chunk);
    }
    whole.truncate(bytes_max);
    Ok(whole.freeze())
}

fn rejected(code: ErrorCode, message: String) -> ClientError {
    ClientError::Rejected(JobError::new(code, message))
}
