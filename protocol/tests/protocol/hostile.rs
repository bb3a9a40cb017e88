//! Hostile heads and records: every message's reader answers with a value or an error, never with a panic.

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::Index;
use relay_protocol::Frame;
use relay_protocol::frame::{encode, split};
use relay_protocol::message::{KINDS, Message};
use relay_protocol::record::decode_job;

use crate::support::{bytes, golden_files, with_message};

/// Reads `head` as an `M`; what is taken must be written and read back as the same.
fn read<M: Message + PartialEq + std::fmt::Debug>(head: &[u8]) {
    let frame = Frame {
        kind: M::KIND,
        version: M::VERSION,
        flags: 0,
        head: Bytes::copy_from_slice(head),
        payload: Bytes::new(),
    };
    if let Ok(message) = frame.head::<M>() {
        let again = split(encode(&message, b"").unwrap()).unwrap();
        assert_eq!(again.head::<M>(), Ok(message));
        assert!(again.head.len() <= head.len(), "the writer's form is the shortest");
    }
}

fn read_as_every_message(head: &[u8]) {
    for (_, _, name) in KINDS {
        with_message!(*name, M => read::<M>(head));
    }
}

fn heads() -> Vec<Vec<u8>> {
    let files = golden_files().into_values().filter(|vector| vector["frame"].is_string());
    files.map(|vector| split(bytes(&vector, "frame")).unwrap().head.to_vec()).collect()
}

fn job_frames() -> Vec<Vec<u8>> {
    let files = golden_files().into_iter().filter(|(name, _)| name.starts_with("record.job."));
    files.map(|(_, vector)| bytes(&vector, "frame").to_vec()).collect()
}

fn job_texts() -> Vec<Vec<u8>> {
    let files = golden_files().into_iter().filter(|(name, _)| name.starts_with("record.job."));
    files.map(|(_, vector)| vector["json"].to_string().into_bytes()).collect()
}

#[derive(Debug, Clone)]
enum Change {
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Cut(Index),
    Remove(Index),
}

/// Bytes that are lengths, tags or the edges of them.
fn telling_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        any::<u8>().prop_map(|byte| vec![byte]),
        (250_u8..=255).prop_map(|byte| vec![byte]),
        any::<u64>().prop_map(|number| [&[253][..], &number.to_le_bytes()].concat()),
        Just([&[253][..], &u64::MAX.to_le_bytes()].concat()),
        Just([&[254][..], &u128::MAX.to_le_bytes()].concat()),
        any::<u32>().prop_map(|number| [&[252][..], &number.to_le_bytes()].concat()),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (any::<Index>(), prop_oneof![any::<u8>(), 250_u8..=255]).prop_map(|(at, byte)| Change::Set(at, byte)),
        (any::<Index>(), telling_bytes()).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        any::<Index>().prop_map(Change::Cut),
        any::<Index>().prop_map(Change::Remove),
    ]
}

fn apply(mut bytes: Vec<u8>, changes: Vec<Change>) -> Vec<u8> {
    for change in changes {
        match change {
            Change::Insert(at, new) => {
                let at = at.index(bytes.len() + 1);
                bytes.splice(at..at, new);
            }
            _ if bytes.is_empty() => {}
            Change::Set(at, byte) => {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            Change::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Change::Remove(at) => drop(bytes.remove(at.index(bytes.len()))),
        }
    }
    bytes
}

fn changed(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    (prop::sample::select(seeds), prop::collection::vec(change(), 1..6))
        .prop_map(|(seed, changes)| apply(seed, changes))
}

/// A job that is taken passes the checks and can be written and read again.
fn read_as_job(value: &[u8]) {
    let value = Bytes::copy_from_slice(value);
    match decode_job(&value) {
        Ok(job) => {
            job.check().unwrap();
            let frame = relay_protocol::record::encode_job(&job).expect("a job that passed the check fits a frame");
            assert_eq!(decode_job(&frame), Ok(job));
        }
        Err(error) => assert!(error.known_code().is_some() && !error.message.is_empty(), "{error:?}"),
    }
}

proptest! {
    #[test]
    fn arbitrary_heads(head in prop::collection::vec(any::<u8>(), 0..200)) {
        read_as_every_message(&head);
    }

    #[test]
    fn changed_heads(head in changed(heads())) {
        read_as_every_message(&head);
    }

    #[test]
    fn arbitrary_records(value in prop::collection::vec(any::<u8>(), 0..200)) {
        read_as_job(&value);
    }

    #[test]
    fn changed_job_frames(frame in changed(job_frames())) {
        read_as_job(&frame);
    }

    /// The lengths in the header are put right, so that the change reaches the head.
    #[test]
    fn changed_job_heads(seed in prop::sample::select(job_frames()), changes in prop::collection::vec(change(), 1..4)) {
        let whole = split(seed.clone().into()).unwrap();
        let head = apply(whole.head.to_vec(), changes);
        let mut frame = seed[..12].to_vec();
        frame[6..8].copy_from_slice(&(head.len() as u16).to_le_bytes());
        frame.extend_from_slice(&head);
        frame.extend_from_slice(&whole.payload);
        read_as_job(&frame);
    }

    #[test]
    fn changed_job_texts(text in changed(job_texts())) {
        read_as_job(&text);
    }
}

#[test]
fn every_single_byte_of_every_head_set_to_every_tag() {
    for head in heads() {
        for at in 0..head.len() {
            for byte in [0, 1, 2, 3, 127, 250, 251, 252, 253, 254, 255] {
                let mut head = head.clone();
                head[at] = byte;
                read_as_every_message(&head);
            }
        }
    }
}

#[test]
fn json_nested_without_end_is_refused() {
    let deep = format!(r#"{{"task":"chat","input":{{"text":"x"}},"params":{{"stop":{}"#, "[".repeat(200_000));
    assert_eq!(decode_job(&deep.into_bytes().into()).unwrap_err().code, "not_a_job");
}
