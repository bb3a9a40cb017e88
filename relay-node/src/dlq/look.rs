//! Reads letters, each with the marks behind it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use relay_log::port::{Log, LogError, LogRecord, ReadEvent, Start, TopicPartition};
use relay_protocol::dead_letter::{LetterFilter, LetterId, LetterName};
use relay_protocol::{ErrorCode, JobError, JobId, topics};

use super::dead::{self, Dead};
use super::filter::{Sight, lets_through};
use super::marks::Marks;
use super::settings::DlqSettings;
use crate::events::find::CLOCK_SKEW_MS_MAX;

/// A letter and what has become of it.
#[derive(Debug)]
pub struct Found {
    /// The letter.
    pub dead: Dead,
    /// The marks on it.
    pub marks: Marks,
}

/// Letters that were read, by partition and offset.
#[derive(Debug, Default)]
pub struct Look {
    /// The letters.
    pub found: Vec<Found>,
    /// There are more behind this one.
    pub cursor: Option<LetterId>,
    /// How far each partition was read.
    ends: BTreeMap<u32, u64>,
    bytes: usize,
}

/// Reads the topic of dead letters within the limits of one request.
pub struct Reading<'a> {
    /// The log.
    pub log: &'a dyn Log,
    /// Partitions of the topic.
    pub partitions: u32,
    /// The limits.
    pub settings: &'a DlqSettings,
    /// What the caller sees.
    pub sight: Sight,
}

/// The partition of the topic of dead letters.
pub fn place(partition: u32) -> TopicPartition {
    TopicPartition::new(topics::DEAD_LETTERS, partition)
}

