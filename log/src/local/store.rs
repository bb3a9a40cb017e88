//! The embedded store under the log: redb, one transaction and one fsync for each group of commands.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::core::{BLOCK_OFFSETS, Kept, Write};
use super::record::{decode, encode};
use crate::port::{Committed, LogError, LogRecord, Retention, Topic, TopicPartition, TopicSpec};

/// Topic number, partition, offset → record.
const RECORDS: TableDefinition<'_, (u32, u32, u64), &[u8]> = TableDefinition::new("records");
/// Topic number → name, partitions, retention in milliseconds (0 for ever, `u64::MAX` compacted).
const TOPICS: TableDefinition<'_, u32, (&str, u32, u64)> = TableDefinition::new("topics");
/// Topic number, partition → first offset still there, one after the last offset ever.
const BORDERS: TableDefinition<'_, (u32, u32), (u64, u64)> = TableDefinition::new("borders");
/// Topic number, partition, first offset of a block → its highest timestamp.
const TIMES: TableDefinition<'_, (u32, u32, u64), u64> = TableDefinition::new("times");
/// Group, topic, partition → next offset, metadata.
const OFFSETS: TableDefinition<'_, (&str, &str, u32), (u64, &str)> = TableDefinition::new("offsets");

const COMPACTED: u64 = u64::MAX;

/// The file. Cheap to clone.
#[derive(Clone)]
pub(super) struct Store(Arc<Database>);

fn broken(error: impl Into<redb::Error>) -> LogError {
    match error.into() {
        redb::Error::DatabaseAlreadyOpen => LogError::Unavailable(
            "another process has this data folder open: use another --data-dir, or stop it".to_owned(),
        ),
        error => LogError::Unavailable(format!("the data folder cannot be used: {error}")),
    }
}

impl Store {
    /// Opens the file, or makes it, and reads what was kept.
    pub(super) fn open(file: &Path, cache_bytes: usize) -> Result<(Self, Kept), LogError> {
        let database = Database::builder().set_cache_size(cache_bytes).create(file).map_err(broken)?;
        let store = Self(Arc::new(database));
        store.write(&[])?;
        let kept = store.kept()?;
        Ok((store, kept))
    }

    /// Makes writes durable, all or none.
    pub(super) fn write(&self, writes: &[Write]) -> Result<(), LogError> {
        let transaction = self.0.begin_write().map_err(broken)?;
        {
            let mut records = transaction.open_table(RECORDS).map_err(broken)?;
            let mut topics = transaction.open_table(TOPICS).map_err(broken)?;
            let mut borders = transaction.open_table(BORDERS).map_err(broken)?;
            let mut times = transaction.open_table(TIMES).map_err(broken)?;
            let mut offsets = transaction.open_table(OFFSETS).map_err(broken)?;
            let mut ends = std::collections::HashMap::new();
            for write in writes {
                match write {
                    Write::Topic(number, spec) => {
                        let row = (&*spec.name, spec.partitions, retention_to(spec.retention));
                        topics.insert(number, row).map_err(broken)?;
                    }
                    Write::Record(number, record) => {
                        let (partition, offset) = (record.at.partition, record.offset);
                        records.insert((*number, partition, offset), &*encode(record)).map_err(broken)?;
                        ends.insert((*number, partition), offset + 1);
                    }
                    Write::BlockTime(number, partition, block, highest) => {
                        times.insert((*number, *partition, *block), highest).map_err(broken)?;
                    }
                    Write::Remove(number, partition, offset) => {
                        records.remove((*number, *partition, *offset)).map_err(broken)?;
                    }
                    Write::Low(number, partition, low) => {
                        let place = (*number, *partition);
                        let high = borders.get(place).map_err(broken)?.map_or(*low, |found| found.value().1);
                        borders.insert(place, (*low, high.max(*low))).map_err(broken)?;
                        let gone = (*number, *partition, 0)..(*number, *partition, *low);
                        records.retain_in(gone, |_, _| false).map_err(broken)?;
                        let blocks =
                            (*number, *partition, 0)..(*number, *partition, low / BLOCK_OFFSETS * BLOCK_OFFSETS);
                        times.retain_in(blocks, |_, _| false).map_err(broken)?;
                    }
                    Write::Offset(group, at, committed) => {
                        let key = (group.as_str(), &*at.topic, at.partition);
                        offsets.insert(key, (committed.next, committed.metadata.as_str())).map_err(broken)?;
                    }
                }
            }
            for (place, high) in ends {
                let low = borders.get(place).map_err(broken)?.map_or(0, |found| found.value().0);
                borders.insert(place, (low, high)).map_err(broken)?;
            }
        }
        // Immediate durability is redb's default: the commit returns after fsync.
        transaction.commit().map_err(broken)
    }

