//! A rate that follows slowly what is counted. Pure: time comes in.

use std::time::Duration;

/// Time after which a change shows by two thirds.
const FOLLOWS: Duration = Duration::from_secs(2);
/// Shortest time that is measured.
const STEP_MIN: Duration = Duration::from_millis(100);

/// How fast a total rises, in its unit per second.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rate {
    /// When it was looked at last, and what the total was.
    last: Option<(Duration, f64)>,
    per_s: f64,
}

impl Rate {
    /// The rate, now that the total is `total`; `now` is the time since whatever moment. The first look says 0.
    pub fn at(&mut self, now: Duration, total: f64) -> f64 {
        let Some((before, counted)) = self.last else {
            self.last = Some((now, total));
            return 0.0;
        };
        let step = now.saturating_sub(before);
        if step < STEP_MIN {
            return self.per_s;
        }
        let measured = (total - counted).max(0.0) / step.as_secs_f64();
        let weight = 1.0 - (-step.as_secs_f64() / FOLLOWS.as_secs_f64()).exp();
        self.per_s += (measured - self.per_s) * weight;
        self.last = Some((now, total));
        self.per_s
    }
}

#[cfg(test)]
#[path = "rate_test.rs"]
mod rate_test;
