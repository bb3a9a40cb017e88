//! A reader of published records: from memory where they are, else from the store.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;

use super::Shared;
use super::core::Fetched;
use crate::port::{LogError, LogReader, LogRecord, ReadEvent, Start, TopicPartition};

/// Records read from the store at once.
const STORED_BATCH: usize = 256;
/// Records taken from memory at once.
const BATCH: usize = 64;

pub(super) struct LocalReader {
    shared: Arc<Shared>,
    places: Vec<Place>,
    ready: VecDeque<ReadEvent>,
}

struct Place {
    at: TopicPartition,
    next: u64,
    /// Records before this time are passed over until one is not.
    not_before_ms: Option<u64>,
    told_end: Option<u64>,
    gone: bool,
}

impl LocalReader {
    pub(super) fn open(shared: Arc<Shared>, starts: &[(TopicPartition, Start)]) -> Result<Self, LogError> {
        let mut places = Vec::with_capacity(starts.len());
        for (at, start) in starts {
            let not_before_ms = if let Start::Time(ms) = start { Some(*ms) } else { None };
            let next = match shared.core().start(at, *start) {
                // Told by the first `next`, as by every log.
                Err(LogError::OffsetOutOfRange { offset, .. }) => offset,
                other => other?,
            };
            places.push(Place { at: at.clone(), next, not_before_ms, told_end: None, gone: false });
        }
        Ok(Self { shared, places, ready: VecDeque::new() })
    }

    /// Takes what is there now; `Some` if records must be read from the store first.
    fn fill(&mut self) -> Result<Option<(usize, u64, u64)>, LogError> {
        let core = self.shared.core();
        for (index, place) in self.places.iter_mut().enumerate().filter(|(_, place)| !place.gone) {
            for _ in 0..BATCH {
                match core.fetch(&place.at, place.next) {
                    Fetched::Record(record) => place.take(record, &mut self.ready),
                    Fetched::Stored(from, to) => return Ok(Some((index, from, to))),
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

    async fn read_stored(&mut self, index: usize, from: u64, to: u64) -> Result<(), LogError> {
        let Some(place) = self.places.get_mut(index) else { return Ok(()) };
        let number = self.shared.core().topic_number(&place.at.topic);
        let number = number.ok_or_else(|| LogError::UnknownTopic(place.at.clone()))?;
        let (store, at) = (self.shared.store.clone(), place.at.clone());
        let read = tokio::task::spawn_blocking(move || store.read(number, &at, from..to, STORED_BATCH));
        let records = read.await.map_err(|error| LogError::Unavailable(error.to_string()))??;
        if records.len() < STORED_BATCH {
            place.next = to;
        }
        for record in records {
            let next = place.next;
            place.take(record, &mut self.ready);
            place.next = place.next.max(next);
        }
        Ok(())
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

#[async_trait]
impl LogReader for LocalReader {
    async fn next(&mut self) -> Result<ReadEvent, LogError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            let shared = self.shared.clone();
            let changed = shared.changed.notified();
            tokio::pin!(changed);
            // From here on nothing is missed: what is published after the look below wakes the wait.
            changed.as_mut().enable();
            match self.fill()? {
                Some((index, from, to)) => self.read_stored(index, from, to).await?,
                None if self.ready.is_empty() => changed.await,
                None => {}
            }
        }
    }
}
