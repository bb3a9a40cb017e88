//! Records that lie in another partition than their key's: producers whose partitioner hashes differently.

use bytes::Bytes;
use relay_log::port::{NewRecord, TopicPartition};
use relay_protocol::partition;
use relay_protocol::record::{HEADER_MOVED, encode_job};

use super::delivered::Delivered;

/// The record of a job that belongs into another of the lane's `partitions`, as it is written there: with its id, its time
/// stamp and its place in `relay-moved`. `None` if it stays.
///
/// Only there are jobs with its key or id known. A job with neither is told apart by its place, so it stays. So does what a
/// gateway wrote, because its receipt names the place, and what was moved before, so that nothing is moved to and fro.
pub fn moved(job: &Delivered, partitions: u32) -> Option<NewRecord> {
    let named = job.job.id.is_some() || job.job.idempotency_key.is_some();
    if !named || job.has_gateway() || job.aside.is_some() || job.record.header(HEADER_MOVED).is_some() {
        return None;
    }
    let key = partition::job_key(&job.job.tenant, job.job.idempotency_key.as_deref(), job.job_id);
    let partition = partition::of_key(key.as_bytes(), partitions);
    if partition == job.at.partition {
        return None;
    }
    let mut headers = job.record.headers.clone();
    headers.push((HEADER_MOVED.to_owned(), Bytes::from(format!("{}/{}", job.at, job.place.offset))));
    Some(NewRecord {
        to: TopicPartition::new(job.at.topic.clone(), partition),
        key: Some(Bytes::from(key)),
        value: Some(value(job)?),
        headers,
        timestamp_ms: job.record.timestamp_ms,
    })
}

/// As it came, but for an id that follows from the place.
fn value(job: &Delivered) -> Option<Bytes> {
    if job.job.id.is_some() {
        return job.record.value.clone();
    }
    let named = relay_protocol::Job { id: Some(job.job_id), ..job.job.clone() };
    let encoded = encode_job(&named);
    encoded.inspect_err(|error| tracing::warn!(%error, job_id = %job.job_id, "a misplaced job stays")).ok()
}
