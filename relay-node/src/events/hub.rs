//! Brings events to whoever watches a job on this node: one reader per followed partition, shared by all its watchers.
//!
//! Events of a job that runs on this node are brought to those who watched it from its submit as soon as the log has
//! acknowledged them, and once more by the reader; the watchers' order drops what comes twice.
//!
//! A watcher that is too slow loses partials; when a durable event does not fit its channel it is marked as lagging and
//! reads the log again from where it was. Nobody waits for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use relay_log::port::{Log, LogError, LogReader, ReadEvent, Start};
use relay_protocol::JobId;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::find::{self, Which};
use super::route::{self, RoutedEvent};
use super::write::EventRecords;

/// History reads at a time on one node; more wait their turn.
pub const CATCH_UPS_MAX: usize = 16;
/// Events kept for a watcher whose history is still being read.
const BUFFER_EVENTS_MAX: usize = 512;
/// Wait before a reader that failed is asked again.
const READ_RETRY: Duration = Duration::from_millis(200);

/// Where a watcher gets its events.
#[derive(Debug, Clone)]
pub struct Sink {
    /// Bounded; what does not fit is handled as the module says.
    pub events: mpsc::Sender<RoutedEvent>,
    /// Jobs whose events did not fit: watch them again after the newest event delivered.
    pub lagging: Lagging,
}

impl Sink {
    /// Makes the watcher look at the job's past again.
    fn lag(&self, job_id: JobId) {
        // Noted before the watcher is woken: whoever it is that wakes it, it finds the job.
        self.lagging.add(job_id);
        let nothing =
            RoutedEvent { job_id, seq: 0, kind: relay_protocol::EventKind::Progress, json: bytes::Bytes::new() };
        // A full channel wakes its reader anyway.
        drop(self.events.try_send(nothing));
    }
}

/// Jobs that lost a durable event on the way to one watcher.
#[derive(Debug, Clone, Default)]
pub struct Lagging(Arc<Mutex<Vec<JobId>>>);

impl Lagging {
    /// Takes the jobs that must be watched again.
    pub fn take(&self) -> Vec<JobId> {
        std::mem::take(&mut *lock(&self.0))
    }

    fn add(&self, job_id: JobId) {
        lock(&self.0).push(job_id);
    }
}

/// Which events of which job.
#[derive(Debug, Clone)]
pub struct WatchSpec {
    /// Which job.
    pub job_id: JobId,
    /// Whose; events of other tenants are not delivered.
    pub tenant: Arc<str>,
    /// The job was not written yet: there is no past to read.
    pub fresh: bool,
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

/// One followed partition.
#[derive(Debug, Default)]
struct Feed {
    jobs: Mutex<HashMap<JobId, Vec<Watcher>>>,
}

#[derive(Debug)]
struct Watcher {
    id: u64,
    tenant: Arc<str>,
    sink: Sink,
    /// It watches since before the job was written: whatever was delivered here, it got.
    fresh: bool,
    /// Events that came while the past is still being read; `None` once it was.
    buffer: Option<Vec<RoutedEvent>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Delivers the events of a job to `sink` until the guard is dropped: first its past (unless fresh), then what comes.
    /// Events may come again: put them through an [`super::order::Order`].
    ///
    /// # Errors
    /// The log cannot be read now.
    pub async fn watch(&self, spec: WatchSpec, sink: Sink) -> Result<WatchGuard, LogError> {
        let feed = self.feed(spec.job_id.reply_partition(self.records.partitions())).await?;
        let id = self.watchers.fetch_add(1, Ordering::Relaxed);
        let buffer = (!spec.fresh).then(Vec::new);
        let (tenant, fresh) = (spec.tenant.clone(), spec.fresh);
        let watcher = Watcher { id, tenant, sink: sink.clone(), fresh, buffer };
        lock(&feed.jobs).entry(spec.job_id).or_default().push(watcher);
        let guard = WatchGuard { feed: feed.clone(), job_id: spec.job_id, watcher: id };
        if !spec.fresh {
            let (log, records, turns) = (self.log.clone(), self.records.clone(), self.catch_ups.clone());
            tokio::spawn(async move {
                let Ok(turn) = turns.acquire().await else { return };
                let past = find::past(&*log, &records, spec.job_id, &spec.tenant, Which::All).await;
                // A watcher that is slow to take its past keeps nobody else from reading.
                drop(turn);
                match past {
                    Ok(past) => feed.go_live(spec.job_id, id, past, &sink).await,
                    Err(error) => {
                        tracing::warn!(%error, job_id = %spec.job_id, "the past of a job cannot be read, trying again");
                        tokio::time::sleep(READ_RETRY).await;
                        sink.lag(spec.job_id);
                    }
                }
            });
        }
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
        find::past(&*self.log, &self.records, job_id, tenant, Which::Durable).await
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
            event = reader.next() => event,
            () = stop.cancelled() => return,
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

impl Feed {
    fn deliver(&self, job_id: JobId, record: &relay_log::port::LogRecord) {
        let mut jobs = lock(&self.jobs);
        let Some(watchers) = jobs.get_mut(&job_id) else { return };
        let Some(event) = route::routed(record, job_id) else { return };
        for watcher in watchers.iter_mut().filter(|watcher| route::belongs_to(record, &watcher.tenant)) {
            watcher.take(event.clone());
        }
    }

    fn deliver_here(&self, tenant: &str, event: &RoutedEvent) {
        let mut jobs = lock(&self.jobs);
        let Some(watchers) = jobs.get_mut(&event.job_id) else { return };
        for watcher in watchers.iter_mut().filter(|watcher| watcher.fresh && &*watcher.tenant == tenant) {
            watcher.take(event.clone());
        }
    }

    /// Sends the past, then what came meanwhile, then lets events through directly.
    async fn go_live(&self, job_id: JobId, watcher: u64, past: Vec<RoutedEvent>, sink: &Sink) {
        let mut next = past;
        loop {
            for event in next {
                if sink.events.send(event).await.is_err() {
                    return;
                }
            }
            let mut jobs = lock(&self.jobs);
            let found = jobs.get_mut(&job_id).and_then(|all| all.iter_mut().find(|one| one.id == watcher));
            let Some(found) = found else { return };
            match found.buffer.as_mut().map(std::mem::take) {
                Some(more) if !more.is_empty() => next = more,
                _ => {
                    found.buffer = None;
                    return;
                }
            }
        }
    }

    fn remove(&self, job_id: JobId, watcher: u64) {
        let mut jobs = lock(&self.jobs);
        if let Some(watchers) = jobs.get_mut(&job_id) {
            watchers.retain(|one| one.id != watcher);
            if watchers.is_empty() {
                jobs.remove(&job_id);
            }
        }
    }
}

impl Watcher {
    fn take(&mut self, event: RoutedEvent) {
        match &mut self.buffer {
            Some(buffer) if buffer.len() < BUFFER_EVENTS_MAX || !event.is_revocable() => buffer.push(event),
            Some(_) => {}
            None => {
                let (job_id, revocable) = (event.job_id, event.is_revocable());
                if matches!(self.sink.events.try_send(event), Err(mpsc::error::TrySendError::Full(_))) && !revocable {
                    self.sink.lag(job_id);
                }
            }
        }
    }
}
