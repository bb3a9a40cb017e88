//! What a session is asked about jobs. Each request that has to wait does so in a task of its own, and its answer comes back
//! to the session as a [`Reply`].

use std::sync::Arc;

use bytes::Bytes;
use relay_protocol::job::{Hop, InlineMedia, Priority};
use relay_protocol::limits::{SESSION_JOBS_MAX, TRANSFER_CHUNK_BYTES};
use relay_protocol::session::{
    CancelOutcomeV1, CancelReplyV1, CancelV1, FetchChunkV1, FetchV1, StatusReplyV1, StatusV1, SubmitInputV1, SubmitV1,
    UploadBeginV1, UploadBeginV2, UploadChunkV1, UploadDoneV1, UploadEndV1,
};
use relay_protocol::{ErrorCode, Frame, Input, Job, JobError, JobId, Message};
use relay_runtime::auth::Scope;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use super::watching::{Asked, Watched};
use super::{End, Reply, Session, encode, head};
use crate::events::feed::Past;
use crate::events::hub::WatchSpec;
use crate::events::order::Order;
use crate::gateway::jobs;
use crate::gateway::resumption::catch_up_error;
use crate::gateway::submit::{self, Cancel};
use crate::gateway::upload::Ended;
use crate::state::NodeState;

impl Session {
    pub(super) fn allow(&self, request: u64, scope: Scope, what: &str) -> Result<(), (u64, JobError)> {
        self.identity.require(scope).map_err(|error| {
            if let Some(online) = self.node.online.get() {
                online.audit.denied(self.actor(), what, ErrorCode::Forbidden.as_str());
            }
            (request, JobError::new(ErrorCode::Forbidden, error.to_string()))
        })
    }

    /// Takes a job, unless its tenant sends too many.
    pub(super) async fn on_submit(&mut self, submit: SubmitV1, payload: Bytes) -> Result<(), End> {
        if let Err((request, error)) = self.allow(submit.request, Scope::JobsWrite, "jobs.submit") {
            return self.fail(request, &error).await;
        }
        if let Err(over) = self.node.tenants.job(&self.tenant) {
            self.count_refused(&over.error);
            let wait_ms = u32::try_from(over.retry_after.as_millis()).unwrap_or(u32::MAX);
            return self.fail_later(submit.request, &over.error, Some(wait_ms)).await;
        }
        match self.submit(submit, payload) {
            Ok(()) => Ok(()),
            Err((request, error)) => self.fail(request, &error).await,
        }
    }

    pub(super) fn count_refused(&self, error: &JobError) {
        if let Some(online) = self.node.online.get() {
            online.audit.denied(self.actor(), "jobs.submit", &error.code);
        }
        metrics::counter!("relay_submits_refused_total", "code" => error.code.clone()).increment(1);
    }

    fn submit(&mut self, submit: SubmitV1, payload: Bytes) -> Result<(), (u64, JobError)> {
        let (request, job_id, watch) = (submit.request, submit.job_id, submit.watch);
        self.room_for(request, job_id)?;
        let lane = submit.lane.clone();
        let job = self.job(submit, payload).map_err(|error| (request, error))?;
        let number = self.next_watch();
        if watch {
            let asked = Asked { request, resumes: false, after_seq: 0 };
            let held = Some(Vec::new());
            self.jobs.insert(job_id, Watched { watch: number, order: Order::default(), guard: None, held, asked });
            self.count_jobs();
        }
        let (node, identity, replies) = (self.node.clone(), self.identity.clone(), self.replies.clone());
        let (tenant, sink) = (self.tenant.clone(), self.sink.clone());
        let input = job.input.clone();
        actix_web::rt::spawn(async move {
            let outcome = async {
                let guard = match watch {
                    true => {
                        let spec = WatchSpec {
                            job_id,
                            tenant,
                            past: Past::Unwritten,
                            after_seq: 0,
                            watch: number,
                            again: false,
                        };
                        Some(node.online()?.hub.watch(spec, sink).await.map_err(catch_up_error)?)
                    }
                    false => None,
                };
                let accepted = submit::accept(&node, &lane, submit::of(&identity, job), "session").await?;
                Ok(Box::new((accepted, guard)))
            };
            let outcome = outcome.await;
            if outcome.as_ref().is_err_and(submit::was_refused) {
                submit::discard(&node, &input).await;
            }
            // A session that has ended needs no answer.
            let watch = watch.then_some(number);
            drop(replies.send(Reply::Submitted { request, job_id, watch, outcome }).await);
        });
        Ok(())
    }

