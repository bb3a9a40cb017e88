//! The body of an answer within its limits: so many bytes in all, and never less than a few in a long time. A backend that
//! sends a byte now and then is as good as silent, and a time-out of single reads does not notice.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use relay_protocol::ErrorCode;
use tokio::time::Instant;

use super::failure;
use crate::backend::BackendError;

/// What must come within the time of [`Limits::silence`], in bytes, unless the answer ends: less is silence.
pub const BYTES_MIN: usize = 1_024;

/// What an answer may be like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Bytes at most.
    pub(super) bytes_max: usize,
    /// Time in which [`BYTES_MIN`] must come, or the end of a line: a stream's messages may be short and rare.
    pub(super) silence: Duration,
}

/// The parts of an answer as they come; an error ends them.
pub(super) fn parts(response: reqwest::Response, limits: Limits) -> impl Stream<Item = Result<Bytes, BackendError>> {
    let pace = Pace { limits, bytes: 0, in_window: 0, until: Instant::now() + limits.silence };
    let body = Box::pin(response.bytes_stream());
    futures_util::stream::unfold(Some((body, pace)), |state| async {
        let (mut body, mut pace) = state?;
        let part = match tokio::time::timeout_at(pace.until, body.next()).await {
            Ok(None) => return None,
            Ok(Some(Ok(part))) => pace.came(part),
            Ok(Some(Err(error))) => Err(failure::transport(&error)),
            Err(_) => Err(pace.too_slow()),
        };
        let state = part.is_ok().then_some((body, pace));
        Some((part, state))
    })
}

/// The same, but each part ends with a line: whoever reads messages need not look at a long one again with each part of it. What
/// comes after the last line of all is no message and left out.
pub(super) fn lines(response: reqwest::Response, limits: Limits) -> impl Stream<Item = Result<Bytes, BackendError>> {
    let mut line = BytesMut::new();
    parts(response, limits).map(move |part| {
        let part = part?;
        let end = part.iter().rposition(|byte| *byte == b'\n').map(|end| line.len() + end + 1);
        line.extend_from_slice(&part);
        Ok(end.map_or_else(Bytes::new, |end| line.split_to(end).freeze()))
    })
}

struct Pace {
    limits: Limits,
    /// All that came.
    bytes: usize,
    /// What came since the time began anew.
    in_window: usize,
    until: Instant,
}

impl Pace {
    fn came(&mut self, part: Bytes) -> Result<Bytes, BackendError> {
        self.bytes += part.len();
        if self.bytes > self.limits.bytes_max {
            let reason = format!("the answer has more than {} bytes", self.limits.bytes_max);
            return Err(BackendError::Rejected { code: ErrorCode::BackendRejected, reason });
        }
        self.in_window += part.len();
        if self.in_window >= BYTES_MIN || part.contains(&b'\n') {
            (self.in_window, self.until) = (0, Instant::now() + self.limits.silence);
        }
        Ok(part)
    }

    fn too_slow(&self) -> BackendError {
        let silence = self.limits.silence;
        BackendError::Unreachable(format!("only {} bytes of an answer came within {silence:?}", self.in_window))
    }
}
