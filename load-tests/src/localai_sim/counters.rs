//! What a simulator counts, for tests that must know what reached it.

use std::collections::BTreeMap;

use serde::Serialize;

/// Counters of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// By model.
    pub models: BTreeMap<String, ModelCounters>,
}

/// Counters of a model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ModelCounters {
    /// Requests that came.
    pub requests: u64,
    /// Requests there now, waiting or running.
    pub in_flight: u64,
    /// Most requests that were there at a time.
    pub in_flight_max: u64,
    /// Requests that were answered.
    pub completed: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Requests whose client went away.
    pub cancelled: u64,
    /// Times that the model was loaded.
    pub loads: u64,
    /// Service time of all completed requests, in milliseconds.
    pub busy_ms: u64,
}
