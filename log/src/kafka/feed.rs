//! One partition's queue of fetched records, read without blocking.
//!
//! Each partition of a consumer has a queue of its own: the end of a partition arrives with its partition, a paused one
//! is simply not read, and whoever waits is woken by librdkafka's own thread with no thread of ours in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::sync::Notify;

use super::record;
use crate::port::{LogRecord, TopicPartition};

/// How often a waiting caller looks at queues that told nothing: errors of the client have no bell, and a bell that
/// librdkafka did not ring must not stop a partition.
pub(super) const IDLE_LOOK: Duration = Duration::from_millis(200);

/// What lay in the queue.
pub(super) enum Fetched {
    /// The next record.
    Record(LogRecord),
    /// The end of what is readable was reached.
    End,
    /// The partition cannot be fetched.
    Failed(RDKafkaErrorCode),
}

/// A partition's queue.
pub(super) struct Feed<C: ConsumerContext + 'static> {
    /// Which partition.
    pub(super) at: TopicPartition,
    queue: PartitionQueue<C>,
    /// Set by librdkafka when the queue becomes non-empty; spares asking empty queues.
    ready: Arc<AtomicBool>,
}

impl<C: ConsumerContext + 'static> Feed<C> {
    /// Splits the queue of `at` off `consumer`; `wake` is told when records arrive.
    ///
    /// Must come before the partition is assigned: librdkafka then never forwards it to the consumer's common queue.
    pub(super) fn open(consumer: &Arc<BaseConsumer<C>>, at: TopicPartition, wake: &Arc<Notify>) -> Option<Self> {
        let mut queue = consumer.split_partition_queue(&at.topic, partition_id(&at))?;
        let ready = Arc::new(AtomicBool::new(true));
        let (flag, wake) = (Arc::clone(&ready), Arc::clone(wake));
        queue.set_nonempty_callback(move || {
            flag.store(true, Ordering::Release);
            wake.notify_one();
        });
        Some(Self { at, queue, ready })
    }

    /// Lets the next poll look into the queue though it told nothing.
    pub(super) fn look_again(&self) {
        self.ready.store(true, Ordering::Release);
    }

    /// The next thing in the queue, if any.
    pub(super) fn poll(&self) -> Option<Fetched> {
        // Cleared before the look, so that what arrives after the look sets it again.
        if !self.ready.swap(false, Ordering::AcqRel) {
            return None;
        }
        let fetched = match self.queue.poll(Duration::ZERO)? {
            Ok(message) => Fetched::Record(record::from_kafka(&self.at, &message)),
            Err(KafkaError::PartitionEOF(_)) => Fetched::End,
            Err(error) => Fetched::Failed(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)),
        };
        self.ready.store(true, Ordering::Release);
        Some(fetched)
    }
}

/// The partition's number as Kafka writes it; one beyond Kafka's range is never found.
pub(super) fn partition_id(at: &TopicPartition) -> i32 {
    i32::try_from(at.partition).unwrap_or(i32::MAX)
}
