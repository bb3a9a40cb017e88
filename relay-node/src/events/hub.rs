//! Brings events to whoever watches a job on this node: one reader per followed partition, shared by all its watchers.
//!
//! Events of a job that runs on this node are brought to those who watched it from its submit as soon as the log has
//! acknowledged them, and once more by the reader; the watchers' order drops what comes twice.
//!
//! A watcher that is too slow loses partials; when a durable event does not fit its channel it is marked as lagging and
//! reads the log again from where it was. Nobody waits for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use relay_log::port::{Log, LogError, LogReader, ReadEvent, Start};
use relay_protocol::JobId;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::feed::{Feed, Past, Sink, Watcher};
use super::find::{self, Range};
use super::route::{self, RoutedEvent};
use super::write::EventRecords;

/// History reads at a time on one node; more wait their turn.
pub const CATCH_UPS_MAX: usize = 16;
/// Wait before a reader that failed is asked again.
const READ_RETRY: Duration = Duration::from_millis(200);

/// Which events of which job.
#[derive(Debug, Clone)]
pub struct WatchSpec {
    /// Which job.
    pub job_id: JobId,
    /// Whose; events of other tenants are not delivered.
    pub tenant: Arc<str>,
    /// What of its past is delivered first.
    pub past: Past,
}

/// Ends the watch when dropped.
#[derive(Debug)]
pub struct WatchGuard {
    feed: Arc<Feed>,
    job_id: JobId,
    watcher: u64,
}

impl Drop for WatchGuard {
    fn drop(&mut self) {
        self.feed.remove(self.job_id, self.watcher);
    }
}

/// The node's events.
pub struct Hub {
    log: Arc<dyn Log>,
    records: EventRecords,
    feeds: tokio::sync::Mutex<HashMap<u32, Arc<Feed>>>,
    catch_ups: Arc<Semaphore>,
    watchers: AtomicU64,
    stop: CancellationToken,
}

impl Hub {
    /// A hub that follows nothing yet; `stop` ends its readers.
    pub fn new(log: Arc<dyn Log>, records: EventRecords, stop: CancellationToken) -> Self {
        Self {
            log,
            records,
            feeds: tokio::sync::Mutex::default(),
            catch_ups: Arc::new(Semaphore::new(CATCH_UPS_MAX)),
            watchers: AtomicU64::new(0),
            stop,
        }
    }

    /// How events are written and placed.
    pub fn records(&self) -> &EventRecords {
        &self.records
    }

    /// Begins to follow a reply partition, so that watches of its jobs cost nothing more.
    ///
    /// # Errors
    /// The log cannot be read now.
    pub async fn follow(&self, reply_partition: u32) -> Result<(), LogError> {
        self.feed(reply_partition).await.map(|_| ())
    }

    /// Delivers the events of a job to `sink` until the guard is dropped: first its past (as wanted), then what comes.
    /// Events may come again: put them through an [`super::order::Order`].
    ///
    /// # Errors
    /// The log cannot be read now.
    pub async fn watch(&self, spec: WatchSpec, sink: Sink) -> Result<WatchGuard, LogError> {
        let feed = self.feed(spec.job_id.reply_partition(self.records.partitions())).await?;
        let id = self.watchers.fetch_add(1, Ordering::Relaxed);
        feed.add(spec.job_id, Watcher::new(id, spec.tenant.clone(), sink.clone(), spec.past));
        let guard = WatchGuard { feed: feed.clone(), job_id: spec.job_id, watcher: id };
        let range = match spec.past {
            Past::Unwritten => return Ok(guard),
            Past::From(offset) => Range::DurableFrom(offset),
            Past::Whole => Range::All,
        };
        let (log, records, turns) = (self.log.clone(), self.records.clone(), self.catch_ups.clone());
        tokio::spawn(async move {
            let Ok(turn) = turns.acquire().await else { return };
            let past = find::past(&*log, &records, spec.job_id, &spec.tenant, range).await;
            // A watcher that is slow to take its past keeps nobody else from reading.
            drop(turn);
            match past {
                Ok(past) => feed.go_live(spec.job_id, id, past, &sink).await,
                Err(error) => {
                    tracing::warn!(%error, job_id = %spec.job_id, "the past of a job cannot be read, trying again");
                    tokio::time::sleep(READ_RETRY).await;
                    // What it is to begin with may be gone.
                    sink.lag(spec.job_id, Past::Whole);
                }
            }
        });
        Ok(guard)
    }

    /// Delivers events of a job that runs here, which the log has acknowledged, to those who watch it from its beginning.
    /// Every earlier event of the job must have come this way too: a later one drops those that come after it.
    pub async fn deliver_here(&self, tenant: &str, events: impl IntoIterator<Item = RoutedEvent>) {
        let feeds = self.feeds.lock().await;
        for event in events {
            let Some(feed) = feeds.get(&event.job_id.reply_partition(self.records.partitions())) else { continue };
            feed.deliver_here(tenant, &event);
        }
    }

    /// A job's durable events so far, sorted by seq; empty if the tenant has no such job.
    ///
    /// # Errors
    /// The log cannot be read now.
    pub async fn past(&self, job_id: JobId, tenant: &str) -> Result<Vec<RoutedEvent>, LogError> {
        let _turn = self.catch_ups.acquire().await.map_err(|_| LogError::Closed)?;
        find::past(&*self.log, &self.records, job_id, tenant, Range::Durable).await
    }

    /// The terminal event of a job that ended at `ended_at_ms`; `None` if it is not there any more.
    ///
    /// # Errors
    /// The log cannot be read now.
    pub async fn end_of(&self, job_id: JobId, tenant: &str, ended_at_ms: u64) -> Result<Option<RoutedEvent>, LogError> {
        let _turn = self.catch_ups.acquire().await.map_err(|_| LogError::Closed)?;
        find::end(&*self.log, &self.records, job_id, tenant, ended_at_ms).await
    }

    async fn feed(&self, partition: u32) -> Result<Arc<Feed>, LogError> {
        let mut feeds = self.feeds.lock().await;
        if let Some(feed) = feeds.get(&partition) {
            return Ok(feed.clone());
        }
        let mut starts = Vec::new();
        for at in self.records.places(partition) {
            let end = self.log.watermarks(&at).await?.stable;
            starts.push((at, Start::Offset(end)));
        }
        let reader = self.log.read(starts).await?;
        let feed = Arc::new(Feed::default());
        feeds.insert(partition, feed.clone());
        tokio::spawn(follow(feed.clone(), reader, self.stop.clone()));
        Ok(feed)
    }
}

async fn follow(feed: Arc<Feed>, mut reader: Box<dyn LogReader>, stop: CancellationToken) {
    loop {
        let event = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            event = reader.next() => event,
        };
        match event {
            Ok(ReadEvent::Record(record)) => {
                if let Some(job_id) = route::job_of(&record) {
                    feed.deliver(job_id, &record);
                }
            }
            Ok(ReadEvent::End { .. }) => {}
            Err(LogError::Closed) => return,
            Err(error) => {
                tracing::warn!(%error, "events cannot be read, trying again");
                tokio::time::sleep(READ_RETRY).await;
            }
        }
    }
}
