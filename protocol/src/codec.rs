//! The only place that calls bincode: always under a limit, left-over bytes refused.
//!
//! Without a limit bincode 2 panics on a hostile length, which would let a peer end the process. The limit counts a
//! number with its full width, though on the wire it may take a byte; the largest valid messages stay well below it.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limits::HEAD_BYTES_MAX;

type Codec = Configuration<LittleEndian, Varint, Limit<HEAD_BYTES_MAX>>;
const CODEC: Codec = bincode::config::standard().with_limit::<HEAD_BYTES_MAX>();

/// Appends `value` to `out`.
///
/// # Errors
/// The reason in words; only a value that no message holds (an unsupported serde type) can fail.
pub(crate) fn encode_into<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<usize, String> {
    bincode::serde::encode_into_std_write(value, out, CODEC).map_err(|error| error.to_string())
}

/// Reads all of `bytes` as a `T`.
///
/// # Errors
/// The reason in words: malformed, over the limit, or bytes left over (they would hide a changed struct).
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let (value, read) = bincode::serde::decode_from_slice(bytes, CODEC).map_err(|error| error.to_string())?;
    if read < bytes.len() {
        return Err(format!("{} bytes left over", bytes.len() - read));
    }
    Ok(value)
}
