//! The log as a pure state machine: topics, groups, fenced commits. No I/O, no clock, no threads.
//!
//! Whoever runs it applies commands, makes the [`Write`]s durable, and then calls [`Core::publish`]: only then do readers
//! see the new records. The embedded log keeps the writes in a store; a simulation may lose them on purpose.

#[cfg(test)]
pub(super) mod core_test;
mod group;
mod topic;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::planted::{Bug, is_planted};
use crate::port::{
    Commit, CommitError, Committed, JoinSpec, LogError, LogRecord, METADATA_BYTES_MAX, NewRecord, RECORD_BYTES_MAX,
    Start, Topic, TopicPartition, TopicSpec, TopicState, Watermarks,
};

use group::Group;
pub use group::{GroupEvent, MemberId};
pub use topic::BLOCK_OFFSETS;
use topic::TopicData;

/// What must be durable before [`Core::publish`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// A topic was created under this number.
    Topic(u32, TopicSpec),
    /// A record was appended to the topic of this number.
    Record(u32, LogRecord),
    /// A block of offsets, named by its first, holds no timestamp above this.
    BlockTime(u32, u32, u64, u64),
    /// A record was superseded.
    Remove(u32, u32, u64),
    /// The records of a partition below this offset are gone.
    Low(u32, u32, u64),
    /// A group has committed.
    Offset(String, TopicPartition, Committed),
}

/// A log as it was kept, to begin with.
#[derive(Debug, Default)]
pub struct Kept {
    /// Topics by number.
    pub topics: BTreeMap<u32, TopicSpec>,
    /// First and one-after-last offset of each partition, by topic number.
    pub borders: HashMap<(u32, u32), (u64, u64)>,
    /// Highest timestamp of each block of offsets.
    pub block_times: HashMap<(u32, u32), BTreeMap<u64, u64>>,
    /// Newest offset of each key in compacted topics.
    pub keys: HashMap<(u32, u32), HashMap<bytes::Bytes, u64>>,
    /// What groups have committed.
    pub offsets: Vec<(String, TopicPartition, Committed)>,
}

/// The log.
#[derive(Debug)]
pub struct Core {
    topics: HashMap<Topic, TopicData>,
    next_topic: u32,
    groups: HashMap<String, Group>,
    /// Newest holder of each transactional id.
    producers: HashMap<String, u64>,
    next_member: MemberId,
    next_epoch: u64,
    session_timeout_ms: u64,
    cache_bytes: usize,
    cache_bytes_max: usize,
    /// Cached records in the order they came.
    cached: std::collections::VecDeque<(Topic, u32, u64, usize)>,
}

impl Core {
    /// A log with what was kept; records in memory take at most `cache_bytes_max`.
    pub fn new(kept: Kept, session_timeout: Duration, cache_bytes_max: usize) -> Self {
        let next_topic = kept.topics.keys().max().map_or(0, |number| number + 1);
        let mut core = Self {
            topics: HashMap::new(),
            next_topic,
            groups: HashMap::new(),
            producers: HashMap::new(),
            next_member: 1,
            next_epoch: 1,
            session_timeout_ms: session_timeout.as_millis() as u64,
            cache_bytes: 0,
            cache_bytes_max,
            cached: std::collections::VecDeque::new(),
        };
        let Kept { topics, borders, mut block_times, mut keys, offsets } = kept;
        for (number, spec) in topics {
            let partitions = (0..spec.partitions).map(|partition| {
                let place = (number, partition);
                let times = block_times.remove(&place).unwrap_or_default();
                (borders.get(&place).copied().unwrap_or_default(), times, keys.remove(&place).unwrap_or_default())
            });
            let data = TopicData::kept(number, spec.clone(), partitions.collect());
            core.topics.insert(spec.name, data);
        }
        for (group, at, committed) in offsets {
            core.groups.entry(group).or_default().offsets.insert(at, committed);
        }
        core
    }

