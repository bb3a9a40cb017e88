//! One job from start to end.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use relay_log::planted::{Bug, is_planted};
use relay_log::port::{Log, LogError, NewRecord};
use relay_protocol::event::JobCard;
use relay_protocol::job::Hop;
use relay_protocol::record::{AttemptFailure, StartedJob};
use relay_protocol::{ErrorCode, Event, EventKind, Input, JobError, JobId};
use relay_runtime::clock::Clock;
use relay_runtime::random::Random;
use relay_runtime::telemetry::{EXPORT_ONLY, span_with_parent, traceparent_of};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::field::Empty;
use tracing::{Instrument, Span};

use super::aside::PARKED;
use super::attempt::{After, AttemptSpan, Failure, Stopped};
pub use super::attempt::{Finish, Leaving};
use super::claim_check::{ClaimCheck, Named};
use super::deadline;
use super::delivered::Delivered;
use super::duplicate;
use super::link::RunLink;
use super::media::Media;
use super::outcome::{Ended, Outcome};
use super::poison::poison;
use super::retry::RetrySettings;
use super::suspicion::SuspectPlace;
use super::url_input::UrlInputs;
use crate::audit::Audit;
use crate::backend::pool::{Pool, Slot};
use crate::backend::{BackendError, Call, Output};
use crate::events::hub::Hub;
use crate::events::route;
use crate::events::write::EventRecords;
use crate::intake::earlier::Verdict;
use crate::intake::starts::{Start, Starts};

mod follow;
mod slot;
mod updates;

/// Updates that may wait between a backend and the log; the backend's stream waits beyond.
const UPDATES_MAX: usize = 64;
/// Number of an attempt's `restarted` event within the attempt.
const RESTARTED_N: u32 = 0;
/// Number of an attempt's `started` event within the attempt.
const STARTED_N: u32 = 1;
/// Number of an attempt's `retrying` event within the attempt: after any partial, before any terminal event.
const RETRYING_N: u32 = u32::MAX - 1;

/// What running a job needs.
pub struct RunContext {
    /// Name of the node.
    pub node: String,
    /// The log.
    pub log: Arc<dyn Log>,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// For jitter.
    pub random: Arc<dyn Random>,
    /// Backends and their slots.
    pub pool: Pool,
    /// Inputs and results outside of records.
    pub claims: ClaimCheck,
    /// Inputs to be fetched.
    pub urls: UrlInputs,
    /// How events are written.
    pub events: EventRecords,
    /// Who watches jobs on this node.
    pub hub: Arc<Hub>,
    /// Registers attempts.
    pub starts: Starts,
    /// The audit trail.
    pub audit: Audit,
    /// How attempts are repeated.
    pub retry: RetrySettings,
    /// The one place of suspects on this node, whatever their lane.
    pub suspects: Arc<SuspectPlace>,
}

/// Wait before an attempt is registered again that the log did not take.
const REGISTER_RETRY: Duration = Duration::from_millis(500);

/// Runs `job` until it ends: done, impossible, cancelled over `link`, too late, or all attempts failed; or until it must wait
/// for long, for a backend or its next attempt. A job whose key an ended one has is not run: it ends as that one did.
///
/// Dropping the future ends whatever it is doing; nothing but attempts, partials and retries was written then.
pub async fn run(context: &RunContext, job: &Delivered, link: &RunLink) -> Finish {
    let mut run = Run::new(context, job, link);
    let outcome = tokio::select! {
        biased;
        () = link.cancel.cancelled() => Ok(Outcome::Cancelled(JobError::new(ErrorCode::Cancelled, "the job was cancelled"))),
        () = deadline_of(context, job) => Ok(Outcome::Expired(expired(job))),
        outcome = run.outcome() => outcome,
    };
    match outcome {
        Ok(outcome) => {
            run.recall_attempts(&outcome).await;
            Finish::Ended(run.end(outcome))
        }
        Err(leaving) => Finish::SetAside(*leaving),
    }
}

