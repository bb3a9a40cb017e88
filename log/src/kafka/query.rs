//! Questions to the cluster: topics, borders of partitions, committed offsets. All block; the adapter asks them on
//! threads that may.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::context::{self, Plain};
use super::errors::{is_unknown_partition, log_error};
use super::feed::partition_id;
use super::properties::{Isolation, Role, properties};
use super::{KafkaSettings, lock};
use crate::port::{Committed, LogError, Topic, TopicPartition, Watermarks};

/// How often an unavailable answer is asked for again within the time-out.
const RETRY: Duration = Duration::from_millis(50);

/// Longest wait of [`Query::health`].
const HEALTH_TIMEOUT: Duration = Duration::from_millis(1_000);

/// Groups whose committed offsets can be asked for at once; beyond it the clients are made anew.
const GROUPS_MAX: usize = 16;

/// Asks for what lies in the cluster.
pub(super) struct Query {
    settings: KafkaSettings,
    committed: BaseConsumer<Plain>,
    uncommitted: BaseConsumer<Plain>,
    groups: Mutex<HashMap<String, Arc<BaseConsumer<Plain>>>>,
    /// Partitions of the topics seen so far. A topic never loses partitions; one that gains some is asked for again.
    partitions: RwLock<HashMap<Topic, u32>>,
    displaced: OnceLock<String>,
}

impl Query {
    pub(super) fn new(settings: &KafkaSettings) -> Result<Self, LogError> {
        let client = |isolation| context::create(properties(settings, Role::Query(isolation)), Plain);
        Ok(Self {
            settings: settings.clone(),
            committed: client(Isolation::Committed)?,
            uncommitted: client(Isolation::Uncommitted)?,
            groups: Mutex::default(),
            partitions: RwLock::default(),
            displaced: OnceLock::new(),
        })
    }

    /// Time that a question may take.
    fn timeout(&self) -> Duration {
        Duration::from_millis(self.settings.request_timeout_ms.into())
    }

    /// True if `at` is known to exist; asks nobody.
    pub(super) fn knows(&self, at: &TopicPartition) -> bool {
        let known = self.partitions.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.get(&at.topic).is_some_and(|count| at.partition < *count)
    }

    /// Checks that `at` exists.
    pub(super) fn require(&self, at: &TopicPartition) -> Result<(), LogError> {
        if self.knows(at) {
            return Ok(());
        }
        match self.partitions(&at.topic)? {
            Some(count) if at.partition < count => Ok(()),
            _ => Err(LogError::UnknownTopic(at.clone())),
        }
    }

    /// Number of partitions of `topic`, all of which have a leader; `None` if there is no such topic.
    pub(super) fn partitions(&self, topic: &Topic) -> Result<Option<u32>, LogError> {
        let until = Instant::now() + self.timeout();
        loop {
            let answer = self.ask_partitions(topic, until.saturating_duration_since(Instant::now()));
            match answer {
                Err(LogError::Unavailable(_)) if Instant::now() + RETRY < until => std::thread::sleep(RETRY),
                answer => return answer,
            }
        }
    }

