//! Bad frames in a session that was opened well.

use bytes::Bytes;
use relay_protocol::hello::{GoodbyeV1, HelloV1, PingV1, WelcomeV1};
use relay_protocol::limits::PAYLOAD_BYTES_MAX;
use relay_protocol::session::{ResumeV1, StatusV1, SubmitV1};
use relay_protocol::{Message, frame};
use tokio::io::AsyncWriteExt as _;
use tokio_tungstenite::tungstenite::Message as WsMessage;

use crate::cluster::on_cluster;
use crate::http::expect_says;
use crate::wire::{Wire, frame_of, hello, raw_frame};

/// Bytes of a ping's frame.
fn ping() -> Vec<u8> {
    frame::encode(&PingV1 { nonce: 1, sent_at_us: 1 }, b"").expect("a frame").to_vec()
}

/// Messages that are no frame, or whose head is not its message, with what the error must say.
fn bad_frames() -> Vec<(&'static str, Bytes, &'static [&'static str])> {
    let (kind, payload_max) = (PingV1::KIND, PAYLOAD_BYTES_MAX as u32);
    let mut short = ping();
    short.pop();
    let mut long = ping();
    long.push(0);
    // bincode's tag for eight bytes, and the largest length there is: of a string, and of a list.
    let hostile = [0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    let request_then = |rest: &[u8]| [&[1], rest].concat();
    vec![
        ("empty message", Bytes::new(), &["0 bytes", "promises 12"]),
        ("half a header", ping()[..7].to_vec().into(), &["7 bytes", "promises 12"]),
        ("wrong magic", raw_frame(b"RX", kind, 1, (2, 0), &[1, 1]), &["0x5852", "0x4d52", "\"RM\""]),
        ("HTTP in a frame", Bytes::from_static(b"GET / HTTP/1.1\r\n\r\n"), &["magic"]),
        ("a byte short", short.into(), &["13 bytes", "promises 14"]),
        ("a byte long", long.into(), &["15 bytes", "promises 14"]),
        ("head length of 65535", raw_frame(b"RM", kind, 1, (u16::MAX, 0), &[1, 1]), &["promises 65547"]),
        (
            "payload one over",
            raw_frame(b"RM", kind, 1, (2, payload_max + 1), &[1, 1]),
            &["payload", "limit of 1048576"],
        ),
        ("payload of 4 GiB", raw_frame(b"RM", kind, 1, (2, u32::MAX), &[1, 1]), &["payload", "4294967295", "limit"]),
        ("head of nothing", frame_of(kind, 1, &[]), &["kind 0x0004", "malformed"]),
        ("head too short", frame_of(kind, 1, &[1]), &["kind 0x0004", "malformed"]),
        ("head with bytes left over", frame_of(kind, 1, &[1, 1, 0]), &["malformed", "1 bytes left over"]),
        ("head of garbage", frame_of(SubmitV1::KIND, 1, &[0xff; 64]), &["kind 0x0010", "malformed"]),
        ("an enum of no variant", frame_of(StatusV1::KIND, 1, &[1, 0x11]), &["kind 0x0015", "malformed"]),
        (
            "a string of 2^64-1 bytes",
            frame_of(ResumeV1::KIND, 1, &request_then(&hostile)),
            &["kind 0x0019", "malformed"],
        ),
        (
            "a list of 2^64-1 jobs",
            frame_of(ResumeV1::KIND, 1, &request_then(&[&[1, b't'][..], &hostile].concat())),
            &["kind 0x0019", "malformed"],
        ),
        (
            "a string that is no UTF-8",
            frame_of(ResumeV1::KIND, 1, &[1, 2, 0xc3, 0x28, 0]),
            &["kind 0x0019", "malformed"],
        ),
    ]
}

#[actix_web::test]
async fn a_bad_frame_ends_its_session_and_no_other() {
    on_cluster(&[], async |cluster| {
        let (mut other, _) = Wire::open(cluster).await;
        for (case, bytes, says) in bad_frames() {
            let (mut wire, _) = Wire::open(cluster).await;
            wire.send(bytes).await;
            let error = wire.expect_end(case, "bad_frame").await;
            assert!(!error.retryable, "{case}");
            expect_says(case, &error.message, says);
            other.expect_alive().await;
        }
    })
    .await;
}

#[actix_web::test]
async fn a_bad_frame_instead_of_hello_ends_the_connection() {
    on_cluster(&[], async |cluster| {
        let hostile = [1, 1, 0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        let left_over = [frame::encode(&hello(), b"").expect("a frame")[12..].to_vec(), vec![0]].concat();
        let cases: Vec<(&str, Bytes, &str)> = vec![
            ("empty message", Bytes::new(), "promises 12"),
            ("wrong magic", raw_frame(b"MR", HelloV1::KIND, 1, (0, 0), &[]), "magic"),
            ("wrong length", raw_frame(b"RM", HelloV1::KIND, 1, (9, 9), &[0; 9]), "promises 30"),
            ("a list of 2^64-1 capabilities", frame_of(HelloV1::KIND, 1, &hostile), "malformed"),
            ("bytes left over", frame_of(HelloV1::KIND, 1, &left_over), "1 bytes left over"),
        ];
        for (case, bytes, says) in cases {
            let mut wire = Wire::connect(cluster).await;
            wire.send(bytes).await;
            let error = wire.expect_end(case, "bad_frame").await;
            expect_says(case, &error.message, &[says]);
        }
    })
    .await;
}

#[actix_web::test]
async fn frames_of_unknown_kind_or_version_are_skipped() {
    on_cluster(&[], async |cluster| {
        let (mut wire, _) = Wire::open(cluster).await;
        for (kind, version) in [(0x7fff, 1), (0x00ff, 200), (0, 0), (PingV1::KIND, 2), (SubmitV1::KIND, 0)] {
            wire.send(frame_of(kind, version, &[0xff; 100])).await;
            wire.expect_alive().await;
        }
        // Kinds that only a node sends say nothing to it.
        wire.send(frame_of(WelcomeV1::KIND, 1, &[])).await;
        // A payload of the largest size is no reason to end either.
        let largest = vec![7; PAYLOAD_BYTES_MAX];
        wire.send(raw_frame(b"RM", 0x7fff, 1, (0, PAYLOAD_BYTES_MAX as u32), &largest)).await;
        wire.expect_alive().await;
    })
    .await;
}

#[actix_web::test]
async fn text_and_oversized_websocket_messages_end_the_session() {
    on_cluster(&[], async |cluster| {
        let (mut wire, _) = Wire::open(cluster).await;
        futures_util::SinkExt::send(&mut wire.socket, WsMessage::text("{\"task\":\"probe\"}")).await.expect("sent");
        let error = wire.expect_end("text", "text_message").await;
        expect_says("text", &error.message, &["binary", "one frame"]);

        let (mut wire, _) = Wire::open(cluster).await;
        wire.send(vec![0; 2_000_000].into()).await;
        let error = wire.expect_end("2 MB", "bad_frame").await;
        expect_says("2 MB", &error.message, &["WebSocket message of at most 1376267 bytes"]);
    })
    .await;
}

/// A peer that never ends its message must not fill the node's memory, with a session or before.
#[actix_web::test]
async fn an_endless_websocket_message_is_not_collected() {
    /// What the node may take of it, and what the sockets' buffers hold.
    const TAKEN_BYTES_MAX: usize = 32 * 1024 * 1024;
    on_cluster(&[], async |cluster| {
        for opened in [false, true] {
            let mut wire = if opened { Wire::open(cluster).await.0 } else { Wire::connect(cluster).await };
            let socket = wire.socket.get_mut();
            // The header of a binary message of 1 TiB.
            socket.write_all(&[0x82, 0xff, 0, 0, 1, 0, 0, 0, 0, 0, 1, 2, 3, 4]).await.expect("the header is sent");
            let (piece, mut answer, mut sent) = (vec![0; 65_536], [0; 1_024], 0);
            let answered = loop {
                socket.write_all(&piece).await.expect("the node answers before it closes");
                sent += piece.len();
                assert!(sent < TAKEN_BYTES_MAX, "no answer after {sent} bytes of one message (a session: {opened})");
                if let Ok(read) = socket.try_read(&mut answer) {
                    break String::from_utf8_lossy(&answer[..read]).into_owned();
                }
            };
            expect_says("1 TiB", &answered, &["bad_frame", "WebSocket message of at most 1376267 bytes"]);
        }
    })
    .await;
}

/// Many whole messages in one go are no such message.
#[actix_web::test]
async fn many_large_messages_at_once_are_taken() {
    on_cluster(&[], async |cluster| {
        let (mut wire, _) = Wire::open(cluster).await;
        let largest = raw_frame(b"RM", 0x7fff, 1, (0, PAYLOAD_BYTES_MAX as u32), &vec![7; PAYLOAD_BYTES_MAX]);
        for _ in 0..40 {
            wire.send(largest.clone()).await;
        }
        let small = raw_frame(b"RM", 0x7fff, 1, (0, 60), &[7; 60]);
        for _ in 0..100_000 {
            futures_util::SinkExt::feed(&mut wire.socket, WsMessage::Binary(small.clone())).await.expect("taken");
        }
        wire.expect_alive().await;
    })
    .await;
}

#[actix_web::test]
async fn a_broken_websocket_ends_the_session() {
    on_cluster(&[], async |cluster| {
        let broken: [(&str, &[u8]); 3] = [
            ("not masked", &[0x82, 0x02, 1, 1]),
            ("reserved bits", &[0xf2, 0x82, 1, 2, 3, 4, 1, 1]),
            ("unknown opcode", &[0x83, 0x82, 1, 2, 3, 4, 1, 1]),
        ];
        for (case, bytes) in broken {
            let (mut wire, _) = Wire::open(cluster).await;
            write_raw(&mut wire, bytes).await;
            wire.expect_end(case, "bad_frame").await;
        }
    })
    .await;
}

#[actix_web::test]
async fn a_message_that_is_cut_in_the_middle_leaves_nothing_behind() {
    on_cluster(&[], async |cluster| {
        for cut in [1, 5, 20] {
            let (mut wire, welcome) = Wire::open(cluster).await;
            cluster.wait_for_session(welcome.session_id, true).await;
            // A masked binary message of 200 bytes of which only the beginning comes.
            let mut bytes = vec![0x82, 0x80 | 126, 0, 200, 0, 0, 0, 0];
            bytes.extend_from_slice(&ping());
            write_raw(&mut wire, &bytes[..cut]).await;
            drop(wire);
            cluster.wait_for_session(welcome.session_id, false).await;
        }
    })
    .await;
}

#[actix_web::test]
async fn a_goodbye_is_the_end() {
    on_cluster(&[], async |cluster| {
        let (mut wire, welcome) = Wire::open(cluster).await;
        cluster.wait_for_session(welcome.session_id, true).await;
        wire.say(&GoodbyeV1 { code: "closing".to_owned(), message: "done".to_owned() }, b"").await;
        cluster.wait_for_session(welcome.session_id, false).await;
        assert!(matches!(wire.message().await, Some(WsMessage::Close(_))));
        assert!(wire.message().await.is_none());
    })
    .await;
}

async fn write_raw(wire: &mut Wire, bytes: &[u8]) {
    wire.socket.get_mut().write_all(bytes).await.expect("the bytes are sent");
}
