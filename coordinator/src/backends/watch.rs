//! One task for each backend: probe, tell the registry, wait; longer after each failure.

use std::time::Duration;

use relay_runtime::backoff::{full_jitter, retry_delay};
use relay_runtime::random::Random;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::entry::BackendEntry;
use super::probe::Prober;
use crate::metrics;
use crate::registry::RegistryHandle;

/// When a backend is probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbePace {
    /// Time between two probes of a backend that answers.
    pub interval: Duration,
    /// Longest time between two probes of one that does not.
    pub backoff_max: Duration,
}

/// Probes `entry` at once and then at its pace, until `shutdown`.
pub async fn watch(
    entry: BackendEntry,
    prober: Prober,
    pace: ProbePace,
    registry: RegistryHandle,
    random: impl Random,
    shutdown: CancellationToken,
) {
    let mut failures = 0_u32;
    let reach = prober.reach(&entry);
    let probe = async || match &reach {
        Ok(reach) => prober.probe(&entry, reach).await,
        Err(error) => Err(error.clone()),
    };
    loop {
        let began = Instant::now();
        let found = tokio::select! {
            () = shutdown.cancelled() => return,
            found = probe() => found,
        };
        metrics::probe(&entry.url, began.elapsed(), found.as_ref().map_or_else(|error| error.label(), |_| "ok"));
        let delay = match &found {
            Ok(_) => pace.interval,
            Err(error) => {
                if failures == 0 {
                    tracing::warn!(backend = %entry.url, %error, "backend is not usable");
                }
                back_off(failures, pace, random.next_u64())
            }
        };
        if found.is_ok() && failures > 0 {
            tracing::info!(backend = %entry.url, failures, "backend is usable again");
        }
        failures = if found.is_ok() { 0 } else { failures.saturating_add(1) };
        if let Err(error) = registry.probed(entry.url.clone(), found.map_err(|error| error.to_string())).await {
            tracing::warn!(backend = %entry.url, %error, "a probe's result was not taken");
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(delay) => {}
        }
    }
}

/// Doubles from half the interval to `backoff_max`, the upper half of it at random, so that backends which failed
/// together are not probed together.
fn back_off(failures: u32, pace: ProbePace, random: u64) -> Duration {
    let delay = retry_delay(failures.saturating_add(1), pace.interval / 2, pace.backoff_max);
    delay / 2 + full_jitter(delay / 2, random)
}
