//! Reads of an event's record what routing needs, from key and headers alone: the JSON passes through untouched.

use bytes::Bytes;
use relay_log::port::{Header, LogRecord, NewRecord};
use relay_protocol::record::{HEADER_EVENT, HEADER_SEQ, HEADER_TENANT};
use relay_protocol::{EventKind, JobId};

/// An event on its way to a watcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutedEvent {
    /// Which job.
    pub job_id: JobId,
    /// Number of the event.
    pub seq: u64,
    /// What happened.
    pub kind: EventKind,
    /// The event as JSON ([`relay_protocol::Event`]).
    pub json: Bytes,
}

impl RoutedEvent {
    /// The attempt that it belongs to.
    pub fn attempt(&self) -> u32 {
        (self.seq / relay_protocol::event::EVENTS_PER_ATTEMPT) as u32
    }

    /// Whether it is news to whoever was told of the job's events up to `last_seq`.
    pub fn is_news(&self, last_seq: u64) -> bool {
        relay_protocol::event::is_news(self.seq, self.kind.is_terminal(), last_seq)
    }

    /// Whether it may be missing without harm.
    pub fn is_revocable(&self) -> bool {
        matches!(self.kind, EventKind::Partial | EventKind::Progress)
    }
}

/// The job of an event's record.
pub fn job_of(record: &LogRecord) -> Option<JobId> {
    of_key(record.key.as_ref())
}

/// Whether the record's event belongs to `tenant`.
pub fn belongs_to(record: &LogRecord, tenant: &str) -> bool {
    record.header(HEADER_TENANT).is_some_and(|value| value.as_ref() == tenant.as_bytes())
}

/// The event of a record; `None` if it is not one.
pub fn routed(record: &LogRecord, job_id: JobId) -> Option<RoutedEvent> {
    event(job_id, &record.headers, record.value.as_ref())
}

/// The event of a record that is about to be written; `None` if it is not one.
pub fn routed_new(record: &NewRecord) -> Option<RoutedEvent> {
    event(of_key(record.key.as_ref())?, &record.headers, record.value.as_ref())
}

fn of_key(key: Option<&Bytes>) -> Option<JobId> {
    std::str::from_utf8(key?).ok()?.parse().ok()
}

fn event(job_id: JobId, headers: &[Header], value: Option<&Bytes>) -> Option<RoutedEvent> {
    let text = |wanted: &str| {
        let (_, value) = headers.iter().find(|(name, _)| name == wanted)?;
        std::str::from_utf8(value).ok()
    };
    Some(RoutedEvent {
        job_id,
        seq: text(HEADER_SEQ)?.parse().ok()?,
        kind: EventKind::from_name(text(HEADER_EVENT)?)?,
        json: value?.clone(),
    })
}
