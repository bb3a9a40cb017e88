//! What each tenant does now, beside what it may. Pure: time is passed in.

use std::collections::HashMap;

use super::bucket::{Bucket, Rate};
use super::settings::Rules;

/// Tenants that are remembered at a time; a tenant is forgotten once it has no call and its rates are as if it had never come.
pub(super) const TENANTS_MAX: usize = 65_536;
/// Tenants from which on those that can be forgotten are looked for.
const SWEEP_MIN: usize = 1_024;
/// When one should come again that was not refused for its rate, in milliseconds: nobody knows when a call ends.
const COME_AGAIN_MS: u64 = 1_000;

/// Which limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    /// Requests in a time.
    Rate,
    /// Requests at a time.
    AtATime,
    /// Tenants that the node remembers.
    Tenants,
}

/// A request that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused {
    /// For which limit.
    pub(super) limit: Limit,
    /// When it may come again, in milliseconds.
    pub(super) wait_ms: u64,
}

#[derive(Debug, Default)]
struct Tenant {
    calls_now: u32,
    calls: Bucket,
    jobs: Bucket,
}

impl Tenant {
    fn is_as_new(&self, now_ns: u64) -> bool {
        self.calls_now == 0 && self.calls.is_full(now_ns) && self.jobs.is_full(now_ns)
    }
}

/// The tenants that have limits, and came lately.
#[derive(Debug)]
pub(super) struct Table {
    tenants: HashMap<String, Tenant>,
    sweep_at: usize,
}

impl Default for Table {
    fn default() -> Self {
        Self { tenants: HashMap::new(), sweep_at: SWEEP_MIN }
    }
}

impl Table {
    /// A call begins: `true` if its end has to be told.
    ///
    /// # Errors
    /// A limit of the tenant is reached; nothing was counted.
    pub(super) fn call_begins(&mut self, tenant: &str, rules: &Rules, now_ns: u64) -> Result<bool, Refused> {
        if rules.calls_max.is_none() && rules.calls.is_none() {
            return Ok(false);
        }
        let tenant = self.tenant(tenant, now_ns)?;
        if rules.calls_max.is_some_and(|max| tenant.calls_now >= max) {
            return Err(Refused { limit: Limit::AtATime, wait_ms: COME_AGAIN_MS });
        }
        take(&mut tenant.calls, rules.calls.as_ref(), now_ns)?;
        tenant.calls_now += 1;
        Ok(true)
    }

    /// A call is over whose end had to be told.
    pub(super) fn call_ended(&mut self, tenant: &str) {
        if let Some(tenant) = self.tenants.get_mut(tenant) {
            tenant.calls_now = tenant.calls_now.saturating_sub(1);
        }
    }

    /// A job is to be submitted.
    ///
    /// # Errors
    /// A limit of the tenant is reached; nothing was counted.
    pub(super) fn job_comes(&mut self, tenant: &str, rules: &Rules, now_ns: u64) -> Result<(), Refused> {
        match &rules.jobs {
            None => Ok(()),
            Some(rate) => take(&mut self.tenant(tenant, now_ns)?.jobs, Some(rate), now_ns),
        }
    }

    fn tenant(&mut self, name: &str, now_ns: u64) -> Result<&mut Tenant, Refused> {
        if !self.tenants.contains_key(name) && self.tenants.len() >= self.sweep_at {
            self.tenants.retain(|_, tenant| !tenant.is_as_new(now_ns));
            self.sweep_at = (self.tenants.len() * 2).clamp(SWEEP_MIN, TENANTS_MAX);
            if self.tenants.len() >= TENANTS_MAX {
                return Err(Refused { limit: Limit::Tenants, wait_ms: COME_AGAIN_MS });
            }
        }
        Ok(self.tenants.entry(name.to_owned()).or_default())
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.tenants.len()
    }
}

fn take(bucket: &mut Bucket, rate: Option<&Rate>, now_ns: u64) -> Result<(), Refused> {
    let Some(rate) = rate else { return Ok(()) };
    let refused = |wait_ns: u64| Refused { limit: Limit::Rate, wait_ms: wait_ns.div_ceil(1_000_000) };
    bucket.take(rate, now_ns).map_err(refused)
}

#[cfg(test)]
#[path = "table_test.rs"]
mod tests;
