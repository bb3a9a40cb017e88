//! One attempt of a call at one backend, up to the first byte of its answer: what fails before may begin anew elsewhere.

use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use relay_protocol::ErrorCode;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use serde_json::Value;

use crate::backend::forward::Forward;
use crate::backend::localai::failure;
use crate::backend::{Backend, BackendError};

/// Largest answer that is read to its end before the first byte of it goes on, so that one that breaks off begins anew; also the
/// largest first message of a stream, and the largest refusal. In bytes.
const HELD_BYTES_MAX: usize = 1_048_576;

/// The bytes that follow.
pub(super) type Rest = Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>>>>;

/// An answer whose first bytes are there.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) first: Bytes,
    /// `None` if that was all.
    pub(super) rest: Option<Rest>,
}

/// An attempt that failed.
pub(super) struct Failed {
    pub(super) error: BackendError,
    /// What the backend said, if it said so in an answer.
    pub(super) answer: Option<Answer>,
}

impl Answer {
    /// Whether it is a stream of server-sent events.
    pub(super) fn is_events(&self) -> bool {
        is_of_type(&self.headers, "text/event-stream")
    }
}

impl From<BackendError> for Failed {
    fn from(error: BackendError) -> Self {
        Self { error, answer: None }
    }
}

/// Sends the call and waits for the begin of a good answer.
///
/// # Errors
/// The backend failed, or refused the call.
pub(super) async fn attempt(backend: &dyn Backend, forward: Forward) -> Result<Answer, Failed> {
    let response = backend.forward(forward).await?;
    let (status, headers) = (response.status(), response.headers().clone());
    let is_events = is_of_type(&headers, "text/event-stream");
    let is_small = content_length(&headers).is_some_and(|bytes| bytes <= HELD_BYTES_MAX as u64);
    let mut rest: Rest = Box::pin(response.bytes_stream());
    if !status.is_success() {
        let body = to_end(&mut rest).await?;
        let error = failure::of_answer(status.as_u16(), &body, failure::retry_after(&headers));
        let answer = Answer { status: status.as_u16(), headers, first: body, rest: None };
        return Err(Failed { error, answer: Some(answer) });
    }
    if is_small && !is_events {
        let first = to_end(&mut rest).await?;
        return Ok(Answer { status: status.as_u16(), headers, first, rest: None });
    }
    let first = if is_events { first_event(&mut rest).await? } else { next(&mut rest).await?.unwrap_or_default() };
    let error = if is_events { error_of(&first) } else { None };
    let answer = Answer { status: status.as_u16(), headers, first, rest: Some(rest) };
    match error {
        None => Ok(answer),
        Some(error) => Err(Failed { error, answer: Some(answer) }),
    }
}

async fn next(rest: &mut Rest) -> Result<Option<Bytes>, BackendError> {
    rest.next().await.transpose().map_err(|error| failure::transport(&error))
}

async fn to_end(rest: &mut Rest) -> Result<Bytes, BackendError> {
    let mut bytes = BytesMut::new();
    while let Some(part) = next(rest).await? {
        bytes.extend_from_slice(&part);
        if bytes.len() > HELD_BYTES_MAX {
            let reason = format!("the answer has more than the {HELD_BYTES_MAX} bytes that it announced or may have");
            return Err(BackendError::Rejected { code: ErrorCode::BackendRejected, reason });
        }
    }
    Ok(bytes.freeze())
}

/// Bytes up to the end of the first message at least.
async fn first_event(rest: &mut Rest) -> Result<Bytes, BackendError> {
    let mut bytes = BytesMut::new();
    while bytes.len() < HELD_BYTES_MAX && !bytes.windows(2).any(|two| two == b"\n\n") {
        match next(rest).await? {
            Some(part) => bytes.extend_from_slice(&part),
            None if bytes.is_empty() => {
                return Err(BackendError::Failed("the stream ended before its first message".to_owned()));
            }
            None => break,
        }
    }
    Ok(bytes.freeze())
}

/// What a stream says whose first message is an error: its status was 200 all the same.
fn error_of(first: &[u8]) -> Option<BackendError> {
    let text = std::str::from_utf8(first).ok()?;
    let data = text.lines().find_map(|line| line.strip_prefix("data:"))?;
    let message: Value = serde_json::from_str(data.trim()).ok()?;
    let words = message.get("error")?.get("message").and_then(Value::as_str).unwrap_or_default();
    Some(failure::of_words(None, words, None))
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn is_of_type(headers: &HeaderMap, wanted: &str) -> bool {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|value| value.starts_with(wanted))
}
