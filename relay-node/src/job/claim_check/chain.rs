//! What the parts of an upload are together: the bytes from the first on, up to the first gap.

/// A part as it lies in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Part {
    /// Its first byte's place in the upload.
    pub(super) offset: u64,
    /// Its size.
    pub(super) bytes: u64,
}

/// What a part adds to the parts before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    /// Which part.
    pub(super) part: Part,
    /// Bytes at its begin that an earlier part has too.
    pub(super) known: u64,
}

/// The pieces that follow each other from byte 0 on, and where they end.
///
/// Two nodes may have stored for the same upload, when the first did not know yet that its client was gone: their parts
/// overlap and hold the same bytes, which the digest of the whole checks. What lies beyond a gap does not count.
pub(super) fn chain(mut parts: Vec<Part>) -> (Vec<Piece>, u64) {
    parts.sort_unstable();
    let (mut pieces, mut end) = (Vec::with_capacity(parts.len()), 0_u64);
    for part in parts {
        if part.offset > end {
            break;
        }
        let part_end = part.offset.saturating_add(part.bytes);
        if part_end > end {
            pieces.push(Piece { part, known: end - part.offset });
            end = part_end;
        }
    }
    (pieces, end)
}

#[cfg(test)]
#[path = "chain_test.rs"]
mod chain_test;
