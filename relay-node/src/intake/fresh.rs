//! Rising offsets in few bytes: what one commit finished, as it travels in the commit's own metadata. Pure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// Bytes that the runs may have before base64: those of at least a hundred jobs, however they lie.
const BYTES_MAX: usize = 330;

/// Rising offsets, as runs of neighbours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fresh {
    /// First offset and length of each run, in order, apart from each other.
    runs: Vec<(u64, u64)>,
    until_ms: u64,
}

impl Fresh {
    /// Of offsets that rise, whose records are there until a time in milliseconds since the Unix epoch. Of more offsets than
    /// [`Fresh::pack`] has room for only the first ones.
    pub fn of(offsets: impl Iterator<Item = u64>, until_ms: u64) -> Self {
        let (mut runs, mut bytes) = (Vec::<(u64, u64)>::new(), 0);
        for offset in offsets {
            let end = runs.last().map_or(offset, |(first, length)| first + length);
            let grown = runs.last_mut().filter(|_| end == offset);
            bytes += match &grown {
                Some((_, length)) => varint_bytes(*length + 1) - varint_bytes(*length),
                None => varint_bytes(offset - end) + 1,
            };
            if bytes > BYTES_MAX {
                metrics::counter!("relay_commit_offsets_left_out_total").increment(1);
                break;
            }
            match grown {
                Some((_, length)) => *length += 1,
                None => runs.push((offset, 1)),
            }
        }
        if runs.is_empty() { Self::default() } else { Self { runs, until_ms } }
    }

    /// Until when their records are there, in milliseconds since the Unix epoch.
    pub fn until_ms(&self) -> u64 {
        self.until_ms
    }

    /// The lowest.
    pub fn first(&self) -> Option<u64> {
        self.runs.first().map(|(first, _)| *first)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.runs.iter().flat_map(|(first, length)| *first..*first + *length)
    }

    /// Empty for none; else, with dots between them, the lowest, the time, and in base64 for each run its distance from the one
    /// before and its length.
    pub fn pack(&self) -> String {
        let Some(first) = self.first() else { return String::new() };
        let (mut at, mut bytes) = (first, Vec::new());
        for (start, length) in &self.runs {
            put(&mut bytes, start - at);
            put(&mut bytes, *length);
            at = start + length;
        }
        format!("{first}.{}.{}", self.until_ms, STANDARD_NO_PAD.encode(bytes))
    }

    /// What [`Fresh::pack`] wrote; `None` if it did not.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::default());
        }
        let mut parts = text.splitn(3, '.');
        let (first, until_ms, bytes) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?);
        let bytes = STANDARD_NO_PAD.decode(bytes).ok()?;
        if bytes.len() > BYTES_MAX {
            return None;
        }
        let (mut at, mut rest, mut runs) = (first.parse::<u64>().ok()?, bytes.as_slice(), Vec::new());
        while !rest.is_empty() {
            let (gap, length) = (take(&mut rest)?, take(&mut rest)?);
            let start = at.checked_add(gap)?;
            at = start.checked_add(length)?;
            // Longer ones were never written, and would be walked through.
            if length > super::progress::WINDOW_OFFSETS_MAX {
                return None;
            }
            runs.push((start, length));
        }
        Some(Self { runs, until_ms })
    }
}

fn varint_bytes(value: u64) -> usize {
    (64 - value.max(1).leading_zeros() as usize).div_ceil(7)
}

fn put(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let (mut value, mut shift) = (0_u64, 0);
    loop {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
        shift += 7;
    }
}

#[cfg(test)]
#[path = "fresh_test.rs"]
mod tests;
