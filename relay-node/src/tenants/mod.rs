//! What each tenant may do on a node: how many calls at a time, how many calls and jobs in a time, and its share of the backends' turns.
//!
//! Limits are a node's own: a cluster of three lets through three times as much.

pub mod bucket;
mod settings;
mod table;
pub mod turns;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use relay_protocol::{ErrorCode, JobError};
use tokio::time::Instant;

pub use self::settings::{RuleBook, Rules, TenantSettings};
use self::table::{Limit, Refused, TENANTS_MAX, Table};

/// The tenants of a node.
pub struct Tenants {
    rules: RuleBook,
    table: Arc<Mutex<Table>>,
    /// Begin of the time that the table is told.
    began: Instant,
}

/// A request that a tenant may not make now.
#[derive(Debug, Clone, PartialEq)]
pub struct OverLimit {
    /// What the caller is told.
    pub error: JobError,
    /// When it may come again.
    pub retry_after: Duration,
}

impl OverLimit {
    /// The same in whole seconds, as HTTP tells it.
    pub fn retry_after_s(&self) -> u32 {
        u32::try_from(self.retry_after.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX).max(1)
    }
}

impl Tenants {
    /// Nobody came yet.
    pub fn new(rules: RuleBook) -> Self {
        Self { rules, table: Arc::default(), began: Instant::now() }
    }

    /// A call of the OpenAI-compatible API begins; it is under way until the guard is dropped.
    ///
    /// # Errors
    /// A limit is reached.
    pub fn call(&self, tenant: &str) -> Result<CallGuard, OverLimit> {
        let rules = self.rules.of(tenant);
        let begun = lock(&self.table).call_begins(tenant, rules, self.now_ns());
        let counts = begun.map_err(|refused| over_limit("calls", rules.calls_max, &refused))?;
        Ok(CallGuard { counted: counts.then(|| (self.table.clone(), tenant.to_owned())) })
    }

    /// A job is to be submitted over a door of this node.
    ///
    /// # Errors
    /// A limit is reached.
    pub fn job(&self, tenant: &str) -> Result<(), OverLimit> {
        let came = lock(&self.table).job_comes(tenant, self.rules.of(tenant), self.now_ns());
        came.map_err(|refused| over_limit("jobs", None, &refused))
    }

    fn now_ns(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }
}

/// A call that is under way.
#[must_use]
pub struct CallGuard {
    counted: Option<(Arc<Mutex<Table>>, String)>,
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        if let Some((table, tenant)) = &self.counted {
            lock(table).call_ended(tenant);
        }
    }
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

fn over_limit(what: &'static str, max: Option<u32>, refused: &Refused) -> OverLimit {
    let (limit, message) = match refused.limit {
        Limit::Rate => ("rate", format!("the tenant sends {what} faster than it may on this node")),
        Limit::AtATime => {
            let max = max.unwrap_or_default();
            ("at_a_time", format!("{max} {what} of the tenant are under way on this node, which is its limit"))
        }
        Limit::Tenants => ("tenants", format!("{TENANTS_MAX} tenants are active on this node, which is the limit")),
    };
    metrics::counter!("relay_tenant_refused_total", "what" => what, "limit" => limit).increment(1);
    let error = JobError::new(ErrorCode::TooManyRequests, format!("{message}: try again later"));
    OverLimit { error, retry_after: Duration::from_millis(refused.wait_ms) }
}
