//! One call from its request to the begin of its answer: slots, attempts, other backends.

use std::sync::Arc;
use std::time::Duration;

use actix_web::{HttpResponse, web};
use relay_protocol::{ErrorCode, JobError, JobId, Priority, Task};
use relay_runtime::telemetry::current_traceparent;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::Path;
use super::answer::{mark, respond};
use super::attempt::{Answer, Failed, attempt};
use super::error;
use super::record::{Admitted, Record};
use super::request::Request;
use crate::backend::BackendError;
use crate::backend::forward::Forward;
use crate::backend::pool::{Pool, Slot};
use crate::backend::slots::Need;
use crate::job::retry::UNCHARGED_MAX;
use crate::state::NodeState;

/// Wait before the same backend is tried again that says nothing about it; doubles with each attempt.
const SAME_BACKEND_DELAY: Duration = Duration::from_millis(250);
/// How long a call waits while no backend answers: one that is started again, or was not asked yet, is there by then.
const NOBODY_WAIT: Duration = Duration::from_secs(5);
/// Longest time for which a backend that asks for it is not tried again.
const REST_MAX: Duration = Duration::from_secs(3_600);
/// Time between two looks for one.
const NOBODY_LOOK: Duration = Duration::from_millis(100);
/// Status of a backend that does not know the relay's key: the client's is another one.
const KEY_REFUSED: [u16; 2] = [401, 403];

/// What is tried.
struct Call<'a> {
    pool: &'a Pool,
    task: Task,
    tenant: Arc<str>,
    request: &'a Request,
    /// Backends that failed, and when they may be tried again.
    failed: Vec<(String, Instant)>,
    /// The last of them was not just busy.
    is_broken: bool,
    /// Attempts that were cut off with the lease of their slot, which do not count.
    lost: u32,
    /// How long a slot is waited for, before each attempt.
    wait: Duration,
}

/// Makes the call and answers its client.
pub(super) async fn run(node: &web::Data<NodeState>, path: Path, request: Request, caller: Admitted) -> HttpResponse {
    let online = match node.open() {
        Ok(online) => online,
        Err(refused) => return error::refused(path.path, &refused),
    };
    if let Err(refused) = node.pool.check(path.task, request.model.as_deref()) {
        return error::refused(path.path, &refused.to_job_error());
    }
    let job_id = JobId::new(node.clock.now_ms(), online.reply_partition, node.random.next_u64());
    let tenant = caller.identity.tenant.as_str().into();
    let mut record = Record::begin(path, job_id, current_traceparent().to_string(), caller, online.audit.clone());
    record.model = request.model.clone();
    let settings = &node.settings.openai;
    let wait = Duration::from_millis(settings.wait_timeout_ms);
    let client_timeout = Duration::from_millis(settings.client_timeout_ms);
    let (pool, task, request) = (&node.pool, path.task, &request);
    let mut call = Call { pool, task, tenant, request, failed: Vec::new(), is_broken: false, lost: 0, wait };
    let mut last = None;
    loop {
        let mut slot = match call.slot().await {
            Ok(slot) => slot,
            Err(refused) => {
                return match last {
                    Some(failed) => failed_for_good(record, failed),
                    None => give_up(record, &refused, call.back_in_s()),
                };
            }
        };
        record.backend = Some(slot.backend.name().to_owned());
        record.attempts += 1;
        slot.permit.began();
        let attempt = attempt(&*slot.backend, forward(path, request, &record));
        let failed = match slot.in_time(attempt, || false).await {
            Ok(answer) => return respond(answer, Some(slot.permit), record, "ok", client_timeout),
            Err(failed) => failed,
        };
        slot.permit.ended::<()>(&Err(failed.error.clone()));
        drop(slot.permit);
        if !failed.error.is_retryable() {
            return rejected(record, failed);
        }
        record.attempt_failed(failed.error.to_job_error().known_code().unwrap_or(ErrorCode::Internal).as_str());
        tracing::debug!(error = %failed.error, backend = slot.backend.name(), %job_id, "an attempt of a call failed");
        if failed.error == BackendError::LeaseOver && call.lost < UNCHARGED_MAX {
            // Nobody has had a byte of it, and it says nothing about the backend.
            call.lost += 1;
            continue;
        }
        if record.attempts - call.lost >= settings.attempts_max {
            return failed_for_good(record, failed);
        }
        call.failed(slot.backend.name(), &failed.error, record.attempts);
        last = Some(failed);
    }
}

