//! A job as JSON: its record, and the lane beside it.

use std::time::Duration;

use actix_web::web::Payload;
use relay_protocol::{ErrorCode, Job, JobError, Task, topics};
use serde_json::{Map, Value};
use tokio::time::timeout;

use crate::state::NodeState;

/// Largest JSON body of a submit, in bytes: an inline input in base64 and the rest.
const BYTES_MAX: usize = 1_048_576;

/// Reads lane and job.
///
/// # Errors
/// [`ErrorCode::BadRequest`], [`ErrorCode::UnknownTask`], [`ErrorCode::TooLarge`], [`ErrorCode::RequestTimeout`].
pub(super) async fn read(node: &NodeState, payload: Payload) -> Result<(String, Job), JobError> {
    let wait_ms = node.settings.gateway.body_timeout_ms;
    let body = timeout(Duration::from_millis(wait_ms), payload.to_bytes_limited(BYTES_MAX)).await.map_err(|_| {
        let message = format!("the body did not come within {wait_ms} ms: send it without pauses");
        JobError::new(ErrorCode::RequestTimeout, message)
    })?;
    let body = body.map_err(|_| {
        let message = format!("a JSON body may have {BYTES_MAX} bytes: send larger inputs as multipart/form-data");
        JobError::new(ErrorCode::TooLarge, message)
    })?;
    parse(&body.map_err(|error| bad(error.to_string()))?)
}

fn parse(body: &[u8]) -> Result<(String, Job), JobError> {
    let mut fields: Map<String, Value> =
        serde_json::from_slice(body).map_err(|error| bad(format!("the body is not a JSON object: {error}")))?;
    let lane = match fields.remove("lane") {
        None => topics::DEFAULT_LANE.to_owned(),
        Some(Value::String(lane)) => lane,
        Some(_) => return Err(bad("lane must be text".to_owned())),
    };
    if let Some(task) = fields.get("task").and_then(Value::as_str)
        && let Err(unknown) = task.parse::<Task>()
    {
        return Err(JobError::new(ErrorCode::UnknownTask, unknown.to_string()));
    }
    let job =
        serde_json::from_value(Value::Object(fields)).map_err(|error| bad(format!("this is not a job: {error}")))?;
    Ok((lane, job))
}

fn bad(message: String) -> JobError {
    JobError::new(ErrorCode::BadRequest, message)
}