    /// Creates a topic unless it is there.
    pub fn create_topic(&mut self, spec: &TopicSpec, writes: &mut Vec<Write>) {
        if self.topics.contains_key(&spec.name) {
            return;
        }
        let number = self.next_topic;
        self.next_topic += 1;
        writes.push(Write::Topic(number, spec.clone()));
        self.topics.insert(spec.name.clone(), TopicData::new(number, spec.clone()));
        for group in self.groups.values_mut() {
            group.topic_created(&spec.name, spec.partitions, &mut self.next_epoch);
        }
    }

    /// How a topic stands.
    pub fn topic_state(&self, spec: &TopicSpec) -> TopicState {
        match self.topics.get(&spec.name).map(TopicData::partition_count) {
            None => TopicState::Missing,
            Some(found) if found == spec.partitions => TopicState::Ready,
            Some(found) => TopicState::Partitions { found },
        }
    }

    /// Checks that `records` can be appended.
    ///
    /// # Errors
    /// [`LogError::TooLarge`], [`LogError::UnknownTopic`].
    pub fn check(&self, records: &[NewRecord]) -> Result<(), LogError> {
        for record in records {
            let bytes = record.value.as_ref().map_or(0, bytes::Bytes::len);
            if bytes > RECORD_BYTES_MAX {
                return Err(LogError::TooLarge { bytes, limit: RECORD_BYTES_MAX });
            }
            self.partition(&record.to)?;
        }
        Ok(())
    }

    /// Appends checked records and returns their offsets.
    ///
    /// # Errors
    /// As [`Core::check`]; nothing was appended then.
    pub fn append(&mut self, records: Vec<NewRecord>, writes: &mut Vec<Write>) -> Result<Vec<u64>, LogError> {
        self.check(&records)?;
        let mut offsets = Vec::with_capacity(records.len());
        for record in records {
            let Some(topic) = self.topics.get_mut(&record.to.topic) else { continue };
            let bytes = record.value.as_ref().map_or(0, bytes::Bytes::len) + 128;
            let (name, partition) = (record.to.topic.clone(), record.to.partition);
            let offset = topic.append(record, writes);
            offsets.push(offset);
            self.cache_bytes += bytes;
            self.cached.push_back((name, partition, offset, bytes));
        }
        self.evict();
        Ok(offsets)
    }

    fn evict(&mut self) {
        while self.cache_bytes > self.cache_bytes_max {
            let Some((topic, partition, offset, bytes)) = self.cached.front().cloned() else { return };
            let visible = self.topics.get(&topic).is_some_and(|data| data.is_published(partition, offset));
            if !visible {
                // What is not durable yet is in no store: it stays until it is.
                return;
            }
            self.cached.pop_front();
            self.cache_bytes -= bytes;
            if let Some(data) = self.topics.get_mut(&topic) {
                data.forget(partition, offset);
            }
        }
    }

    /// Lets readers see everything that was appended.
    pub fn publish(&mut self) {
        self.topics.values_mut().for_each(TopicData::publish);
        self.evict();
    }

    /// The borders of a partition.
    ///
    /// # Errors
    /// [`LogError::UnknownTopic`].
    pub fn watermarks(&self, at: &TopicPartition) -> Result<Watermarks, LogError> {
        self.partition(at).map(|(data, partition)| data.watermarks(partition))
    }

    /// The number of a topic.
    pub fn topic_number(&self, topic: &Topic) -> Option<u32> {
        self.topics.get(topic).map(|data| data.number)
    }

