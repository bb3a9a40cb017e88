//! What a failed request means: LocalAI answers bad audio with 500, overload inside a stream with 200, and a dead model
//! with an instant 500 while it calls itself ready. So the words decide.

use std::time::Duration;

use relay_protocol::ErrorCode;
use serde::Deserialize;

use crate::backend::BackendError;

/// Longest part of a backend's words that is passed on, in bytes.
const WORDS_BYTES_MAX: usize = 1_000;

#[derive(Deserialize)]
struct Envelope {
    error: Words,
}

#[derive(Deserialize)]
struct Words {
    #[serde(default)]
    message: String,
}

/// What an answer with an error status means.
pub fn of_answer(status: u16, body: &[u8], retry_after: Option<Duration>) -> BackendError {
    let words = match serde_json::from_slice::<Envelope>(body) {
        Ok(envelope) => envelope.error.message,
        Err(_) => String::from_utf8_lossy(&body[..body.len().min(WORDS_BYTES_MAX)]).into_owned(),
    };
    of_words(Some(status), &words, retry_after)
}

/// What words mean, in an answer of `status` or inside a stream (`None`).
pub fn of_words(status: Option<u16>, words: &str, retry_after: Option<Duration>) -> BackendError {
    let reason = match status {
        Some(status) => format!("LocalAI answered {status}: {}", cut(words)),
        None => format!("LocalAI said: {}", cut(words)),
    };
    if status == Some(503) || status == Some(429) || words.contains("capacity reached") || words.contains("in cooldown")
    {
        return BackendError::Busy { reason, retry_after: retry_after.or_else(|| named_wait(words)) };
    }
    match status {
        Some(404) if words.contains("model") => BackendError::Rejected { code: ErrorCode::UnknownModel, reason },
        Some(413) => BackendError::Rejected { code: ErrorCode::TooLarge, reason },
        // Its keys are wrong: no fault of the job, and another backend may have the right ones.
        Some(401 | 403) => BackendError::Failed(reason),
        Some(status) if (400..500).contains(&status) => {
            BackendError::Rejected { code: ErrorCode::BackendRejected, reason }
        }
        _ if is_permanent(words) => BackendError::Rejected { code: ErrorCode::BackendRejected, reason },
        _ => BackendError::Failed(reason),
    }
}

/// Failures of the job itself, which every backend would repeat.
fn is_permanent(words: &str) -> bool {
    const PERMANENT: [&str; 6] = [
        "code = InvalidArgument",
        "code = Unimplemented",
        "code = OutOfRange",
        "http: no such file",
        "invalid response_format",
        "empty text",
    ];
    PERMANENT.iter().any(|sign| words.contains(sign))
}

/// `retry after 9s` inside a message.
fn named_wait(words: &str) -> Option<Duration> {
    let rest = words.split("retry after ").nth(1)?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    rest[digits.len()..].starts_with('s').then(|| digits.parse().ok().map(Duration::from_secs))?
}

/// `Retry-After` in seconds.
pub fn retry_after(headers: &reqwest::header::HeaderMap) -> Option<Duration> {
    headers.get(reqwest::header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// What a failure without an answer means.
pub fn transport(error: &reqwest::Error) -> BackendError {
    let mut words = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        words = format!("{words}: {cause}");
        source = cause.source();
    }
    if error.is_connect() || error.is_timeout() {
        BackendError::Unreachable(words)
    } else {
        BackendError::Failed(words)
    }
}

fn cut(words: &str) -> &str {
    let end = (0..=words.len().min(WORDS_BYTES_MAX)).rev().find(|at| words.is_char_boundary(*at)).unwrap_or(0);
    &words[..end]
}
