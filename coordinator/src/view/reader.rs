//! Reads the events' topic into the store, batch by batch, from where the store says it was read to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use relay_log::port::{Log, LogError, LogReader, ReadEvent, Start, Topic, TopicPartition};
use relay_protocol::topics;
use relay_runtime::backoff::{full_jitter, retry_delay};
use relay_runtime::clock::Clock;
use relay_runtime::random::Random;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::JobView;
use super::store::{Batch, StoreError};
use crate::metrics;

const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// Time between two looks at the topic's ends.
const LAG_TICK: Duration = Duration::from_secs(1);
/// The same, and between two looks for rows that are too old, when no event comes.
const IDLE_TICK: Duration = Duration::from_secs(5);

/// Feeds a [`JobView`].
pub struct ViewReader {
    view: JobView,
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    topic: Topic,
    partitions: u32,
    batch_events_max: usize,
    batch_wait: Duration,
}

/// Why a round ended.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{0}")]
    Log(#[from] LogError),
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// How far a round has read.
struct Progress {
    next: BTreeMap<u32, u64>,
    /// Partitions that have not come to an end since the start.
    behind: BTreeSet<u32>,
    /// When the ends were looked at.
    looked: Instant,
}

impl ViewReader {
    /// A reader of `partitions` partitions of the events' topic, for transactions of `batch_events_max` records at most,
    /// which wait for more of them no longer than `batch_wait`.
    pub fn new(
        view: JobView,
        log: Arc<dyn Log>,
        clock: Arc<dyn Clock>,
        partitions: u32,
        (batch_events_max, batch_wait): (usize, Duration),
    ) -> Self {
        Self { view, log, clock, topic: topics::EVENTS.into(), partitions, batch_events_max, batch_wait }
    }

    /// Reads until `shutdown`; a log or a store that cannot be used is tried again for ever.
    pub async fn run(self, random: impl Random, shutdown: CancellationToken) {
        let mut failures = 0_u32;
        loop {
            let trouble = tokio::select! {
                () = shutdown.cancelled() => return,
                trouble = self.round(&mut failures) => trouble,
            };
            if let Err(trouble) = trouble {
                self.mend(&trouble).await;
                tracing::warn!(error = %trouble, "the job view could not go on; trying again");
                metrics::view_error();
            }
            failures = failures.saturating_add(1);
            let delay = retry_delay(failures, RETRY_MIN, RETRY_MAX);
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(delay / 2 + full_jitter(delay / 2, random.next_u64())) => {}
            }
        }
    }

    /// Throws away what cannot be read on: a damaged file, or offsets that the topic does not have.
    async fn mend(&self, trouble: &Trouble) {
        let reason = match trouble {
            Trouble::Log(LogError::OffsetOutOfRange { offset, high, .. }) if offset > high => "offsets",
            _ if self.view.store.is_damaged() => "damaged",
            _ => return,
        };
        self.view.caught_up.store(false, Ordering::Relaxed);
        if let Err(error) = self.blocking(move |view| view.store.throw_away(reason)).await {
            tracing::error!(%error, "the job view cannot be made anew");
        }
    }

    /// Reads on from the store's offsets; returns only in trouble.
    async fn round(&self, failures: &mut u32) -> Result<(), Trouble> {
        let next = self.blocking(|view| view.store.offsets()).await?;
        let mut starts = Vec::with_capacity(self.partitions as usize);
        for partition in 0..self.partitions {
            starts.push((self.at(partition), self.start(partition, next.get(&partition).copied()).await?));
        }
        let mut reader = self.log.read(starts).await?;
        let mut progress = Progress { next, behind: (0..self.partitions).collect(), looked: Instant::now() };
        loop {
            let batch = self.collect(reader.as_mut(), &mut progress).await?;
            let idle = batch.records.is_empty();
            let now_ms = self.clock.now_ms();
            self.blocking(move |view| view.store.apply(&batch, now_ms)).await?;
            *failures = 0;
            if self.view.store.is_damaged() {
                return Err(StoreError::Damaged("a query met it".to_owned()).into());
            }
            if progress.behind.is_empty() && !self.view.caught_up.swap(true, Ordering::Relaxed) {
                tracing::info!("the job view has read all events that there were");
            }
            if idle || progress.looked.elapsed() > LAG_TICK {
                self.show_lag(&progress).await?;
                progress.looked = Instant::now();
            }
        }
    }

    /// Where to begin: behind what was read, unless retention has removed that.
    async fn start(&self, partition: u32, next: Option<u64>) -> Result<Start, Trouble> {
        let Some(next) = next else { return Ok(Start::Earliest) };
        let at = self.at(partition);
        let marks = self.log.watermarks(&at).await?;
        if next > marks.high {
            let (low, high) = (marks.low, marks.high);
            return Err(LogError::OffsetOutOfRange { at, offset: next, low, high }.into());
        }
        Ok(if next < marks.low { Start::Earliest } else { Start::Offset(next) })
    }

    /// Waits for the first record, then for more of them for a short while; empty if none came for long.
    async fn collect(&self, reader: &mut dyn LogReader, progress: &mut Progress) -> Result<Batch, Trouble> {
        let mut batch = Batch::default();
        let mut deadline = Instant::now() + IDLE_TICK;
        while batch.records.len() < self.batch_events_max {
            let Ok(event) = timeout_at(deadline, reader.next()).await else { break };
            match event? {
                ReadEvent::Record(record) => {
                    if batch.records.is_empty() {
                        deadline = Instant::now() + self.batch_wait;
                    }
                    progress.next.insert(record.at.partition, record.offset + 1);
                    batch.offsets.insert(record.at.partition, record.offset + 1);
                    batch.records.push(record);
                }
                ReadEvent::End { at, next } => {
                    progress.next.insert(at.partition, next);
                    batch.offsets.insert(at.partition, next);
                    let was_last = progress.behind.remove(&at.partition) && progress.behind.is_empty();
                    if was_last {
                        break;
                    }
                }
            }
        }
        Ok(batch)
    }

    async fn show_lag(&self, progress: &Progress) -> Result<(), Trouble> {
        let mut lag = 0;
        for partition in 0..self.partitions {
            let stable = self.log.watermarks(&self.at(partition)).await?.stable;
            lag += stable.saturating_sub(progress.next.get(&partition).copied().unwrap_or(0));
        }
        metrics::view_lag(lag);
        Ok(())
    }

    async fn blocking<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&JobView) -> Result<T, StoreError> + Send + 'static,
    {
        let view = self.view.clone();
        let done = tokio::task::spawn_blocking(move || work(&view)).await;
        done.unwrap_or_else(|error| Err(StoreError::Failed(format!("the store died: {error}"))))
    }

    fn at(&self, partition: u32) -> TopicPartition {
        TopicPartition::new(self.topic.clone(), partition)
    }
}
