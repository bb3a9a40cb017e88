//! A good submit for a test to send, or to change.

use relay_protocol::JobId;
use relay_protocol::session::{SubmitInputV1, SubmitV1};

/// A submit of a job that does `task` with the frame's payload.
pub(crate) fn submit_of(request: u64, job_id: JobId, task: &str) -> SubmitV1 {
    SubmitV1 {
        request,
        job_id,
        lane: "default".to_owned(),
        task: task.to_owned(),
        model: String::new(),
        params: String::new(),
        input: SubmitInputV1::Inline,
        name: String::new(),
        media_type: String::new(),
        priority: 1,
        idempotency_key: None,
        deadline_ms: None,
        not_before_ms: None,
        traceparent: None,
        sent_at_us: 1,
        watch: true,
    }
}
