//! Whose turn it is among the tenants that wait in one line, at a backend or in a lane: each gets its share by weight, whatever the
//! others send. Pure.
//!
//! Start-time fair queueing (Goyal, Vin, Cheng: "Start-time Fair Queueing", 1996): a tenant's clock moves on by the work that it was
//! given over its weight, and the tenant whose clock is least far on is next. One that did not wait for a while begins where the others
//! are, so it saves up nothing. While two tenants wait, what they were given over their weights differs by one request of each at most,
//! so that nobody who waits is passed by more than one request of each other tenant beyond their shares.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Name of a tenant.
pub type Tenant = Arc<str>;

/// What work counts as that nobody knows, in milliseconds.
const UNKNOWN_MS: f64 = 1_000.0;
/// Largest work that counts, in milliseconds: a day.
const WORK_MS_MAX: f64 = 86_400_000.0;
/// Distance on a clock for a millisecond of work at weight 1; large beside the rounding of any weight.
const STRIDE: f64 = 1_000.0;
/// Clocks from which on those are looked for that say nothing.
const PRUNE_MIN: usize = 64;

/// The clocks of the tenants of one line.
#[derive(Debug, Clone, Default)]
pub struct TenantTurns {
    /// Where the clock was of the tenant that had the last turn.
    now: u64,
    /// Clocks that were ahead of it when they were set; the others are there.
    ahead: BTreeMap<Tenant, u64>,
    prune_at: usize,
}

impl TenantTurns {
    /// The tenant's clock: the lowest is next.
    pub fn clock(&self, tenant: &str) -> u64 {
        self.ahead.get(tenant).copied().unwrap_or_default().max(self.now)
    }

    /// A turn went to the tenant, for work of so many milliseconds, if that is known.
    pub fn took(&mut self, tenant: &Tenant, work_ms: Option<f64>, weight: u32) {
        let work_ms = work_ms.unwrap_or(UNKNOWN_MS).clamp(1.0, WORK_MS_MAX);
        self.now = self.clock(tenant);
        let next = self.now.saturating_add((work_ms * STRIDE / f64::from(weight.max(1))) as u64);
        self.ahead.insert(tenant.clone(), next);
        if self.ahead.len() >= self.prune_at.max(PRUNE_MIN) {
            let now = self.now;
            self.ahead.retain(|_, clock| *clock > now);
            self.prune_at = self.ahead.len() * 2;
        }
    }

    /// Nobody waits any more: all are even.
    pub fn clear(&mut self) {
        self.ahead.clear();
    }
}

#[cfg(test)]
#[path = "turns_test.rs"]
mod tests;
