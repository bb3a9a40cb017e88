//! A member of a group: it asks the core what happens next, and waits when nothing does.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::core::{Fetched, GroupEvent, MemberId};
use super::writer::{Command, now_ms};
use super::{Shared, ask, closed};
use crate::port::{Commit, CommitError, LogError, LogRecord, Member, MemberEvent, Release, TopicPartition};

/// Records read from the store at once.
const STORED_BATCH: usize = 64;

pub(super) struct LocalMember {
    shared: Arc<Shared>,
    group: String,
    id: MemberId,
    left: AtomicBool,
    /// Records that were read from the store, by partition.
    stored: Mutex<HashMap<TopicPartition, Stored>>,
}

struct Stored {
    epoch: u64,
    records: std::collections::VecDeque<LogRecord>,
}

/// What [`LocalMember::look`] found.
enum Look {
    Event(MemberEvent),
    Stored {
        at: TopicPartition,
        epoch: u64,
        from: u64,
        to: u64,
    },
    /// Look again.
    Again,
    Nothing,
}

impl LocalMember {
    pub(super) fn new(shared: Arc<Shared>, group: String, id: MemberId) -> Self {
        Self { shared, group, id, left: AtomicBool::new(false), stored: Mutex::default() }
    }

    fn look(&self) -> Look {
        let mut core = self.shared.core();
        if let Some(event) = core.next_event(&self.group, self.id, now_ms()) {
            return Look::Event(self.event(event));
        }
        let Some((at, next, epoch)) = core.next_place(&self.group, self.id) else { return Look::Nothing };
        if let Some(record) = self.take_stored(&at, epoch, next) {
            core.delivered(&self.group, &at, epoch, record.offset + 1);
            return Look::Event(MemberEvent::Record { record, epoch });
        }
        match core.fetch(&at, next) {
            Fetched::Record(record) => {
                core.delivered(&self.group, &at, epoch, record.offset + 1);
                Look::Event(MemberEvent::Record { record, epoch })
            }
            Fetched::Stored(from, to) => Look::Stored { at, epoch, from, to },
            // What lies below the first record was deleted because it is done.
            Fetched::Gone { low, .. } => {
                core.delivered(&self.group, &at, epoch, low);
                Look::Again
            }
            Fetched::End => Look::Nothing,
        }
    }

    fn take_stored(&self, at: &TopicPartition, epoch: u64, next: u64) -> Option<LogRecord> {
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        let batch = stored.get_mut(at).filter(|batch| batch.epoch == epoch)?;
        while let Some(record) = batch.records.pop_front() {
            if record.offset >= next {
                return Some(record);
            }
        }
        None
    }

    async fn read_stored(&self, at: TopicPartition, epoch: u64, from: u64, to: u64) -> Result<(), LogError> {
        let number = self.shared.core().topic_number(&at.topic);
        let number = number.ok_or_else(|| LogError::UnknownTopic(at.clone()))?;
        let (store, place) = (self.shared.store.clone(), at.clone());
        let read = tokio::task::spawn_blocking(move || store.read(number, &place, from..to, STORED_BATCH));
        let records = read.await.map_err(|error| LogError::Unavailable(error.to_string()))??;
        if records.is_empty() {
            self.shared.core().delivered(&self.group, &at, epoch, to);
        }
        let batch = Stored { epoch, records: records.into() };
        self.stored.lock().unwrap_or_else(PoisonError::into_inner).insert(at, batch);
        Ok(())
    }

    fn event(&self, event: GroupEvent) -> MemberEvent {
        match event {
            GroupEvent::Assigned(assignments) => MemberEvent::Assigned(assignments),
            GroupEvent::Lost(partitions) => MemberEvent::Lost(partitions),
            GroupEvent::Revoking(partitions) => {
                let (shared, group) = (self.shared.clone(), self.group.clone());
                let taken = partitions.iter().map(|(at, _)| at.clone()).collect();
                let guard = Released { shared, group, id: self.id, partitions };
                MemberEvent::Revoking { partitions: taken, release: Release::guarded(guard) }
            }
        }
    }

    fn go(&self) {
        if !self.left.swap(true, Ordering::SeqCst) {
            self.shared.core().leave(&self.group, self.id);
            self.shared.changed.notify_waiters();
        }
    }
}

/// Gives partitions on when it is dropped.
struct Released {
    shared: Arc<Shared>,
    group: String,
    id: MemberId,
    /// With the epochs of the assignments that end: a later assignment is not given away by an earlier guard.
    partitions: Vec<(TopicPartition, u64)>,
}

impl Drop for Released {
    fn drop(&mut self) {
        self.shared.core().released(&self.group, self.id, &self.partitions);
        self.shared.changed.notify_waiters();
    }
}

#[async_trait]
impl Member for LocalMember {
    async fn next(&self) -> Result<MemberEvent, LogError> {
        loop {
            if self.left.load(Ordering::SeqCst) {
                return Err(LogError::Closed);
            }
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            // From here on nothing is missed: what changes after the look below wakes the wait.
            changed.as_mut().enable();
            match self.look() {
                Look::Event(event) => return Ok(event),
                Look::Stored { at, epoch, from, to } => self.read_stored(at, epoch, from, to).await?,
                Look::Again => {}
                Look::Nothing => changed.await,
            }
        }
    }

    async fn commit(&self, commit: Commit) -> Result<(), CommitError> {
        let command = Box::new((self.group.clone(), self.id, commit));
        ask(&self.shared, |reply| Command::Commit(command, reply)).await.map_err(|_| closed())?
    }

    fn pause(&self, at: &TopicPartition, paused: bool) {
        self.shared.core().pause(&self.group, self.id, at, paused);
        self.shared.changed.notify_waiters();
    }

    async fn leave(&self) {
        self.go();
    }
}

impl Drop for LocalMember {
    fn drop(&mut self) {
        self.go();
    }
}
