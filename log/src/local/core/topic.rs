//! One topic: borders, the newest records, and which times its blocks of offsets reach to.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::{Fetched, Write};
use crate::port::{LogRecord, NewRecord, Retention, TopicPartition, TopicSpec, Watermarks};

/// Offsets in one block of the time index.
pub const BLOCK_OFFSETS: u64 = 64;

#[derive(Debug)]
pub(super) struct TopicData {
    pub(super) number: u32,
    spec: TopicSpec,
    partitions: Vec<PartitionData>,
}

/// What was kept of a partition: borders, times of its blocks, newest offset of each key.
pub(super) type KeptPartition = ((u64, u64), BTreeMap<u64, u64>, HashMap<Bytes, u64>);

#[derive(Debug, Default)]
struct PartitionData {
    low: u64,
    published: u64,
    high: u64,
    /// The newest records; all that are not in it are in the store.
    tail: BTreeMap<u64, LogRecord>,
    /// Everything from here on is in the tail.
    tail_from: u64,
    block_times: BTreeMap<u64, u64>,
    /// Newest offset of each key, in a compacted topic.
    keys: HashMap<Bytes, u64>,
    /// Records that newer ones replace once those are published: until then a reader must find one of the two.
    superseded: Vec<u64>,
}

impl TopicData {
    pub(super) fn new(number: u32, spec: TopicSpec) -> Self {
        let partitions = (0..spec.partitions).map(|_| PartitionData::default()).collect();
        Self { number, spec, partitions }
    }

    pub(super) fn kept(number: u32, spec: TopicSpec, kept: Vec<KeptPartition>) -> Self {
        let partitions = kept.into_iter().map(|((low, high), block_times, keys)| PartitionData {
            low,
            published: high,
            high,
            tail: BTreeMap::new(),
            tail_from: high,
            block_times,
            keys,
            superseded: Vec::new(),
        });
        Self { number, spec, partitions: partitions.collect() }
    }

    pub(super) fn partition_count(&self) -> u32 {
        self.partitions.len() as u32
    }

    fn get(&self, partition: u32) -> Option<&PartitionData> {
        self.partitions.get(partition as usize)
    }

    pub(super) fn append(&mut self, record: NewRecord, writes: &mut Vec<Write>) -> u64 {
        let (number, partition) = (self.number, record.to.partition);
        let compact = self.spec.retention == Retention::Compact;
        let Some(data) = self.partitions.get_mut(partition as usize) else { return 0 };
        let offset = data.high;
        data.high += 1;
        if compact
            && let Some(key) = record.key.clone()
            && let Some(earlier) = data.keys.insert(key, offset)
        {
            data.superseded.push(earlier);
            writes.push(Write::Remove(number, partition, earlier));
        }
        let block = offset / BLOCK_OFFSETS * BLOCK_OFFSETS;
        if data.block_times.get(&block).is_none_or(|highest| record.timestamp_ms > *highest) {
            data.block_times.insert(block, record.timestamp_ms);
            writes.push(Write::BlockTime(number, partition, block, record.timestamp_ms));
        }
        let record = LogRecord {
            at: TopicPartition::new(self.spec.name.clone(), partition),
            offset,
            key: record.key,
            value: record.value,
            headers: record.headers,
            timestamp_ms: record.timestamp_ms,
        };
        writes.push(Write::Record(number, record.clone()));
        data.tail.insert(offset, record);
        offset
    }

    pub(super) fn publish(&mut self) {
        for data in &mut self.partitions {
            data.published = data.high;
            for offset in data.superseded.drain(..) {
                data.tail.remove(&offset);
            }
        }
    }

    pub(super) fn is_published(&self, partition: u32, offset: u64) -> bool {
        self.get(partition).is_some_and(|data| offset < data.published)
    }

    /// Drops a record from memory; it is in the store.
    pub(super) fn forget(&mut self, partition: u32, offset: u64) {
        if let Some(data) = self.partitions.get_mut(partition as usize) {
            data.tail.remove(&offset);
            data.tail_from = data.tail_from.max(offset + 1);
        }
    }

    pub(super) fn watermarks(&self, partition: u32) -> Watermarks {
        let (low, high) = self.get(partition).map_or((0, 0), |data| (data.low, data.published));
        Watermarks { low, stable: high, high }
    }

    pub(super) fn low(&self, partition: u32) -> Option<u64> {
        self.get(partition).map(|data| data.low)
    }

    pub(super) fn has_more(&self, partition: u32, offset: u64) -> bool {
        self.get(partition).is_some_and(|data| {
            // A committed offset may lie behind the end: nothing is there before the end reaches it.
            let readable = offset < data.published;
            readable && (offset < data.tail_from || data.tail.range(offset..data.published).next().is_some())
        })
    }

    pub(super) fn fetch(&self, partition: u32, offset: u64) -> Fetched {
        let Some(data) = self.get(partition) else { return Fetched::End };
        if offset < data.low {
            return Fetched::Gone { low: data.low, high: data.published };
        }
        if offset >= data.published {
            return Fetched::End;
        }
        let stored_to = data.tail_from.min(data.published);
        if offset < stored_to {
            return Fetched::Stored(offset, stored_to);
        }
        match data.tail.range(offset..data.published).next() {
            Some((_, record)) => Fetched::Record(record.clone()),
            None => Fetched::End,
        }
    }

    /// First offset of the first block that reaches to `ms`.
    pub(super) fn block_at(&self, partition: u32, ms: u64) -> u64 {
        let Some(data) = self.get(partition) else { return 0 };
        let block = data.block_times.iter().find(|(_, highest)| **highest >= ms);
        block.map_or(data.published, |(block, _)| *block)
    }

    pub(super) fn delete_before(&mut self, partition: u32, offset: u64, writes: &mut Vec<Write>) {
        let number = self.number;
        if let Some(data) = self.partitions.get_mut(partition as usize) {
            data.delete_before(number, partition, offset, writes);
        }
    }

    /// Drops whole blocks that are too old.
    pub(super) fn expire(&mut self, now_ms: u64, writes: &mut Vec<Write>) {
        let Retention::Age(age) = self.spec.retention else { return };
        let oldest = now_ms.saturating_sub(age.as_millis() as u64);
        let number = self.number;
        for (partition, data) in self.partitions.iter_mut().enumerate() {
            let kept_from = data.block_times.iter().find(|(_, highest)| **highest >= oldest).map(|(block, _)| *block);
            let until = kept_from.unwrap_or(data.published).min(data.published);
            if until > data.low {
                data.delete_before(number, partition as u32, until, writes);
            }
        }
    }
}

impl PartitionData {
    fn delete_before(&mut self, number: u32, partition: u32, offset: u64, writes: &mut Vec<Write>) {
        if offset <= self.low {
            return;
        }
        self.low = offset;
        self.tail = self.tail.split_off(&offset);
        self.tail_from = self.tail_from.max(offset);
        // The block that holds the new first record stays.
        self.block_times = self.block_times.split_off(&(offset / BLOCK_OFFSETS * BLOCK_OFFSETS));
        self.keys.retain(|_, newest| *newest >= offset);
        writes.push(Write::Low(number, partition, offset));
    }
}