fn forward(path: Path, request: &Request, record: &Record) -> Forward {
    Forward {
        path: path.path,
        content_type: request.content_type.clone(),
        body: request.body.body(),
        bytes: request.body.bytes(),
        job_id: record.job_id,
        traceparent: record.traceparent.clone(),
    }
}

impl Call<'_> {
    /// An attempt at a backend failed: it rests for as long as it asks, or for longer after each attempt.
    fn failed(&mut self, backend: &str, error: &BackendError, attempts: u32) {
        let delay = SAME_BACKEND_DELAY.saturating_mul(1 << attempts.saturating_sub(1).min(8));
        let rest = error.retry_after().unwrap_or(delay).min(REST_MAX);
        self.failed.retain(|(name, _)| name != backend);
        self.failed.push((backend.to_owned(), Instant::now() + rest));
        self.is_broken = !matches!(error, BackendError::Busy { .. });
    }

    /// A slot: of a backend that has not failed, else of one that has rested. What failed otherwise than by being busy is worth no new
    /// attempt while others are there.
    async fn slot(&self) -> Result<Slot, JobError> {
        let until = Instant::now() + self.wait;
        let (task, model) = (self.task, self.request.model.as_deref());
        self.somebody(until).await?;
        let busy = || JobError::new(ErrorCode::BackendBusy, "every backend that can do this is busy");
        let rested = self.failed.iter().map(|(_, rested)| *rested).min().unwrap_or(until);
        let failed: Vec<String> = self.failed.iter().map(|(name, _)| name.clone()).collect();
        if self.pool.can_run(task, model, &failed) {
            let until = if self.is_broken { until } else { until.min(rested) };
            let elsewhere = self.pool.acquire(self.need_without(&failed));
            if let Ok(slot) = timeout_at(until, elsewhere).await {
                return slot.map_err(|error| error.to_job_error());
            }
        }
        if self.failed.is_empty() || rested >= until || Instant::now() >= until {
            return Err(busy());
        }
        sleep_until(rested).await;
        let resting = self.failed.iter().filter(|(_, rested)| *rested > Instant::now());
        let resting: Vec<String> = resting.map(|(name, _)| name.clone()).collect();
        let slot = self.pool.acquire(self.need_without(&resting));
        timeout_at(until, slot).await.map_err(|_| busy())?.map_err(|error| error.to_job_error())
    }

    /// Seconds until a backend is back that gets no requests now for how its last ones ended, if no other is there.
    fn back_in_s(&self) -> Option<u64> {
        let wait = self.pool.back_in(self.task, self.request.model.as_deref())?;
        Some(wait.as_secs() + 1)
    }

    fn need_without(&self, avoid: &[String]) -> Need {
        Need {
            units: self.request.units,
            tenant: self.tenant.clone(),
            priority: Priority::Interactive,
            is_begun: !avoid.is_empty(),
            avoid: avoid.to_vec(),
            is_strict: true,
            ..Need::of(self.task, self.request.model.as_deref())
        }
    }

    /// Waits for some backend to answer.
    async fn somebody(&self, until: Instant) -> Result<(), JobError> {
        let until = until.min(Instant::now() + NOBODY_WAIT);
        while !self.pool.can_run(self.task, self.request.model.as_deref(), &[]) {
            if Instant::now() >= until {
                return Err(JobError::new(ErrorCode::BackendBusy, "no backend that can do this answers now"));
            }
            sleep(NOBODY_LOOK).await;
        }
        Ok(())
    }
}

/// A backend refused what every backend will refuse: its own words go to the client.
fn rejected(record: Record, failed: Failed) -> HttpResponse {
    match failed.answer {
        Some(answer) => respond(answer, None, record, "rejected", Duration::ZERO),
        None => give_up(record, &failed.error.to_job_error(), None),
    }
}

/// All attempts failed: the last backend's own words, unless they are about the relay.
fn failed_for_good(record: Record, failed: Failed) -> HttpResponse {
    let retry_after_s = failed.error.retry_after().map(|wait| wait.as_secs());
    let own = |answer: &Answer| !KEY_REFUSED.contains(&answer.status) && !answer.is_events();
    match failed.answer.filter(own) {
        Some(answer) => respond(answer, None, record, "failed", Duration::ZERO),
        None => give_up(record, &failed.error.to_job_error(), retry_after_s),
    }
}

fn give_up(mut record: Record, error: &JobError, retry_after_s: Option<u64>) -> HttpResponse {
    record.ended("failed");
    mark(error::answer(error, retry_after_s), &record)
}
