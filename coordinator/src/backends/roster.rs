//! What the registry is told of backends beside the settings: those that DNS names led to, and those that operators
//! drained. Always told as a whole, so that a registry that is started again knows it at once. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use relay_protocol::cluster::BackendNameInfo;

use super::BackendEntry;

/// Backends that are known at a time; a node's heartbeat has room for as many.
pub const BACKENDS_MAX: usize = 1_000;
/// Orders about backends that are remembered; beyond it those that were undone, and then new ones, are forgotten.
pub const ORDERS_MAX: usize = 10_000;

/// What DNS names lead to, now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The backends, each address once.
    pub backends: Vec<BackendEntry>,
    /// The names, in the settings' order.
    pub names: Vec<BackendNameInfo>,
}

impl Found {
    /// What is wrong with the name whose URL is `via`.
    pub fn problem_of(&self, via: &str) -> Option<&str> {
        self.names.iter().find(|name| name.url == via)?.problem.as_deref()
    }
}

/// The last order about a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Order {
    /// Where it lies in the topic.
    offset: u64,
    /// Who drained it; `None` if it gets requests again.
    drained_by: Option<Arc<str>>,
}

/// Which backends are drained. Orders count by their offset, in whatever order they come here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Orders(BTreeMap<Arc<str>, Order>);

impl Orders {
    /// Takes the order at `offset`; whether it changed anything.
    pub fn take(&mut self, offset: u64, backend: &str, drained_by: Option<&str>) -> bool {
        if self.0.get(backend).is_some_and(|known| known.offset >= offset) {
            return false;
        }
        if self.0.len() >= ORDERS_MAX && !self.0.contains_key(backend) {
            self.0.retain(|_, order| order.drained_by.is_some());
            if self.0.len() >= ORDERS_MAX {
                return false;
            }
        }
        let order = Order { offset, drained_by: drained_by.map(Arc::from) };
        let before = self.0.insert(backend.into(), order.clone());
        before.and_then(|before| before.drained_by) != order.drained_by
    }

    /// Who drained a backend, if it is.
    pub fn drained_by(&self, backend: &str) -> Option<&Arc<str>> {
        self.0.get(backend)?.drained_by.as_ref()
    }

    /// The backends that are drained.
    pub fn drained(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.iter().filter(|(_, order)| order.drained_by.is_some()).map(|(backend, _)| backend)
    }
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roster {
    /// What DNS names lead to.
    pub found: Found,
    /// Which backends are drained.
    pub orders: Orders,
}

#[cfg(test)]
#[path = "roster_test.rs"]
mod tests;
