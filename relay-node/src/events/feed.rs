//! Who watches the jobs of one reply partition, and what each of them gets.
//!
//! An event comes once from the node that runs the job, if that is this one, as soon as the log has acknowledged it, and
//! once from the partition's reader. What a watcher has got already is not put into its channel again. What does not fit:
//! partials are dropped; an event brought by the node is left to the reader; one brought by the reader makes the watcher
//! lag: it gets nothing more until it watches again from there, so that nothing comes before what it missed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use relay_log::port::LogRecord;
use relay_protocol::JobId;
use tokio::sync::mpsc;

use super::catch_up::gather::Found;
use super::route::{self, RoutedEvent};

/// Events kept for a watcher whose history is still being read.
const BUFFER_EVENTS_MAX: usize = 512;

/// Where a watcher gets its events.
#[derive(Debug, Clone)]
pub struct Sink {
    /// Bounded; what does not fit is handled as the module says.
    pub events: mpsc::Sender<Delivery>,
    /// Jobs whose events did not fit: watch them again after the newest event delivered.
    pub lagging: Lagging,
}

/// Something for a watcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Number of the watch, as the watcher gave it: what comes of an older watch of the same job is told by it.
    pub watch: u64,
    /// Which job.
    pub job_id: JobId,
    /// What it is.
    pub what: What,
}

/// What a watcher gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// An event.
    Event(RoutedEvent),
    /// The past was read, and comes next.
    Reached(Reached),
    /// Nothing but a reason to look at [`Sink::lagging`].
    Wake,
}

/// What there is of the past that a watcher wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reached {
    /// Everything that the watcher lacks.
    Whole,
    /// A part: earlier events that the watcher lacks may have been deleted.
    Part,
    /// Nothing that the watcher lacks, and nothing will come: it has seen the terminal event, which is this one.
    Ended(RoutedEvent),
    /// Not one event of the job.
    Nothing {
        /// There may have been some that were deleted.
        deleted: bool,
    },
}

impl Reached {
    fn of(found: &Found, after_seq: u64) -> Self {
        match found.end() {
            Some(end) if !end.is_news(after_seq) => Self::Ended(end.clone()),
            _ if found.events.is_empty() => Self::Nothing { deleted: found.may_lack },
            _ if found.may_lack => Self::Part,
            _ => Self::Whole,
        }
    }
}

impl Sink {
    /// Makes the watcher look at the job's past again.
    pub(super) fn lag(&self, watch: u64, job_id: JobId, past: Past) {
        // Noted before the watcher is woken: whoever it is that wakes it, it finds the job.
        self.lagging.add(watch, job_id, past);
        // A full channel wakes its reader anyway.
        drop(self.events.try_send(Delivery { watch, job_id, what: What::Wake }));
    }

    /// Partials leave half of the channel to what must not be lost.
    fn has_room_for_partials(&self) -> bool {
        self.events.capacity() > self.events.max_capacity() / 2
    }
}

/// How much of a job's past a watcher wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Past {
    /// None: the job was not written yet when the watch began.
    Unwritten,
    /// The durable events from this offset of their partition on.
    From(u64),
    /// Everything that the watcher lacks, which may begin at these offsets of the durable and the revocable events.
    Hint(u64, u64),
    /// Everything.
    Whole,
}

/// Jobs that lost a durable event on the way to one watcher, and from where on.
#[derive(Debug, Clone, Default)]
pub struct Lagging(Arc<Mutex<Vec<(u64, JobId, Past)>>>);

impl Lagging {
    /// Takes the watches that must begin again, and how much of their jobs' past they need.
    pub fn take(&self) -> Vec<(u64, JobId, Past)> {
        std::mem::take(&mut *lock(&self.0))
    }

    fn add(&self, watch: u64, job_id: JobId, past: Past) {
        lock(&self.0).push((watch, job_id, past));
    }
}

/// A watch whose past is being read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begun {
    pub(super) job_id: JobId,
    pub(super) watcher: u64,
    pub(super) watch: u64,
}

/// One followed partition.
#[derive(Debug, Default)]
pub(super) struct Feed {
    jobs: Mutex<HashMap<JobId, Vec<Watcher>>>,
    /// The next offsets of the durable and of the revocable events, as far as they were read.
    nexts: [AtomicU64; 2],
}

/// One watcher of one job.
#[derive(Debug)]
pub(super) struct Watcher {
    id: u64,
    /// Number that its owner gave it.
    watch: u64,
    tenant: Arc<str>,
    sink: Sink,
    /// Newest durable event in its channel.
    sent_seq: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    /// It watches since before the job was written, and got whatever was delivered here.
    Here,
    /// It gets what the reader brings.
    Live,
    /// Its past is being read; these came meanwhile.
    Reading(Vec<RoutedEvent>),
    /// It missed an event, and watches again.
    Lagging,
}