    fn job(&mut self, submit: SubmitV1, payload: Bytes) -> Result<Job, JobError> {
        let some = |text: String| (!text.is_empty()).then_some(text);
        let task = submit.task.parse().map_err(|error: relay_protocol::task::UnknownTask| {
            JobError::new(ErrorCode::UnknownTask, error.to_string())
        })?;
        let params = relay_protocol::record::parse_params(&submit.params)?;
        let priority = Priority::from_wire(submit.priority).ok_or_else(|| {
            JobError::new(ErrorCode::InvalidField, format!("there is no priority {}", submit.priority))
        })?;
        // Last, so that an upload is not used up by a submit that is refused here.
        let input = match submit.input {
            SubmitInputV1::Inline => Input::Inline(InlineMedia {
                data: payload,
                name: some(submit.name),
                media_type: some(submit.media_type),
            }),
            SubmitInputV1::Upload(upload) => self.uploads.use_up(upload)?,
            SubmitInputV1::Url(url) => Input::Url(url),
        };
        Ok(Job {
            id: Some(submit.job_id),
            tenant: String::new(),
            subject: String::new(),
            task,
            model: some(submit.model),
            params,
            input,
            priority,
            idempotency_key: submit.idempotency_key,
            deadline: submit.deadline_ms,
            not_before: submit.not_before_ms,
            attempts_max: None,
            attempt: 0,
            traceparent: submit.traceparent,
            hops: vec![Hop { hop: "client".to_owned(), at_us: submit.sent_at_us }],
            redrive_of: None,
        })
    }

    pub(super) fn room_for(&self, request: u64, job_id: JobId) -> Result<(), (u64, JobError)> {
        if self.jobs.len() < SESSION_JOBS_MAX || self.jobs.contains_key(&job_id) {
            return Ok(());
        }
        let message = format!("a session may wait for {SESSION_JOBS_MAX} jobs at a time");
        Err((request, JobError::new(ErrorCode::TooManyRequests, message)))
    }

    pub(super) fn status(&mut self, status: StatusV1) -> Result<(), (u64, JobError)> {
        self.allow(status.request, Scope::JobsRead, "jobs.status")?;
        let tenant = self.tenant.clone();
        self.answer(status.request, move |node| async move {
            let last = submit::last(&node, &tenant, status.job_id).await?;
            let body = serde_json::to_vec(&relay_protocol::event::JobStatus::of(last)).unwrap_or_default();
            encode(&StatusReplyV1 { request: status.request, job_id: status.job_id }, &body)
        });
        Ok(())
    }

    pub(super) fn cancel(&mut self, cancel: CancelV1) -> Result<(), (u64, JobError)> {
        self.allow(cancel.request, Scope::JobsCancel, "jobs.cancel")?;
        let identity = self.identity.clone();
        self.answer(cancel.request, move |node| async move {
            let outcome = match submit::cancel(&node, &identity, cancel.job_id).await? {
                Cancel::Requested => CancelOutcomeV1::Requested,
                Cancel::AlreadyEnded => CancelOutcomeV1::AlreadyEnded,
            };
            encode(&CancelReplyV1 { request: cancel.request, job_id: cancel.job_id, outcome }, b"")
        });
        Ok(())
    }

