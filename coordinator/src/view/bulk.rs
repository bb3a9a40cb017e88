//! Requests to cancel many jobs: the records that a gateway writes for one. Pure. Only a job's owner ends it; a request for
//! a job that ended meanwhile does nothing.

use bytes::Bytes;
use relay_log::port::{NewRecord, TopicPartition};
use relay_protocol::record::{CancelRequest, ControlRecord};
use relay_protocol::{JobId, topics};

use super::projection::JobRow;

/// What to write so that the owners of `jobs` cancel them, and for which jobs that is: those whose place is known and that
/// have not ended. Asked by `subject` at `now_ms`.
pub fn cancel_requests(jobs: &[JobRow], subject: &str, now_ms: u64) -> Vec<(JobId, NewRecord)> {
    jobs.iter()
        .filter(|job| !job.newest.terminal)
        .filter_map(|job| {
            let place = &job.origin.as_ref()?.place;
            let request = ControlRecord::Cancel(CancelRequest {
                job_id: job.job_id,
                tenant: job.tenant.clone(),
                subject: subject.to_owned(),
                at: now_ms,
            });
            let record = NewRecord {
                to: TopicPartition::new(topics::control(&place.lane), place.partition),
                key: Some(Bytes::from(job.job_id.to_string())),
                value: Some(Bytes::from(serde_json::to_vec(&request).ok()?)),
                headers: Vec::new(),
                // Owners look for it from the job's own time on, whatever this machine's clock says.
                timestamp_ms: now_ms.max(place.accepted_at),
            };
            Some((job.job_id, record))
        })
        .collect()
}