    fn ask_partitions(&self, topic: &Topic, timeout: Duration) -> Result<Option<u32>, LogError> {
        drain(&self.uncommitted);
        let what = || format!("metadata of {topic}");
        let metadata =
            self.uncommitted.fetch_metadata(Some(topic), timeout).map_err(|error| log_error(&what(), &error))?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == &**topic) else {
            return Ok(None);
        };
        if let Some(error) = found.error() {
            let code = error.into();
            if is_unknown_partition(code) {
                lock_write(&self.partitions).remove(topic);
                return Ok(None);
            }
            return Err(log_error(&what(), &rdkafka::error::KafkaError::MetadataFetch(code)));
        }
        if let Some(headless) = found.partitions().iter().find(|partition| partition.leader() < 0) {
            return Err(LogError::Unavailable(format!("partition {} of {topic} has no leader", headless.id())));
        }
        let count = u32::try_from(found.partitions().len()).unwrap_or(u32::MAX);
        lock_write(&self.partitions).insert(Arc::clone(topic), count);
        Ok(Some(count))
    }

    /// First offsets that are still there.
    pub(super) fn lows(&self, partitions: &[TopicPartition]) -> Result<Vec<u64>, LogError> {
        told(partitions, self.offsets(&self.uncommitted, partitions.iter().map(|at| (at, OFFSET_EARLIEST)))?)
    }

    /// Last stable offsets: one after the last committed record.
    pub(super) fn stables(&self, partitions: &[TopicPartition]) -> Result<Vec<u64>, LogError> {
        told(partitions, self.offsets(&self.committed, partitions.iter().map(|at| (at, OFFSET_LATEST)))?)
    }

    /// The first committed record at or after each time in milliseconds, if there is one.
    pub(super) fn at_times(&self, times: &[(TopicPartition, u64)]) -> Result<Vec<Option<u64>>, LogError> {
        let asked = times.iter().map(|(at, ms)| (at, Offset::Offset(i64::try_from(*ms).unwrap_or(i64::MAX))));
        self.offsets(&self.committed, asked)
    }

    /// Borders of `partitions`. The high watermark is asked for before the stable offset: a reader that has reached a
    /// stable offset at or beyond it has seen all that was there.
    pub(super) fn borders(&self, partitions: &[TopicPartition]) -> Result<Vec<Watermarks>, LogError> {
        let lows = self.lows(partitions)?;
        let latest = partitions.iter().map(|at| (at, OFFSET_LATEST));
        let highs = told(partitions, self.offsets(&self.uncommitted, latest)?)?;
        let stables = self.stables(partitions)?;
        let borders = lows.into_iter().zip(stables).zip(highs);
        Ok(borders.map(|((low, stable), high)| Watermarks { low, stable, high: high.max(stable) }).collect())
    }

    /// Like [`Self::ask_offsets`], again with fresh metadata while partitions move from leader to leader.
    fn offsets<'a>(
        &self,
        client: &BaseConsumer<Plain>,
        asked: impl Iterator<Item = (&'a TopicPartition, Offset)>,
    ) -> Result<Vec<Option<u64>>, LogError> {
        let asked: Vec<_> = asked.collect();
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        let until = Instant::now() + self.timeout();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let answer = self.ask_offsets(client, &asked, left);
            if !matches!(answer, Err(LogError::Unavailable(_))) || left <= RETRY {
                return answer;
            }
            std::thread::sleep(RETRY);
            // A client learns of new leaders by its own metadata; what it says otherwise is told by the next round.
            if let Some((at, _)) = asked.first() {
                drop(client.fetch_metadata(Some(&at.topic), left));
            }
        }
    }

    /// One request to each leader for all partitions. librdkafka passes the two special times of Kafka's protocol on:
    /// -1 is the end as the client's isolation sees it, -2 the beginning.
    fn ask_offsets(
        &self,
        client: &BaseConsumer<Plain>,
        asked: &[(&TopicPartition, Offset)],
        timeout: Duration,
    ) -> Result<Vec<Option<u64>>, LogError> {
        drain(client);
        let mut list = TopicPartitionList::with_capacity(asked.len());
        for (at, time) in asked {
            let mut element = list.add_partition(&at.topic, partition_id(at));
            element.set_offset(*time).map_err(|error| log_error("offsets", &error))?;
        }
        let answer = client.offsets_for_times(list, timeout).map_err(|error| log_error("offsets", &error))?;
        let offset_of = |at: &TopicPartition| {
            let unknown = || LogError::UnknownTopic(at.clone());
            let element = answer.find_partition(&at.topic, partition_id(at)).ok_or_else(unknown)?;
            element.error().map_err(|error| match error.rdkafka_error_code() {
                Some(code) if is_unknown_partition(code) => unknown(),
                _ => log_error("offsets", &error),
            })?;
            Ok(match element.offset() {
                Offset::Offset(offset) => u64::try_from(offset).ok(),
                _ => None,
            })
        };
        asked.iter().map(|(at, _)| offset_of(at)).collect()
    }

    /// What `group` has committed for `at`. Waits for an open transaction on it, until that must have timed out.
    pub(super) fn committed(&self, group: &str, at: &TopicPartition) -> Result<Option<Committed>, LogError> {
        let client = self.group(group)?;
        drain(&client);
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(&at.topic, partition_id(at));
        let timeout = open_transaction_max(&self.settings) + self.timeout();
        let list = client.committed_offsets(list, timeout).map_err(|error| log_error("committed offsets", &error))?;
        let Some(element) = list.find_partition(&at.topic, partition_id(at)) else { return Ok(None) };
        element.error().map_err(|error| log_error("committed offsets", &error))?;
        Ok(committed_of(element.offset(), element.metadata()))
    }

    /// Client ids of the members that `group` has now.
    ///
    /// librdkafka asks every broker that it knows and takes no answer but all: for a while after a broker died this fails.
    pub(super) fn members(&self, group: &str, timeout: Duration) -> Result<Vec<String>, LogError> {
        drain(&self.uncommitted);
        let answer = self.uncommitted.client().fetch_group_list(Some(group), timeout);
        let list = answer.map_err(|error| log_error("members of the group", &error))?;
        let found = list.groups().iter().filter(|found| found.name() == group);
        Ok(found.flat_map(|found| found.members()).map(|member| member.client_id().to_owned()).collect())
    }

    fn group(&self, group: &str) -> Result<Arc<BaseConsumer<Plain>>, LogError> {
        let mut groups = lock(&self.groups);
        if let Some(client) = groups.get(group) {
            return Ok(Arc::clone(client));
        }
        if groups.len() >= GROUPS_MAX {
            groups.clear();
        }
        let client: BaseConsumer<Plain> =
            context::create(properties(&self.settings, Role::Committed { group }), Plain)?;
        let client = Arc::new(client);
        groups.insert(group.to_owned(), Arc::clone(&client));
        Ok(client)
    }

    /// A member of this process lost its place to another process; only a restart can mend it.
    pub(super) fn displace(&self, reason: &str) {
        // The first reason stays.
        drop(self.displaced.set(reason.to_owned()));
    }

    /// Asks a broker for some topic that we use, within about a second.
    pub(super) fn health(&self) -> Result<(), LogError> {
        if let Some(reason) = self.displaced.get() {
            return Err(LogError::Denied(reason.clone()));
        }
        let topic = {
            let known = self.partitions.read().unwrap_or_else(std::sync::PoisonError::into_inner);
            known.keys().min().cloned().unwrap_or_else(|| Topic::from("relay-health"))
        };
        self.ask_partitions(&topic, HEALTH_TIMEOUT).map(|_| ())
    }
}

