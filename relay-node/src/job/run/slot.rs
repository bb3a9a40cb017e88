//! The slot of an attempt: of a backend that has not failed the job, as long as one of those answers.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Run;
use crate::backend::BackendError;
use crate::backend::pool::Slot;
use crate::backend::size;
use crate::backend::slots::Need;
use crate::job::attempt::{Failure, Stopped};
use crate::job::media::Media;

/// How long a job that runs may find no backend that could take it, before it is parked, beside a first look at once.
const LOOK_FOR_BACKEND: Duration = Duration::from_millis(500);

impl Run<'_> {
    /// Waits for a slot. A backend that failed the job gets it again only if this node has slots of no other one that answers, or none of
    /// them was free for `retry.elsewhere_ms`: one that fails at once would use up all its attempts while the good ones are busy.
    pub(super) async fn slot(&self, media: &Media) -> Result<Slot, Stopped> {
        let job = &self.job.job;
        let need = Need {
            units: size::of_job(job.task, media, &job.params).await,
            tenant: job.tenant.as_str().into(),
            priority: job.priority,
            is_begun: self.attempt > 1,
            avoid: self.failed_backends.clone(),
            ..Need::of(job.task, job.model.as_deref())
        };
        if let Some(slot) = self.slot_elsewhere(&need).await {
            return Ok(slot);
        }
        let slot = self.context.pool.acquire(need);
        tokio::pin!(slot);
        let mut looks = looks();
        loop {
            tokio::select! {
                biased;
                slot = &mut slot => return Ok(slot.map_err(refused)?),
                _ = looks.tick() => {}
            }
            if !self.context.pool.can_run(job.task, job.model.as_deref(), &[]) {
                return Err(Stopped::NoBackend);
            }
        }
    }

    /// A slot of a backend that has not failed the job; `None` if this node has none of such a backend, or none was free for too long.
    async fn slot_elsewhere(&self, need: &Need) -> Option<Slot> {
        if need.avoid.is_empty() {
            return None;
        }
        let until = Instant::now() + Duration::from_millis(self.context.retry.elsewhere_ms);
        let slot = self.context.pool.acquire(Need { is_strict: true, ..need.clone() });
        tokio::pin!(slot);
        let mut looks = looks();
        // Before the slot is asked for: where nobody else is there, it would be refused. Slots that others have may never come here.
        while self.context.pool.has_slots_elsewhere(need) {
            if Instant::now() >= until {
                metrics::counter!("relay_retries_elsewhere_given_up_total", "task" => self.job.job.task.name())
                    .increment(1);
                return None;
            }
            tokio::select! {
                biased;
                // Refused: the others are gone.
                slot = &mut slot => return slot.ok(),
                _ = looks.tick() => {}
            }
        }
        None
    }
}

fn looks() -> tokio::time::Interval {
    let mut looks = interval(LOOK_FOR_BACKEND);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks
}

fn refused(error: BackendError) -> Failure {
    Failure::before_backend(error.to_job_error())
}
