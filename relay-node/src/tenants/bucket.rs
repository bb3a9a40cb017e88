//! How many requests may come in a time: a token bucket. Pure: time is passed in.
//!
//! It is kept as the time at which it is full again (the generic cell rate algorithm of ATM Forum UNI 3.1): each request moves that time
//! on, and none is let in that would move it further ahead than the burst allows. One number, and nothing to refill.

/// Nanoseconds of a second.
const SECOND_NS: f64 = 1e9;
/// Highest rate, in requests per second.
pub const PER_S_MAX: f64 = 1e6;
/// Lowest rate above none, in requests per second.
pub const PER_S_MIN: f64 = 1e-3;
/// Largest burst, in requests.
pub const BURST_MAX: u32 = 1_000_000;

/// So many requests per second on average, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Time that one request takes up, in nanoseconds.
    interval_ns: u64,
    /// Time that the burst takes up.
    burst_ns: u64,
}

impl Rate {
    /// `None` if `per_s` is 0: any number. Within the bounds of this module; a burst is one request at least.
    pub fn new(per_s: f64, burst: u32) -> Option<Self> {
        if per_s <= 0.0 {
            return None;
        }
        let interval_ns = (SECOND_NS / per_s.clamp(PER_S_MIN, PER_S_MAX)) as u64;
        Some(Self { interval_ns, burst_ns: interval_ns * u64::from(burst.clamp(1, BURST_MAX)) })
    }
}

/// What of a rate is left for now; a new one is full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bucket {
    full_at_ns: u64,
}

impl Bucket {
    /// Takes one request's part.
    ///
    /// # Errors
    /// Nanoseconds after which there is one, if no other request takes it; nothing was taken.
    pub fn take(&mut self, rate: &Rate, now_ns: u64) -> Result<(), u64> {
        let full_at_ns = self.full_at_ns.max(now_ns).saturating_add(rate.interval_ns);
        match (full_at_ns - now_ns).checked_sub(rate.burst_ns) {
            Some(wait_ns) if wait_ns > 0 => Err(wait_ns),
            _ => {
                self.full_at_ns = full_at_ns;
                Ok(())
            }
        }
    }

    /// Whether it is as a new one.
    pub fn is_full(&self, now_ns: u64) -> bool {
        self.full_at_ns <= now_ns
    }
}

#[cfg(test)]
#[path = "bucket_test.rs"]
mod tests;
