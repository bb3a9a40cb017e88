//! The one way in: whatever the door, a job is checked, written to its lane and receipted here. And the way back: its
//! past, and the request to cancel it.

use std::time::Duration;

use bytes::Bytes;
use relay_log::port::{LogError, NewRecord, TopicPartition};
use relay_protocol::event::{JobCard, Place};
use relay_protocol::job::Hop;
use relay_protocol::record::{CancelRequest, ControlRecord, HEADER_GATEWAY, HEADER_TRACEPARENT, encode_job};
use relay_protocol::{ErrorCode, Event, Input, Job, JobError, JobId, Priority, partition, topics};
use relay_runtime::auth::Identity;
use relay_runtime::telemetry::current_traceparent;

use super::resumption::{RECEIPT_DELAY_MAX_MS, catch_up_error};
use crate::audit::Actor;
use crate::events::find::CLOCK_SKEW_MS_MAX;
use crate::events::route::RoutedEvent;
use crate::intake::dedup::{Body, Scope};
use crate::job::duplicate;
use crate::state::{NodeState, Online};

/// Waits for the receipt of a new job between two looks at the log, in milliseconds.
const RECEIPT_WAITS_MS: [u64; 7] = [10, 20, 50, 100, 200, 400, 800];

/// A durable job's receipt.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// Identity of the job.
    pub job_id: JobId,
    /// The `accepted` event.
    pub event: Event,
    /// The same as JSON.
    pub json: Bytes,
}

/// A job of this identity: whatever the caller wrote there, tenant and subject are those of the token.
pub fn of(identity: &Identity, mut job: Job) -> Job {
    job.tenant = identity.tenant.clone();
    job.subject = identity.subject.clone();
    job.attempt = 0;
    job.redrive_of = None;
    job
}

/// Makes `job` durable in `lane` and returns its receipt.
///
/// # Errors
/// A broken rule, with its stable code; [`ErrorCode::LogUnavailable`] if it could not be written, in which case it may
/// or may not run.
pub async fn accept(node: &NodeState, lane: &str, mut job: Job, way_in: &'static str) -> Result<Accepted, JobError> {
    let online = node.online()?;
    let now_ms = node.clock.now_ms();
    let job_id = match job.id {
        Some(id) => id,
        None => JobId::new(now_ms, online.reply_partition, node.random.next_u64()),
    };
    job.id = Some(job_id);
    // A caller that is not traced begins a trace here: audit trail and backends get it all the same.
    job.traceparent.get_or_insert_with(|| current_traceparent().to_string());
    job.hops.push(Hop { hop: "gateway".to_owned(), at_us: now_ms * 1_000 });
    check(node, online, &job, job_id, now_ms)?;
    let lane = &*lane_for(online, lane, &mut job.priority)?;
    let partitions = partitions_of(online, lane)?;
    let key = partition::job_key(&job.tenant, job.idempotency_key.as_deref(), job_id);
    let at = TopicPartition::new(topics::jobs(lane), partition::of_key(key.as_bytes(), partitions));
    check_key(online, lane, &job, job_id, at.partition).await?;
    let record = record(node, &job, key, at.clone(), now_ms)?;
    online.claims.keep(&job.input, now_ms).await.map_err(|error| error.to_job_error())?;
    let offsets = online.log.append(vec![record]).await.map_err(log_error)?;
    let offset = offsets.first().copied().unwrap_or_default();
    let place = Place { lane: lane.to_owned(), partition: at.partition, offset, accepted_at: now_ms };
    Ok(receipt(online, &job, job_id, place, way_in))
}

/// The lane in which a job submitted to `lane` is written: its priority's, if the cluster has one, so that it does not wait
/// behind what was submitted before. A lane that has one priority gives it to the job.
///
/// # Errors
/// [`ErrorCode::UnknownLane`].
pub fn lane_for(online: &Online, lane: &str, priority: &mut Priority) -> Result<String, JobError> {
    partitions_of(online, lane)?;
    if let (_, Some(only)) = topics::base_lane(lane) {
        *priority = only;
        return Ok(lane.to_owned());
    }
    let of_priority = topics::priority_lane(lane, *priority);
    Ok(if online.lanes.contains_key(&of_priority) { of_priority } else { lane.to_owned() })
}

