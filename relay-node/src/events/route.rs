//! Reads of an event's record what routing needs, from key and headers alone: the JSON passes through untouched.

use bytes::Bytes;
use relay_log::port::LogRecord;
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

    /// Whether it may be missing without harm.
    pub fn is_revocable(&self) -> bool {
        matches!(self.kind, EventKind::Partial | EventKind::Progress)
    }
}

/// The job of an event's record.
pub fn job_of(record: &LogRecord) -> Option<JobId> {
    std::str::from_utf8(record.key.as_ref()?).ok()?.parse().ok()
}

/// Whether the record's event belongs to `tenant`.
pub fn belongs_to(record: &LogRecord, tenant: &str) -> bool {
    record.header(HEADER_TENANT).is_some_and(|value| value.as_ref() == tenant.as_bytes())
}

/// The event of a record; `None` if it is not one.
pub fn routed(record: &LogRecord, job_id: JobId) -> Option<RoutedEvent> {
    let text = |name| std::str::from_utf8(record.header(name)?).ok();
    Some(RoutedEvent {
        job_id,
        seq: text(HEADER_SEQ)?.parse().ok()?,
        kind: EventKind::from_name(text(HEADER_EVENT)?)?,
        json: record.value.clone()?,
    })
}
