//! How a record lies in the store: timestamp u64, then key, value and headers, each with its length (u32, little endian;
//! `u32::MAX` for none).

use bytes::{Buf, BufMut, Bytes};

use crate::port::{LogRecord, TopicPartition};

const NONE: u32 = u32::MAX;

/// The bytes of a record, without its place.
pub(super) fn encode(record: &LogRecord) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + record.value.as_ref().map_or(0, Bytes::len));
    out.put_u64_le(record.timestamp_ms);
    put(&mut out, record.key.as_deref());
    put(&mut out, record.value.as_deref());
    out.put_u32_le(record.headers.len() as u32);
    for (name, value) in &record.headers {
        put(&mut out, Some(name.as_bytes()));
        put(&mut out, Some(value));
    }
    out
}

fn put(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => out.put_u32_le(NONE),
        Some(bytes) => {
            out.put_u32_le(bytes.len() as u32);
            out.extend_from_slice(bytes);
        }
    }
}

/// The record at a place; `None` if the bytes are damaged. Keys and values share the memory of `bytes`.
pub(super) fn decode(at: TopicPartition, offset: u64, mut bytes: Bytes) -> Option<LogRecord> {
    let timestamp_ms = bytes.try_get_u64_le().ok()?;
    let key = take(&mut bytes)?;
    let value = take(&mut bytes)?;
    let count = bytes.try_get_u32_le().ok()?;
    let mut headers = Vec::new();
    for _ in 0..count {
        let name = String::from_utf8(take(&mut bytes)??.to_vec()).ok()?;
        headers.push((name, take(&mut bytes)??));
    }
    bytes.is_empty().then_some(LogRecord { at, offset, key, value, headers, timestamp_ms })
}

/// The outer option is damage, the inner one "none".
fn take(bytes: &mut Bytes) -> Option<Option<Bytes>> {
    match bytes.try_get_u32_le().ok()? {
        NONE => Some(None),
        length if length as usize <= bytes.len() => Some(Some(bytes.split_to(length as usize))),
        _ => None,
    }
}
