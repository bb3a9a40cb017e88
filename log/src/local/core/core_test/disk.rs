//! A store that anyone can see to be right: maps, and nothing is ever lost but what was not given to it.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use bytes::Bytes;

use super::super::{BLOCK_OFFSETS, Kept, Write};
use crate::port::{Committed, LogRecord, Retention, TopicPartition, TopicSpec};

/// Topic number and partition.
type Place = (u32, u32);

/// What was made durable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::local) struct Disk {
    pub(in crate::local) topics: BTreeMap<u32, TopicSpec>,
    pub(in crate::local) records: BTreeMap<(u32, u32, u64), LogRecord>,
    pub(in crate::local) borders: HashMap<Place, (u64, u64)>,
    pub(in crate::local) times: HashMap<Place, BTreeMap<u64, u64>>,
    pub(in crate::local) offsets: BTreeMap<(String, TopicPartition), Committed>,
}

impl Disk {
    pub(in crate::local) fn apply(&mut self, writes: &[Write]) {
        for write in writes {
            match write.clone() {
                Write::Topic(number, spec) => drop(self.topics.insert(number, spec)),
                Write::Record(number, record) => {
                    self.borders.entry((number, record.at.partition)).or_default().1 = record.offset + 1;
                    self.records.insert((number, record.at.partition, record.offset), record);
                }
                Write::BlockTime(number, partition, block, highest) => {
                    self.times.entry((number, partition)).or_default().insert(block, highest);
                }
                Write::Remove(number, partition, offset) => drop(self.records.remove(&(number, partition, offset))),
                Write::Low(number, partition, low) => {
                    self.borders.entry((number, partition)).or_default().0 = low;
                    self.records.retain(|at, _| (at.0, at.1) != (number, partition) || at.2 >= low);
                    let times = self.times.entry((number, partition)).or_default();
                    times.retain(|block, _| block + BLOCK_OFFSETS > low);
                }
                Write::Offset(group, at, committed) => drop(self.offsets.insert((group, at), committed)),
            }
        }
        self.times.retain(|_, blocks| !blocks.is_empty());
    }

    /// What a log begins with after a restart.
    pub(in crate::local) fn kept(&self) -> Kept {
        Kept {
            topics: self.topics.clone(),
            borders: self.borders.clone(),
            block_times: self.times.clone(),
            keys: self.keys(),
            offsets: self.offsets.iter().map(|((group, at), one)| (group.clone(), at.clone(), one.clone())).collect(),
        }
    }

    pub(in crate::local) fn keys(&self) -> HashMap<Place, HashMap<Bytes, u64>> {
        let mut keys: HashMap<Place, HashMap<Bytes, u64>> = HashMap::new();
        for ((number, partition, offset), record) in &self.records {
            if self.topics[number].retention == Retention::Compact
                && let Some(key) = &record.key
            {
                keys.entry((*number, *partition)).or_default().insert(key.clone(), *offset);
            }
        }
        keys
    }

    /// Up to `limit` records of a partition.
    pub(super) fn read(&self, number: u32, partition: u32, range: Range<u64>, limit: usize) -> Vec<LogRecord> {
        let keys = (number, partition, range.start)..(number, partition, range.end);
        self.records.range(keys).take(limit).map(|(_, record)| record.clone()).collect()
    }
}
