//! Keeps requests in flight for a while, and how long each took.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

/// What was measured.
#[derive(Debug, Clone, Default)]
pub(super) struct Times {
    /// Of each request that began after the warm-up, sorted.
    pub(super) each: Vec<Duration>,
    /// How long was measured.
    pub(super) took: Duration,
}

impl Times {
    /// The time that `percent` of the requests did not exceed, in milliseconds.
    pub(super) fn percentile_ms(&self, percent: usize) -> f64 {
        let at = (self.each.len() * percent / 100).min(self.each.len().saturating_sub(1));
        self.each.get(at).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }

    /// Requests per second.
    pub(super) fn per_second(&self) -> f64 {
        self.each.len() as f64 / self.took.as_secs_f64()
    }
}

/// Begins `per_second` requests each second at even distances, however long each takes: first unmeasured for `warm_up`,
/// then for `measure`. A request's time counts from when it was due.
pub(super) async fn paced<F>(
    per_second: u32,
    warm_up: Duration,
    measure: Duration,
    request: impl Fn(u64) -> F + Clone + Send + 'static,
) -> anyhow::Result<Times>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let began = tokio::time::Instant::now();
    let (from, to) = (began + warm_up, began + warm_up + measure);
    let mut under_way = JoinSet::new();
    for number in 0.. {
        let due = began + Duration::from_secs(1) * number / per_second;
        if due >= to {
            break;
        }
        tokio::time::sleep_until(due).await;
        let answer = request(u64::from(number));
        under_way.spawn(async move {
            answer.await?;
            anyhow::Ok((due >= from).then(|| due.elapsed()))
        });
    }
    let mut each = Vec::new();
    while let Some(ended) = under_way.join_next().await {
        each.extend(ended??);
    }
    each.sort_unstable();
    Ok(Times { each, took: measure })
}

/// Runs `request` in `in_flight` tasks at a time: first unmeasured for `warm_up`, then for `measure`.
pub(super) async fn in_flight<F>(
    in_flight: usize,
    warm_up: Duration,
    measure: Duration,
    request: impl Fn(u64) -> F + Clone + Send + 'static,
) -> anyhow::Result<Times>
where
    F: Future<Output = anyhow::Result<()>> + Send,
{
    let (began, numbers) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let (from, to) = (began + warm_up, began + warm_up + measure);
    let mut loops = JoinSet::new();
    for _ in 0..in_flight {
        let (request, numbers) = (request.clone(), numbers.clone());
        loops.spawn(async move {
            let mut times = Vec::new();
            loop {
                let start = Instant::now();
                if start >= to {
                    return anyhow::Ok(times);
                }
                request(numbers.fetch_add(1, Ordering::Relaxed)).await?;
                if start >= from && Instant::now() <= to {
                    times.push(start.elapsed());
                }
            }
        });
    }
    let mut each = Vec::new();
    while let Some(ended) = loops.join_next().await {
        each.extend(ended??);
    }
    each.sort_unstable();
    Ok(Times { each, took: measure })
}
