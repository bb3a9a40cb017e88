//! The requests of one run, by a seed, and what an all-knowing balancer would make of them.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rand_distr::{Distribution as _, Exp, LogNormal};

/// Speeds of the backends.
pub(super) const SPEEDS: [f64; 4] = [1.0, 1.0, 0.5, 0.25];
/// Requests that each works on at a time.
pub(super) const SLOTS: usize = 2;
/// Sigma of the log-normal sizes.
const SIGMA: f64 = 0.8;
/// How far the work is off what its size says, at most.
const OFF: f64 = 0.4;

/// One request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    /// When it comes, in milliseconds from the begin.
    pub(super) at_ms: f64,
    /// What can be known of its work before: milliseconds at speed 1.
    pub(super) size_ms: f64,
    /// Its work: milliseconds at speed 1.
    pub(super) work_ms: f64,
}

/// `count` requests of `mean_ms` on average that come at random at `load` of what all backends together can do.
pub(super) fn trace(seed: u64, count: usize, mean_ms: f64, load: f64) -> anyhow::Result<Vec<Request>> {
    let mut random = StdRng::seed_from_u64(seed);
    let capacity: f64 = SPEEDS.iter().map(|speed| speed * SLOTS as f64).sum();
    let gaps = Exp::new(load * capacity / mean_ms)?;
    let sizes = LogNormal::new(mean_ms.ln() - SIGMA * SIGMA / 2.0, SIGMA)?;
    let mut at_ms = 0.0;
    let requests = (0..count).map(|_| {
        at_ms += gaps.sample(&mut random);
        let size_ms = sizes.sample(&mut random);
        Request { at_ms, size_ms, work_ms: size_ms * random.random_range(1.0 - OFF..=1.0 + OFF) }
    });
    Ok(requests.collect())
}

/// Who chooses in theory.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rule {
    /// In the order of coming to the slot where the size says that it ends first, maybe a busy one.
    EarliestEnd,
    /// One queue; the first goes to the fastest idle slot.
    FastestIdle,
}

/// How long each request takes, in milliseconds, if balancing costs nothing.
pub(super) fn theory(requests: &[Request], rule: Rule) -> Vec<f64> {
    let speeds: Vec<f64> = SPEEDS.iter().flat_map(|speed| [*speed; SLOTS]).collect();
    // When each slot is really free, and when the sizes say so.
    let (mut free, mut said) = (vec![0.0_f64; speeds.len()], vec![0.0_f64; speeds.len()]);
    let took = requests.iter().map(|request| {
        let now = request.at_ms;
        let end = |slot: &usize| match rule {
            Rule::EarliestEnd => said[*slot].max(now) + request.size_ms / speeds[*slot],
            Rule::FastestIdle if free[*slot] <= now => -speeds[*slot],
            Rule::FastestIdle => free[*slot],
        };
        let best = (0..speeds.len()).min_by(|a, b| end(a).total_cmp(&end(b))).unwrap_or_default();
        let begin = free[best].max(now);
        free[best] = begin + request.work_ms / speeds[best];
        // When it begins is seen; when it ends is only what the size says.
        said[best] = begin + request.size_ms / speeds[best];
        free[best] - now
    });
    took.collect()
}