impl Reading<'_> {
    /// The letters behind `after` that `filter` lets through, at most `limit`. A page has fewer if they are large.
    ///
    /// # Errors
    /// [`ErrorCode::LogUnavailable`], also when it takes too long.
    pub async fn page(&self, filter: &LetterFilter, after: Option<LetterId>, limit: usize) -> Result<Look, JobError> {
        let limit = limit.min(self.settings.page_records_max);
        let first = after.map_or(0, |after| after.partition);
        self.in_time(async {
            let mut look = Look::default();
            for partition in first..self.partitions {
                if let (true, Some(last)) = (self.is_full(&look, limit), look.found.last()) {
                    look.cursor = Some(last.dead.id);
                    break;
                }
                let from = after.filter(|after| after.partition == partition).map(|after| after.offset + 1);
                self.read_page(&mut look, filter, partition, from, limit).await?;
                if look.cursor.is_some() {
                    break;
                }
            }
            Ok(look)
        })
        .await
    }

    fn is_full(&self, look: &Look, limit: usize) -> bool {
        look.found.len() >= limit || look.bytes >= self.settings.page_bytes_max
    }

    async fn read_page(
        &self,
        look: &mut Look,
        filter: &LetterFilter,
        partition: u32,
        from: Option<u64>,
        limit: usize,
    ) -> Result<(), LogError> {
        let start = from.map_or(Start::Earliest, Start::Offset);
        self.read(look, partition, start, None, |look, record| {
            if look.cursor.is_some() || !self.sight.sees(&record) {
                return None;
            }
            let dead = Dead::read(record);
            if !lets_through(filter, &dead) {
                return None;
            }
            if self.is_full(look, limit) {
                let by = if look.found.len() >= limit { "records" } else { "bytes" };
                metrics::counter!("relay_dlq_pages_cut_total", "by" => by).increment(1);
                look.cursor = look.found.last().map(|last| last.dead.id);
                return None;
            }
            Some(dead)
        })
        .await
    }

    /// The letters of these names, and those names that stand for none.
    ///
    /// # Errors
    /// [`ErrorCode::LogUnavailable`], also when it takes too long; [`ErrorCode::TooLarge`] if they are too large together.
    pub async fn named(&self, names: &[LetterName]) -> Result<(Look, HashMap<LetterName, LetterId>), JobError> {
        self.in_time(async {
            let mut ids = self.of_jobs(names).await?;
            ids.extend(names.iter().filter_map(|name| match name {
                LetterName::Letter(id) => Some((*name, *id)),
                LetterName::Job(_) => None,
            }));
            let mut wanted = BTreeMap::<u32, BTreeSet<u64>>::new();
            for id in ids.values().filter(|id| id.partition < self.partitions) {
                wanted.entry(id.partition).or_default().insert(id.offset);
            }
            let mut look = Look::default();
            for (partition, offsets) in wanted {
                let Some(first) = offsets.first().copied() else { continue };
                self.read(&mut look, partition, Start::Offset(first), None, |look, record| {
                    let is_wanted = offsets.contains(&record.offset) && self.sight.sees(&record);
                    (is_wanted && !look.is_too_large(self.settings)).then(|| Dead::read(record))
                })
                .await?;
            }
            Ok((look, ids))
        })
        .await
        .and_then(|read| if read.0.is_too_large(self.settings) { Err(too_large(self.settings)) } else { Ok(read) })
    }

    /// The newest letter of each job among the names.
    async fn of_jobs(&self, names: &[LetterName]) -> Result<HashMap<LetterName, LetterId>, LogError> {
        let mut wanted = BTreeMap::<u32, BTreeSet<JobId>>::new();
        for name in names {
            if let LetterName::Job(job_id) = name {
                wanted.entry(job_id.reply_partition(self.partitions)).or_default().insert(*job_id);
            }
        }
        let mut ids = HashMap::new();
        for (partition, jobs) in wanted {
            // A letter is younger than its job's id, unless that is no time.
            let made: Option<Vec<u64>> = jobs.iter().map(|job| job.made_at_ms()).collect();
            let made = made.and_then(|made| made.into_iter().min());
            let start = made.map_or(Start::Earliest, |ms| Start::Time(ms.saturating_sub(CLOCK_SKEW_MS_MAX)));
            self.read(&mut Look::default(), partition, start, None, |_, record| {
                if let Some(job_id) = dead::job_id_of(&record).filter(|id| jobs.contains(id))
                    && self.sight.sees(&record)
                {
                    ids.insert(LetterName::Job(job_id), LetterId { partition, offset: record.offset });
                }
                None
            })
            .await?;
        }
        Ok(ids)
    }

    /// Reads the marks that were written meanwhile: in each partition until its offset in `until` was read.
    ///
    /// # Errors
    /// [`ErrorCode::LogUnavailable`], also when it takes too long.
    pub async fn catch_up(&self, look: &mut Look, until: &BTreeMap<u32, u64>) -> Result<(), JobError> {
        self.in_time(async {
            for (partition, last) in until {
                let from = look.ends.get(partition).copied().unwrap_or_default();
                self.read(look, *partition, Start::Offset(from), Some(*last), |_, _| None).await?;
            }
            Ok(())
        })
        .await
    }

    /// Reads a partition from `start` to its end, or until the record at `last` was read: letters that `pick` takes
    /// are found, and every mark on one that was found is heard.
    async fn read(
        &self,
        look: &mut Look,
        partition: u32,
        start: Start,
        last: Option<u64>,
        mut pick: impl FnMut(&mut Look, LogRecord) -> Option<Dead>,
    ) -> Result<(), LogError> {
        let at = place(partition);
        let borders = self.log.watermarks(&at).await?;
        let start = match start {
            Start::Offset(offset) if last.is_none() && offset >= borders.stable => return Ok(()),
            Start::Offset(offset) => Start::Offset(offset.max(borders.low)),
            other => other,
        };
        let here = look.found.iter().enumerate().filter(|(_, found)| found.dead.id.partition == partition);
        let mut by_offset: HashMap<u64, usize> = here.map(|(index, found)| (found.dead.id.offset, index)).collect();
        let mut reader = self.log.read(vec![(at, start)]).await?;
        loop {
            match reader.next().await? {
                ReadEvent::End { next, .. } if last.is_none_or(|last| next > last) => {
                    look.ends.insert(partition, next);
                    return Ok(());
                }
                ReadEvent::End { .. } => {}
                ReadEvent::Record(record) => {
                    let offset = record.offset;
                    if dead::is_mark(&record) {
                        look.hear(&by_offset, &record);
                    } else if let Some(dead) = pick(look, record) {
                        by_offset.insert(offset, look.found.len());
                        look.bytes += dead.bytes();
                        look.found.push(Found { dead, marks: Marks::default() });
                    }
                    if last.is_some_and(|last| offset >= last) {
                        look.ends.insert(partition, offset + 1);
                        return Ok(());
                    }
                }
            }
        }
    }

    async fn in_time<T>(&self, read: impl Future<Output = Result<T, LogError>>) -> Result<T, JobError> {
        match tokio::time::timeout(self.settings.read_timeout(), read).await {
            Ok(read) => read.map_err(crate::gateway::submit::log_error),
            Err(_) => {
                metrics::counter!("relay_dlq_read_timeouts_total").increment(1);
                let message = format!(
                    "the dead letters were not read within {} ms: try again later, or raise dlq.read_timeout_ms",
                    self.settings.read_timeout_ms
                );
                Err(JobError::new(ErrorCode::LogUnavailable, message))
            }
        }
    }
}

fn too_large(settings: &DlqSettings) -> JobError {
    let message = format!("these letters have more than {} bytes: name fewer at a time", settings.page_bytes_max);
    JobError::new(ErrorCode::TooLarge, message)
}

impl Look {
    fn hear(&mut self, by_offset: &HashMap<u64, usize>, record: &LogRecord) {
        let Some(mark) = dead::mark_of(record) else { return };
        if let Some(found) = by_offset.get(&mark.letter).and_then(|index| self.found.get_mut(*index)) {
            found.marks.on(record.offset, &mark);
        }
    }

    /// One letter may be as large as it is.
    fn is_too_large(&self, settings: &DlqSettings) -> bool {
        self.found.len() > 1 && self.bytes > settings.page_bytes_max
    }
}