    pub(super) fn fetch(&mut self, fetch: FetchV1) -> Result<(), (u64, JobError)> {
        self.allow(fetch.request, Scope::JobsRead, "jobs.result")?;
        let (node, tenant, replies) = (self.node.clone(), self.tenant.clone(), self.replies.clone());
        actix_web::rt::spawn(async move {
            if let Err(error) = send_media(&node, &tenant, &fetch, &replies).await {
                drop(replies.send(Reply::Failed { request: fetch.request, error }).await);
            }
        });
        Ok(())
    }

    /// Runs a request beside the session and sends its answer.
    fn answer<F, A>(&self, request: u64, work: F)
    where
        F: FnOnce(Arc<NodeState>) -> A + 'static,
        A: Future<Output = Result<Bytes, JobError>> + 'static,
    {
        let (node, replies) = (self.node.clone(), self.replies.clone());
        actix_web::rt::spawn(async move {
            let reply = match work(node).await {
                Ok(frame) => Reply::Frame(frame),
                Err(error) => Reply::Failed { request, error },
            };
            drop(replies.send(reply).await);
        });
    }

    pub(super) async fn upload(&mut self, frame: Frame) -> Result<(), End> {
        if let Err((request, error)) = self.allow(0, Scope::JobsWrite, "jobs.upload") {
            return self.fail(request, &error).await;
        }
        match frame.kind {
            UploadBeginV1::KIND => {
                let (request, begun) = if frame.version == UploadBeginV2::VERSION {
                    let begin: UploadBeginV2 = head(&frame)?;
                    (begin.request, self.uploads.resume(&self.node, &self.tenant, begin).await)
                } else {
                    let begin: UploadBeginV1 = head(&frame)?;
                    (begin.request, self.uploads.begin(&self.node, &self.tenant, begin).await)
                };
                match begun {
                    Ok(ack) => self.send(&ack, b"").await,
                    Err(error) => self.fail(request, &error).await,
                }
            }
            UploadChunkV1::KIND => {
                let chunk: UploadChunkV1 = head(&frame)?;
                match self.uploads.chunk(&chunk, frame.payload).await {
                    Ok(ack) => self.send(&ack, b"").await,
                    Err(error) => self.fail(chunk.upload, &error).await,
                }
            }
            _ => {
                let end: UploadEndV1 = head(&frame)?;
                match self.uploads.end(&self.node, &end).await {
                    Ok(Ended::Stored) => self.send(&UploadDoneV1 { upload: end.upload }, b"").await,
                    Ok(Ended::Finishing(work)) => {
                        let replies = self.replies.clone();
                        actix_web::rt::spawn(async move {
                            let outcome = work.await;
                            drop(replies.send(Reply::Uploaded { upload: end.upload, outcome }).await);
                        });
                        Ok(())
                    }
                    Err(error) => self.fail(end.upload, &error).await,
                }
            }
        }
    }
}

/// Sends the media of a completed job, chunk by chunk, as fast as the session takes them.
async fn send_media(
    node: &NodeState,
    tenant: &str,
    fetch: &FetchV1,
    replies: &mpsc::Sender<Reply>,
) -> Result<(), JobError> {
    let stored = jobs::stored_result(node, tenant, fetch.job_id).await?;
    let unavailable = |error: &dyn std::fmt::Display| JobError::new(ErrorCode::StoreUnavailable, error.to_string());
    let bytes = node.online()?.claims.read(&stored, fetch.offset).await;
    let mut bytes = bytes.map_err(|error| unavailable(&error))?;
    let (mut offset, mut chunk) = (fetch.offset, vec![0; TRANSFER_CHUNK_BYTES]);
    loop {
        let read = bytes.read(&mut chunk).await.map_err(|error| unavailable(&error))?;
        let last = read == 0 || offset + read as u64 >= stored.bytes;
        let head = FetchChunkV1 { request: fetch.request, offset, total: stored.bytes, last };
        let frame = encode(&head, &chunk[..read])?;
        if replies.send(Reply::Frame(frame)).await.is_err() || last {
            return Ok(());
        }
        offset += read as u64;
    }
}