/// The error of a job whose deadline has passed.
pub fn expired(job: &Delivered) -> JobError {
    let at = job.job.deadline.map(relay_protocol::time::format_rfc3339).unwrap_or_default();
    JobError::new(ErrorCode::DeadlineExceeded, format!("the job was not done before its deadline {at}"))
}

async fn deadline_of(context: &RunContext, job: &Delivered) {
    match job.job.deadline {
        Some(at) => deadline::passed(&*context.clock, at).await,
        None => std::future::pending().await,
    }
}

struct Run<'a> {
    context: &'a RunContext,
    job: &'a Delivered,
    link: &'a RunLink,
    media: Option<Media>,
    attempt: u32,
    failures: Vec<AttemptFailure>,
    failed_backends: Vec<String>,
    last_partial_seq: Option<u64>,
    hops: Vec<Hop>,
    duplicate_of: Option<JobId>,
    span: AttemptSpan,
    /// Every event so far was acknowledged to this node and delivered to its own watchers.
    told_here: Cell<bool>,
    /// The backend has said something of this attempt.
    updated: Cell<bool>,
}

impl<'a> Run<'a> {
    fn new(context: &'a RunContext, job: &'a Delivered, link: &'a RunLink) -> Self {
        let mut hops = job.job.hops.clone();
        hops.push(Hop { hop: "log".to_owned(), at_us: job.place.accepted_at * 1_000 });
        let aside = job.aside.as_deref();
        let mut run = Self {
            context,
            job,
            link,
            media: None,
            attempt: job.attempts_before,
            failures: aside.map(|aside| aside.failures.clone()).unwrap_or_default(),
            failed_backends: Vec::new(),
            last_partial_seq: aside.and_then(|aside| aside.last_partial_seq),
            hops,
            duplicate_of: job.duplicate.map(|first| first.of),
            span: AttemptSpan(Span::none()),
            // Events of earlier attempts, and the receipt of a job from outside, come from the log only.
            told_here: Cell::new(job.has_gateway() && job.attempts_before == 0 && job.duplicate.is_none()),
            updated: Cell::new(false),
        };
        run.pass("intake");
        run
    }

    fn pass(&mut self, hop: &str) {
        self.hops.push(Hop { hop: hop.to_owned(), at_us: self.context.clock.now_ms() * 1_000 });
    }

    async fn outcome(&mut self) -> Result<Outcome, Box<Leaving>> {
        if let Some(first) = &self.job.duplicate {
            if let Some(outcome) = duplicate::outcome_of(self.context, &self.job.job.tenant, first).await {
                return Ok(outcome);
            }
            self.duplicate_of = None;
        }
        if self.job.verdict == Verdict::Poison {
            return Ok(Outcome::DeadLettered(poison(self.job.crashes)));
        }
        self.attempts().await
    }

    async fn attempts(&mut self) -> Result<Outcome, Box<Leaving>> {
        loop {
            if self.attempt == 0 || !is_planted(Bug::SameAttemptNumber) {
                self.attempt += 1;
            }
            let span = self.attempt_span();
            self.span = AttemptSpan(span.clone());
            let failure = match self.attempt().instrument(span).await {
                Ok(result) => return Ok(Outcome::Completed(result)),
                Err(Stopped::Failed(failure)) => failure,
                Err(Stopped::NoBackend) => {
                    self.attempt -= 1;
                    return Err(Box::new(self.leaving(PARKED, self.context.clock.now_ms())));
                }
            };
            self.span.failed(&failure.error);
            match self.after(failure) {
                After::Wait(wait, error) => {
                    self.span.end(EventKind::Retrying);
                    self.wait(wait, error).await;
                }
                After::Tier(leaving) => {
                    self.span.end(EventKind::Retrying);
                    return Err(leaving);
                }
                After::End(outcome) => return Ok(outcome),
            }
        }
    }

