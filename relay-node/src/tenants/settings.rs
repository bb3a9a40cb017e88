//! Section `[tenants]`: what each tenant may do on a node, and which have other limits than the rest.

use std::collections::BTreeMap;

use relay_protocol::limits::is_tenant;
use serde::Deserialize;

use super::bucket::{BURST_MAX, PER_S_MAX, PER_S_MIN, Rate};
use crate::fair::WEIGHT_MAX;
use crate::settings::Unusable;

/// Section `[tenants]`; meaning and defaults are in `config/relay-node.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/relay-node.toml is their documentation")]
pub struct TenantSettings {
    pub calls_max: u32,
    pub calls_per_s: f64,
    pub calls_burst: u32,
    pub jobs_per_s: f64,
    pub jobs_burst: u32,
    pub weight: u32,
    pub overrides: Vec<String>,
}

/// What one tenant may do on a node.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// Calls at a time; `None`: any number.
    pub calls_max: Option<u32>,
    /// Calls in a time; `None`: any number.
    pub calls: Option<Rate>,
    /// Jobs in a time; `None`: any number.
    pub jobs: Option<Rate>,
    /// Its share of the turns in a lane and at a backend, beside the weights of others that wait there.
    pub weight: u32,
}

impl Default for Rules {
    /// No limits, and weight 1.
    fn default() -> Self {
        Self { calls_max: None, calls: None, jobs: None, weight: 1 }
    }
}

/// The rules of all tenants.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RuleBook {
    others: Rules,
    of: BTreeMap<String, Rules>,
}

impl RuleBook {
    /// The rules of a tenant.
    pub fn of(&self, tenant: &str) -> &Rules {
        self.of.get(tenant).unwrap_or(&self.others)
    }
}

impl TenantSettings {
    /// The rules that these settings are.
    ///
    /// # Errors
    /// The first setting that cannot be used.
    pub fn rules(&self) -> Result<RuleBook, Unusable> {
        let others = self.own_rules().map_err(|problem| Unusable { key: "tenants", problem })?;
        let mut of = BTreeMap::new();
        for entry in &self.overrides {
            let wrong = |problem| Unusable { key: "tenants.overrides", problem: format!("{entry:?}: {problem}") };
            let (tenant, rules) = self.overridden(entry).map_err(wrong)?;
            if of.insert(tenant.to_owned(), rules).is_some() {
                return Err(wrong("the tenant is there twice".to_owned()));
            }
        }
        Ok(RuleBook { others, of })
    }

    fn own_rules(&self) -> Result<Rules, String> {
        for (name, per_s) in [("calls_per_s", self.calls_per_s), ("jobs_per_s", self.jobs_per_s)] {
            if per_s != 0.0 && !(PER_S_MIN..=PER_S_MAX).contains(&per_s) {
                return Err(format!("{name} must be 0 or from {PER_S_MIN} to {PER_S_MAX}"));
            }
        }
        for (name, burst) in [("calls_burst", self.calls_burst), ("jobs_burst", self.jobs_burst)] {
            if !(1..=BURST_MAX).contains(&burst) {
                return Err(format!("{name} must be from 1 to {BURST_MAX}"));
            }
        }
        if !(1..=WEIGHT_MAX).contains(&self.weight) {
            return Err(format!("weight must be from 1 to {WEIGHT_MAX}"));
        }
        Ok(Rules {
            calls_max: (self.calls_max > 0).then_some(self.calls_max),
            calls: Rate::new(self.calls_per_s, self.calls_burst),
            jobs: Rate::new(self.jobs_per_s, self.jobs_burst),
            weight: self.weight,
        })
    }

    /// One entry, `TENANT;KEY=VALUE;…`: what it does not name is as for the others.
    fn overridden<'a>(&self, entry: &'a str) -> Result<(&'a str, Rules), String> {
        let mut parts = entry.split(';').map(str::trim);
        let tenant = parts.next().filter(|tenant| is_tenant(tenant)).ok_or("begin with the tenant's name")?;
        let mut own = Self { overrides: Vec::new(), ..self.clone() };
        for part in parts {
            let (key, value) = part.split_once('=').ok_or_else(|| format!("{part:?} is not KEY=VALUE"))?;
            own.set(key, value).ok_or_else(|| {
                format!("{part:?}: keys are calls_max, calls_per_s, calls_burst, jobs_per_s, jobs_burst, weight, values numbers")
            })?;
        }
        Ok((tenant, own.own_rules()?))
    }

    fn set(&mut self, key: &str, value: &str) -> Option<()> {
        match key {
            "calls_max" => self.calls_max = value.parse().ok()?,
            "calls_per_s" => self.calls_per_s = value.parse().ok()?,
            "calls_burst" => self.calls_burst = value.parse().ok()?,
            "jobs_per_s" => self.jobs_per_s = value.parse().ok()?,
            "jobs_burst" => self.jobs_burst = value.parse().ok()?,
            "weight" => self.weight = value.parse().ok()?,
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
#[path = "settings_test.rs"]
mod tests;
