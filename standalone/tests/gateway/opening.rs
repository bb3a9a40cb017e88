//! What a client may say first, and what not.

use bytes::Bytes;
use futures_util::SinkExt as _;
use relay_protocol::Message;
use relay_protocol::hello::{HelloV1, PingV1, WelcomeV1};
use relay_protocol::limits::PAYLOAD_BYTES_MAX;
use relay_protocol::session::StatusV1;
use tokio_tungstenite::tungstenite::Message as WsMessage;

use crate::cluster::on_cluster;
use crate::http::{answer, expect_refusal, expect_says};
use crate::wire::{Wire, frame_of, hello, raw_frame};

#[actix_web::test]
async fn anything_but_hello_comes_too_early() {
    on_cluster(&[], async |cluster| {
        let job_id = relay_protocol::JobId::new(1, 0, 1);
        let status = relay_protocol::frame::encode(&StatusV1 { request: 1, job_id }, b"").expect("a frame");
        let cases: [(&str, Bytes, &[&str]); 4] = [
            ("a ping", frame_of(PingV1::KIND, 1, &[1, 1]), &["first message must be hello", "0x0004"]),
            ("a question", status, &["first message must be hello", "0x0015"]),
            ("an unknown kind", frame_of(0x7fff, 1, &[]), &["first message must be hello", "0x7fff"]),
            (
                "a hello of another version",
                frame_of(HelloV1::KIND, 9, &[1, 1]),
                &["first message must be hello", "version 9"],
            ),
        ];
        for (case, bytes, says) in cases {
            let mut wire = Wire::connect(cluster).await;
            wire.send(bytes).await;
            let error = wire.expect_end(case, "hello_expected").await;
            expect_says(case, &error.message, says);
        }
        let mut wire = Wire::connect(cluster).await;
        wire.socket.send(WsMessage::text("hello")).await.expect("sent");
        let error = wire.expect_end("text", "text_message").await;
        expect_says("text", &error.message, &["binary", "one frame"]);
    })
    .await;
}

#[actix_web::test]
async fn versions_that_do_not_overlap_are_told_who_must_upgrade() {
    on_cluster(&[], async |cluster| {
        let cases = [
            (2, 9, "upgrade the relay"),
            (255, 255, "upgrade the relay"),
            (0, 0, "upgrade the client"),
            (2, 1, "upgrade"),
        ];
        for (version_min, version_max, says) in cases {
            let case = format!("{version_min} to {version_max}");
            let mut wire = Wire::connect(cluster).await;
            wire.say(&HelloV1 { version_min, version_max, ..hello() }, b"").await;
            let error = wire.expect_end(&case, "no_common_version").await;
            assert!(!error.retryable);
            expect_says(&case, &error.message, &[&case, says]);
        }
    })
    .await;
}

#[actix_web::test]
async fn a_hello_above_the_limits_is_refused_and_the_largest_is_welcome() {
    on_cluster(&[], async |cluster| {
        let mut wire = Wire::connect(cluster).await;
        wire.send(raw_frame(b"RM", HelloV1::KIND, 1, (0, PAYLOAD_BYTES_MAX as u32 + 1), &[])).await;
        let error = wire.expect_end("payload", "bad_frame").await;
        expect_says("payload", &error.message, &["payload", "limit of 1048576"]);

        // 60,000 empty names fit a head, but not the memory that a head may take.
        let mut head = vec![1, 1, 0xfb];
        head.extend_from_slice(&60_000_u16.to_le_bytes());
        head.extend_from_slice(&[0; 60_000]);
        let mut wire = Wire::connect(cluster).await;
        wire.send(frame_of(HelloV1::KIND, 1, &head)).await;
        let error = wire.expect_end("capabilities", "bad_frame").await;
        expect_says("capabilities", &error.message, &["kind 0x0001", "malformed"]);

        let mut wire = Wire::connect(cluster).await;
        wire.say(&HelloV1 { client: "x".repeat(60_000), ..hello() }, &vec![0; PAYLOAD_BYTES_MAX]).await;
        let welcome: WelcomeV1 = wire.expect().await;
        assert_eq!(welcome.version, 1);
        wire.expect_alive().await;
    })
    .await;
}

#[actix_web::test]
async fn a_plain_http_request_is_told_that_a_websocket_is_needed() {
    on_cluster(&[], async |cluster| {
        let http = reqwest::Client::new();
        let url = format!("{}/v1/connect", cluster.url());
        let plain = answer(http.get(&url)).await;
        expect_refusal("no upgrade", plain, 400, "bad_request", &["WebSocket"]).await;
        let upgrade = http.get(&url).header("Connection", "Upgrade").header("Upgrade", "websocket");
        let old = answer(upgrade.header("Sec-WebSocket-Version", "8").header("Sec-WebSocket-Key", "x")).await;
        expect_refusal("an old WebSocket", old, 400, "bad_request", &["WebSocket"]).await;
        let post = answer(http.post(&url)).await;
        expect_refusal("POST", post, 405, "method_not_allowed", &["POST"]).await;
    })
    .await;
}
