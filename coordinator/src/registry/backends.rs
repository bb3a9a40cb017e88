//! The backends that the registry knows: what their probes found, and which of them get nothing new. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use relay_protocol::cluster::{BackendInfo, BackendNameInfo, BackendState};

use crate::backends::roster::{Found, Orders, Roster};
use crate::backends::{BackendEntry, ProbeReport};
use crate::leases::{LeaseRules, LeaseTable, Offering};

/// One backend.
#[derive(Debug)]
struct Backend {
    name: Arc<str>,
    slots: u32,
    via: Option<Arc<str>>,
    /// Whether the settings name it; else it goes when no name leads to it.
    is_static: bool,
    last: Option<ProbeReport>,
    /// From the last probe that succeeded.
    models: Vec<String>,
    /// Why it leaves, if no name leads to it any more.
    leaves: Option<String>,
}

impl Backend {
    fn of(entry: &BackendEntry, is_static: bool) -> Self {
        let (name, via) = (entry.url.clone(), entry.via.clone());
        Self { name, slots: entry.slots, via, is_static, last: None, models: Vec::new(), leaves: None }
    }
}

/// Every backend, and the names that lead to some of them.
#[derive(Debug)]
pub(super) struct Backends {
    /// Sorted by name.
    list: Vec<Backend>,
    names: Vec<BackendNameInfo>,
    orders: Orders,
}

impl Backends {
    /// Those of the settings.
    pub(super) fn new(entries: &[BackendEntry]) -> Self {
        let mut list: Vec<_> = entries.iter().map(|entry| Backend::of(entry, true)).collect();
        list.sort_by(|a, b| a.name.cmp(&b.name));
        Self { list, names: Vec::new(), orders: Orders::default() }
    }

    /// A table of leases in which nobody has any, of all that is known.
    pub(super) fn lease_anew(&self, rules: LeaseRules, now_ms: u64) -> LeaseTable {
        let slots = self.list.iter().map(|known| (known.name.clone(), known.slots));
        let mut leases = LeaseTable::new(rules, now_ms, slots);
        for known in &self.list {
            if let Some(report) = &known.last {
                leases.offer(&known.name, offering(report));
            }
            leases.close(&known.name, self.is_closed(known));
        }
        leases
    }

    fn is_closed(&self, known: &Backend) -> bool {
        known.leaves.is_some() || self.orders.drained_by(&known.name).is_some()
    }

    /// Takes what a probe found; an unknown backend is ignored.
    pub(super) fn probed(&mut self, leases: &mut LeaseTable, backend: &str, report: ProbeReport) {
        let Some(known) = self.list.iter_mut().find(|known| &*known.name == backend) else { return };
        if let Ok(models) = &report {
            known.models.clone_from(models);
        }
        leases.offer(backend, offering(&report));
        known.last = Some(report);
    }

    /// Takes the roster: what it names comes or stays, what names led to before leaves.
    pub(super) fn renew(&mut self, leases: &mut LeaseTable, roster: &Roster) {
        for entry in &roster.found.backends {
            match self.list.binary_search_by(|known| known.name.cmp(&entry.url)) {
                Ok(at) if self.list[at].is_static => continue,
                Ok(at) => {
                    let known = &mut self.list[at];
                    (known.slots, known.leaves) = (entry.slots, None);
                    known.via.clone_from(&entry.via);
                }
                Err(at) => self.list.insert(at, Backend::of(entry, false)),
            }
            leases.list(&entry.url, entry.slots);
        }
        let found: BTreeSet<&str> = roster.found.backends.iter().map(|entry| &*entry.url).collect();
        for gone in self.list.iter_mut().filter(|known| !known.is_static && !found.contains(&*known.name)) {
            gone.leaves.get_or_insert_with(|| gone_from(gone.via.as_deref().unwrap_or_default(), &roster.found));
        }
        self.names.clone_from(&roster.found.names);
        self.orders.clone_from(&roster.orders);
        for known in &self.list {
            leases.close(&known.name, self.is_closed(known));
        }
    }

    /// Forgets those that leave and have nothing to do any more.
    pub(super) fn sweep(&mut self, leases: &mut LeaseTable) {
        self.list.retain(|known| known.leaves.is_none() || !leases.remove(&known.name));
    }

    /// The names that lead to backends.
    pub(super) fn names(&self) -> Vec<BackendNameInfo> {
        self.names.clone()
    }

    /// Whether some name leads nowhere: not looked up yet, or without an address.
    pub(super) fn are_expected(&self) -> bool {
        self.names.iter().any(|name| name.backends == 0)
    }

    /// All of them, as shown and as told to nodes.
    pub(super) fn infos(&self, leases: &LeaseTable) -> Vec<BackendInfo> {
        self.list.iter().map(|known| self.info(known, leases)).collect()
    }

    fn info(&self, known: &Backend, leases: &LeaseTable) -> BackendInfo {
        let (slots_granted, slots_in_use) = leases.usage(&known.name);
        let by = self.orders.drained_by(&known.name);
        let state = match by.is_some() || known.leaves.is_some() {
            false => BackendState::Serving,
            true if leases.is_idle(&known.name) => BackendState::Drained,
            true => BackendState::Draining,
        };
        BackendInfo {
            url: known.name.to_string(),
            via: known.via.as_deref().map(str::to_owned),
            healthy: matches!(known.last, Some(Ok(_))),
            state,
            reason: self.reason(known, by),
            models: known.models.clone(),
            slots: known.slots,
            slots_granted,
            slots_in_use,
        }
    }

    /// The first that is true: it leaves, somebody drained it, it is not healthy, its name has a problem.
    fn reason(&self, known: &Backend, drained_by: Option<&Arc<str>>) -> Option<String> {
        if known.leaves.is_some() {
            return known.leaves.clone();
        }
        if let Some(by) = drained_by {
            return Some(format!("drained by {by}"));
        }
        match &known.last {
            None => Some("not probed yet".to_owned()),
            Some(Err(reason)) => Some(reason.clone()),
            Some(Ok(_)) => {
                let via = known.via.as_deref()?;
                let name = self.names.iter().find(|name| name.url == via)?;
                name.problem.as_ref().map(|problem| format!("{via}: {problem}"))
            }
        }
    }
}

fn offering(report: &ProbeReport) -> Offering {
    report.as_ref().map_or(Offering::Down, |models| Offering::Usable(models.clone()))
}

fn gone_from(via: &str, found: &Found) -> String {
    match found.problem_of(via) {
        Some(problem) => format!("{via}: {problem}"),
        None => format!("{via} leads there no more"),
    }
}
