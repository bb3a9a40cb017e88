//! What a transaction of unknown fate wrote: readable once nothing that was open then is open any more.

use std::collections::HashMap;
use std::time::Duration;

use relay_log::port::{Log, LogError, LogRecord, NewRecord, ReadEvent, Start, TopicPartition, Watermarks};

/// Pause between two looks whether a transaction has ended.
const LOOK: Duration = Duration::from_millis(50);

/// Wait before a log that failed is asked again.
const RETRY: Duration = Duration::from_millis(200);

/// Returns when all transactions have ended that had written to `at` when this was called: no later than the log ends those
/// whose writers are gone.
///
/// # Errors
/// The log cannot be asked.
pub async fn decided(log: &dyn Log, at: &TopicPartition) -> Result<Watermarks, LogError> {
    let mut borders = log.watermarks(at).await?;
    let written = borders.high;
    while borders.stable < written {
        tokio::time::sleep(LOOK).await;
        borders = log.watermarks(at).await?;
    }
    Ok(borders)
}

/// Whether a transaction of unknown fate happened that wrote these records among others: one for each partition that it
/// wrote to. The last of the partition is the one that is looked for. Tries until the log answers; `None` if there are no records to tell.
pub async fn happened<'a>(log: &dyn Log, written: impl Iterator<Item = &'a NewRecord>) -> Option<bool> {
    let wanted: HashMap<TopicPartition, &NewRecord> = written.map(|record| (record.to.clone(), record)).collect();
    if wanted.is_empty() {
        return None;
    }
    loop {
        match are_there(log, &wanted).await {
            Ok(found) => return Some(found),
            Err(error) => {
                tracing::warn!(%error, "what a transaction wrote cannot be read, trying again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn are_there(log: &dyn Log, wanted: &HashMap<TopicPartition, &NewRecord>) -> Result<bool, LogError> {
    let (mut starts, mut ends) = (Vec::with_capacity(wanted.len()), HashMap::with_capacity(wanted.len()));
    for (at, record) in wanted {
        ends.insert(at.clone(), decided(log, at).await?.stable);
        starts.push((at.clone(), Start::Time(record.timestamp_ms)));
    }
    let mut reader = log.read(starts).await?;
    let mut missing = wanted.clone();
    while !missing.is_empty() {
        match reader.next().await? {
            ReadEvent::Record(record) => {
                if missing.get(&record.at).is_some_and(|wanted| is_it(&record, wanted)) {
                    missing.remove(&record.at);
                }
            }
            ReadEvent::End { at, next } => {
                let end = ends.get(&at).copied().unwrap_or_default();
                if missing.contains_key(&at) && next >= end {
                    tracing::debug!(%at, missing = missing.len(), of = wanted.len(), "a transaction did not happen");
                    return Ok(false);
                }
            }
        }
    }
    Ok(true)
}

fn is_it(found: &LogRecord, written: &NewRecord) -> bool {
    found.timestamp_ms == written.timestamp_ms
        && found.key == written.key
        && found.value == written.value
        && found.headers == written.headers
}

#[cfg(test)]
#[path = "decided_test.rs"]
mod tests;
