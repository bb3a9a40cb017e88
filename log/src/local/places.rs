//! Where a reader of published records is, and what it has ready. Pure: whoever reads holds the core and the store.

use std::collections::VecDeque;

use super::core::{Core, Fetched};
use crate::port::{LogError, LogRecord, ReadEvent, Start, TopicPartition};

/// Records taken from memory at once from one partition.
const BATCH: usize = 64;

/// The partitions that a reader reads.
#[derive(Debug)]
pub struct Places {
    places: Vec<Place>,
    ready: VecDeque<ReadEvent>,
}

#[derive(Debug)]
struct Place {
    at: TopicPartition,
    next: u64,
    /// Records before this time are passed over until one is not.
    not_before_ms: Option<u64>,
    told_end: Option<u64>,
    gone: bool,
}

/// Records that are in the store alone and must be read from there.
#[derive(Debug)]
pub struct Stored {
    /// Their partition.
    pub at: TopicPartition,
    /// The first offset.
    pub from: u64,
    /// One after the last.
    pub to: u64,
    index: usize,
}

impl Places {
    /// A reader that begins at `starts`.
    ///
    /// # Errors
    /// [`LogError::UnknownTopic`].
    pub fn open(core: &Core, starts: &[(TopicPartition, Start)]) -> Result<Self, LogError> {
        let mut places = Vec::with_capacity(starts.len());
        for (at, start) in starts {
            let not_before_ms = if let Start::Time(ms) = start { Some(*ms) } else { None };
            let next = match core.start(at, *start) {
                // Told by the first look, as by every log.
                Err(LogError::OffsetOutOfRange { offset, .. }) => offset,
                other => other?,
            };
            places.push(Place { at: at.clone(), next, not_before_ms, told_end: None, gone: false });
        }
        Ok(Self { places, ready: VecDeque::new() })
    }

    /// The partitions.
    pub fn partitions(&self) -> impl Iterator<Item = &TopicPartition> {
        self.places.iter().map(|place| &place.at)
    }

    /// Whether there is nothing to take.
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    /// The next event that is ready.
    pub fn pop(&mut self) -> Option<ReadEvent> {
        self.ready.pop_front()
    }

    /// Takes what is there now; `Some` if records must be read from the store first.
    ///
    /// # Errors
    /// [`LogError::OffsetOutOfRange`], once for each partition.
    pub fn fill(&mut self, core: &Core) -> Result<Option<Stored>, LogError> {
        for (index, place) in self.places.iter_mut().enumerate().filter(|(_, place)| !place.gone) {
            for _ in 0..BATCH {
                match core.fetch(&place.at, place.next) {
                    Fetched::Record(record) => place.take(record, &mut self.ready),
                    Fetched::Stored(from, to) => return Ok(Some(Stored { at: place.at.clone(), from, to, index })),
                    Fetched::End => {
                        let end = core.watermarks(&place.at)?.stable;
                        if place.told_end != Some(end) && place.next <= end {
                            place.told_end = Some(end);
                            self.ready.push_back(ReadEvent::End { at: place.at.clone(), next: end });
                        }
                        break;
                    }
                    Fetched::Gone { low, high } => {
                        place.gone = true;
                        let (at, offset) = (place.at.clone(), place.next);
                        return Err(LogError::OffsetOutOfRange { at, offset, low, high });
                    }
                }
            }
        }
        Ok(None)
    }

    /// Takes what was read of `stored`; `is_all`: there is no more of it.
    pub fn take(&mut self, stored: &Stored, records: Vec<LogRecord>, is_all: bool) {
        let Some(place) = self.places.get_mut(stored.index) else { return };
        if is_all {
            place.next = stored.to;
        }
        for record in records {
            let next = place.next;
            place.take(record, &mut self.ready);
            place.next = place.next.max(next);
        }
    }
}

impl Place {
    fn take(&mut self, record: LogRecord, ready: &mut VecDeque<ReadEvent>) {
        self.next = record.offset + 1;
        self.told_end = None;
        if self.not_before_ms.is_some_and(|ms| record.timestamp_ms < ms) {
            return;
        }
        self.not_before_ms = None;
        ready.push_back(ReadEvent::Record(record));
    }
}
