//! Which librdkafka properties each kind of client gets: a pure function of the settings.

use super::KafkaSettings;

/// Largest batch, and so the largest record with its key, headers and frame, in bytes: topics and clients agree on it.
pub(super) const BATCH_BYTES_MAX: usize = 1_300_000;

/// Bytes of one partition in one answer of a broker, but for a single larger batch. An answer stays in memory until its last
/// record is handled; with librdkafka's own megabyte, a node with three lanes held most of its memory in them.
const FETCH_BYTES_MAX: usize = 256 << 10;

/// Which records a client sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Isolation {
    /// Only what is committed; offsets end at the last stable one.
    Committed,
    /// Everything; offsets end at the high watermark.
    Uncommitted,
}

/// What a client is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role<'a> {
    /// Appends outside transactions.
    Append,
    /// Commits of one member.
    Transaction {
        /// Its transactional id.
        id: &'a str,
        /// Its client id.
        client_id: &'a str,
    },
    /// Reads given partitions.
    Reader,
    /// Reads as a member of a group.
    Member {
        /// The group.
        group: &'a str,
        /// Its client id.
        client_id: &'a str,
        /// Its name in the group over restarts, with `static_membership`.
        instance_id: &'a str,
        /// Records of one partition that it fetches ahead.
        read_ahead_records_max: usize,
    },
    /// Reads what a group has committed.
    Committed {
        /// The group.
        group: &'a str,
    },
    /// Asks for topics and offsets.
    Query(Isolation),
    /// Creates topics, deletes records.
    Admin,
}

/// A property of librdkafka.
pub(super) type Property = (String, String);

/// The properties of one client. Later ones win; those of `settings.extra` come before the ones that the log's promises
/// rest on.
pub(super) fn properties(settings: &KafkaSettings, role: Role<'_>) -> Vec<Property> {
    let mut list = common(settings);
    list.extend(settings.extra.iter().map(|(key, value)| (key.clone(), value.clone())));
    list.extend(match role {
        Role::Append => append(settings),
        Role::Transaction { id, client_id } => transaction(settings, id, client_id),
        Role::Reader => reader(settings),
        Role::Member { group, client_id, instance_id, read_ahead_records_max } => {
            member(settings, [group, client_id, instance_id], read_ahead_records_max)
        }
        Role::Committed { group } => committed(group),
        Role::Query(isolation) => query(isolation),
        Role::Admin => Vec::new(),
    });
    list
}

fn pair(key: &str, value: impl ToString) -> Property {
    (key.to_owned(), value.to_string())
}

/// Quick to notice a broker that went away and quick to come back to it; no batching by the kernel.
fn common(settings: &KafkaSettings) -> Vec<Property> {
    vec![
        pair("bootstrap.servers", &settings.brokers),
        pair("client.id", &settings.client_id),
        pair("socket.nagle.disable", true),
        pair("socket.keepalive.enable", true),
        pair("socket.timeout.ms", settings.request_timeout_ms),
        pair("socket.connection.setup.timeout.ms", settings.request_timeout_ms.max(1_000)),
        pair("reconnect.backoff.ms", 50),
        pair("reconnect.backoff.max.ms", 1_000),
        pair("retry.backoff.ms", 20),
        pair("retry.backoff.max.ms", 200),
        pair("topic.metadata.refresh.fast.interval.ms", 50),
        pair("log.connection.close", false),
    ]
}

fn append(settings: &KafkaSettings) -> Vec<Property> {
    vec![
        pair("enable.idempotence", true),
        pair("acks", "all"),
        pair("linger.ms", 0),
        pair("message.max.bytes", BATCH_BYTES_MAX),
        pair("message.timeout.ms", settings.delivery_timeout_ms),
        pair("queue.buffering.max.kbytes", settings.append_buffer_bytes_max >> 10),
        pair("allow.auto.create.topics", false),
    ]
}

/// `retry.backoff.ms` of 1: the broker answers `CONCURRENT_TRANSACTIONS` right after each commit, and each retry waits
/// this long.
fn transaction(settings: &KafkaSettings, id: &str, client_id: &str) -> Vec<Property> {
    let timeout = settings.transaction_timeout_ms;
    vec![
        pair("client.id", client_id),
        pair("transactional.id", id),
        pair("transaction.timeout.ms", timeout),
        pair("enable.idempotence", true),
        pair("acks", "all"),
        pair("linger.ms", 0),
        pair("message.max.bytes", BATCH_BYTES_MAX),
        pair("message.timeout.ms", timeout),
        // librdkafka demands at least 100 ms less than the transaction's time-out.
        pair("socket.timeout.ms", settings.request_timeout_ms.min(timeout / 2)),
        pair("queue.buffering.max.kbytes", settings.append_buffer_bytes_max >> 10),
        pair("retry.backoff.ms", 1),
        pair("retry.backoff.max.ms", 50),
        pair("allow.auto.create.topics", false),
    ]
}

fn consumer(settings: &KafkaSettings, isolation: Isolation) -> Vec<Property> {
    vec![
        pair("isolation.level", isolation_level(isolation)),
        pair("enable.auto.commit", false),
        pair("enable.auto.offset.store", false),
        pair("auto.offset.reset", "error"),
        pair("allow.auto.create.topics", false),
        pair("fetch.min.bytes", 1),
        pair("fetch.queue.backoff.ms", 5),
        pair("fetch.error.backoff.ms", 50),
        pair("fetch.message.max.bytes", FETCH_BYTES_MAX),
        pair("queued.max.messages.kbytes", settings.read_buffer_bytes_max >> 10),
    ]
}

/// Readers never join their group; librdkafka wants one to consume at all.
fn reader(settings: &KafkaSettings) -> Vec<Property> {
    let mut list = consumer(settings, Isolation::Committed);
    list.push(pair("group.id", format!("{}-reader", settings.client_id)));
    list.push(pair("enable.partition.eof", true));
    list.push(pair("fetch.wait.max.ms", settings.reader_fetch_wait_max_ms));
    list
}

/// Read-committed, so that the offsets of a partition are only told once an open transaction on them has ended.
fn member(settings: &KafkaSettings, names: [&str; 3], read_ahead_records_max: usize) -> Vec<Property> {
    let [group, client_id, instance_id] = names;
    let mut list = consumer(settings, Isolation::Committed);
    list.extend([
        pair("client.id", client_id),
        pair("group.id", group),
        pair("group.protocol", "classic"),
        pair("partition.assignment.strategy", "cooperative-sticky"),
        pair("session.timeout.ms", settings.session_timeout_ms),
        pair("heartbeat.interval.ms", settings.heartbeat_interval_ms),
        pair("fetch.wait.max.ms", settings.fetch_wait_max_ms),
        pair("queued.min.messages", read_ahead_records_max.clamp(1, 10_000_000)),
    ]);
    if settings.static_membership {
        list.push(pair("group.instance.id", instance_id));
    }
    list
}

fn committed(group: &str) -> Vec<Property> {
    let mut list = query(Isolation::Committed);
    list.push(pair("group.id", group));
    list
}

fn query(isolation: Isolation) -> Vec<Property> {
    vec![
        pair("isolation.level", isolation_level(isolation)),
        pair("enable.auto.commit", false),
        pair("allow.auto.create.topics", false),
    ]
}

fn isolation_level(isolation: Isolation) -> &'static str {
    match isolation {
        Isolation::Committed => "read_committed",
        Isolation::Uncommitted => "read_uncommitted",
    }
}

#[cfg(test)]
#[path = "properties_test.rs"]
mod tests;
