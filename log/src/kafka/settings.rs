//! How to reach a Kafka cluster, and the limits that the adapter keeps.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

/// Settings of [`super::KafkaLog`].
///
/// The defaults are for a cluster of three brokers or more; [`KafkaSettings::single_broker`] has those of one.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaSettings {
    /// `host:port` of some brokers, separated by commas.
    pub brokers: String,
    /// Name of this process for the brokers' logs and quotas; at most 200 bytes.
    pub client_id: String,
    /// After this many milliseconds without a heartbeat a member's partitions go to others. Brokers accept 6,000 and
    /// more unless their `group.min.session.timeout.ms` says otherwise.
    pub session_timeout_ms: u32,
    /// Milliseconds between a member's heartbeats: how soon it hears of a rebalance. At most a third of the session.
    pub heartbeat_interval_ms: u32,
    /// After this many milliseconds the broker aborts a transaction whose producer went silent. At most the session's
    /// time-out, so that a dead member never hides records for longer than it keeps its partitions.
    pub transaction_timeout_ms: u32,
    /// A member keeps its place in its group, and its partitions, while its process restarts: they wait for it for as long as
    /// its session, and nobody else's move. Brokers refuse it for good, until its process restarts, once another one of the
    /// same name joins, and may do so after a crash of their own: [`crate::port::Log::health`] fails then.
    pub static_membership: bool,
    /// How long an append is tried before it fails, in milliseconds.
    pub delivery_timeout_ms: u32,
    /// How long a question (borders of a partition, topics, committed offsets, joining) may take, in milliseconds.
    pub request_timeout_ms: u32,
    /// How long `leave` waits for the group to let a member go, in milliseconds.
    pub leave_timeout_ms: u32,
    /// How long a broker holds an empty fetch of a member, in milliseconds. New records end the wait at once, so it
    /// costs no latency; a partition that is newly assigned waits for it once.
    pub fetch_wait_max_ms: u32,
    /// The same for readers. They learn of the end of a partition by an empty fetch: it comes at most this much later.
    pub reader_fetch_wait_max_ms: u32,
    /// Bytes that a member or a reader has fetched ahead for one partition at most (beyond it one more fetch may
    /// arrive).
    pub read_buffer_bytes_max: u32,
    /// Bytes of appends that wait for the broker at most; an append beyond it waits.
    pub append_buffer_bytes_max: u32,
    /// Copies of each partition of a topic that the adapter creates.
    pub replication_factor: u16,
    /// Copies that must have a record before it counts as written, for topics that the adapter creates.
    pub min_in_sync_replicas: u16,
    /// Further librdkafka properties for every client, for example `security.protocol`, `sasl.mechanism`,
    /// `ssl.ca.location`. Those that the relay's promises rest on are refused.
    pub extra: BTreeMap<String, String>,
}

impl Default for KafkaSettings {
    fn default() -> Self {
        Self {
            brokers: "127.0.0.1:9092".to_owned(),
            client_id: "media-relay".to_owned(),
            session_timeout_ms: 6_000,
            heartbeat_interval_ms: 500,
            transaction_timeout_ms: 5_000,
            static_membership: false,
            delivery_timeout_ms: 10_000,
            request_timeout_ms: 5_000,
            leave_timeout_ms: 5_000,
            fetch_wait_max_ms: 100,
            reader_fetch_wait_max_ms: 50,
            read_buffer_bytes_max: 1 << 20,
            append_buffer_bytes_max: 64 << 20,
            replication_factor: 3,
            min_in_sync_replicas: 2,
            extra: BTreeMap::new(),
        }
    }
}

impl KafkaSettings {
    /// Settings for one broker: one copy of everything, acknowledged by that one.
    pub fn single_broker(brokers: impl Into<String>) -> Self {
        Self { brokers: brokers.into(), replication_factor: 1, min_in_sync_replicas: 1, ..Self::default() }
    }