    /// The attempt in the trace of whoever submitted the job.
    fn attempt_span(&self) -> Span {
        let job = &self.job.job;
        let span = tracing::info_span!(
            target: EXPORT_ONLY,
            "job.attempt",
            otel.kind = "consumer",
            otel.status_code = Empty,
            job_id = %self.job.job_id,
            tenant = job.tenant,
            task = job.task.name(),
            lane = self.job.place.lane,
            attempt = self.attempt,
            backend = Empty,
            outcome = Empty,
            error.code = Empty,
        );
        span_with_parent(job.traceparent.as_deref(), span)
    }

    /// One attempt: input, slot, registration, backend, result.
    async fn attempt(&mut self) -> Result<Value, Stopped> {
        let media = self.input().await.map_err(Failure::before_backend)?;
        let mut slot = self.slot(&media).await?;
        self.span.0.record("backend", slot.backend.name());
        // Not before it has a slot: however long that takes, others do not wait for it.
        if self.job.verdict == Verdict::Suspect {
            self.link.suspicion.enter(&self.context.suspects, self.job.crashes).await;
        }
        if let Err(error) = self.register(slot.backend.name()).await {
            self.link.suspicion.not_begun();
            return Err(Failure::before_backend(error).into());
        }
        self.pass("backend");
        let began = Instant::now();
        slot.permit.began();
        self.updated.set(false);
        let (output, partials) = self.call(&slot, media).await;
        slot.permit.ended(&output);
        self.last_partial_seq = partials.or(self.last_partial_seq);
        let output = output.map_err(|error| Failure {
            backend: Some(slot.backend.name().to_owned()),
            retry_after: error.retry_after(),
            is_lost: error == BackendError::LeaseOver,
            error: error.to_job_error(),
            took: began.elapsed(),
        })?;
        drop(slot.permit);
        self.pass("commit");
        Ok(self.result(output).await.map_err(Failure::before_backend)?)
    }

    async fn input(&mut self) -> Result<Media, JobError> {
        if let Some(media) = &self.media {
            return Ok(media.clone());
        }
        let media = match &self.job.job.input {
            Input::Url(url) => self.context.urls.fetch(url).await?,
            input => self.context.claims.open_input(input).await.map_err(|error| error.to_job_error())?,
        };
        Ok(self.media.insert(media).clone())
    }

    async fn register(&self, backend: &str) -> Result<(), JobError> {
        let (offset, attempt, alone) = (self.job.place.offset, self.attempt, self.link.suspicion.is_alone());
        let job = StartedJob { offset, attempt, alone };
        let (partition, accepted_at) = (self.job.at.partition, self.job.place.accepted_at);
        // A log that takes nothing now, as with a full disk, is not the job's fault: that is no attempt. It may have taken the
        // events all the same, so that they must not change.
        let began_ms = self.context.clock.now_ms();
        while let Err(error) = {
            let start = |events| Start { partition, job, holder: self.job.key_holder(), accepted_at, events };
            let registered = |events| self.context.starts.register(start(events));
            self.tell(self.started_event(backend, began_ms), registered).await
        } {
            if !matches!(error, LogError::Unavailable(_)) {
                return Err(log_unavailable(&error));
            }
            tracing::warn!(%error, job_id = %self.job.job_id, "an attempt cannot be registered, trying again");
            tokio::time::sleep(REGISTER_RETRY).await;
        }
        self.link.began(self.attempt);
        self.context.audit.attempt(self.job, self.attempt);
        Ok(())
    }

    /// Writes events, and brings them to this node's own watchers once they are durable. While it is not known whether
    /// they are, watchers get what follows from the log alone: nothing may come before them.
    async fn tell<W, A, T>(&self, events: Vec<NewRecord>, write: W) -> Result<(), LogError>
    where
        W: FnOnce(Vec<NewRecord>) -> A,
        A: Future<Output = Result<T, LogError>>,
    {
        let here = self.told_here.replace(false);
        let routed: Vec<_> = if here { events.iter().filter_map(route::routed_new).collect() } else { Vec::new() };
        write(events).await?;
        if here {
            self.context.hub.deliver_here(&self.job.job.tenant, routed).await;
            self.told_here.set(true);
        }
        Ok(())
    }

