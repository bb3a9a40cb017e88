//! One attempt of a call at one backend, up to the first byte of its answer: what fails before may begin anew elsewhere.

use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use serde_json::Value;

use crate::backend::forward::Forward;
use crate::backend::localai::failure;
use crate::backend::{Backend, BackendError};

/// Of an answer that is no stream so much is read before its first byte goes on, so that one that breaks off begins anew; also the largest
/// first message of a stream, and the largest refusal. In bytes.
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
    let (is_events, is_json) = (is_of_type(&headers, "text/event-stream"), is_of_type(&headers, "application/json"));
    let mut rest: Rest = Box::pin(response.bytes_stream());
    let answer = |first, rest| Answer { status: status.as_u16(), headers: headers.clone(), first, rest };
    if !status.is_success() {
        let (body, _) = hold(&mut rest).await?;
        let error = failure::of_answer(status.as_u16(), &body, failure::retry_after(&headers));
        return Err(Failed { error, answer: Some(answer(body, None)) });
    }
    if is_events {
        let (mut first, error) = first_message(&mut rest).await?;
        let Some(error) = error else { return Ok(answer(first.freeze(), Some(rest))) };
        // There is little more to come, and the slot is free.
        let (more, _) = hold(&mut rest).await.unwrap_or_default();
        first.extend_from_slice(&more);
        return Err(Failed { error, answer: Some(answer(first.freeze(), None)) });
    }
    if is_json || content_length(&headers).is_some_and(|bytes| bytes <= HELD_BYTES_MAX as u64) {
        let (first, is_all) = hold(&mut rest).await?;
        return Ok(answer(first, (!is_all).then_some(rest)));
    }
    let first = next(&mut rest).await?.unwrap_or_default();
    Ok(answer(first, Some(rest)))
}

async fn next(rest: &mut Rest) -> Result<Option<Bytes>, BackendError> {
    rest.next().await.transpose().map_err(|error| failure::transport(&error))
}

/// The bytes to the end, or as many as are held back, and whether those are all.
async fn hold(rest: &mut Rest) -> Result<(Bytes, bool), BackendError> {
    let mut bytes = BytesMut::new();
    while bytes.len() <= HELD_BYTES_MAX {
        match next(rest).await? {
            Some(part) => bytes.extend_from_slice(&part),
            None => return Ok((bytes.freeze(), true)),
        }
    }
    Ok((bytes.freeze(), false))
}

/// Bytes up to the end of the first message at least, and what it says if it is an error: the status was 200 all the same.
async fn first_message(rest: &mut Rest) -> Result<(BytesMut, Option<BackendError>), BackendError> {
    let mut bytes = BytesMut::new();
    while bytes.len() < HELD_BYTES_MAX {
        if let Some(data) = first_data(&bytes) {
            return Ok((bytes, error_of(&data)));
        }
        match next(rest).await? {
            Some(part) => bytes.extend_from_slice(&part),
            None if bytes.is_empty() => {
                return Err(BackendError::Failed("the stream ended before its first message".to_owned()));
            }
            None => break,
        }
    }
    Ok((bytes, None))
}

/// The data of the first whole message that has any: comments come before it.
fn first_data(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes).replace("\r\n", "\n");
    let (whole, _) = text.rsplit_once("\n\n")?;
    let data = |message: &str| {
        let lines = message.lines().filter_map(|line| line.strip_prefix("data:"));
        lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>().join("\n")
    };
    whole.split("\n\n").map(data).find(|data| !data.is_empty())
}

fn error_of(data: &str) -> Option<BackendError> {
    let message: Value = serde_json::from_str(data).ok()?;
    let error = message.get("error").filter(|error| !error.is_null())?;
    let words = error.get("message").and_then(Value::as_str).unwrap_or_default();
    Some(failure::of_words(None, words, None))
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn is_of_type(headers: &HeaderMap, wanted: &str) -> bool {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|value| value.starts_with(wanted))
}
