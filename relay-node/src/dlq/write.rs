//! Writes marks.

use bytes::Bytes;
use relay_log::port::{Log, NewRecord};
use relay_protocol::JobError;
use relay_protocol::dead_letter::{HEADER_MARK, LetterId, Mark, MarkKind};

use super::look::place;
use crate::gateway::submit::log_error;

/// Appends marks on letters and returns the offset of each.
///
/// # Errors
/// [`relay_protocol::ErrorCode::LogUnavailable`]: some of them may be there.
pub async fn append(log: &dyn Log, marks: &[(LetterId, Mark)]) -> Result<Vec<u64>, JobError> {
    if marks.is_empty() {
        return Ok(Vec::new());
    }
    let records = marks.iter().map(|(letter, mark)| record(*letter, mark)).collect();
    log.append(records).await.map_err(log_error)
}

/// A mark of `subject` at `now_ms`.
pub fn mark(letter: LetterId, mark: MarkKind, subject: &str, now_ms: u64) -> (LetterId, Mark) {
    let subject = subject.to_owned();
    (letter, Mark { mark, letter: letter.offset, job_id: None, claim: None, subject, at: now_ms })
}

/// The record of a mark: beside its letter, so that readers of the letter's partition hear it.
fn record(letter: LetterId, mark: &Mark) -> NewRecord {
    NewRecord {
        to: place(letter.partition),
        key: Some(Bytes::from(letter.to_string())),
        // A mark has string keys only: writing it cannot fail.
        value: Some(serde_json::to_vec(mark).map(Bytes::from).unwrap_or_default()),
        headers: vec![(HEADER_MARK.to_owned(), Bytes::from_static(mark.mark.name().as_bytes()))],
        timestamp_ms: mark.at,
    }
}