    /// The offset where a reader begins. For a time: a block's first offset; records before the time are to be skipped.
    ///
    /// # Errors
    /// [`LogError::UnknownTopic`], [`LogError::OffsetOutOfRange`].
    pub fn start(&self, at: &TopicPartition, start: Start) -> Result<u64, LogError> {
        let (data, partition) = self.partition(at)?;
        let Watermarks { low, stable, high } = data.watermarks(partition);
        match start {
            Start::Earliest => Ok(low),
            Start::Latest => Ok(stable),
            Start::Time(ms) => Ok(data.block_at(partition, ms).clamp(low, stable)),
            Start::Offset(offset) if offset < low || offset > high => {
                Err(LogError::OffsetOutOfRange { at: at.clone(), offset, low, high })
            }
            Start::Offset(offset) => Ok(offset),
        }
    }

    /// The first published record at or after `offset`.
    pub fn fetch(&self, at: &TopicPartition, offset: u64) -> Fetched {
        match self.topics.get(&at.topic) {
            Some(data) => data.fetch(at.partition, offset),
            None => Fetched::End,
        }
    }

    /// Deletes the records below `offset`.
    ///
    /// # Errors
    /// [`LogError::UnknownTopic`], [`LogError::OffsetOutOfRange`] above the high watermark.
    pub fn delete_before(&mut self, at: &TopicPartition, offset: u64, writes: &mut Vec<Write>) -> Result<(), LogError> {
        let Watermarks { low, high, .. } = self.watermarks(at)?;
        if offset > high {
            return Err(LogError::OffsetOutOfRange { at: at.clone(), offset, low, high });
        }
        if let Some(data) = self.topics.get_mut(&at.topic) {
            data.delete_before(at.partition, offset, writes);
        }
        Ok(())
    }

    /// Joins a group; an earlier holder of the transactional id is fenced and loses its partitions.
    pub fn join(&mut self, spec: &JoinSpec) -> MemberId {
        let id = self.next_member;
        self.next_member += 1;
        let producer = self.next_producer(&spec.transactional_id);
        for group in self.groups.values_mut() {
            group.evict_holder(&spec.transactional_id, &mut self.next_epoch);
        }
        let partitions = spec
            .topics
            .iter()
            .flat_map(|topic| {
                let count = self.topics.get(topic).map_or(0, TopicData::partition_count);
                (0..count).map(|partition| TopicPartition::new(topic.clone(), partition))
            })
            .collect();
        let group = self.groups.entry(spec.group.clone()).or_default();
        group.join(id, spec, producer, partitions, &mut self.next_epoch);
        id
    }

    /// Leaves a group; its partitions go to others at once.
    pub fn leave(&mut self, group: &str, member: MemberId) {
        if let Some(group) = self.groups.get_mut(group) {
            group.leave(member, &mut self.next_epoch);
        }
    }

    /// A member has settled partitions that are being taken from it, each with the epoch of the assignment that ends.
    pub fn released(&mut self, group: &str, member: MemberId, partitions: &[(TopicPartition, u64)]) {
        if let Some(group) = self.groups.get_mut(group) {
            group.released(member, partitions, &mut self.next_epoch);
        }
    }

    /// What happens next to a member at `now_ms`; `None` if nothing does now.
    pub fn next_event(&mut self, group: &str, member: MemberId, now_ms: u64) -> Option<GroupEvent> {
        let topics = &self.topics;
        let deadline = now_ms + self.session_timeout_ms;
        self.groups.get_mut(group)?.next_event(member, deadline, |at| topics.get(&at.topic)?.low(at.partition))
    }

    /// A place from which a member should be given the next record: partition, offset, epoch. Partitions take turns.
    pub fn next_place(&mut self, group: &str, member: MemberId) -> Option<(TopicPartition, u64, u64)> {
        let topics = &self.topics;
        self.groups.get_mut(group)?.next_place(member, |at, offset| {
            topics.get(&at.topic).is_some_and(|data| data.has_more(at.partition, offset))
        })
    }

    /// A record of a partition was given to its member: the next one follows.
    pub fn delivered(&mut self, group: &str, at: &TopicPartition, epoch: u64, next: u64) {
        if let Some(group) = self.groups.get_mut(group) {
            group.delivered(at, epoch, next);
        }
    }

