//! Vectors of the life of a connection.

use std::error::Error;

use relay_protocol::SessionId;
use relay_protocol::hello::{ErrorV1, GoodbyeV1, HelloV1, MovedV1, PingV1, PongV1, WelcomeV1};

use crate::{Vector, message};

const SENT_AT_US: u64 = 1_795_458_600_123_456;

pub(crate) fn vectors() -> Result<Vec<Vector>, Box<dyn Error>> {
    let hello = HelloV1 {
        version_min: 1,
        version_max: 1,
        capabilities: vec!["jobs".to_owned(), "upload".to_owned()],
        client: "example/1.0".to_owned(),
        token: None,
        sent_at_us: SENT_AT_US,
    };
    let with_token =
        HelloV1 {
            version_max: 255, capabilities: Vec::new(), token: Some("s3cret-tökén".to_owned()), ..hello.clone()
        };
    let welcome = WelcomeV1 {
        version: 1,
        capabilities: vec!["jobs".to_owned()],
        session_id: SessionId::new(0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f),
        resume_token: "r1.eyJzIjoiMSJ9.c2ln".to_owned(),
        reply_partition: 251,
        node: "node-1".to_owned(),
        inline_bytes_max: 262_144,
        upload_bytes_max: 2_147_483_648,
        ping_interval_ms: 10_000,
        sent_at_us: SENT_AT_US + 250,
    };
    let error = ErrorV1 {
        request: 7,
        code: "backend_busy".to_owned(),
        message: "every backend is busy: try again".to_owned(),
        retryable: true,
        retry_after_ms: Some(1_500),
    };
    let refused = ErrorV1 {
        request: 0,
        code: "bad_frame".to_owned(),
        message: "the frame begins with 0x0000".to_owned(),
        retryable: false,
        retry_after_ms: None,
    };
    Ok(vec![
        message("", &hello, b"")?,
        message("token", &with_token, b"")?,
        message("", &welcome, b"")?,
        message("", &PingV1 { nonce: 250, sent_at_us: SENT_AT_US }, b"")?,
        message("", &PongV1 { nonce: 250, ping_sent_at_us: SENT_AT_US, sent_at_us: SENT_AT_US + 40 }, b"")?,
        message("", &error, b"")?,
        message("no_request", &refused, b"")?,
        message("", &GoodbyeV1 { code: "draining".to_owned(), message: "the node is going down".to_owned() }, b"")?,
        message("", &MovedV1 { url: "https://relay-2.example".to_owned(), reason: "balancing".to_owned() }, b"")?,
    ])
}
