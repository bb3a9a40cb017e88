//! The backend's answer as the client gets it: byte for byte, with the slot held until the backend is done.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::{HttpResponse, HttpResponseBuilder};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use relay_protocol::ErrorCode;
use reqwest::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, RETRY_AFTER};

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::attempt::{Answer, Rest};
use super::error::envelope;
use super::record::Record;
use crate::backend::BackendError;
use crate::backend::localai::failure;
use crate::backend::pool::SlotPermit;

/// Headers of a backend that go on to the client; the others are about its own connection.
const PASSED_ON: [reqwest::header::HeaderName; 4] = [CONTENT_TYPE, CACHE_CONTROL, CONTENT_DISPOSITION, RETRY_AFTER];

/// Longest line of a stream of messages, in bytes: it is kept until its end has come.
const LINE_BYTES_MAX: usize = 16 * 1_048_576;
/// Pieces that may wait for a client.
const PIECES_MAX: usize = 16;

type Piece = Result<Bytes, std::io::Error>;

/// Brings the rest of an answer to its client; holds the slot until the backend is done, or the client takes no more.
struct Pump {
    rest: Rest,
    pieces: mpsc::Sender<Piece>,
    is_events: bool,
    /// Of a stream of messages: a line whose end has not come.
    line: BytesMut,
    client_timeout: Duration,
    record: Record,
    permit: Option<SlotPermit>,
}

/// The answer of a backend, of which `permit` is the slot; its call ends with `outcome`.
pub(super) fn respond(
    answer: Answer,
    permit: Option<SlotPermit>,
    mut record: Record,
    outcome: &'static str,
    client_timeout: Duration,
) -> HttpResponse {
    let mut response = head(&answer);
    record.first_byte();
    let is_events = answer.is_events();
    let length = answer.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let Some(rest) = answer.rest else {
        if let Some(mut permit) = permit {
            permit.ended(&Ok(()));
        }
        record.ended(outcome);
        return add(marks(&record), response.body(answer.first));
    };
    let marks = marks(&record);
    let (pieces, body) = mpsc::channel(PIECES_MAX);
    let pump = Pump { rest, pieces, is_events, line: BytesMut::new(), client_timeout, record, permit };
    actix_web::rt::spawn(pump.run(answer.first, outcome));
    if let Some(length) = length.filter(|_| !is_events) {
        response.no_chunking(length);
    }
    let body = futures_util::stream::unfold(body, |mut body| async move { Some((body.recv().await?, body)) });
    add(marks, response.streaming(body))
}

impl Pump {
    async fn run(mut self, first: Bytes, outcome: &'static str) {
        let hold = self.permit.as_ref().and_then(|permit| permit.hold().cloned());
        let ended = match hold {
            Some(hold) => match hold.during(self.bring(first, outcome)).await {
                Ok(ended) => ended,
                Err(over) => self.cut_off(&over).await,
            },
            None => self.bring(first, outcome).await,
        };
        self.record.ended(ended);
        if ended == "too_slow" {
            // What is left out must not look like the end.
            drop(self.pieces.try_send(Err(std::io::Error::from(std::io::ErrorKind::TimedOut))));
        }
    }

    /// The lease of the slot is over: the request ends first, then its client is told.
    async fn cut_off(&mut self, over: &BackendError) -> &'static str {
        self.rest = Box::pin(futures_util::stream::empty());
        self.permit = None;
        tracing::warn!(error = %over, job_id = %self.record.job_id, "an answer was cut off");
        let last = if self.is_events {
            Ok(last_words(ErrorCode::AttemptLost, CUT_OFF))
        } else {
            Err(std::io::Error::other(CUT_OFF))
        };
        self.send(last).await.err().unwrap_or("broken")
    }

    /// Brings all of it; how that ended.
    async fn bring(&mut self, first: Bytes, outcome: &'static str) -> &'static str {
        let mut next = Some(Ok(first));
        loop {
            match next {
                Some(Ok(bytes)) => {
                    let piece = self.whole_lines(bytes);
                    if self.line.len() > LINE_BYTES_MAX {
                        tracing::warn!(job_id = %self.record.job_id, "a line of a stream does not end");
                        let problem = format!("a line of its stream has more than {LINE_BYTES_MAX} bytes");
                        self.backend_ended(&Err(BackendError::Failed(problem)));
                        break self.send(Ok(broken_off())).await.err().unwrap_or("broken");
                    }
                    if let Err(ended) = self.send(Ok(piece)).await {
                        break ended;
                    }
                }
                None => {
                    self.backend_ended(&Ok(()));
                    let tail = self.line.split().freeze();
                    break self.send(Ok(tail)).await.err().unwrap_or(outcome);
                }
                Some(Err(error)) => {
                    tracing::warn!(%error, job_id = %self.record.job_id, "an answer broke off");
                    self.backend_ended(&Err(failure::transport(&error)));
                    let last = if self.is_events { Ok(broken_off()) } else { Err(std::io::Error::other(error)) };
                    break self.send(last).await.err().unwrap_or("broken");
                }
            }
            let closed = self.pieces.clone();
            next = tokio::select! {
                biased;
                () = closed.closed() => break "gone",
                next = self.rest.next() => next,
            };
        }
    }

    fn backend_ended(&mut self, how: &Result<(), BackendError>) {
        if let Some(permit) = &mut self.permit {
            permit.ended(how);
        }
    }

    /// Of a stream of messages what ends with a line: if the backend breaks off, its last words are no half message.
    fn whole_lines(&mut self, bytes: Bytes) -> Bytes {
        if !self.is_events {
            return bytes;
        }
        self.line.extend_from_slice(&bytes);
        match self.line.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => self.line.split_to(end + 1).freeze(),
            None => Bytes::new(),
        }
    }

    /// `Err` with the outcome if the client takes no more.
    async fn send(&self, piece: Piece) -> Result<(), &'static str> {
        if piece.as_ref().is_ok_and(Bytes::is_empty) {
            return Ok(());
        }
        match timeout(self.client_timeout, self.pieces.send(piece)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err("gone"),
            Err(_) => Err("too_slow"),
        }
    }
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

const BROKEN_OFF: &str = "the backend broke off in the middle of its answer: send the request again for a whole one";
const CUT_OFF: &str = "the relay had to end the request in the middle of its answer, cut off from its coordinators: send it again for a whole one";

/// What the client of a stream is told in the end if the backend is gone: what it has is not repeated.
fn broken_off() -> Bytes {
    last_words(ErrorCode::BackendFailed, BROKEN_OFF)
}

fn last_words(code: ErrorCode, message: &str) -> Bytes {
    let error = envelope(code.as_str(), code.http_status(), message);
    Bytes::from(format!("\ndata: {error}\n\ndata: [DONE]\n\n"))
}
