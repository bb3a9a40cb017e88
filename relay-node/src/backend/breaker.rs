//! Whether a backend is trusted with requests, by how those before ended. Pure.
//!
//! What a health endpoint says is not enough: a server may answer its probes and fail all work. So failures count: a few in a row
//! eject the backend for a time that grows with each ejection in close succession. After that it is let back in slowly, one request
//! at first, twice as many after each success; one failure meanwhile ejects it again.

use serde::Deserialize;

/// Section `[breaker]`: when backends are ejected for how their requests end.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakerLimits {
    /// Failures in a row that eject a backend.
    pub failures: u32,
    /// Milliseconds of the first ejection; each further one in close succession is twice as long.
    pub ejection_ms: u64,
    /// Milliseconds of the longest ejection.
    pub ejection_ms_max: u64,
    /// Largest share of the backends that answer their probes that is ejected at a time; one always may be.
    pub ejected_share_max: f64,
}

impl Default for BreakerLimits {
    fn default() -> Self {
        Self { failures: 3, ejection_ms: 2_000, ejection_ms_max: 60_000, ejected_share_max: 0.5 }
    }
}

impl BreakerLimits {
    /// How many of so many backends may be ejected at a time.
    pub fn ejected_max(&self, backends: usize) -> usize {
        ((backends as f64 * self.ejected_share_max) as usize).max(1)
    }
}

/// How a request ended, as far as its backend is to be judged by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The backend did the work, or refused what every backend would refuse, after so many milliseconds of work.
    Well {
        /// Time from the request to its end; `None` if that says nothing about the work.
        worked_ms: Option<u64>,
    },
    /// It failed, broke off, stalled or could not be reached.
    Badly {
        /// Milliseconds after it was sent.
        after_ms: u64,
    },
    /// It asked to be left alone with such work for so many milliseconds.
    Busy {
        /// From now on.
        rest_ms: u64,
    },
    /// Nobody knows: the request was cancelled, or never sent.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed {
        failures: u32,
    },
    /// Until then nothing goes there.
    Ejected {
        until_ms: u64,
    },
    /// So many at a time, to see whether it is well again.
    Probation {
        room: u32,
    },
}

/// What is remembered of one backend.
#[derive(Debug, Clone)]
pub struct Breaker {
    state: State,
    /// Ejections in close succession.
    ejections: u32,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { state: State::Closed { failures: 0 }, ejections: 0 }
    }
}

impl Breaker {
    /// How many requests it may have at a time of those that came after its ejection; `None`: as many as it has slots.
    pub fn room(&self, now_ms: u64) -> Option<u32> {
        match self.state {
            State::Closed { .. } => None,
            State::Ejected { until_ms } => Some(u32::from(now_ms >= until_ms)),
            State::Probation { room } => Some(room),
        }
    }

    /// When it may be used again, if it may not now.
    pub fn back_at(&self, now_ms: u64) -> Option<u64> {
        let State::Ejected { until_ms } = self.state else { return None };
        Some(until_ms).filter(|back| *back > now_ms)
    }

    /// Whether it is ejected, or still on probation after that: only requests that came after the ejection count.
    pub fn is_doubted(&self) -> bool {
        !matches!(self.state, State::Closed { .. })
    }

    /// A request ended well; the backend has so many slots.
    pub fn succeeded(&mut self, granted: u32) {
        self.state = match self.state {
            State::Closed { .. } => {
                self.ejections = self.ejections.saturating_sub(1);
                State::Closed { failures: 0 }
            }
            State::Ejected { .. } => State::Probation { room: 2 },
            State::Probation { room } => State::Probation { room: room.saturating_mul(2) },
        };
        if matches!(self.state, State::Probation { room } if room >= granted.max(2)) {
            self.state = State::Closed { failures: 0 };
        }
    }

    /// A request failed, by a stall or otherwise: one stall is enough, it held up its client for long. The backend may be ejected for that if `may_eject`, else it stays on probation or goes on. Says
    /// whether it was ejected.
    pub fn failed(&mut self, is_stall: bool, may_eject: bool, now_ms: u64, limits: &BreakerLimits) -> bool {
        let is_over = match &mut self.state {
            State::Closed { failures } => {
                *failures = failures.saturating_add(1);
                is_stall || *failures >= limits.failures
            }
            State::Ejected { .. } | State::Probation { .. } => true,
        };
        if is_over && may_eject {
            let time = limits.ejection_ms.saturating_mul(1 << self.ejections.min(30)).min(limits.ejection_ms_max);
            self.ejections = self.ejections.saturating_add(1);
            self.state = State::Ejected { until_ms: now_ms.saturating_add(time) };
        } else if self.is_doubted() {
            self.state = State::Probation { room: 1 };
        }
        is_over && may_eject
    }
}

#[cfg(test)]
#[path = "breaker_test.rs"]
mod tests;
