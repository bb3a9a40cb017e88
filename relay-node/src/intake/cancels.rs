//! Requests to cancel, also for jobs that were not read yet. Pure.

use std::collections::{HashMap, VecDeque};

use relay_protocol::JobId;

/// Requests that a partition remembers for jobs that it has not read yet; the oldest are forgotten first.
const CANCELS_MAX: usize = 10_000;

/// What was asked of one partition.
#[derive(Debug, Default)]
pub struct Cancels {
    tenants: HashMap<JobId, String>,
    order: VecDeque<JobId>,
}

impl Cancels {
    /// A tenant asks to cancel a job.
    pub fn add(&mut self, job_id: JobId, tenant: String) {
        if self.tenants.insert(job_id, tenant).is_none() {
            self.order.push_back(job_id);
        }
        if self.order.len() > CANCELS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.tenants.remove(&oldest);
        }
    }

    /// Whether the job's own tenant asked for it.
    pub fn has(&self, job_id: JobId, tenant: &str) -> bool {
        self.tenants.get(&job_id).is_some_and(|found| found == tenant)
    }
}
