//! What hostile lengths may make a reader allocate. Alone in its process, because the counter is the allocator.

mod support;

use bytes::Bytes;
use peak_alloc::PeakAlloc;
use relay_protocol::Frame;
use relay_protocol::frame::split;
use relay_protocol::message::{KINDS, Message};

use support::{bytes, golden_files, with_message};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Serde reserves at most 1 MiB for a list before it has seen its items; no message nests lists.
const ALLOCATED_BYTES_MAX: usize = 2 * 1_048_576;

const HUGE: &[&[u8]] = &[
    &[253, 255, 255, 255, 255, 255, 255, 255, 255],
    &[253, 0, 0, 0, 0, 0, 0, 0, 128],
    &[253, 0, 0, 0, 0, 1, 0, 0, 0],
    &[252, 255, 255, 255, 255],
    &[252, 0, 0, 1, 0],
    &[251, 255, 255],
    &[254, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255],
];

fn peak_of<M: Message>(head: &[u8]) -> usize {
    let frame = Frame {
        kind: M::KIND,
        version: M::VERSION,
        flags: 0,
        head: Bytes::copy_from_slice(head),
        payload: Bytes::new(),
    };
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let _value_or_error = frame.head::<M>();
    ALLOCATOR.peak_usage().saturating_sub(before)
}

#[test]
fn a_hostile_length_allocates_little() {
    let mut worst = (0, "");
    for (name, vector) in golden_files() {
        if !vector["frame"].is_string() {
            continue;
        }
        let head = split(bytes(&vector, "frame")).unwrap().head;
        for at in 0..=head.len() {
            for huge in HUGE {
                let hostile = [&head[..at], huge, &head[at..]].concat();
                for (_, _, message) in KINDS {
                    let peak = with_message!(*message, M => peak_of::<M>(&hostile));
                    assert!(peak <= ALLOCATED_BYTES_MAX, "{message} allocates {peak} bytes for {name} at {at}");
                    worst = worst.max((peak, message));
                }
            }
        }
    }
    assert!(worst.0 > 1_000, "nothing was measured: {worst:?}");
}
