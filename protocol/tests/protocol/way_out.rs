//! The way out of bincode: another codec reads and writes the same golden bytes.
//!
//! wincode needs its own derives, so the structs are written down here a second time; what counts is that the bytes of
//! the golden files come out of them, field for field, and that hostile lengths are refused under the same limit.

use relay_protocol::frame::split;
use relay_protocol::limits::HEAD_BYTES_MAX;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use wincode::config::Configuration;
use wincode::{SchemaRead, SchemaWrite};

use crate::support::{bytes, golden, golden_files, read};

/// wincode's equal of `bincode::config::standard().with_limit::<HEAD_BYTES_MAX>()`.
macro_rules! config {
    () => {
        Configuration::default()
            .with_varint_encoding()
            .with_tag_encoding::<u32>()
            .with_preallocation_size_limit::<HEAD_BYTES_MAX>()
    };
}

macro_rules! mirrors {
    ($($item:item)*) => {
        $(#[derive(Debug, PartialEq, SchemaWrite, SchemaRead, Serialize, Deserialize)] $item)*
    };
}

mirrors! {
    struct Hello {
        version_min: u8,
        version_max: u8,
        capabilities: Vec<String>,
        client: String,
        token: Option<String>,
        sent_at_us: u64,
    }
    enum SubmitInput {
        Inline,
        Upload(u64),
        Url(String),
    }
    struct Submit {
        request: u64,
        job_id: Uuid,
        lane: String,
        task: String,
        model: String,
        params: String,
        input: SubmitInput,
        name: String,
        media_type: String,
        priority: u8,
        idempotency_key: Option<String>,
        deadline_ms: Option<u64>,
        not_before_ms: Option<u64>,
        traceparent: Option<String>,
        sent_at_us: u64,
        watch: bool,
    }
    struct Event {
        job_id: Uuid,
        seq: u64,
        terminal: bool,
        sent_at_us: u64,
    }
    struct Resume {
        request: u64,
        resume_token: String,
        jobs: Vec<(Uuid, u64)>,
    }
    struct UploadEnd {
        upload: u64,
        bytes: u64,
        sha256: [u8; 32],
    }
    struct Chunk {
        stream: u32,
        track: u16,
        group: u64,
        seq: u64,
        at_us: u64,
        sent_at_us: u64,
    }
    enum JobInput {
        Inline(Option<String>, Option<String>),
        Text,
        Object(String, u64, [u8; 32], Option<String>, Option<String>),
        Url(String),
    }
    struct JobHead {
        id: Option<Uuid>,
        tenant: String,
        subject: String,
        task: String,
        model: Option<String>,
        params: String,
        input: JobInput,
        priority: u8,
        idempotency_key: Option<String>,
        deadline_ms: Option<u64>,
        not_before_ms: Option<u64>,
        attempts_max: Option<u32>,
        attempt: u32,
        traceparent: Option<String>,
        hops: Vec<(String, u64)>,
        redrive_of: Option<Uuid>,
    }
}

/// Reads and writes every vector of `$message` as a `$mirror`, and counts them.
macro_rules! check {
    ($message:literal, $mirror:ty) => {{
        let files = golden_files().into_iter().filter(|(file, _)| file.split('.').next() == Some($message));
        let mut read_files = 0;
        for (file, vector) in files {
            let head = split(bytes(&vector, "frame")).unwrap().head;
            let value: $mirror = wincode::config::deserialize_exact(&head, config!())
                .unwrap_or_else(|error| panic!("wincode cannot read {file}: {error}"));
            assert_eq!(value, read::<$mirror>(&vector, "head"), "{file}: wincode reads something else");
            let written = wincode::config::serialize(&value, config!()).unwrap();
            assert_eq!(written, head, "{file}: wincode writes other bytes");
            read_files += 1;
        }
        assert!(read_files > 0, "no vectors of {}", $message);
    }};
}

#[test]
fn wincode_reads_and_writes_the_golden_bytes() {
    check!("hello_v1", Hello);
    check!("submit_v1", Submit);
    check!("event_v1", Event);
    check!("resume_v1", Resume);
    check!("upload_end_v1", UploadEnd);
    check!("chunk_v1", Chunk);
    check!("job_v1", JobHead);
}

#[test]
fn wincode_refuses_hostile_lengths_and_bytes_left_over() {
    let head = split(bytes(&golden("hello_v1"), "frame")).unwrap().head;
    let hostile = [&head[..2], &[253], &u64::MAX.to_le_bytes()[..], &head[3..]].concat();
    assert!(wincode::config::deserialize_exact::<Hello, _>(&hostile, config!()).is_err());
    let longer = [&head[..], &[0]].concat();
    assert!(wincode::config::deserialize_exact::<Hello, _>(&longer, config!()).is_err());
    assert!(wincode::config::deserialize_exact::<Hello, _>(&head[..head.len() - 1], config!()).is_err());
}
