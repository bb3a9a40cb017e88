//! Those of one priority who wait: tenants take turns by weight, and each tenant's jobs go as they came. Pure.

use std::collections::BTreeMap;

use crate::tenants::turns::{Tenant, TenantTurns};

/// A place in a line: whose, and as which of all that came.
pub type Spot = (Tenant, u64);

/// A line.
#[derive(Debug)]
pub struct Line<T> {
    tenants: BTreeMap<Tenant, BTreeMap<u64, T>>,
    turns: TenantTurns,
    len: usize,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { tenants: BTreeMap::new(), turns: TenantTurns::default(), len: 0 }
    }
}

impl<T> Line<T> {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// One comes; `came` is new.
    pub fn insert(&mut self, (tenant, came): Spot, job: T) {
        self.len += usize::from(self.tenants.entry(tenant).or_default().insert(came, job).is_none());
    }

    /// Whose turn it is: the tenant that had least by weight, of those that had the same the one whose job came first.
    pub fn next(&self) -> Option<Spot> {
        let first = |(tenant, jobs): (&Tenant, &BTreeMap<u64, T>)| {
            let came = *jobs.first_key_value()?.0;
            Some((self.turns.clock(tenant), came, tenant.clone()))
        };
        self.tenants.iter().filter_map(first).min().map(|(_, came, tenant)| (tenant, came))
    }

    /// A turn went to this tenant.
    pub fn took(&mut self, tenant: &Tenant, weight: u32) {
        if self.is_empty() {
            self.turns.clear();
        } else {
            self.turns.took(tenant, None, weight);
        }
    }

    /// One that waits.
    pub fn get(&self, (tenant, came): &Spot) -> Option<&T> {
        self.tenants.get(tenant)?.get(came)
    }

    /// One leaves.
    pub fn remove(&mut self, (tenant, came): &Spot) -> Option<T> {
        let jobs = self.tenants.get_mut(tenant)?;
        let job = jobs.remove(came)?;
        if jobs.is_empty() {
            self.tenants.remove(tenant);
        }
        self.len -= 1;
        Some(job)
    }

    /// All who wait.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.tenants.values().flat_map(BTreeMap::values)
    }
}

#[cfg(test)]
#[path = "line_test.rs"]
mod tests;
