//! The chain of parts against a bitmap of the bytes that are there.

use proptest::prelude::*;

use super::{Part, chain};

/// Longest upload of a case, in bytes.
const BYTES: u64 = 64;

fn parts() -> impl Strategy<Value = Vec<Part>> {
    let part = (0..BYTES, 0..16_u64).prop_map(|(offset, bytes)| Part { offset, bytes });
    prop::collection::vec(part, 0..12)
}

proptest! {
    /// The pieces are exactly the bytes before the first one that no part has, each once and in order.
    #[test]
    fn pieces_are_the_bytes_before_the_first_gap(parts in parts()) {
        let has = |byte: u64| parts.iter().any(|part| (part.offset..part.offset + part.bytes).contains(&byte));
        let gap = (0..).find(|byte| !has(*byte)).unwrap();
        let (pieces, end) = chain(parts.clone());
        prop_assert_eq!(end, gap);
        let mut next = 0;
        for piece in &pieces {
            prop_assert!(parts.contains(&piece.part));
            prop_assert_eq!(piece.part.offset + piece.known, next);
            prop_assert!(piece.known < piece.part.bytes, "a piece that adds nothing");
            next = piece.part.offset + piece.part.bytes;
        }
        prop_assert_eq!(next, end);
    }

    /// The order in which the store lists the parts does not matter.
    #[test]
    fn the_order_of_the_parts_does_not_matter(parts in parts(), turn in 0..12_usize) {
        let mut turned = parts.clone();
        if !turned.is_empty() {
            turned.rotate_left(turn % parts.len());
        }
        prop_assert_eq!(chain(parts), chain(turned));
    }
}