/// How many partitions a lane has.
///
/// # Errors
/// [`ErrorCode::UnknownLane`].
pub fn partitions_of(online: &Online, lane: &str) -> Result<u32, JobError> {
    online.lanes.get(lane).copied().ok_or_else(|| {
        let known = online.lanes.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        JobError::new(ErrorCode::UnknownLane, format!("there is no lane {lane:?}; known are: {known}"))
    })
}

/// Removes the input that was stored for a job which was refused.
pub async fn discard(node: &NodeState, input: &Input) {
    if let (Input::Object(object), Some(online)) = (input, node.online.get()) {
        online.claims.discard(object).await;
    }
}

/// Whether a job that ended with this error was not written for certain: nobody will ask for its input.
pub fn was_refused(error: &JobError) -> bool {
    error.code != ErrorCode::LogUnavailable.as_str()
}

/// Whether the job breaks no rule and some backend could do it.
///
/// # Errors
/// The first broken rule, with its stable code.
pub fn check(node: &NodeState, online: &Online, job: &Job, job_id: JobId, now_ms: u64) -> Result<(), JobError> {
    job.check()?;
    if job_id.made_at_ms().is_some_and(|made| made > now_ms + CLOCK_SKEW_MS_MAX) {
        let message = "the job id was made in the future: set the client's clock";
        return Err(JobError::new(ErrorCode::InvalidField, message));
    }
    if job.deadline.is_some_and(|deadline| deadline <= now_ms) {
        return Err(JobError::new(ErrorCode::DeadlineExceeded, "the deadline has passed already"));
    }
    match &job.input {
        Input::Url(url) => _ = online.urls.check(url)?,
        // A letter's input is what its job had, wherever its producer put it.
        Input::Object(object) if job.redrive_of.is_none() && !object.path.starts_with(&uploads_of(&job.tenant)) => {
            let message = "an object can only be used by the tenant that uploaded it";
            return Err(JobError::new(ErrorCode::UnknownUpload, message));
        }
        Input::Inline(media) if media.data.len() > node.settings.inputs.inline_bytes_max => {
            let limit = node.settings.inputs.inline_bytes_max;
            let message = format!("an inline input may have {limit} bytes: upload it instead");
            return Err(JobError::new(ErrorCode::TooLarge, message));
        }
        _ => {}
    }
    node.pool.check(job.task, job.model.as_deref()).map_err(|error| error.to_job_error())
}

/// Refuses an idempotency key that stands for something else already, as far as this node knows: what it cannot know, the
/// job's owner refuses.
async fn check_key(online: &Online, lane: &str, job: &Job, job_id: JobId, partition: u32) -> Result<(), JobError> {
    let Some(key) = &job.idempotency_key else { return Ok(()) };
    let Some(lane) = online.served.get().and_then(|served| served.get(lane)) else { return Ok(()) };
    let (scope, body) = (Scope::of_key(&job.tenant, key), Body::new(&job.body_sha256()));
    match lane.of_key(partition, scope, body).await {
        // The same id is the same job, whatever comes with it.
        Some((first, false)) if first != job_id => Err(duplicate::key_reused(first)),
        _ => Ok(()),
    }
}

/// Where a tenant's uploads lie in the object store.
pub fn uploads_of(tenant: &str) -> String {
    // Hex keeps every tenant to one path segment, whatever its name holds.
    format!("uploads/{}/", hex::encode(tenant))
}

fn record(node: &NodeState, job: &Job, key: String, to: TopicPartition, now_ms: u64) -> Result<NewRecord, JobError> {
    let value = encode_job(job)
        .map_err(|error| JobError::new(ErrorCode::TooLarge, format!("the job is too large: {error}")))?;
    let mut headers = vec![(HEADER_GATEWAY.to_owned(), Bytes::copy_from_slice(node.name.as_bytes()))];
    if let Some(traceparent) = &job.traceparent {
        headers.push((HEADER_TRACEPARENT.to_owned(), Bytes::copy_from_slice(traceparent.as_bytes())));
    }
    Ok(NewRecord { to, key: Some(Bytes::from(key)), value: Some(value), headers, timestamp_ms: now_ms })
}

