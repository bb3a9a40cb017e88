//! A reader of published records: from memory where they are, else from the store.

use std::sync::Arc;

use async_trait::async_trait;

use super::Shared;
use super::places::{Places, Stored};
use crate::port::{LogError, LogReader, ReadEvent, Start, TopicPartition};

/// Records read from the store at once.
const STORED_BATCH: usize = 256;

pub(super) struct LocalReader {
    shared: Arc<Shared>,
    places: Places,
}

impl LocalReader {
    pub(super) fn open(shared: Arc<Shared>, starts: &[(TopicPartition, Start)]) -> Result<Self, LogError> {
        let places = Places::open(&shared.core(), starts)?;
        Ok(Self { shared, places })
    }

    async fn read_stored(&mut self, stored: Stored) -> Result<(), LogError> {
        let number = self.shared.core().topic_number(&stored.at.topic);
        let number = number.ok_or_else(|| LogError::UnknownTopic(stored.at.clone()))?;
        let (store, at, wanted) = (self.shared.store.clone(), stored.at.clone(), stored.from..stored.to);
        let read = tokio::task::spawn_blocking(move || store.read(number, &at, wanted, STORED_BATCH));
        let records = read.await.map_err(|error| LogError::Unavailable(error.to_string()))??;
        let is_all = records.len() < STORED_BATCH;
        self.places.take(&stored, records, is_all);
        Ok(())
    }
}

#[async_trait]
impl LogReader for LocalReader {
    async fn next(&mut self) -> Result<ReadEvent, LogError> {
        loop {
            if let Some(event) = self.places.pop() {
                return Ok(event);
            }
            let shared = self.shared.clone();
            let changed = shared.changed.notified();
            tokio::pin!(changed);
            // From here on nothing is missed: what is published after the look below wakes the wait.
            changed.as_mut().enable();
            let stored = self.places.fill(&shared.core())?;
            match stored {
                Some(stored) => self.read_stored(stored).await?,
                None if self.places.is_empty() => changed.await,
                None => {}
            }
        }
    }
}