impl Watcher {
    pub(super) fn new(id: u64, watch: u64, tenant: Arc<str>, sink: Sink, past: Past) -> Self {
        let state = if past == Past::Unwritten { State::Here } else { State::Reading(Vec::new()) };
        Self { id, watch, tenant, sink, sent_seq: 0, state }
    }

    /// Takes what the node says that runs the job.
    fn take_here(&mut self, event: RoutedEvent) {
        if !matches!(self.state, State::Here) {
            return;
        }
        let revocable = event.is_revocable();
        if !self.put(event) && !revocable {
            self.state = State::Live;
        }
    }

    /// Takes what the reader brings from `offset`.
    fn take(&mut self, event: RoutedEvent, offset: u64) {
        let (job_id, revocable) = (event.job_id, event.is_revocable());
        match &mut self.state {
            State::Lagging => {}
            State::Reading(buffer) if buffer.len() < BUFFER_EVENTS_MAX || !revocable => buffer.push(event),
            State::Reading(_) => {}
            State::Here | State::Live => {
                if !self.put(event) && !revocable {
                    self.state = State::Lagging;
                    self.sink.lag(self.watch, job_id, Past::From(offset));
                }
            }
        }
    }

    /// Whether the event is in the channel now, or was before.
    fn put(&mut self, event: RoutedEvent) -> bool {
        let (seq, revocable) = (event.seq, event.is_revocable());
        if !revocable && !event.is_news(self.sent_seq) {
            return true;
        }
        if revocable && !self.sink.has_room_for_partials() {
            return false;
        }
        let delivery = Delivery { watch: self.watch, job_id: event.job_id, what: What::Event(event) };
        match self.sink.events.try_send(delivery) {
            Ok(()) if revocable => {}
            Ok(()) => self.sent_seq = seq,
            // Nobody is there any more: the watch ends by its guard.
            Err(mpsc::error::TrySendError::Closed(_)) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return false,
        }
        true
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Feed {
    pub(super) fn add(&self, job_id: JobId, watcher: Watcher) {
        lock(&self.jobs).entry(job_id).or_default().push(watcher);
    }

    /// The next offsets of the durable and of the revocable events, as far as they were read.
    pub(super) fn nexts(&self) -> (u64, u64) {
        let [durable, revocable] = &self.nexts;
        (durable.load(Ordering::Relaxed), revocable.load(Ordering::Relaxed))
    }

    /// The durable, or the revocable, events were read up to here.
    pub(super) fn read_to(&self, revocable: bool, next: u64) {
        self.nexts[usize::from(revocable)].fetch_max(next, Ordering::Relaxed);
    }

    pub(super) fn deliver(&self, job_id: JobId, record: &LogRecord) {
        let mut jobs = lock(&self.jobs);
        let Some(watchers) = jobs.get_mut(&job_id) else { return };
        let Some(event) = route::routed(record, job_id) else { return };
        for watcher in watchers.iter_mut().filter(|watcher| route::belongs_to(record, &watcher.tenant)) {
            watcher.take(event.clone(), record.offset);
        }
    }

    pub(super) fn deliver_here(&self, tenant: &str, event: &RoutedEvent) {
        let mut jobs = lock(&self.jobs);
        let Some(watchers) = jobs.get_mut(&event.job_id) else { return };
        for watcher in watchers.iter_mut().filter(|watcher| &*watcher.tenant == tenant) {
            watcher.take_here(event.clone());
        }
    }

    /// Sends the past, then what came meanwhile, then lets events through directly.
    pub(super) async fn go_live(&self, watch: &Begun, past: Found, after_seq: u64, sink: &Sink) {
        let Begun { job_id, watcher, watch } = *watch;
        let deliver = async |what| sink.events.send(Delivery { watch, job_id, what }).await;
        if deliver(What::Reached(Reached::of(&past, after_seq))).await.is_err() {
            return;
        }
        // The watcher has those already; they only showed that nothing is missing.
        let mut next: Vec<_> = past.events.into_iter().filter(|event| event.is_news(after_seq)).collect();
        loop {
            for event in next {
                if deliver(What::Event(event)).await.is_err() {
                    return;
                }
            }
            let mut jobs = lock(&self.jobs);
            let found = jobs.get_mut(&job_id).and_then(|all| all.iter_mut().find(|one| one.id == watcher));
            let Some(found) = found else { return };
            match &mut found.state {
                State::Reading(more) if !more.is_empty() => next = std::mem::take(more),
                _ => {
                    found.state = State::Live;
                    return;
                }
            }
        }
    }

    pub(super) fn remove(&self, job_id: JobId, watcher: u64) {
        let mut jobs = lock(&self.jobs);
        if let Some(watchers) = jobs.get_mut(&job_id) {
            watchers.retain(|one| one.id != watcher);
            if watchers.is_empty() {
                jobs.remove(&job_id);
            }
        }
    }
}

#[cfg(test)]
#[path = "feed_test.rs"]
mod tests;
