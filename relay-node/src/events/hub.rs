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
use tokio_util::sync::CancellationToken;

use super::catch_up::gather::{From, Want};
use super::catch_up::{CatchUpError, CatchUps, Done};
use super::feed::{Begun, Feed, Past, Sink, Watcher};
use super::find;
use super::route::{self, RoutedEvent};
use super::write::EventRecords;

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
    /// The last event that the watcher has; 0 if none.
    pub after_seq: u64,
    /// Comes back with every delivery.
    pub watch: u64,
    /// It goes on with a watch that was let in before: it is not refused though many wait.
    pub again: bool,
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
    catch_ups: CatchUps,
    watchers: AtomicU64,
    stop: CancellationToken,
}

impl Hub {
    /// A hub that follows nothing yet; `stop` ends its readers.
    pub fn new(log: Arc<dyn Log>, records: EventRecords, catch_ups: CatchUps, stop: CancellationToken) -> Self {
        Self { log, records, feeds: tokio::sync::Mutex::default(), catch_ups, watchers: AtomicU64::new(0), stop }
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

    /// The reply partitions that are followed.
    pub async fn followed(&self) -> Vec<u32> {
        self.feeds.lock().await.keys().copied().collect()
    }

    /// Delivers the events of a job to `sink` until the guard is dropped: first its past (as wanted), then what comes.
    /// Events may come again: put them through an [`super::order::Order`].
    ///
    /// # Errors
    /// [`CatchUpError::Full`] if too many wait for a past, else the log's.
    pub async fn watch(&self, spec: WatchSpec, sink: Sink) -> Result<WatchGuard, CatchUpError> {
        let WatchSpec { job_id, tenant, past, after_seq, watch, again } = spec;
        let feed = self.feed(job_id.reply_partition(self.records.partitions())).await?;
        let watcher = self.watchers.fetch_add(1, Ordering::Relaxed);
        feed.add(job_id, Watcher::new(watcher, watch, tenant.clone(), sink.clone(), past));
        let guard = WatchGuard { feed: feed.clone(), job_id, watcher };
        let (from, partials) = match past {
            Past::Unwritten => return Ok(guard),
            Past::From(offset) => (From::Offset(offset), false),
            Past::Hint(durable, revocable) => (From::Hint(durable, revocable), true),
            Past::Whole => (From::Made, true),
        };
        let (end, begun) = (feed.nexts().0, Begun { job_id, watcher, watch });
        let done: Done = Box::new(move |past| {
            // A watcher that is slow to take its past keeps nobody else from reading.
            tokio::spawn(async move {
                match past {
                    Ok(past) => feed.go_live(&begun, past, after_seq, &sink).await,
                    Err(error) => {
                        tracing::warn!(%error, %job_id, "the past of a job cannot be read, trying again");
                        tokio::time::sleep(READ_RETRY).await;
                        // What it is to begin with may be gone.
                        sink.lag(watch, job_id, Past::Whole);
                    }
                }
            });
        });
        let want = Want { job_id, tenant, after_seq, partials, from };
        self.catch_ups.ask(want, end, again, done)?;
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
        find::past(&self.catch_ups, job_id, tenant).await
    }

    /// The same for a client, unless too many wait.
    ///
    /// # Errors
    /// [`CatchUpError::Full`], or the log's.
    pub async fn past_for_client(&self, job_id: JobId, tenant: &str) -> Result<Vec<RoutedEvent>, CatchUpError> {
        let (sender, found) = tokio::sync::oneshot::channel();
        // Whoever asked may have gone.
        let done: Done = Box::new(move |outcome| drop(sender.send(outcome)));
        self.catch_ups.ask(find::durable(job_id, tenant.into()), 0, false, done)?;
        Ok(found.await.unwrap_or(Err(LogError::Closed))?.events)
    }

    /// The terminal event of a job that ended at `ended_at_ms`; `None` if it is not there any more.
    ///
    /// # Errors
    /// The log cannot be read now.
    pub async fn end_of(&self, job_id: JobId, tenant: &str, ended_at_ms: u64) -> Result<Option<RoutedEvent>, LogError> {
        find::end(&self.catch_ups, job_id, tenant, ended_at_ms).await
    }

    /// The next offsets of a followed partition's durable and revocable events, as far as this node has read: what is written later
    /// lies there or behind. `None` if it does not follow the partition.
    pub async fn ends(&self, partition: u32) -> Option<(u64, u64)> {
        self.feeds.lock().await.get(&partition).map(|feed| feed.nexts())
    }

    async fn feed(&self, partition: u32) -> Result<Arc<Feed>, LogError> {
        let mut feeds = self.feeds.lock().await;
        if let Some(feed) = feeds.get(&partition) {
            return Ok(feed.clone());
        }
        let places = self.records.places(partition);
        let (mut starts, mut ends) = (Vec::new(), Vec::new());
        for at in &places {
            let end = self.log.watermarks(at).await?.stable;
            starts.push((at.clone(), Start::Offset(end)));
            ends.push(end);
        }
        let reader = self.log.read(starts).await?;
        let feed = Arc::new(Feed::default());
        for (at, end) in places.iter().zip(ends) {
            feed.read_to(self.records.is_revocable(at), end);
        }
        feeds.insert(partition, feed.clone());
        tokio::spawn(follow(feed.clone(), reader, self.records.clone(), self.stop.clone()));
        Ok(feed)
    }
}

async fn follow(feed: Arc<Feed>, mut reader: Box<dyn LogReader>, records: EventRecords, stop: CancellationToken) {
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
                feed.read_to(records.is_revocable(&record.at), record.offset + 1);
            }
            Ok(ReadEvent::End { at, next }) => feed.read_to(records.is_revocable(&at), next),
            Err(LogError::Closed) => return,
            Err(error) => {
                tracing::warn!(%error, "events cannot be read, trying again");
                tokio::time::sleep(READ_RETRY).await;
            }
        }
    }
}
