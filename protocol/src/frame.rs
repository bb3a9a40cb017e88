//! The frame around every message: 12 bytes of header, fixed for ever, then the head, then the payload.
//!
//! ```text
//! magic u16 | kind u16 | version u8 | flags u8 | head length u16 | payload length u32   (all little endian)
//! head: bincode (standard, varint) of the kind's struct    payload: bytes that the codec never sees
//! ```
//! One frame fills one binary WebSocket message, or the value of one record.

use bytes::{BufMut, Bytes, BytesMut};

use crate::codec;
use crate::limits::{HEAD_BYTES_MAX, HEADER_BYTES, PAYLOAD_BYTES_MAX};
use crate::message::Message;

/// First two bytes of every frame: `R`, `M`.
pub const MAGIC: u16 = u16::from_le_bytes(*b"RM");

/// A frame cut out of a message; head and payload share its memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What kind of message; see [`crate::message`].
    pub kind: u16,
    /// Version of the head's struct.
    pub version: u8,
    /// Reserved; written as 0, ignored when read.
    pub flags: u8,
    /// The head, bincode.
    pub head: Bytes,
    /// The payload, untouched.
    pub payload: Bytes,
}

/// Why bytes are not a frame, or a head not its message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Fewer or more bytes than the header says.
    #[error("the frame has {found} bytes, its header promises {expected}")]
    Length {
        /// Bytes that the header promises (at least the header itself).
        expected: usize,
        /// Bytes that are there.
        found: usize,
    },
    /// It does not begin with the magic number.
    #[error("the frame begins with {0:#06x} instead of the magic number 0x4d52 (\"RM\")")]
    BadMagic(u16),
    /// Head or payload is larger than the protocol allows.
    #[error("the frame's {part} of {bytes} bytes is over the limit of {limit}")]
    TooLarge {
        /// `head` or `payload`.
        part: &'static str,
        /// Bytes it says it has.
        bytes: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The frame is whole, but of another kind or version than asked for.
    #[error("expected kind {expected:#06x} version {expected_version}, found kind {kind:#06x} version {version}")]
    Unexpected {
        /// Kind asked for.
        expected: u16,
        /// Version asked for.
        expected_version: u8,
        /// Kind found.
        kind: u16,
        /// Version found.
        version: u8,
    },
    /// The head does not hold its message.
    #[error("the head of kind {kind:#06x} version {version} is malformed: {reason}")]
    Malformed {
        /// Kind of the frame.
        kind: u16,
        /// Version of the frame.
        version: u8,
        /// What is wrong.
        reason: String,
    },
}

/// Cuts one frame out of `message` without copying.
///
/// # Errors
/// [`DecodeError::Length`], [`DecodeError::BadMagic`], [`DecodeError::TooLarge`]. Unknown kinds are no error: they can be
/// skipped, because the length is known.
pub fn split(message: Bytes) -> Result<Frame, DecodeError> {
    let found = message.len();
    let Some(&[m0, m1, k0, k1, version, flags, h0, h1, p0, p1, p2, p3]) = message.first_chunk::<HEADER_BYTES>() else {
        return Err(DecodeError::Length { expected: HEADER_BYTES, found });
    };
    let magic = u16::from_le_bytes([m0, m1]);
    if magic != MAGIC {
        return Err(DecodeError::BadMagic(magic));
    }
    let head = usize::from(u16::from_le_bytes([h0, h1]));
    let payload = u32::from_le_bytes([p0, p1, p2, p3]) as usize;
    if payload > PAYLOAD_BYTES_MAX {
        return Err(DecodeError::TooLarge { part: "payload", bytes: payload, limit: PAYLOAD_BYTES_MAX });
    }
    let expected = HEADER_BYTES + head + payload;
    if found != expected {
        return Err(DecodeError::Length { expected, found });
    }
    let head_end = HEADER_BYTES + head;
    Ok(Frame {
        kind: u16::from_le_bytes([k0, k1]),
        version,
        flags,
        head: message.slice(HEADER_BYTES..head_end),
        payload: message.slice(head_end..),
    })
}

/// Whether `bytes` begin like a frame; a record in a topic that does not is JSON.
pub fn is_frame(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC.to_le_bytes())
}

impl Frame {
    /// Reads the head as the message `M`.
    ///
    /// # Errors
    /// [`DecodeError::Unexpected`] if the frame is of another kind or version, [`DecodeError::Malformed`] if the head is
    /// not an `M`, bytes left over included.
    pub fn head<M: Message>(&self) -> Result<M, DecodeError> {
        let (kind, version) = (self.kind, self.version);
        if kind != M::KIND || version != M::VERSION {
            return Err(DecodeError::Unexpected { expected: M::KIND, expected_version: M::VERSION, kind, version });
        }
        codec::decode(&self.head).map_err(|reason| DecodeError::Malformed { kind, version, reason })
    }
}

/// One frame with `message` as its head and a copy of `payload`.
///
/// # Errors
/// [`DecodeError::TooLarge`] if the head or the payload does not fit a frame.
pub fn encode<M: Message>(message: &M, payload: &[u8]) -> Result<Bytes, DecodeError> {
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(DecodeError::TooLarge { part: "payload", bytes: payload.len(), limit: PAYLOAD_BYTES_MAX });
    }
    let mut head = Vec::with_capacity(256);
    codec::encode_into(message, &mut head).map_err(|reason| DecodeError::Malformed {
        kind: M::KIND,
        version: M::VERSION,
        reason,
    })?;
    let head_length = u16::try_from(head.len()).map_err(|_| DecodeError::TooLarge {
        part: "head",
        bytes: head.len(),
        limit: HEAD_BYTES_MAX,
    })?;
    let mut out = BytesMut::with_capacity(HEADER_BYTES + head.len() + payload.len());
    out.put_u16_le(MAGIC);
    out.put_u16_le(M::KIND);
    out.put_u8(M::VERSION);
    out.put_u8(0);
    out.put_u16_le(head_length);
    out.put_u32_le(payload.len() as u32);
    out.extend_from_slice(&head);
    out.extend_from_slice(payload);
    Ok(out.freeze())
}
