//! A job's past events for the node itself: the id says in which partition and from when on.

use std::sync::Arc;

use relay_log::port::LogError;
use relay_protocol::JobId;

use super::catch_up::CatchUps;
use super::catch_up::gather::{Found, From, Want};
use super::route::RoutedEvent;

/// How far clocks may differ, in milliseconds: history is read from this long before the job id was made, and an id
/// made further in the future is refused at submit.
pub const CLOCK_SKEW_MS_MAX: u64 = 300_000;

/// What asks for all durable events of a job that are left.
pub fn durable(job_id: JobId, tenant: Arc<str>) -> Want {
    Want { job_id, tenant, after_seq: 0, partials: false, from: From::Made }
}

/// Every durable event of `job_id` that is left and belongs to `tenant`, sorted by seq, its end last. Empty if there is none (any more).
///
/// # Errors
/// The log's, when it cannot be read.
pub async fn past(catch_ups: &CatchUps, job_id: JobId, tenant: &str) -> Result<Vec<RoutedEvent>, LogError> {
    Ok(catch_ups.read(durable(job_id, tenant.into())).await?.events)
}

/// The terminal event of a job that ended at `ended_at_ms` (milliseconds since the Unix epoch, its event's own time);
/// `None` if it is not there any more.
///
/// # Errors
/// The log's, when it cannot be read.
pub async fn end(
    catch_ups: &CatchUps,
    job_id: JobId,
    tenant: &str,
    ended_at_ms: u64,
) -> Result<Option<RoutedEvent>, LogError> {
    let want = Want { from: From::Time(ended_at_ms), ..durable(job_id, tenant.into()) };
    let found: Found = catch_ups.read(want).await?;
    Ok(found.end().cloned())
}
