//! A frame that is none is refused with the exact reason, and unknown kinds can be skipped.

use bytes::Bytes;
use proptest::prelude::*;
use relay_protocol::frame::{DecodeError, MAGIC, encode, is_frame, split};
use relay_protocol::hello::{GoodbyeV1, PingV1};
use relay_protocol::limits::{FRAME_BYTES_MAX, HEAD_BYTES_MAX, HEADER_BYTES, PAYLOAD_BYTES_MAX};
use relay_protocol::message::Message;
use relay_protocol::session::UploadChunkV1;

fn ping() -> Vec<u8> {
    encode(&PingV1 { nonce: 1, sent_at_us: 2 }, b"xyz").unwrap().to_vec()
}

fn refused(frame: Vec<u8>) -> DecodeError {
    split(frame.into()).unwrap_err()
}

#[test]
fn the_header_is_as_documented() {
    assert_eq!(ping(), [b'R', b'M', 4, 0, 1, 0, 2, 0, 3, 0, 0, 0, /* head */ 1, 2, /* payload */ b'x', b'y', b'z']);
}

#[test]
fn a_frame_cut_at_any_byte_is_refused() {
    let whole = ping();
    for found in 0..whole.len() {
        let expected = if found < HEADER_BYTES { HEADER_BYTES } else { whole.len() };
        assert_eq!(refused(whole[..found].to_vec()), DecodeError::Length { expected, found });
    }
}

#[test]
fn bytes_after_the_frame_are_refused() {
    let mut frame = ping();
    let expected = frame.len();
    frame.push(0);
    assert_eq!(refused(frame), DecodeError::Length { expected, found: expected + 1 });
}

#[test]
fn another_magic_number_is_refused() {
    for (index, value) in [(0, b'r'), (1, 0)] {
        let mut frame = ping();
        frame[index] = value;
        let magic = u16::from_le_bytes([frame[0], frame[1]]);
        assert_eq!(refused(frame.clone()), DecodeError::BadMagic(magic));
        assert!(!is_frame(&frame));
    }
    assert_eq!(refused(b"{\"task\":\"vad\"}".to_vec()), DecodeError::BadMagic(u16::from_le_bytes(*b"{\"")));
}

#[test]
fn a_wrong_length_in_the_header_is_refused() {
    let whole = ping();
    for (at, head, payload) in [(6, 1, 3), (6, 3, 3), (8, 2, 2), (8, 2, 4)] {
        let mut frame = whole.clone();
        frame[at] = if at == 6 { head } else { payload };
        let expected = HEADER_BYTES + usize::from(head) + usize::from(payload);
        assert_eq!(refused(frame), DecodeError::Length { expected, found: whole.len() });
    }
}

#[test]
fn a_payload_over_the_limit_is_refused_without_its_bytes() {
    let mut frame = ping();
    for bytes in [PAYLOAD_BYTES_MAX as u32 + 1, u32::MAX] {
        frame[8..12].copy_from_slice(&bytes.to_le_bytes());
        let expected = DecodeError::TooLarge { part: "payload", bytes: bytes as usize, limit: PAYLOAD_BYTES_MAX };
        assert_eq!(refused(frame.clone()), expected);
    }
}

#[test]
fn the_writer_refuses_what_the_reader_would() {
    let chunk = UploadChunkV1 { upload: 1, offset: 0 };
    let largest = encode(&chunk, &vec![7; PAYLOAD_BYTES_MAX]).unwrap();
    assert!(largest.len() <= FRAME_BYTES_MAX);
    assert_eq!(split(largest).unwrap().payload.len(), PAYLOAD_BYTES_MAX);
    let bytes = PAYLOAD_BYTES_MAX + 1;
    let over = DecodeError::TooLarge { part: "payload", bytes, limit: PAYLOAD_BYTES_MAX };
    assert_eq!(encode(&chunk, &vec![7; bytes]), Err(over));
    let long = GoodbyeV1 { code: "x".repeat(HEAD_BYTES_MAX), message: String::new() };
    let bytes = HEAD_BYTES_MAX + 4; // 3 bytes of length, 1 of the empty message
    assert_eq!(encode(&long, b""), Err(DecodeError::TooLarge { part: "head", bytes, limit: HEAD_BYTES_MAX }));
}

#[test]
fn flags_are_ignored_and_unknown_kinds_are_whole_frames() {
    let mut frame = ping();
    frame[2..4].copy_from_slice(&0xfffe_u16.to_le_bytes());
    frame[5] = 0xff;
    let unknown = split(frame.into()).unwrap();
    assert_eq!((unknown.kind, unknown.version, unknown.flags), (0xfffe, 1, 0xff));
    assert_eq!((&unknown.head[..], &unknown.payload[..]), (&[1_u8, 2][..], &b"xyz"[..]));
}

#[test]
fn head_and_payload_share_the_message_s_memory() {
    let message = Bytes::from(ping());
    let frame = split(message.clone()).unwrap();
    assert_eq!(frame.head.as_ptr(), message[HEADER_BYTES..].as_ptr());
    assert_eq!(frame.payload.as_ptr(), message[HEADER_BYTES + 2..].as_ptr());
}

proptest! {
    #[test]
    fn what_is_encoded_is_split_again(nonce: u64, sent_at_us: u64, payload in prop::collection::vec(any::<u8>(), 0..300)) {
        let ping = PingV1 { nonce, sent_at_us };
        let bytes = encode(&ping, &payload).unwrap();
        prop_assert!(is_frame(&bytes));
        let frame = split(bytes).unwrap();
        prop_assert_eq!((frame.kind, frame.version, frame.flags), (PingV1::KIND, PingV1::VERSION, 0));
        prop_assert_eq!(frame.head::<PingV1>(), Ok(ping));
        prop_assert_eq!(&frame.payload[..], &payload[..]);
    }

    /// Whatever arrives, the answer is a frame that says exactly what is there, or an error.
    #[test]
    fn arbitrary_bytes_are_a_frame_or_an_error(mut bytes in prop::collection::vec(any::<u8>(), 0..64), magic: bool) {
        if magic && bytes.len() >= 2 {
            bytes[..2].copy_from_slice(&MAGIC.to_le_bytes());
        }
        if let Ok(frame) = split(bytes.clone().into()) {
            prop_assert_eq!(HEADER_BYTES + frame.head.len() + frame.payload.len(), bytes.len());
            prop_assert_eq!(&[&frame.head[..], &frame.payload[..]].concat(), &bytes[HEADER_BYTES..]);
        }
    }
}
