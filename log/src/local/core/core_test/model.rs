//! What the log should be, written as plainly as possible: lists of records, a table of who holds what.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{BLOCK_OFFSETS, MemberId};
use crate::port::{Committed, LogRecord, NewRecord, Retention, TopicPartition, TopicSpec};

/// A partition of a group.
pub(super) type Seat = (String, TopicPartition);

/// Everything that can be durable.
#[derive(Debug, Clone, Default)]
pub(super) struct Contents {
    pub(super) topics: Vec<TopicSpec>,
    pub(super) partitions: BTreeMap<TopicPartition, Records>,
    pub(super) offsets: BTreeMap<Seat, Committed>,
}

/// A partition.
#[derive(Debug, Clone, Default)]
pub(super) struct Records {
    pub(super) low: u64,
    pub(super) here: BTreeMap<u64, LogRecord>,
    /// The timestamp of every record that ever was, by offset.
    times: Vec<u64>,
}

impl Records {
    pub(super) fn high(&self) -> u64 {
        self.times.len() as u64
    }

    pub(super) fn delete_before(&mut self, offset: u64) {
        self.low = self.low.max(offset);
        self.here.retain(|at, _| *at >= offset);
    }

    /// Where expiry at `oldest` stops: before the first block that holds a record young enough.
    fn young_from(&self, oldest: u64) -> u64 {
        let blocks = self.times.chunks(BLOCK_OFFSETS as usize).enumerate().map(|(n, times)| (n as u64, times));
        let mut kept = blocks.skip((self.low / BLOCK_OFFSETS) as usize);
        let young = kept.find(|(_, times)| times.iter().any(|ms| *ms >= oldest));
        young.map_or(self.high(), |(n, _)| n * BLOCK_OFFSETS)
    }
}

impl Contents {
    pub(super) fn create(&mut self, spec: &TopicSpec) {
        if self.topics.iter().any(|known| known.name == spec.name) {
            return;
        }
        self.topics.push(spec.clone());
        for partition in 0..spec.partitions {
            self.partitions.insert(TopicPartition::new(spec.name.clone(), partition), Records::default());
        }
    }

    pub(super) fn append(&mut self, record: &NewRecord) -> u64 {
        let spec = self.topics.iter().find(|spec| spec.name == record.to.topic).expect("the topic exists");
        let data = self.partitions.get_mut(&record.to).expect("the partition exists");
        let offset = data.high();
        if spec.retention == Retention::Compact && record.key.is_some() {
            data.here.retain(|_, earlier| earlier.key != record.key);
        }
        data.times.push(record.timestamp_ms);
        let NewRecord { to, key, value, headers, timestamp_ms } = record.clone();
        data.here.insert(offset, LogRecord { at: to, offset, key, value, headers, timestamp_ms });
        offset
    }

    /// Drops what is too old; only what readers could see (below the high offsets of `durable`) goes.
    pub(super) fn expire(&mut self, now_ms: u64, durable: &Self) {
        for spec in &self.topics {
            let Retention::Age(age) = spec.retention else { continue };
            let oldest = now_ms.saturating_sub(age.as_millis() as u64);
            for (at, data) in self.partitions.iter_mut().filter(|(at, _)| at.topic == spec.name) {
                let published = durable.partitions.get(at).map_or(0, Records::high);
                data.delete_before(data.young_from(oldest).min(published));
            }
        }
    }
}

/// A partition in the hands of a member that knows of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) member: MemberId,
    pub(super) epoch: u64,
    pub(super) next: u64,
    pub(super) paused: bool,
    /// It was asked to give it up; by this time it is taken anyway.
    pub(super) told: Option<u64>,
}

/// A member that joined in this life of the log.
#[derive(Debug, Clone)]
pub(super) struct Joined {
    pub(super) id: MemberId,
    pub(super) group: String,
    pub(super) transactional_id: String,
    /// It neither left nor was its transactional id taken by another member.
    pub(super) alive: bool,
    /// Its transactional id was fenced, which its next commit will learn.
    pub(super) fenced: bool,
}

/// What a member was asked to give up and has not yet.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    pub(super) member: MemberId,
    pub(super) group: String,
    pub(super) partitions: Vec<(TopicPartition, u64)>,
}

/// The whole of it.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) now: Contents,
    /// What readers may see, and what a restart finds.
    pub(super) durable: Contents,
    pub(super) members: Vec<Joined>,
    pub(super) held: BTreeMap<Seat, Held>,
    pub(super) guards: Vec<Guard>,
    /// Every assignment that a member has learned of in this life.
    pub(super) handed: Vec<(Seat, MemberId, u64)>,
}

impl Model {
    /// What a reader of a partition gets from its start.
    pub(super) fn visible(&self, at: &TopicPartition) -> Vec<&LogRecord> {
        let low = self.now.partitions.get(at).map_or(0, |data| data.low);
        let durable = self.durable.partitions.get(at);
        durable.into_iter().flat_map(|data| data.here.range(low..)).map(|(_, record)| record).collect()
    }

    pub(super) fn drop_seats(&mut self, ended: impl Fn(&Seat, &Held) -> bool) {
        self.held.retain(|seat, held| !ended(seat, held));
    }

    pub(super) fn seats_of(&self, member: MemberId) -> Vec<(TopicPartition, Held)> {
        let own = self.held.iter().filter(|(_, held)| held.member == member);
        own.map(|((_, at), held)| (at.clone(), held.clone())).collect()
    }

    /// Members of a group that take part, by id.
    pub(super) fn alive(&self, group: &str) -> BTreeSet<MemberId> {
        self.members.iter().filter(|one| one.alive && one.group == group).map(|one| one.id).collect()
    }

    /// What a restart does: memory goes, what was durable stays.
    pub(super) fn restart(&mut self) {
        *self = Self { now: self.durable.clone(), durable: self.durable.clone(), ..Self::default() };
    }
}
