//! How long a backend takes for work of a size, learnt from what it did. Pure.

use std::collections::HashMap;

use relay_protocol::Task;

/// Part of what was learnt that each further request leaves: about the last twenty count.
const KEPT: f64 = 0.95;
/// How many times as long as expected work may take before it counts as stalled.
const LATE_MAX: f64 = 10.0;
/// How many times as long as the slowest ever seen it may take: that may have had to load its model first.
const SLOWER_MAX: f64 = 3.0;
/// Part of the slowest that each further request leaves: what was seen once is forgotten within some hundred.
const FORGOTTEN: f64 = 0.99;
/// So long it may take in any case, in milliseconds.
const PATIENCE_MS: f64 = 10_000.0;
/// So long at most because of requests that were given up, in milliseconds.
const GIVEN_UP_MS_MAX: f64 = 20_000.0;
/// Kinds of work that are told apart for one backend; more are not learnt.
const KINDS_MAX: usize = 1_000;

/// Work of one kind: its task, and its model or nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Kind {
    /// What is done.
    pub task: Task,
    /// With which model.
    pub model: Option<String>,
}

/// What was learnt of one backend.
#[derive(Debug, Clone, Default)]
pub struct Costs(HashMap<Kind, Rate>);

/// Sums over past requests, the newer ones with more weight.
#[derive(Debug, Clone, Copy, Default)]
struct Rate {
    worked_ms: f64,
    units: f64,
    slowest_ms: f64,
}

impl Costs {
    /// A request of `units` took so long.
    pub fn learn(&mut self, kind: &Kind, units: f64, worked_ms: u64) {
        if !self.0.contains_key(kind) {
            if self.0.len() >= KINDS_MAX {
                return;
            }
            self.0.insert(kind.clone(), Rate::default());
        }
        if let Some(rate) = self.0.get_mut(kind) {
            rate.worked_ms = rate.worked_ms * KEPT + worked_ms as f64;
            rate.units = rate.units * KEPT + units.max(f64::MIN_POSITIVE);
            rate.slowest_ms = (rate.slowest_ms * FORGOTTEN).max(worked_ms as f64);
        }
    }

    /// A request was given up after so long: the next one gets more time, should it be that the model has to be loaded. Not ever more:
    /// each of them holds up its client.
    pub fn gave_up(&mut self, kind: &Kind, after_ms: u64) {
        if let Some(rate) = self.0.get_mut(kind) {
            rate.slowest_ms = rate.slowest_ms.max((after_ms as f64).min(GIVEN_UP_MS_MAX / SLOWER_MAX));
        }
    }

    /// Milliseconds after which a request of `units` counts as stalled; `None` if no such work was done yet.
    pub fn patience_ms(&self, kind: &Kind, units: f64) -> Option<u64> {
        let rate = self.0.get(kind)?;
        let expected = rate.worked_ms / rate.units * units;
        Some((expected * LATE_MAX).max(rate.slowest_ms * SLOWER_MAX).max(PATIENCE_MS) as u64)
    }

    /// Milliseconds per unit of this kind of work; `None` if none was done yet.
    pub fn ms_per_unit(&self, kind: &Kind) -> Option<f64> {
        self.0.get(kind).map(|rate| rate.worked_ms / rate.units)
    }
}

#[cfg(test)]
#[path = "cost_test.rs"]
mod tests;
