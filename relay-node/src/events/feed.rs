//! Who watches the jobs of one reply partition, and what each of them gets.
//!
//! An event comes once from the node that runs the job, if that is this one, as soon as the log has acknowledged it, and
//! once from the partition's reader. What a watcher has got already is not put into its channel again. What does not fit:
//! partials are dropped; an event brought by the node is left to the reader; one brought by the reader makes the watcher
//! lag: it gets nothing more until it watches again from there, so that nothing comes before what it missed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use relay_log::port::LogRecord;
use relay_protocol::{EventKind, JobId};
use tokio::sync::mpsc;

use super::route::{self, RoutedEvent};

/// Events kept for a watcher whose history is still being read.
const BUFFER_EVENTS_MAX: usize = 512;

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
    pub(super) fn lag(&self, job_id: JobId, past: Past) {
        // Noted before the watcher is woken: whoever it is that wakes it, it finds the job.
        self.lagging.add(job_id, past);
        let nothing = RoutedEvent { job_id, seq: 0, kind: EventKind::Progress, json: bytes::Bytes::new() };
        // A full channel wakes its reader anyway.
        drop(self.events.try_send(nothing));
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
    /// Everything.
    Whole,
}

/// Jobs that lost a durable event on the way to one watcher, and from where on.
#[derive(Debug, Clone, Default)]
pub struct Lagging(Arc<Mutex<Vec<(JobId, Past)>>>);

impl Lagging {
    /// Takes the jobs that must be watched again, and how much of their past.
    pub fn take(&self) -> Vec<(JobId, Past)> {
        std::mem::take(&mut *lock(&self.0))
    }

    fn add(&self, job_id: JobId, past: Past) {
        lock(&self.0).push((job_id, past));
    }
}

/// One followed partition.
#[derive(Debug, Default)]
pub(super) struct Feed {
    jobs: Mutex<HashMap<JobId, Vec<Watcher>>>,
}

/// One watcher of one job.
#[derive(Debug)]
pub(super) struct Watcher {
    id: u64,
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
    pub(super) fn new(id: u64, tenant: Arc<str>, sink: Sink, past: Past) -> Self {
        let state = if past == Past::Unwritten { State::Here } else { State::Reading(Vec::new()) };
        Self { id, tenant, sink, sent_seq: 0, state }
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
                    self.sink.lag(job_id, Past::From(offset));
                }
            }
        }
    }

    /// Whether the event is in the channel now, or was before.
    fn put(&mut self, event: RoutedEvent) -> bool {
        let (seq, revocable) = (event.seq, event.is_revocable());
        // An end may be that of an earlier attempt than was told of.
        let was_sent = if event.kind.is_terminal() { seq == self.sent_seq } else { seq <= self.sent_seq };
        if !revocable && was_sent {
            return true;
        }
        if revocable && !self.sink.has_room_for_partials() {
            return false;
        }
        match self.sink.events.try_send(event) {
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
    pub(super) async fn go_live(&self, job_id: JobId, watcher: u64, past: Vec<RoutedEvent>, sink: &Sink) {
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
