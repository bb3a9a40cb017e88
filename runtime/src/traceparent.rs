//! The W3C `traceparent` header (Trace Context, level 1): parse, check, make, write. Pure.

use std::fmt;

use crate::random::Random;

/// Bytes of a version 00 `traceparent`: `00-<32 hex>-<16 hex>-<2 hex>`.
pub const TRACEPARENT_BYTES: usize = 55;

/// Flag bit: the caller may have recorded this trace.
const SAMPLED: u8 = 0x01;

/// Where a piece of work stands in a trace. Written by [`Display`](fmt::Display), always as version 00.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Traceparent {
    trace_id: u128,
    span_id: u64,
    flags: u8,
}

/// Why a text is not a version 00 `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TraceparentError {
    /// Not exactly [`TRACEPARENT_BYTES`] bytes.
    #[error("a traceparent has {TRACEPARENT_BYTES} bytes, not {0}")]
    Length(usize),
    /// A dash is missing or misplaced, or a digit is not lower-case hex.
    #[error("a traceparent is 00-<32 hex>-<16 hex>-<2 hex> in lower case")]
    Shape,
    /// Another version than 00.
    #[error("only version 00 of traceparent is understood")]
    Version,
    /// The trace id or the span id is all zeros.
    #[error("a traceparent's ids must not be all zeros")]
    Zero,
}

impl Traceparent {
    /// Reads `text` strictly: version 00, lower case, no blanks, ids not zero.
    ///
    /// # Errors
    /// [`TraceparentError`]. Callers that got the text from outside start a new trace then; they never refuse the work.
    pub fn parse(text: &str) -> Result<Self, TraceparentError> {
        let bytes = text.as_bytes();
        if bytes.len() != TRACEPARENT_BYTES {
            return Err(TraceparentError::Length(bytes.len()));
        }
        let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        let shaped =
            bytes.iter().enumerate().all(|(at, &b)| if matches!(at, 2 | 35 | 52) { b == b'-' } else { is_hex(b) });
        if !shaped {
            return Err(TraceparentError::Shape);
        }
        if &text[..2] != "00" {
            return Err(TraceparentError::Version);
        }
        let hex =
            |range: std::ops::Range<usize>| u128::from_str_radix(&text[range], 16).map_err(|_| TraceparentError::Shape);
        let trace_id = hex(3..35)?;
        let span_id = u64::try_from(hex(36..52)?).map_err(|_| TraceparentError::Shape)?;
        let flags = u8::try_from(hex(53..55)?).map_err(|_| TraceparentError::Shape)?;
        Self::from_parts(trace_id, span_id, flags)
    }

    /// Puts a traceparent together from its numbers.
    ///
    /// # Errors
    /// [`TraceparentError::Zero`] when an id is 0.
    pub fn from_parts(trace_id: u128, span_id: u64, flags: u8) -> Result<Self, TraceparentError> {
        if trace_id == 0 || span_id == 0 {
            return Err(TraceparentError::Zero);
        }
        Ok(Self { trace_id, span_id, flags })
    }

    /// Starts a new trace with random ids, marked as sampled so that whoever exports along the way records it.
    pub fn random(random: &dyn Random) -> Self {
        let trace_id = (u128::from(random.next_u64()) << 64) | u128::from(random.next_u64());
        Self { trace_id: trace_id.max(1), span_id: random.next_u64().max(1), flags: SAMPLED }
    }

    /// The next piece of work in the same trace: same trace id and flags, a new random span id.
    #[must_use]
    pub fn child(self, random: &dyn Random) -> Self {
        Self { span_id: random.next_u64().max(1), ..self }
    }

    /// The trace's id, not zero. Write it as `{:032x}`.
    pub fn trace_id(self) -> u128 {
        self.trace_id
    }

    /// The caller's span id, not zero. Write it as `{:016x}`.
    pub fn span_id(self) -> u64 {
        self.span_id
    }

    /// The flag byte; bit 0 means sampled.
    pub fn flags(self) -> u8 {
        self.flags
    }

    /// Whether the caller may have recorded this trace.
    pub fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }
}

impl fmt::Display for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

impl std::str::FromStr for Traceparent {
    type Err = TraceparentError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}
