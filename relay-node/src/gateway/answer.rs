//! Errors of jobs as HTTP answers.

use relay_protocol::{ErrorCode, JobError};
use relay_runtime::http_error::ApiError;

/// Seconds after which a refused but repeatable request should come again.
const RETRY_AFTER_S: u32 = 1;

/// The HTTP answer for `error`, with its stable code's status.
pub fn api_error(error: &JobError) -> ApiError {
    let answer = ApiError::new(error.known_code().unwrap_or(ErrorCode::Internal), error.message.clone());
    if error.retryable { answer.retry_after(RETRY_AFTER_S) } else { ApiError { retryable: false, ..answer } }
}
