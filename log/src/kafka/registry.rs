//! The registrations of members in the cluster topic: written when a member gets its transactional id, read by whoever
//! takes partitions over. Every call blocks.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use relay_protocol::record::MemberRegistration;
use relay_protocol::topics;

use super::append::Appender;
use super::context::{self, Plain};
use super::errors::log_error;
use super::feed::partition_id;
use super::properties::{Role, properties};
use super::query::Query;
use super::registrations::Registrations;
use super::{KafkaSettings, close_on_own_thread, millis};
use crate::port::{JoinSpec, LogError, NewRecord, TopicPartition};

/// Reads and writes registrations.
pub(super) struct Registry {
    settings: KafkaSettings,
    query: Arc<Query>,
    appender: Arc<Appender>,
    at: TopicPartition,
}

impl Registry {
    pub(super) fn new(settings: &KafkaSettings, query: &Arc<Query>, appender: &Arc<Appender>) -> Self {
        let at = TopicPartition::new(topics::CLUSTER, 0);
        Self { settings: settings.clone(), query: Arc::clone(query), appender: Arc::clone(appender), at }
    }

    /// Says that these lives have nothing open any more.
    pub(super) fn forget(&self, lives: &[MemberRegistration]) -> Result<(), LogError> {
        self.append(lives.iter().map(|life| self.record(life, None)).collect())
    }

    fn append(&self, records: Vec<NewRecord>) -> Result<(), LogError> {
        if records.is_empty() {
            return Ok(());
        }
        self.query.require(&self.at)?;
        self.appender.append_blocking(&records).map(drop)
    }

    fn record(&self, life: &MemberRegistration, value: Option<Bytes>) -> NewRecord {
        let key = Some(Bytes::from(life.key()));
        NewRecord { to: self.at.clone(), key, value, headers: Vec::new(), timestamp_ms: now_ms() }
    }

    /// Opens the topic to be read, again and again.
    pub(super) fn open(&self) -> Result<Reading<'_>, LogError> {
        self.query.require(&self.at)?;
        let low = self.query.lows(std::slice::from_ref(&self.at))?.first().copied().unwrap_or_default();
        let consumer: BaseConsumer<Plain> = context::create(properties(&self.settings, Role::Reader), Plain)?;
        let failed = |error: KafkaError| log_error("reading the registrations of members", &error);
        let mut assignment = TopicPartitionList::with_capacity(1);
        let place = Offset::Offset(i64::try_from(low).unwrap_or(i64::MAX));
        assignment.add_partition(&self.at.topic, partition_id(&self.at)).set_offset(place).map_err(failed)?;
        consumer.assign(&assignment).map_err(failed)?;
        Ok(Reading { registry: self, consumer: Some(consumer), next: low, found: Registrations::default() })
    }
}

/// What was read of the topic so far.
pub(super) struct Reading<'a> {
    registry: &'a Registry,
    consumer: Option<BaseConsumer<Plain>>,
    next: u64,
    found: Registrations,
}

impl Reading<'_> {
    /// Reads on to the end that the topic has now.
    pub(super) fn refresh(&mut self) -> Result<&Registrations, LogError> {
        let Registry { query, at, settings, .. } = self.registry;
        let end = query.stables(std::slice::from_ref(at))?.first().copied().unwrap_or_default();
        let until = Instant::now() + millis(settings.request_timeout_ms);
        let Some(consumer) = &self.consumer else { return Ok(&self.found) };
        while self.next < end {
            match consumer.poll(until.saturating_duration_since(Instant::now())) {
                Some(Ok(message)) => {
                    let offset = u64::try_from(message.offset()).unwrap_or_default();
                    self.found.take(offset, message.key(), message.payload());
                    self.next = offset + 1;
                }
                // Compaction may have taken what lay before the end.
                Some(Err(KafkaError::PartitionEOF(_))) => self.next = end,
                Some(Err(error)) => tracing::debug!(%error, "reading the registrations of members"),
                None => {}
            }
            if self.next < end && Instant::now() >= until {
                return Err(LogError::Unavailable("the registrations of members were not read in time".to_owned()));
            }
        }
        Ok(&self.found)
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        close_on_own_thread(self.consumer.take());
    }
}

/// One member's own registration.
pub(super) struct Registered {
    registry: Arc<Registry>,
    group: String,
    client_id: String,
    transactional_id: String,
    /// What lies in the topic, if anything.
    life: Option<MemberRegistration>,
}

impl Registered {
    /// Nothing yet.
    pub(super) fn new(registry: Arc<Registry>, spec: &JoinSpec) -> Self {
        Self {
            registry,
            group: spec.group.clone(),
            client_id: spec.client_id.clone(),
            transactional_id: spec.transactional_id.clone(),
            life: None,
        }
    }

    /// Registers a new life, once the transactional id is ours and before anything is open under it; returns when it is
    /// durable. Each has a key of its own: whoever fenced the life before may be about to say that it has ended.
    pub(super) fn renew(&mut self) -> Result<(), LogError> {
        let least = self.life.as_ref().map_or(0, |life| life.incarnation + 1);
        let life = MemberRegistration {
            group: self.group.clone(),
            client_id: self.client_id.clone(),
            transactional_id: self.transactional_id.clone(),
            incarnation: now_ms().max(least),
        };
        let value = serde_json::to_vec(&life).map_err(|error| LogError::Denied(format!("registering: {error}")))?;
        let mut records = vec![self.registry.record(&life, Some(Bytes::from(value)))];
        records.extend(self.life.iter().map(|before| self.registry.record(before, None)));
        // Kept whether or not it is known to be written: what may lie there must be taken away later.
        self.life = Some(life);
        self.registry.append(records)
    }

    /// Says that nothing is open any more. If that cannot be written, an heir fences the id for nothing.
    pub(super) fn end(self) {
        let Some(life) = self.life else { return };
        if let Err(error) = self.registry.forget(&[life]) {
            tracing::debug!(%error, id = self.transactional_id, "a registration was left behind");
        }
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
