//! A job that is set aside: written to the parked topic or a delay tier of its lane, and back to the lane when it may go on.
//! What became of it so far travels in a header; the value stays as it came.

use bytes::Bytes;
use relay_log::port::{Header, NewRecord, TopicPartition};
use relay_protocol::record::{AttemptFailure, HEADER_ASIDE, HEADER_TAKEN};
use relay_protocol::{JobId, topics};
use serde::{Deserialize, Serialize};

use super::delivered::Delivered;
use crate::intake::earlier::Crashes;

/// Where jobs of a lane partition wait beside it: [`PARKED`], and the delay tiers 1 to [`topics::RETRY_TIERS`].
pub type Side = usize;
/// Jobs that no backend can do now, or that are beyond a share.
pub const PARKED: Side = 0;
/// Number of sides.
pub const SIDES: usize = 1 + topics::RETRY_TIERS as usize;

/// The topic of a side of `lane`.
pub fn topic(lane: &str, side: Side) -> String {
    if side == PARKED { topics::parked(lane) } else { topics::retry(lane, side as u32) }
}

/// What the header of a job that is or was set aside says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Aside {
    /// The job's id, which may follow from where it lay first.
    pub id: JobId,
    /// Where it lay first in its lane's partition.
    pub offset: u64,
    /// Where it lay there when it was set aside last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// Not before this, in milliseconds since the Unix epoch.
    pub due_ms: u64,
    /// Attempts so far.
    pub attempts: u32,
    /// The failed ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<AttemptFailure>,
    /// Seq of the last partial or progress event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_partial_seq: Option<u64>,
    /// Crashes of nodes that it was part of.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub crashes_seen: u32,
    /// Those of them that it was charged with.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub crashes_charged: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks like that")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Aside {
    /// What is known of a job to which nothing happened since it was read; it may go on at `due_ms`.
    pub fn untouched(job: &Delivered, due_ms: u64) -> Self {
        let earlier = job.aside.as_deref();
        Self {
            id: job.job_id,
            offset: earlier.map_or(job.place.offset, |earlier| earlier.offset),
            from: Some(job.place.offset),
            due_ms,
            attempts: job.attempts_before,
            failures: earlier.map(|earlier| earlier.failures.clone()).unwrap_or_default(),
            last_partial_seq: earlier.and_then(|earlier| earlier.last_partial_seq),
            crashes_seen: job.crashes.seen,
            crashes_charged: job.crashes.charged,
        }
    }

    /// Crashes of nodes that it was part of.
    pub fn crashes(&self) -> Crashes {
        Crashes { seen: self.crashes_seen, charged: self.crashes_charged }
    }

    /// What the header says; `None` if there is none, or it is none of ours.
    pub fn read(headers: &[Header]) -> Option<Self> {
        let (_, value) = headers.iter().find(|(name, _)| name == HEADER_ASIDE)?;
        serde_json::from_slice(value).ok()
    }

    /// The record that sets `job` aside at `side`.
    pub fn record(&self, job: &Delivered, side: Side) -> NewRecord {
        self.write(job, TopicPartition::new(topic(&job.place.lane, side), job.at.partition))
    }

    /// The record of `job` back in its lane.
    pub fn back(job: &Delivered) -> NewRecord {
        let aside = job.aside.as_deref().cloned().unwrap_or_else(|| Self::untouched(job, 0));
        aside.write(job, TopicPartition::new(topics::jobs(&job.place.lane), job.at.partition))
    }

    fn write(&self, job: &Delivered, to: TopicPartition) -> NewRecord {
        let kept = job.record.headers.iter().filter(|(name, _)| name != HEADER_ASIDE);
        let mut headers: Vec<Header> = kept.cloned().collect();
        // Such a value has string keys only and cannot fail.
        headers.push((HEADER_ASIDE.to_owned(), serde_json::to_vec(self).map(Bytes::from).unwrap_or_default()));
        NewRecord {
            to,
            key: job.record.key.clone(),
            value: job.record.value.clone(),
            headers,
            // The lane's control topic is read from the oldest job on.
            timestamp_ms: job.record.timestamp_ms,
        }
    }
}

/// The record that tells a later owner that the job at `offset` has left `side`.
pub fn taken(lane: &str, side: Side, partition: u32, offset: u64, now_ms: u64) -> NewRecord {
    NewRecord {
        to: TopicPartition::new(topic(lane, side), partition),
        key: None,
        value: None,
        headers: vec![(HEADER_TAKEN.to_owned(), Bytes::from(offset.to_string()))],
        timestamp_ms: now_ms,
    }
}
