//! Records between the port and rdkafka.

use bytes::Bytes;
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::BaseRecord;
use rdkafka::util::IntoOpaque;

use super::properties::BATCH_BYTES_MAX;
use crate::port::{LogError, LogRecord, NewRecord, RECORD_BYTES_MAX, TopicPartition};

/// Bytes of a batch that are kept for its frame.
const BATCH_FRAME_BYTES: usize = 1024;

/// Bytes that a header costs beside its name and value.
const HEADER_FRAME_BYTES: usize = 10;

/// Checks that `record` fits into a batch.
pub(super) fn check_size(record: &NewRecord) -> Result<(), LogError> {
    let value = record.value.as_ref().map_or(0, Bytes::len);
    if value > RECORD_BYTES_MAX {
        return Err(LogError::TooLarge { bytes: value, limit: RECORD_BYTES_MAX });
    }
    let headers: usize = record.headers.iter().map(|(name, value)| name.len() + value.len() + HEADER_FRAME_BYTES).sum();
    let beside = record.key.as_ref().map_or(0, Bytes::len) + headers;
    let limit = BATCH_BYTES_MAX - RECORD_BYTES_MAX - BATCH_FRAME_BYTES;
    if beside > limit {
        return Err(LogError::TooLarge { bytes: beside, limit });
    }
    Ok(())
}

/// `record` as rdkafka wants it; key and value stay where they are.
pub(super) fn to_kafka<D: IntoOpaque>(record: &NewRecord, opaque: D) -> BaseRecord<'_, [u8], [u8], D> {
    let mut out = BaseRecord::with_opaque_to(&record.to.topic, opaque)
        .partition(i32::try_from(record.to.partition).unwrap_or(i32::MAX))
        .timestamp(i64::try_from(record.timestamp_ms).unwrap_or(i64::MAX));
    out.key = record.key.as_deref();
    out.payload = record.value.as_deref();
    if !record.headers.is_empty() {
        let headers = OwnedHeaders::new_with_capacity(record.headers.len());
        out.headers = Some(
            record
                .headers
                .iter()
                .fold(headers, |headers, (key, value)| headers.insert(Header { key, value: Some(&value[..]) })),
        );
    }
    out
}

/// `message`, which was read from `at`. Key and value are copied once, out of librdkafka's fetch buffer.
pub(super) fn from_kafka(at: &TopicPartition, message: &BorrowedMessage<'_>) -> LogRecord {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        headers.iter().map(|h| (h.key.to_owned(), Bytes::copy_from_slice(h.value.unwrap_or_default()))).collect()
    });
    LogRecord {
        at: at.clone(),
        offset: u64::try_from(message.offset()).unwrap_or(0),
        key: message.key().map(Bytes::copy_from_slice),
        value: message.payload().map(Bytes::copy_from_slice),
        headers,
        timestamp_ms: message.timestamp().to_millis().and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0),
    }
}