/// Writes the receipt beside the way: the job is durable already, and its `started` event names the place too.
fn receipt(online: &Online, job: &Job, job_id: JobId, place: Place, way_in: &'static str) -> Accepted {
    let actor = Actor { tenant: &job.tenant, subject: &job.subject };
    let detail = serde_json::json!({
        "task": job.task,
        "lane": place.lane,
        "way_in": way_in,
        "redrive_of": job.redrive_of,
    });
    online.audit.accepted(actor, job_id, job.traceparent.as_deref(), detail);
    let event = Event::accepted(job_id, place, job.traceparent.clone()).about(JobCard::of(job));
    let record = online.hub.records().record(&job.tenant, &event);
    let json = record.value.clone().unwrap_or_default();
    let log = online.log.clone();
    tokio::spawn(async move {
        if let Err(error) = log.append(vec![record]).await {
            tracing::warn!(%error, %job_id, "an accepted event was not written");
        }
    });
    metrics::counter!("relay_jobs_accepted_total", "task" => job.task.name(), "way_in" => way_in).increment(1);
    Accepted { job_id, event, json }
}

/// A job's durable events so far. A new job's receipt may still be on its way: it is waited for.
///
/// # Errors
/// [`ErrorCode::UnknownJob`] if the tenant has no such job (any more).
pub async fn past(node: &NodeState, tenant: &str, job_id: JobId) -> Result<Vec<RoutedEvent>, JobError> {
    let online = node.online()?;
    let is_new = job_id.made_at_ms().is_some_and(|made| node.clock.now_ms() < made + RECEIPT_DELAY_MAX_MS);
    let mut waits = RECEIPT_WAITS_MS.iter().filter(|_| is_new);
    loop {
        let past = online.hub.past_for_client(job_id, tenant).await.map_err(catch_up_error)?;
        if !past.is_empty() {
            return Ok(past);
        }
        match waits.next() {
            Some(wait) => tokio::time::sleep(Duration::from_millis(*wait)).await,
            None => return Err(JobError::new(ErrorCode::UnknownJob, format!("there is no job {job_id}"))),
        }
    }
}

/// The newest of a job's durable events.
///
/// # Errors
/// As [`past`].
pub async fn last(node: &NodeState, tenant: &str, job_id: JobId) -> Result<Event, JobError> {
    let past = past(node, tenant, job_id).await?;
    let last = past.last().ok_or_else(|| JobError::new(ErrorCode::UnknownJob, format!("there is no job {job_id}")))?;
    parse(last)
}

fn parse(event: &RoutedEvent) -> Result<Event, JobError> {
    serde_json::from_slice(&event.json)
        .map_err(|error| JobError::new(ErrorCode::Internal, format!("an event cannot be read: {error}")))
}

/// What became of a request to cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancel {
    /// It is durable.
    Requested,
    /// The job had ended.
    AlreadyEnded,
}

/// Asks the job's owner to cancel it; durable when this returns.
///
/// # Errors
/// [`ErrorCode::UnknownJob`], [`ErrorCode::LogUnavailable`].
pub async fn cancel(node: &NodeState, identity: &Identity, job_id: JobId) -> Result<Cancel, JobError> {
    let online = node.online()?;
    let past = past(node, &identity.tenant, job_id).await?;
    if past.iter().any(|event| event.kind.is_terminal()) {
        return Ok(Cancel::AlreadyEnded);
    }
    let placed = past.iter().find_map(|event| parse(event).ok().filter(|event| event.place.is_some()));
    let (place, traceparent) = placed.map_or((None, None), |event| (event.place, event.traceparent));
    let place = place.ok_or_else(|| JobError::new(ErrorCode::UnknownJob, format!("job {job_id} has no place")))?;
    let now_ms = node.clock.now_ms();
    let request = ControlRecord::Cancel(CancelRequest {
        job_id,
        tenant: identity.tenant.clone(),
        subject: identity.subject.clone(),
        at: now_ms,
    });
    let record = NewRecord {
        to: TopicPartition::new(topics::control(&place.lane), place.partition),
        key: Some(Bytes::from(job_id.to_string())),
        value: serde_json::to_vec(&request).ok().map(Bytes::from),
        headers: Vec::new(),
        // Owners look for it from the job's own time on, whatever this machine's clock says.
        timestamp_ms: now_ms.max(place.accepted_at),
    };
    online.log.append(vec![record]).await.map_err(log_error)?;
    let actor = Actor { tenant: &identity.tenant, subject: &identity.subject };
    online.audit.cancel_requested(actor, job_id, traceparent.as_deref());
    Ok(Cancel::Requested)
}

/// The error for a log that did not do what it was asked.
pub fn log_error(error: LogError) -> JobError {
    let code = match &error {
        LogError::TooLarge { .. } => ErrorCode::TooLarge,
        _ => ErrorCode::LogUnavailable,
    };
    JobError::new(code, format!("{error}: try again later"))
}