    /// Checks what can be checked without a broker.
    ///
    /// # Errors
    /// [`InvalidSettings`] with the first key that is wrong and what it should be.
    pub fn validate(&self) -> Result<(), InvalidSettings> {
        self.validate_names()?;
        self.validate_times()?;
        let bounds = [
            ("read_buffer_bytes_max", self.read_buffer_bytes_max, 1 << 20, 1 << 30),
            ("append_buffer_bytes_max", self.append_buffer_bytes_max, 2 << 20, 1 << 30),
        ];
        for (key, value, min, max) in bounds {
            within(key, value, min, max)?;
        }
        if self.replication_factor == 0 {
            return Err(InvalidSettings::new("replication_factor", "must be at least 1".to_owned()));
        }
        if self.min_in_sync_replicas == 0 || self.min_in_sync_replicas > self.replication_factor {
            let reason = format!("must be between 1 and replication_factor, which is {}", self.replication_factor);
            return Err(InvalidSettings::new("min_in_sync_replicas", reason));
        }
        if let Some(key) = self.extra.keys().find(|key| RESERVED.contains(&key.as_str())) {
            let reason = format!("must not hold {key}: the relay sets it itself");
            return Err(InvalidSettings::new("extra", reason));
        }
        Ok(())
    }

    fn validate_names(&self) -> Result<(), InvalidSettings> {
        let is_address = |address: &str| {
            let port = address.trim().rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
            port.is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
        };
        if let Some(address) = self.brokers.split(',').find(|address| !is_address(address)) {
            let reason = format!("must be host:port, separated by commas; {address:?} is not");
            return Err(InvalidSettings::new("brokers", reason));
        }
        if self.client_id.is_empty() || self.client_id.len() > CLIENT_ID_BYTES_MAX {
            return Err(InvalidSettings::new("client_id", format!("must have 1 to {CLIENT_ID_BYTES_MAX} bytes")));
        }
        Ok(())
    }

    fn validate_times(&self) -> Result<(), InvalidSettings> {
        let hour = 3_600_000;
        within("session_timeout_ms", self.session_timeout_ms, 1_000, 300_000)?;
        within("heartbeat_interval_ms", self.heartbeat_interval_ms, 50, self.session_timeout_ms / 3)?;
        within("transaction_timeout_ms", self.transaction_timeout_ms, 1_000, self.session_timeout_ms)?;
        within("delivery_timeout_ms", self.delivery_timeout_ms, 1_000, hour)?;
        within("request_timeout_ms", self.request_timeout_ms, 500, 60_000)?;
        within("leave_timeout_ms", self.leave_timeout_ms, 100, hour)?;
        within("fetch_wait_max_ms", self.fetch_wait_max_ms, 1, 1_000)?;
        within("reader_fetch_wait_max_ms", self.reader_fetch_wait_max_ms, 1, 1_000)
    }
}

impl fmt::Debug for KafkaSettings {
    /// Names the keys of `extra` without their values: they hold passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSettings")
            .field("brokers", &self.brokers)
            .field("client_id", &self.client_id)
            .field("session_timeout_ms", &self.session_timeout_ms)
            .field("transaction_timeout_ms", &self.transaction_timeout_ms)
            .field("static_membership", &self.static_membership)
            .field("delivery_timeout_ms", &self.delivery_timeout_ms)
            .field("replication_factor", &self.replication_factor)
            .field("min_in_sync_replicas", &self.min_in_sync_replicas)
            .field("extra", &self.extra.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// A key of [`KafkaSettings`] that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("kafka.{key} {reason}")]
pub struct InvalidSettings {
    /// Name of the key.
    pub key: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

impl InvalidSettings {
    fn new(key: &'static str, reason: String) -> Self {
        Self { key, reason }
    }
}

/// Longest client id, in bytes; names of threads and groups are made of it.
const CLIENT_ID_BYTES_MAX: usize = 200;

/// librdkafka properties that carry the promises of the log, or that have a setting of their own.
const RESERVED: [&str; 28] = [
    "acks",
    "allow.auto.create.topics",
    "auto.offset.reset",
    "bootstrap.servers",
    "client.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "fetch.wait.max.ms",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "heartbeat.interval.ms",
    "isolation.level",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "message.max.bytes",
    "message.timeout.ms",
    "metadata.broker.list",
    "partition.assignment.strategy",
    "queue.buffering.max.kbytes",
    "queued.max.messages.kbytes",
    "queued.min.messages",
    "request.required.acks",
    "session.timeout.ms",
    "transaction.timeout.ms",
    "transactional.id",
];

fn within(key: &'static str, value: u32, min: u32, max: u32) -> Result<(), InvalidSettings> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(InvalidSettings::new(key, format!("is {value}; it must be between {min} and {max}")))
}

#[cfg(test)]
#[path = "settings_test.rs"]
mod tests;