    fn started_event(&self, backend: &str, began_ms: u64) -> Vec<NewRecord> {
        let mut records = Vec::with_capacity(2);
        if self.last_partial_seq.is_some() || self.job.attempts_before > self.job.attempts_told() {
            let restarted = Event::new(self.job.job_id, self.attempt, RESTARTED_N, EventKind::Restarted, began_ms);
            records.push(self.context.events.record(&self.job.job.tenant, &restarted));
        }
        let mut started = Event::new(self.job.job_id, self.attempt, STARTED_N, EventKind::Started, began_ms);
        started.place = Some(self.job.place.clone());
        started.job = Some(Box::new(JobCard::of(&self.job.job)));
        started.backend = Some(backend.to_owned());
        started.node = Some(self.context.node.clone());
        started.traceparent = self.job.job.traceparent.clone();
        records.push(self.context.events.record(&self.job.job.tenant, &started));
        records
    }

    /// Calls the backend and writes its updates; returns what it made and the seq of the last update.
    async fn call(&self, slot: &Slot, media: Media) -> (Result<Output, BackendError>, Option<u64>) {
        let (updates, written) = mpsc::channel(UPDATES_MAX);
        let job = &self.job.job;
        let backend = slot.backend.name();
        let span = tracing::info_span!(
            target: EXPORT_ONLY,
            "backend.request",
            otel.kind = "client",
            otel.status_code = Empty,
            backend,
            model = job.model,
        );
        let here = traceparent_of(&span).map(|here| here.to_string());
        let call = Call {
            job_id: self.job.job_id,
            task: job.task,
            model: job.model.clone(),
            params: job.params.clone(),
            media,
            // Where nothing is exported, the caller's context goes on as it came.
            traceparent: here.or_else(|| job.traceparent.clone()),
        };
        let request = async {
            let output = slot.in_time(slot.backend.call(call, updates), || self.updated.get()).await;
            if output.is_err() {
                span.record("otel.status_code", "ERROR");
            }
            output
        };
        tokio::join!(request.instrument(span.clone()), self.write_updates(written, slot.backend.measures(job.task)))
    }

    /// The result as it goes into the terminal event; what is too large for it is stored.
    async fn result(&self, output: Output) -> Result<Value, JobError> {
        let mut result = output.result;
        if let Some(media) = output.media {
            let named = Named { name: Some(media.name), media_type: Some(media.media_type) };
            let stored = self.store("media", media.bytes, named).await?;
            match &mut result {
                Value::Object(fields) => _ = fields.insert("media".to_owned(), json!(stored)),
                other => *other = json!({ "value": other.take(), "media": stored }),
            }
        }
        let text = result.to_string();
        if text.len() <= relay_protocol::limits::RESULT_BYTES_MAX {
            return Ok(result);
        }
        let named = Named { name: Some("result.json".to_owned()), media_type: Some("application/json".to_owned()) };
        Ok(json!({ "media": self.store("result", text.into(), named).await? }))
    }

    async fn store(
        &self,
        what: &str,
        bytes: bytes::Bytes,
        named: Named,
    ) -> Result<relay_protocol::StoredObject, JobError> {
        let path = format!("results/{}/{}-{what}", self.job.job_id, self.attempt);
        self.context.claims.put(&path, bytes, named).await.map_err(|error| error.to_job_error())
    }

    fn end(mut self, outcome: Outcome) -> Ended {
        self.span.end(outcome.kind());
        Ended {
            outcome,
            attempt: self.attempt,
            failures: self.failures,
            last_partial_seq: self.last_partial_seq,
            hops: self.hops,
            duplicate_of: self.duplicate_of,
            told_here: self.told_here.get(),
            at_ms: self.context.clock.now_ms(),
        }
    }
}

fn log_unavailable(error: &LogError) -> JobError {
    JobError::new(ErrorCode::LogUnavailable, error.to_string())
}
