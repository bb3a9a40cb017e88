//! Events as records: `partial` and `progress` in one topic, everything else in the other, both partitioned by job.

use bytes::Bytes;
use relay_log::port::{NewRecord, Topic, TopicPartition};
use relay_protocol::record::{HEADER_EVENT, HEADER_SEQ, HEADER_TENANT};
use relay_protocol::{Event, EventKind, JobId, topics};

/// Makes records of events. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EventRecords {
    events: Topic,
    partials: Topic,
    partitions: u32,
}

impl EventRecords {
    /// For event topics of `partitions` partitions.
    pub fn new(partitions: u32) -> Self {
        Self { events: topics::EVENTS.into(), partials: topics::PARTIALS.into(), partitions }
    }

    /// Partitions of the event topics.
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// The two partitions that hold a job's events: the durable ones, and the revocable ones.
    pub fn places(&self, reply_partition: u32) -> [TopicPartition; 2] {
        [
            TopicPartition::new(self.events.clone(), reply_partition),
            TopicPartition::new(self.partials.clone(), reply_partition),
        ]
    }

    /// The partition that holds a job's durable events.
    pub fn place_of(&self, job_id: JobId) -> TopicPartition {
        TopicPartition::new(self.events.clone(), job_id.reply_partition(self.partitions))
    }

    /// Whether that partition is one of the revocable events.
    pub fn is_revocable(&self, at: &TopicPartition) -> bool {
        at.topic == self.partials
    }

    /// The record of `event`, a job of `tenant`.
    pub fn record(&self, tenant: &str, event: &Event) -> NewRecord {
        let revocable = matches!(event.event, EventKind::Partial | EventKind::Progress);
        let topic = if revocable { &self.partials } else { &self.events };
        let mut value = Vec::with_capacity(256);
        // Only a map with keys that are no strings, or a failing writer, could fail here; there are neither.
        if let Err(error) = serde_json::to_writer(&mut value, event) {
            tracing::error!(%error, job_id = %event.job_id, "an event cannot be written as JSON");
        }
        NewRecord {
            to: TopicPartition::new(topic.clone(), event.job_id.reply_partition(self.partitions)),
            key: Some(Bytes::from(event.job_id.to_string())),
            value: Some(Bytes::from(value)),
            headers: vec![
                (HEADER_TENANT.to_owned(), Bytes::copy_from_slice(tenant.as_bytes())),
                (HEADER_SEQ.to_owned(), Bytes::from(event.seq.to_string())),
                (HEADER_EVENT.to_owned(), Bytes::from_static(event.event.name().as_bytes())),
            ],
            timestamp_ms: event.at,
        }
    }
}