/// "The end" in a question for offsets.
const OFFSET_LATEST: Offset = Offset::End;

/// "The beginning" in a question for offsets.
const OFFSET_EARLIEST: Offset = Offset::Beginning;

/// The offsets, all of which a leader must have told.
fn told(partitions: &[TopicPartition], offsets: Vec<Option<u64>>) -> Result<Vec<u64>, LogError> {
    let silent = |at: &TopicPartition| LogError::Unavailable(format!("{at} tells no offset"));
    partitions.iter().zip(offsets).map(|(at, offset)| offset.ok_or_else(|| silent(at))).collect()
}

/// How long a transaction of ours can stay open after its producer died: its time-out, and the ten seconds between two
/// looks of a broker with default settings.
pub(super) fn open_transaction_max(settings: &KafkaSettings) -> Duration {
    Duration::from_millis(settings.transaction_timeout_ms.into()) + Duration::from_secs(10)
}

/// A committed offset, if `offset` is one.
pub(super) fn committed_of(offset: Offset, metadata: &str) -> Option<Committed> {
    match offset {
        Offset::Offset(next) => Some(Committed { next: u64::try_from(next).ok()?, metadata: metadata.to_owned() }),
        _ => None,
    }
}

/// Throws the errors away that a client without a reader has gathered while a broker was away.
fn drain(client: &BaseConsumer<Plain>) {
    while client.poll(Duration::ZERO).is_some() {}
}

fn lock_write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(std::sync::PoisonError::into_inner)
}
