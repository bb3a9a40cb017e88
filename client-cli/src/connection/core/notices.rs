//! What a node says that is no event and no answer: of a watched job, that it has ended, is unknown, lost its past, or finds no room now; and goodbye.

use relay_protocol::hello::GoodbyeV1;
use relay_protocol::session::NoticeV1;
use relay_protocol::{ErrorCode, JobError, JobId};

use super::{Core, Effect, Effects, Request};

/// Wait before a job is watched again whose node did not say how long, in milliseconds.
const RETRY_AFTER_MS: u32 = 1_000;

/// Takes a notice, unless a newer resume of the job is under way.
pub(super) fn on_notice(core: &mut Core, notice: NoticeV1, out: &mut Effects) {
    let NoticeV1 { request, job_id, code, message, retryable, retry_after_ms, goes_on } = notice;
    let Some(watched) = core.jobs.get(&job_id) else { return };
    if watched.resuming || watched.resume.is_some_and(|newest| newest != request) {
        return;
    }
    let error = JobError { code, message, retryable };
    if goes_on {
        out.push(Effect::Told { job_id, error });
    } else if retryable {
        out.push(Effect::Retry { job_id, after_ms: retry_after_ms.unwrap_or(RETRY_AFTER_MS) });
    } else {
        if let Some(watch) = core.end(&job_id).and_then(|watched| watched.open) {
            core.requests.remove(&watch);
        }
        out.push(Effect::JobFailed { job_id, error });
    }
}

/// Whether the refused request is one that is tried in another way: a watch later, a resume by watches if its token is not taken.
pub(super) fn is_watched_in_another_way(
    core: &mut Core,
    request: u64,
    error: &JobError,
    retry_after_ms: Option<u32>,
    out: &mut Effects,
) -> bool {
    match (core.requests.get(&request), retry_after_ms) {
        (Some(Request::Watch(job_id)), Some(after_ms)) if error.retryable => {
            out.push(Effect::Retry { job_id: *job_id, after_ms });
            true
        }
        (Some(Request::Resume(_)), _) if error.code == ErrorCode::InvalidResumeToken.as_str() => {
            core.requests.remove(&request);
            let of_it = core.jobs.iter().filter(|(_, watched)| watched.resume == Some(request));
            let of_it: Vec<JobId> = of_it.map(|(job_id, _)| *job_id).collect();
            for job_id in of_it {
                watch(core, job_id, out);
            }
            true
        }
        _ => false,
    }
}

/// Watches the job after its last event, without a token.
fn watch(core: &mut Core, job_id: JobId, out: &mut Effects) {
    let request = core.number();
    if let Some(watched) = core.jobs.get_mut(&job_id) {
        (watched.open, watched.resume, watched.resuming) = (Some(request), None, false);
    }
    core.requests.insert(request, Request::Watch(job_id));
    core.send(request, 0, out);
}

/// Asks again for a job that the node had no room for.
pub(super) fn retry(core: &mut Core, job_id: JobId, out: &mut Effects) {
    let Some(watched) = core.jobs.get(&job_id).filter(|watched| core.online && !watched.paused) else { return };
    match watched.open {
        Some(request) => core.send(request, 0, out),
        None => {
            let after_seq = watched.last_seq;
            core.resume(vec![(job_id, after_seq)], out);
        }
    }
}

/// A node that goes away is left; one that cannot stand this client is not asked again.
pub(super) fn on_goodbye(goodbye: GoodbyeV1, out: &mut Effects) {
    const USELESS: [ErrorCode; 5] = [
        ErrorCode::BadFrame,
        ErrorCode::TextMessage,
        ErrorCode::NoCommonVersion,
        ErrorCode::Unauthenticated,
        ErrorCode::Forbidden,
    ];
    let GoodbyeV1 { code, message } = goodbye;
    out.push(if USELESS.iter().any(|useless| useless.as_str() == code) {
        Effect::Fatal(JobError { code, message, retryable: false })
    } else {
        Effect::Reconnect { reason: format!("the node said goodbye: {message} ({code})") }
    });
}
