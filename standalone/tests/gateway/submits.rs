//! Bad submits and uploads over a session: each is refused by its request's number, and the session goes on.

use std::time::{SystemTime, UNIX_EPOCH};

use relay_protocol::hello::ErrorV1;
use relay_protocol::session::{
    AcceptedV1, EventV1, SubmitInputV1, SubmitV1, UploadAckV1, UploadBeginV1, UploadChunkV1, UploadEndV1,
};
use relay_protocol::{Event, EventKind, JobId, Message as _};

use crate::cluster::{fixture, on_cluster};
use crate::http::expect_says;
use crate::submit::submit_of;
use crate::wire::Wire;

/// A change of a good submit, its payload, and the code and text of its refusal.
type Case = (&'static str, fn(&mut SubmitV1), &'static [u8], &'static str, &'static [&'static str]);

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_millis() as u64
}

fn submit(request: u64, partition: u32) -> SubmitV1 {
    submit_of(request, JobId::new(now_ms(), partition, request), "probe")
}

const CASES: &[Case] = &[
    (
        "task",
        |s| s.task = "sing".to_owned(),
        b"x",
        "unknown_task",
        &["\"sing\"", "known are", "transcribe", "thumbnail"],
    ),
    ("no task", |s| s.task.clear(), b"x", "unknown_task", &["known are"]),
    (
        "parameter",
        |s| s.params = r#"{"loud":1}"#.to_owned(),
        b"x",
        "unknown_parameter",
        &["\"loud\"", "it knows: none"],
    ),
    (
        "type of a parameter",
        |s| (s.task, s.params) = ("waveform".to_owned(), r#"{"points":"many"}"#.to_owned()),
        b"x",
        "invalid_parameter",
        &["\"points\"", "a whole number"],
    ),
    (
        "range of a parameter",
        |s| (s.task, s.params) = ("thumbnail".to_owned(), r#"{"width":4097}"#.to_owned()),
        b"x",
        "invalid_parameter",
        &["\"width\"", "from 1 to 4096, not 4097"],
    ),
    (
        "range of a parameter of LocalAI",
        |s| (s.task, s.params) = ("transcribe".to_owned(), r#"{"temperature":7}"#.to_owned()),
        b"x",
        "invalid_parameter",
        &["\"temperature\"", "from 0 to 1, not 7"],
    ),
    ("parameters that are no JSON", |s| s.params = "{".to_owned(), b"x", "invalid_parameter", &["not a JSON object"]),
    (
        "parameters that are no object",
        |s| s.params = "[1]".to_owned(),
        b"x",
        "invalid_parameter",
        &["not a JSON object"],
    ),
    ("empty file", |_| {}, b"", "empty_media", &["empty", "send the media"]),
    ("inline above the limit", |_| {}, &[7; 262_145], "too_large", &["262144", "upload it"]),
    ("lane", |s| s.lane = "fast".to_owned(), b"x", "unknown_lane", &["\"fast\"", "known are: default"]),
    ("priority", |s| s.priority = 9, b"x", "invalid_field", &["priority 9"]),
    ("empty key", |s| s.idempotency_key = Some(String::new()), b"x", "invalid_field", &["idempotency_key", "1 to 255"]),
    ("name of a file", |s| s.name = "n".repeat(256), b"x", "invalid_field", &["name", "1 to 255"]),
    ("deadline in the past", |s| s.deadline_ms = Some(1_000), b"x", "deadline_exceeded", &["deadline has passed"]),
    ("deadline beyond all", |s| s.deadline_ms = Some(u64::MAX), b"x", "invalid_field", &["deadline", "10000"]),
    ("id from the future", |s| s.job_id = JobId::new(now_ms() * 2, 0, 1), b"x", "invalid_field", &["future", "clock"]),
    ("URL", |s| s.input = SubmitInputV1::Url("http://127.0.0.1:1/".to_owned()), b"", "url_not_allowed", &["url_allow"]),
    ("upload", |s| s.input = SubmitInputV1::Upload(77), b"", "unknown_upload", &["upload 77"]),
    (
        "LocalAI",
        |s| s.task = "transcribe".to_owned(),
        b"x",
        "needs_localai",
        &["needs a LocalAI backend", "--backend URL"],
    ),
    (
        "model without LocalAI",
        |s| (s.task, s.model) = ("vad".to_owned(), "silero".to_owned()),
        b"x",
        "needs_localai",
        &["needs a LocalAI backend"],
    ),
];

#[actix_web::test]
async fn a_bad_submit_is_refused_and_the_session_goes_on() {
    on_cluster(&[], async |cluster| {
        let (mut wire, welcome) = Wire::open(cluster).await;
        for (number, (case, change, payload, code, says)) in CASES.iter().enumerate() {
            let request = number as u64 + 1;
            let mut bad = submit(request, welcome.reply_partition);
            change(&mut bad);
            wire.say(&bad, payload).await;
            let error: ErrorV1 = wire.expect().await;
            assert_eq!((error.request, error.code.as_str()), (request, *code), "{case}: {error:?}");
            assert!(!error.retryable, "{case}");
            expect_says(case, &error.message, says);
            wire.expect_alive().await;
        }
        expect_done(&mut wire, &submit(1_000, welcome.reply_partition)).await;
    })
    .await;
}

/// A good job on the same session is accepted and completes.
async fn expect_done(wire: &mut Wire, good: &SubmitV1) {
    wire.say(good, &fixture("images/picture.png")).await;
    let accepted: AcceptedV1 = wire.expect().await;
    assert_eq!((accepted.request, accepted.job_id), (good.request, good.job_id));
    loop {
        let frame = wire.frame().await;
        let head: EventV1 = frame.head().expect("an event");
        let event: Event = serde_json::from_slice(&frame.payload).expect("an event as JSON");
        assert_eq!(head.job_id, good.job_id);
        if head.terminal {
            assert_eq!(event.event, EventKind::Completed, "{event:?}");
            return;
        }
    }
}

#[actix_web::test]
async fn a_bad_upload_is_given_up_and_the_session_goes_on() {
    on_cluster(&[("RELAY__INPUTS__UPLOAD_BYTES_MAX", "1000")], async |cluster| {
        let (mut wire, welcome) = Wire::open(cluster).await;
        assert_eq!(welcome.upload_bytes_max, 1_000);
        let end = |upload, bytes| UploadEndV1 { upload, bytes, sha256: [0; 32] };

        wire.say(&begin(1, Some(1_001)), b"").await;
        expect_error(&mut wire, 1, "too_large", &["1001", "limit of 1000"]).await;

        begin_upload(&mut wire, 2).await;
        wire.say(&UploadChunkV1 { upload: 2, offset: 0 }, &[7; 1_001]).await;
        expect_error(&mut wire, 2, "too_large", &["limit of 1000"]).await;
        wire.say(&end(2, 1_001), b"").await;
        expect_error(&mut wire, 2, "unknown_upload", &["upload 2"]).await;

        begin_upload(&mut wire, 3).await;
        wire.say(&UploadChunkV1 { upload: 3, offset: 5 }, b"gap").await;
        expect_error(&mut wire, 3, "bad_request", &["byte 0 comes next, not 5"]).await;

        begin_upload(&mut wire, 4).await;
        wire.say(&end(4, 0), b"").await;
        expect_error(&mut wire, 4, "empty_media", &["empty"]).await;

        for (upload, bytes, says) in [(5, 3, "upload again"), (6, 4, "3 bytes came instead of 4")] {
            begin_upload(&mut wire, upload).await;
            wire.say(&UploadChunkV1 { upload, offset: 0 }, b"abc").await;
            let ack: UploadAckV1 = wire.expect().await;
            assert_eq!(ack.next, 3);
            wire.say(&end(upload, bytes), b"").await;
            expect_error(&mut wire, upload, "digest_mismatch", &[says]).await;
        }

        begin_upload(&mut wire, 7).await;
        wire.say(&SubmitV1 { input: SubmitInputV1::Upload(7), ..submit(8, welcome.reply_partition) }, b"").await;
        expect_error(&mut wire, 8, "unknown_upload", &["upload 7 is not finished"]).await;
        expect_done(&mut wire, &submit(9, welcome.reply_partition)).await;
        // What is given up leaves no file; what is under way goes with its session.
        cluster.wait_for_stored_files(1).await;
        drop(wire);
        cluster.wait_for_session(welcome.session_id, false).await;
        cluster.wait_for_stored_files(0).await;
    })
    .await;
}

fn begin(request: u64, bytes: Option<u64>) -> UploadBeginV1 {
    UploadBeginV1 { request, bytes, name: String::new(), media_type: String::new() }
}

async fn begin_upload(wire: &mut Wire, request: u64) {
    wire.say(&begin(request, None), b"").await;
    let ack: UploadAckV1 = wire.expect().await;
    assert_eq!((ack.upload, ack.next), (request, 0));
}

async fn expect_error(wire: &mut Wire, request: u64, code: &str, says: &[&str]) {
    let error: ErrorV1 = wire.expect().await;
    assert_eq!((error.request, error.code.as_str()), (request, code), "{error:?}");
    expect_says(code, &error.message, says);
}

/// Submits until one is refused, and says how that is told; the requests after `first` are accepted before.
async fn until_refused(wire: &mut Wire, partition: u32, first: u64) -> ErrorV1 {
    for request in first.. {
        wire.say(&SubmitV1 { watch: false, ..submit(request, partition) }, b"x").await;
        let frame = wire.frame().await;
        if frame.kind == ErrorV1::KIND {
            let refused: ErrorV1 = frame.head().expect("an error");
            assert_eq!((refused.code.as_str(), refused.request), ("too_many_requests", request));
            return refused;
        }
        assert_eq!(frame.kind, AcceptedV1::KIND);
    }
    unreachable!("requests do not end")
}

#[actix_web::test]
async fn a_tenant_that_submits_too_fast_is_told_when_to_come_again() {
    let env = [("RELAY__TENANTS__JOBS_PER_S", "1"), ("RELAY__TENANTS__JOBS_BURST", "2")];
    on_cluster(&env, async |cluster| {
        let (mut wire, welcome) = Wire::open(cluster).await;
        for round in 1..=2 {
            let refused = until_refused(&mut wire, welcome.reply_partition, round * 1_000).await;
            let wait_ms = refused.retry_after_ms.expect("when to come again");
            assert!(refused.retryable && (1..=1_000).contains(&wait_ms), "{refused:?}");
            // Whoever comes then is served: the next round, and in the end the good client.
            tokio::time::sleep(std::time::Duration::from_millis(wait_ms.into())).await;
            if round == 1 {
                wire.say(&SubmitV1 { watch: false, ..submit(999, welcome.reply_partition) }, b"x").await;
                assert_eq!(wire.expect::<AcceptedV1>().await.request, 999);
            }
        }
        wire.expect_alive().await;
    })
    .await;
}