    /// Up to `limit` records of a partition with offsets in `range`, and whether there are more.
    pub(super) fn read(
        &self,
        number: u32,
        at: &TopicPartition,
        range: Range<u64>,
        limit: usize,
    ) -> Result<Vec<LogRecord>, LogError> {
        let transaction = self.0.begin_read().map_err(broken)?;
        let records = transaction.open_table(RECORDS).map_err(broken)?;
        let keys = (number, at.partition, range.start)..(number, at.partition, range.end);
        let mut found = Vec::new();
        for entry in records.range(keys).map_err(broken)?.take(limit) {
            let (key, value) = entry.map_err(broken)?;
            let bytes = Bytes::copy_from_slice(value.value());
            let record = decode(at.clone(), key.value().2, bytes);
            found.push(record.ok_or_else(|| LogError::Unavailable("a kept record is damaged".to_owned()))?);
        }
        Ok(found)
    }

    fn kept(&self) -> Result<Kept, LogError> {
        let transaction = self.0.begin_read().map_err(broken)?;
        let mut kept = Kept::default();
        for entry in transaction.open_table(TOPICS).map_err(broken)?.iter().map_err(broken)? {
            let (number, row) = entry.map_err(broken)?;
            let (name, partitions, retention) = row.value();
            let spec = TopicSpec { name: name.into(), partitions, retention: retention_from(retention) };
            kept.topics.insert(number.value(), spec);
        }
        for entry in transaction.open_table(BORDERS).map_err(broken)?.iter().map_err(broken)? {
            let (place, border) = entry.map_err(broken)?;
            kept.borders.insert(place.value(), border.value());
        }
        for entry in transaction.open_table(TIMES).map_err(broken)?.iter().map_err(broken)? {
            let (block, highest) = entry.map_err(broken)?;
            let (number, partition, first) = block.value();
            kept.block_times.entry((number, partition)).or_default().insert(first, highest.value());
        }
        for entry in transaction.open_table(OFFSETS).map_err(broken)?.iter().map_err(broken)? {
            let (key, row) = entry.map_err(broken)?;
            let ((group, topic, partition), (next, metadata)) = (key.value(), row.value());
            let at = TopicPartition::new(topic, partition);
            kept.offsets.push((group.to_owned(), at, Committed { next, metadata: metadata.to_owned() }));
        }
        self.keep_keys(&mut kept)?;
        Ok(kept)
    }

    /// Reads the newest offset of each key in compacted topics.
    fn keep_keys(&self, kept: &mut Kept) -> Result<(), LogError> {
        let compacted: Vec<(u32, Topic, u32)> = kept
            .topics
            .iter()
            .filter(|(_, spec)| spec.retention == Retention::Compact)
            .flat_map(|(number, spec)| (0..spec.partitions).map(|partition| (*number, spec.name.clone(), partition)))
            .collect();
        for (number, topic, partition) in compacted {
            let at = TopicPartition::new(topic, partition);
            let records = self.read(number, &at, 0..u64::MAX, usize::MAX)?;
            let keys = records.into_iter().filter_map(|record| Some((record.key?, record.offset)));
            kept.keys.insert((number, partition), keys.collect());
        }
        Ok(())
    }
}

fn retention_to(retention: Retention) -> u64 {
    match retention {
        Retention::Forever => 0,
        Retention::Age(age) => (age.as_millis() as u64).clamp(1, COMPACTED - 1),
        Retention::Compact => COMPACTED,
    }
}

fn retention_from(ms: u64) -> Retention {
    match ms {
        0 => Retention::Forever,
        COMPACTED => Retention::Compact,
        ms => Retention::Age(std::time::Duration::from_millis(ms)),
    }
}
