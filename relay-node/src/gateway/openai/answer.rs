//! The backend's answer as the client gets it: byte for byte, with the slot held until the backend is done.

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::{HttpResponse, HttpResponseBuilder};
use bytes::Bytes;
use futures_util::StreamExt;
use relay_protocol::ErrorCode;
use reqwest::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, RETRY_AFTER};

use super::attempt::{Answer, Rest};
use super::error::envelope;
use super::record::Record;
use crate::backend::pool::SlotPermit;

/// Headers of a backend that go on to the client; the others are about its own connection.
const PASSED_ON: [reqwest::header::HeaderName; 4] = [CONTENT_TYPE, CACHE_CONTROL, CONTENT_DISPOSITION, RETRY_AFTER];

/// What remains of an answer that is under way.
struct Relayed {
    first: Option<Bytes>,
    rest: Option<Rest>,
    is_events: bool,
    /// Given back when the backend is done, or when the client goes away.
    _permit: Option<SlotPermit>,
    record: Record,
}

/// The answer of a backend, of which `permit` is the slot.
pub(super) fn respond(
    answer: Answer,
    permit: Option<SlotPermit>,
    mut record: Record,
    outcome: &'static str,
) -> HttpResponse {
    let mut response = head(&answer);
    record.first_byte();
    let length = answer.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let is_events = answer.is_events();
    let Some(rest) = answer.rest else {
        record.ended(outcome);
        return add(marks(&record), response.body(answer.first));
    };
    let marks = marks(&record);
    let relayed = Relayed { first: Some(answer.first), rest: Some(rest), is_events, _permit: permit, record };
    let body = futures_util::stream::unfold((relayed, outcome), |(mut relayed, outcome)| async move {
        let next = relayed.next(outcome).await?;
        Some((next, (relayed, outcome)))
    });
    if let Some(length) = length {
        response.no_chunking(length);
    }
    add(marks, response.streaming(body))
}

fn head(answer: &Answer) -> HttpResponseBuilder {
    let mut response = HttpResponseBuilder::new(StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY));
    copy(&answer.headers, &mut response);
    if answer.is_events() {
        // Proxies in between would keep messages back.
        response.insert_header(("x-accel-buffering", "no"));
    }
    response
}

/// What the relay adds to every answer of a call.
type Marks = Vec<(&'static str, String)>;

fn marks(record: &Record) -> Marks {
    let of_all = [("x-relay-job-id", record.job_id.to_string()), ("traceparent", record.traceparent.clone())];
    of_all.into_iter().chain(record.backend.clone().map(|backend| ("x-relay-backend", backend))).collect()
}

fn add(marks: Marks, mut answer: HttpResponse) -> HttpResponse {
    for (name, value) in marks {
        if let Ok(value) = HeaderValue::from_str(&value) {
            answer.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    answer
}

/// The relay's own `answer` to a call.
pub(super) fn mark(answer: HttpResponse, record: &Record) -> HttpResponse {
    add(marks(record), answer)
}

fn copy(from: &HeaderMap, to: &mut HttpResponseBuilder) {
    for name in PASSED_ON {
        if let Some(value) = from.get(&name) {
            to.insert_header((name.as_str(), value.as_bytes()));
        }
    }
}

impl Relayed {
    async fn next(&mut self, outcome: &'static str) -> Option<Result<Bytes, std::io::Error>> {
        if let Some(first) = self.first.take().filter(|first| !first.is_empty()) {
            return Some(Ok(first));
        }
        match self.rest.as_mut()?.next().await {
            Some(Ok(bytes)) => Some(Ok(bytes)),
            None => {
                self.rest = None;
                self.record.ended(outcome);
                None
            }
            Some(Err(error)) => {
                self.rest = None;
                self.record.ended("broken");
                tracing::warn!(%error, job_id = %self.record.job_id, "an answer broke off");
                Some(if self.is_events { Ok(broken_off()) } else { Err(std::io::Error::other(error)) })
            }
        }
    }
}

/// What the client of a stream is told in the end if the backend is gone: what it has is not repeated.
fn broken_off() -> Bytes {
    let message = "the backend broke off in the middle of its answer: send the request again for a whole one";
    let error = envelope(ErrorCode::BackendFailed.as_str(), ErrorCode::BackendFailed.http_status(), message);
    Bytes::from(format!("\n\ndata: {error}\n\ndata: [DONE]\n\n"))
}
