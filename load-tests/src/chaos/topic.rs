//! The whole event topic, read from its beginning.

use std::time::Duration;

use super::producers::PARTITIONS;
use anyhow::Context as _;
use relay_log::kafka::{KafkaLog, KafkaSettings};
use relay_log::port::{Log, ReadEvent, Start, TopicPartition};
use relay_protocol::{Event, EventKind, topics};

/// Longest wait for the next record of a topic that is there.
const PATIENCE: Duration = Duration::from_secs(20);

/// Events of all jobs but `progress` and `partial`, in the order of each partition.
///
/// # Errors
/// Kafka that cannot be read in time; a record that is no event.
pub async fn read_all(bootstrap: &str) -> anyhow::Result<Vec<Event>> {
    let settings = KafkaSettings { brokers: bootstrap.to_owned(), ..KafkaSettings::default() };
    let log = KafkaLog::connect(settings)?;
    let mut open: Vec<_> = (0..PARTITIONS).map(|number| TopicPartition::new(topics::EVENTS, number)).collect();
    let mut reader = log.read(open.iter().map(|at| (at.clone(), Start::Earliest)).collect()).await?;
    let mut events = Vec::new();
    while !open.is_empty() {
        match tokio::time::timeout(PATIENCE, reader.next()).await?? {
            ReadEvent::End { at, .. } => open.retain(|still| *still != at),
            ReadEvent::Record(record) => {
                let event: Event = serde_json::from_slice(record.value.as_deref().unwrap_or_default())
                    .with_context(|| format!("the record at {} {}", record.at, record.offset))?;
                if !matches!(event.event, EventKind::Progress | EventKind::Partial) {
                    events.push(event);
                }
            }
        }
    }
    Ok(events)
}
