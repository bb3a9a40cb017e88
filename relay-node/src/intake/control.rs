//! Reads a lane's control topic for the partitions that this node owns.

use std::sync::Arc;
use std::time::Duration;

use relay_log::port::{Log, LogError, ReadEvent, Start, TopicPartition};
use relay_protocol::record::ControlRecord;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::events::find::CLOCK_SKEW_MS_MAX;

/// Wait before a reader that failed is asked again.
const READ_RETRY: Duration = Duration::from_millis(200);

/// What a control topic says.
#[derive(Debug)]
pub enum ControlEvent {
    /// A record.
    Record(ControlRecord),
    /// It was read to its end for the first time.
    Read,
}

/// Reads the control partition `at` from `since_ms` (milliseconds since the Unix epoch; `None` from its start) until `stop`.
pub async fn follow(
    log: Arc<dyn Log>,
    at: TopicPartition,
    since_ms: Option<u64>,
    events: mpsc::Sender<(u32, ControlEvent)>,
    stop: CancellationToken,
) {
    let partition = at.partition;
    let start = since_ms.map_or(Start::Earliest, |ms| Start::Time(ms.saturating_sub(CLOCK_SKEW_MS_MAX)));
    let reading = async {
        let mut reader = loop {
            match log.read(vec![(at.clone(), start)]).await {
                Ok(reader) => break reader,
                Err(error) => wait(&at, &error).await,
            }
        };
        let mut was_read = false;
        loop {
            let event = match reader.next().await {
                Ok(ReadEvent::Record(record)) => match decode(record.value.as_deref()) {
                    Some(record) => ControlEvent::Record(record),
                    None => continue,
                },
                Ok(ReadEvent::End { .. }) if !was_read => {
                    was_read = true;
                    ControlEvent::Read
                }
                Ok(ReadEvent::End { .. }) => continue,
                Err(LogError::Closed) => return,
                Err(error) => {
                    wait(&at, &error).await;
                    continue;
                }
            };
            if events.send((partition, event)).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = reading => {}
        () = stop.cancelled() => {}
    }
}

fn decode(value: Option<&[u8]>) -> Option<ControlRecord> {
    match serde_json::from_slice(value?) {
        Ok(record) => Some(record),
        Err(error) => {
            tracing::warn!(%error, "a record of a control topic is none of ours and is passed over");
            None
        }
    }
}

async fn wait(at: &TopicPartition, error: &LogError) {
    tracing::warn!(%error, %at, "requests to cancel cannot be read, trying again");
    tokio::time::sleep(READ_RETRY).await;
}
