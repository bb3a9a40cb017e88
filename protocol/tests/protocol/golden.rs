//! The bytes of every message are frozen: a failing test means leave the file, and make a new version.

use bytes::Bytes;
use relay_protocol::frame::{DecodeError, encode, split};
use relay_protocol::message::{KINDS, Message};
use serde_json::Value;

use crate::support::{bytes, golden_files, read, with_message};

/// Files that are no message; each is read by a test of its own.
const OTHERS: &[&str] = &["record.", "ids", "partitions", "bodies"];

fn message_of(file: &str) -> &str {
    file.split('.').next().unwrap()
}

fn messages() -> Vec<(String, Value)> {
    golden_files().into_iter().filter(|(name, _)| !OTHERS.iter().any(|other| name.starts_with(other))).collect()
}

#[test]
fn every_vector_is_read_and_written_as_it_stands() {
    for (file, vector) in messages() {
        assert_eq!(vector["name"], message_of(&file), "{file}");
        with_message!(message_of(&file), M => check_vector::<M>(&file, &vector));
    }
}

fn check_vector<M: Message + PartialEq + std::fmt::Debug>(file: &str, vector: &Value) {
    assert_eq!((&vector["kind"], &vector["version"]), (&M::KIND.into(), &M::VERSION.into()), "{file}");
    assert_eq!(vector["name"], M::NAME, "{file}");
    let (head, payload, golden) = (read::<M>(vector, "head"), bytes(vector, "payload"), bytes(vector, "frame"));
    let frame = split(golden.clone()).unwrap();
    assert_eq!((frame.kind, frame.version, frame.flags), (M::KIND, M::VERSION, 0), "{file}");
    assert_eq!(frame.head::<M>(), Ok(read::<M>(vector, "head")), "{file}: the reader lost the format");
    assert_eq!(frame.payload, payload, "{file}: the reader lost the payload");
    assert_eq!(encode(&head, &payload).unwrap(), golden, "{file}: the writer changed the format");
}

#[test]
fn the_head_in_json_is_the_whole_head() {
    for (file, vector) in messages() {
        let again = with_message!(message_of(&file), M => serde_json::to_value(read::<M>(&vector, "head")).unwrap());
        assert_eq!(again, vector["head"], "{file}: a field was added, renamed or dropped");
    }
}

#[test]
fn every_kind_has_a_vector() {
    let files = messages();
    for (kind, version, name) in KINDS {
        assert!(
            files.iter().any(|(file, _)| message_of(file) == *name),
            "{name} (kind {kind:#06x} version {version}) has no vector: add a case to examples/golden and run it"
        );
    }
}

#[test]
fn every_file_belongs_to_a_kind_or_is_read_by_another_test() {
    for (file, _) in golden_files() {
        let known = KINDS.iter().any(|(_, _, name)| *name == message_of(&file))
            || file.starts_with("record.")
            || ["ids", "partitions", "bodies"].contains(&file.as_str());
        assert!(known, "golden/v1/{file}.json is not covered by any test");
    }
}

#[test]
fn kinds_and_names_are_unique() {
    for (index, (kind, version, name)) in KINDS.iter().enumerate() {
        for (other_kind, other_version, other_name) in &KINDS[..index] {
            assert_ne!((kind, version), (other_kind, other_version), "{name} and {other_name}");
            assert_ne!(name, other_name);
        }
    }
}

/// Appending a field, dropping one, or cutting a head short never passes for the old message.
#[test]
fn a_head_with_a_byte_more_or_less_is_refused() {
    for (file, vector) in messages() {
        let frame = split(bytes(&vector, "frame")).unwrap();
        let mut longer = frame.head.to_vec();
        longer.push(0);
        let shorter = frame.head.slice(..frame.head.len() - 1);
        for head in [Bytes::from(longer), shorter] {
            let frame = relay_protocol::Frame { head, ..frame.clone() };
            let refused = with_message!(message_of(&file), M => frame.head::<M>().unwrap_err());
            let DecodeError::Malformed { kind, version, .. } = refused else { panic!("{file}: {refused}") };
            assert_eq!((kind, version), (frame.kind, frame.version), "{file}");
        }
    }
}

#[test]
fn a_frame_of_another_kind_or_version_is_not_taken() {
    for (file, vector) in messages() {
        let frame = split(bytes(&vector, "frame")).unwrap();
        for (kind, version) in [(frame.kind, frame.version + 1), (frame.kind + 0x4000, frame.version)] {
            let other = relay_protocol::Frame { kind, version, ..frame.clone() };
            let refused = with_message!(message_of(&file), M => other.head::<M>().unwrap_err());
            let expected =
                DecodeError::Unexpected { expected: frame.kind, expected_version: frame.version, kind, version };
            assert_eq!(refused, expected, "{file}");
        }
    }
}
