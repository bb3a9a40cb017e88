//! The job that repeats a letter's, and whether it could be submitted now.

use relay_protocol::dead_letter::LetterState;
use relay_protocol::{ErrorCode, Input, Job, JobError, JobId};
use relay_runtime::auth::Identity;

use super::dead::Dead;
use super::look::Found;
use crate::gateway::submit;
use crate::job::claim_check::ClaimCheck;
use crate::state::{NodeState, Online};

/// A job to submit anew.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Its lane.
    pub lane: String,
    /// The job; its id is still to come.
    pub job: Job,
}

/// Why a letter cannot be redriven or dropped (any more).
pub fn closed(found: &Found) -> JobError {
    let id = found.dead.id;
    let message = match (found.marks.state(), found.marks.redriven_as()) {
        (LetterState::Redriven, Some(job_id)) => format!("letter {id} was redriven as job {job_id}"),
        (LetterState::Redriving, Some(job_id)) => {
            format!("letter {id} is being redriven as job {job_id}: redrive it again if that was cut off")
        }
        _ => format!("letter {id} was dropped"),
    };
    JobError::new(ErrorCode::LetterClosed, message)
}

/// Whether one more mark may be put on the letter.
///
/// # Errors
/// [`ErrorCode::TooManyMarks`].
pub fn check_marks(found: &Found, marks_max: usize) -> Result<(), JobError> {
    let count = found.marks.count();
    if count < marks_max {
        return Ok(());
    }
    metrics::counter!("relay_dlq_marks_refused_total").increment(1);
    let message = format!("letter {} has {count} marks, it may have {marks_max}: submit its job again", found.dead.id);
    Err(JobError::new(ErrorCode::TooManyMarks, message))
}

/// The job that repeats the letter's: same work, same idempotency key, counted from its first attempt, submitted by
/// `identity` for the tenant that it was. Times that have passed do not count again.
///
/// # Errors
/// Why the record is no job; [`ErrorCode::UnknownLane`] if the letter does not say whence it came.
pub fn repeat(dead: &Dead, identity: &Identity, now_ms: u64) -> Result<Prepared, JobError> {
    let mut job = Job::clone(dead.job.as_ref().map_err(Clone::clone)?);
    let lane = dead.lane().ok_or_else(|| {
        let message = format!("letter {} does not say which lane it came from: submit its job again", dead.id);
        JobError::new(ErrorCode::UnknownLane, message)
    })?;
    job.id = None;
    job.redrive_of = dead.job_id;
    if let Some(tenant) = &dead.tenant {
        job.tenant.clone_from(tenant);
    }
    job.subject.clone_from(&identity.subject);
    job.attempt = 0;
    job.hops.clear();
    job.traceparent = None;
    job.deadline = job.deadline.filter(|deadline| *deadline > now_ms);
    job.not_before = job.not_before.filter(|not_before| *not_before > now_ms);
    Ok(Prepared { lane: lane.to_owned(), job })
}

/// Whether the job would be accepted now.
///
/// # Errors
/// As [`submit::accept`]'s; [`ErrorCode::InputUnavailable`] if its media is gone from the store.
pub async fn check(node: &NodeState, online: &Online, prepared: &Prepared, job_id: JobId) -> Result<(), JobError> {
    submit::check(node, online, &prepared.job, job_id, node.clock.now_ms())?;
    submit::partitions_of(online, &prepared.lane)?;
    match &prepared.job.input {
        Input::Object(_) => input_is_there(&online.claims, &prepared.job.input).await,
        _ => Ok(()),
    }
}

async fn input_is_there(claims: &ClaimCheck, input: &Input) -> Result<(), JobError> {
    let Input::Object(object) = input else { return Ok(()) };
    match claims.read(object, 0).await {
        Ok(_) => Ok(()),
        Err(error) => Err(media_gone(error.to_job_error())),
    }
}

/// `error`, in words for a letter if it says that the media is not in the store any more.
pub fn media_gone(error: JobError) -> JobError {
    match error.known_code() {
        Some(ErrorCode::InputUnavailable | ErrorCode::UnknownUpload) => {
            let message =
                format!("the media of the letter is gone ({}): upload it and submit the job again", error.message);
            JobError::new(ErrorCode::InputUnavailable, message).with_retryable(false)
        }
        _ => error,
    }
}