    /// Stops or resumes delivery of a partition.
    pub fn pause(&mut self, group: &str, member: MemberId, at: &TopicPartition, paused: bool) {
        if let Some(group) = self.groups.get_mut(group) {
            group.pause(member, at, paused);
        }
    }

    /// Appends and commits, or does neither.
    ///
    /// # Errors
    /// See [`CommitError`]; nothing happened.
    pub fn commit(
        &mut self,
        group: &str,
        member: MemberId,
        commit: Commit,
        writes: &mut Vec<Write>,
    ) -> Result<(), CommitError> {
        if let Some(offset) = commit.offsets.iter().find(|offset| offset.metadata.len() > METADATA_BYTES_MAX) {
            let bytes = offset.metadata.len();
            return Err(CommitError::Invalid(format!(
                "{bytes} bytes of metadata are over the limit of {METADATA_BYTES_MAX}"
            )));
        }
        self.check(&commit.records).map_err(|error| CommitError::Invalid(error.to_string()))?;
        let Some(found) = self.groups.get(group) else { return Err(CommitError::Fenced) };
        let Some((transactional_id, producer)) = found.producer(member) else { return Err(CommitError::Fenced) };
        if self.producers.get(&transactional_id) != Some(&producer) && !is_planted(Bug::NoFence) {
            let producer = self.next_producer(&transactional_id);
            if let Some(group) = self.groups.get_mut(group) {
                group.set_producer(member, producer);
            }
            return Err(CommitError::Fenced);
        }
        let strange: Vec<TopicPartition> = commit
            .offsets
            .iter()
            .filter(|offset| !found.owns(member, &offset.at, offset.epoch))
            .map(|offset| offset.at.clone())
            .collect();
        if !strange.is_empty() && !is_planted(Bug::NoFence) {
            return Err(CommitError::NotOwner(strange));
        }
        self.append(commit.records, writes).map_err(|error| CommitError::Invalid(error.to_string()))?;
        if let Some(found) = self.groups.get_mut(group) {
            for offset in commit.offsets {
                let committed = Committed { next: offset.next, metadata: offset.metadata };
                writes.push(Write::Offset(group.to_owned(), offset.at.clone(), committed.clone()));
                found.offsets.insert(offset.at, committed);
            }
        }
        Ok(())
    }

    /// What a group has committed.
    pub fn committed(&self, group: &str, at: &TopicPartition) -> Option<Committed> {
        self.groups.get(group)?.offsets.get(at).cloned()
    }

    /// Fences the holder of a transactional id.
    pub fn fence(&mut self, transactional_id: &str) {
        self.next_producer(transactional_id);
    }

    fn next_producer(&mut self, transactional_id: &str) -> u64 {
        let producer = self.producers.entry(transactional_id.to_owned()).or_default();
        *producer += 1;
        *producer
    }

    /// Time has passed: old records go, and partitions whose member does not settle them.
    pub fn tick(&mut self, now_ms: u64, writes: &mut Vec<Write>) {
        for data in self.topics.values_mut() {
            data.expire(now_ms, writes);
        }
        for group in self.groups.values_mut() {
            group.tick(now_ms, &mut self.next_epoch);
        }
    }

    fn partition(&self, at: &TopicPartition) -> Result<(&TopicData, u32), LogError> {
        let data = self.topics.get(&at.topic).filter(|data| at.partition < data.partition_count());
        data.map(|data| (data, at.partition)).ok_or_else(|| LogError::UnknownTopic(at.clone()))
    }
}

/// What [`Core::fetch`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// This record.
    Record(LogRecord),
    /// It lies in the store: read from this offset up to that one.
    Stored(u64, u64),
    /// Nothing yet.
    End,
    /// The offset lies before the first record that is still there.
    Gone {
        /// First offset that is still there.
        low: u64,
        /// One after the last record.
        high: u64,
    },
}
