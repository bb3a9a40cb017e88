//! A job's past events, read from the log: the id says in which partition and from when on.

use relay_log::port::{Log, LogError, ReadEvent, Start};
use relay_protocol::JobId;

use super::route::{self, RoutedEvent};
use super::write::EventRecords;

/// How far clocks may differ, in milliseconds: history is read from this long before the job id was made, and an id
/// made further in the future is refused at submit.
pub const CLOCK_SKEW_MS_MAX: u64 = 300_000;

/// Revocable events kept of one job's past; the newest win.
const PAST_PARTIALS_MAX: usize = 4_096;

/// Which of a job's events to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// Only the durable ones.
    Durable,
    /// Only the durable ones from this offset of their partition on.
    DurableFrom(u64),
    /// `partial` and `progress` too.
    All,
}

/// Every readable event of `job_id` that belongs to `tenant`, sorted by seq, its end last. Empty if there is none (any more).
///
/// # Errors
/// The log's, when it cannot be read.
pub async fn past(
    log: &dyn Log,
    records: &EventRecords,
    job_id: JobId,
    tenant: &str,
    range: Range,
) -> Result<Vec<RoutedEvent>, LogError> {
    let start = match range {
        Range::DurableFrom(offset) => Start::Offset(offset),
        _ => job_id.made_at_ms().map_or(Start::Earliest, |ms| Start::Time(ms.saturating_sub(CLOCK_SKEW_MS_MAX))),
    };
    let [durable, partials] = records.places(job_id.reply_partition(records.partitions()));
    let mut open = vec![durable];
    if range == Range::All {
        open.push(partials);
    }
    let mut reader = log.read(open.iter().map(|at| (at.clone(), start)).collect()).await?;
    let (mut events, mut revocable) = (Vec::new(), std::collections::VecDeque::new());
    while !open.is_empty() {
        match reader.next().await? {
            ReadEvent::End { at, .. } => open.retain(|still| *still != at),
            ReadEvent::Record(record) => {
                if route::job_of(&record) != Some(job_id) || !route::belongs_to(&record, tenant) {
                    continue;
                }
                match route::routed(&record, job_id) {
                    Some(event) if event.is_revocable() => {
                        revocable.push_back(event);
                        if revocable.len() > PAST_PARTIALS_MAX {
                            revocable.pop_front();
                        }
                    }
                    Some(event) => events.push(event),
                    None => {}
                }
            }
        }
    }
    events.extend(revocable);
    // A node that was taken for dead may have told of a later attempt than the one that ended the job.
    events.sort_by_key(|event| (event.kind.is_terminal(), event.seq));
    Ok(events)
}

/// The terminal event of a job that ended at `ended_at_ms` (milliseconds since the Unix epoch, its event's own time);
/// `None` if it is not there any more.
///
/// # Errors
/// The log's, when it cannot be read.
pub async fn end(
    log: &dyn Log,
    records: &EventRecords,
    job_id: JobId,
    tenant: &str,
    ended_at_ms: u64,
) -> Result<Option<RoutedEvent>, LogError> {
    let at = records.place_of(job_id);
    let mut reader = log.read(vec![(at, Start::Time(ended_at_ms))]).await?;
    loop {
        match reader.next().await? {
            ReadEvent::End { .. } => return Ok(None),
            ReadEvent::Record(record) => {
                if route::job_of(&record) != Some(job_id) || !route::belongs_to(&record, tenant) {
                    continue;
                }
                match route::routed(&record, job_id) {
                    Some(event) if event.kind.is_terminal() => return Ok(Some(event)),
                    _ => {}
                }
            }
        }
    }
}
