//! Vectors of a session's messages about jobs.

use std::error::Error;

use relay_protocol::session::{
    AcceptedV1, CancelOutcomeV1, CancelReplyV1, CancelV1, EventV1, FetchChunkV1, FetchV1, NoticeV1, ResumeV1,
    ResumedV1, StatusReplyV1, StatusV1, SubmitInputV1, SubmitV1, UnwatchV1, UploadAckV1, UploadBeginV1, UploadBeginV2,
    UploadChunkV1, UploadDoneV1, UploadEndV1, WatchV1,
};
use relay_protocol::{JobId, UploadId};

use crate::{Vector, message};

const MADE_AT_MS: u64 = 1_795_458_600_123;
const SENT_AT_US: u64 = 1_795_458_600_123_456;
/// Attempt 1, event 2.
const SEQ: u64 = (1 << 32) + 2;

pub(crate) fn job_id() -> JobId {
    JobId::new(MADE_AT_MS, 251, 0x0123_4567_89ab_cdef)
}

pub(crate) fn vectors() -> Result<Vec<Vector>, Box<dyn Error>> {
    let mut vectors = submits()?;
    vectors.extend(answers()?);
    vectors.extend(transfers()?);
    Ok(vectors)
}

fn submits() -> Result<Vec<Vector>, Box<dyn Error>> {
    let inline = SubmitV1 {
        request: 1,
        job_id: job_id(),
        lane: "default".to_owned(),
        task: "vad".to_owned(),
        model: String::new(),
        params: String::new(),
        input: SubmitInputV1::Inline,
        name: "hello.wav".to_owned(),
        media_type: "audio/wav".to_owned(),
        priority: 1,
        idempotency_key: None,
        deadline_ms: None,
        not_before_ms: None,
        traceparent: None,
        sent_at_us: SENT_AT_US,
        watch: true,
    };
    let upload = SubmitV1 {
        request: 300,
        task: "transcribe".to_owned(),
        model: "whisper-1".to_owned(),
        params: r#"{"language":"de","temperature":0.5}"#.to_owned(),
        input: SubmitInputV1::Upload(70_000),
        priority: 2,
        idempotency_key: Some("order-4711".to_owned()),
        deadline_ms: Some(MADE_AT_MS + 60_000),
        not_before_ms: Some(MADE_AT_MS + 1_000),
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
        ..inline.clone()
    };
    let url = SubmitV1 {
        request: 2,
        task: "probe".to_owned(),
        input: SubmitInputV1::Url("https://media.example/große-datei.flac".to_owned()),
        name: String::new(),
        media_type: String::new(),
        priority: 0,
        watch: false,
        ..inline.clone()
    };
    Ok(vec![
        message("inline", &inline, b"RIFF\x04\x00\x00\x00WAVE")?,
        message("upload", &upload, b"")?,
        message("url", &url, b"")?,
    ])
}

fn answers() -> Result<Vec<Vector>, Box<dyn Error>> {
    let job_id = job_id();
    let at = "2026-11-23T18:30:00.130Z";
    let accepted_event = serde_json::to_vec(&serde_json::json!({
        "job_id": job_id, "seq": 1, "attempt": 0, "event": "accepted", "at": at,
        "place": { "lane": "default", "partition": 3, "offset": 42, "accepted_at": at },
    }))?;
    let cancel_reply = |outcome| CancelReplyV1 { request: 6, job_id, outcome };
    let resume = ResumeV1 {
        request: 1,
        resume_token: "r1.eyJzIjoiMSJ9.c2ln".to_owned(),
        jobs: vec![(job_id, SEQ), (JobId::new(MADE_AT_MS + 1, 4_095, 1), 0)],
    };
    let gap = NoticeV1 {
        request: 1,
        job_id,
        code: "resume_expired".to_owned(),
        message: "older events are gone; what is left follows".to_owned(),
        retryable: false,
        retry_after_ms: None,
        goes_on: true,
    };
    let busy = NoticeV1 {
        code: "too_many_requests".to_owned(),
        message: "too many watches wait for their past".to_owned(),
        retryable: true,
        retry_after_ms: Some(1_000),
        goes_on: false,
        ..gap.clone()
    };
    let nothing_to_resume = ResumeV1 { jobs: Vec::new(), ..resume.clone() };
    Ok(vec![
        message("", &AcceptedV1 { request: 1, job_id, at_ms: MADE_AT_MS + 7 }, &accepted_event)?,
        message(
            "",
            &EventV1 { job_id, seq: SEQ, terminal: false, sent_at_us: SENT_AT_US },
            b"{\"event\":\"partial\"}",
        )?,
        message(
            "terminal",
            &EventV1 { job_id, seq: (1 << 32) + u64::from(u32::MAX), terminal: true, sent_at_us: SENT_AT_US },
            b"{\"event\":\"completed\"}",
        )?,
        message("", &WatchV1 { request: 4, job_id, after_seq: SEQ }, b"")?,
        message("", &UnwatchV1 { job_id }, b"")?,
        message("", &StatusV1 { request: 5, job_id }, b"")?,
        message("", &StatusReplyV1 { request: 5, job_id }, b"{\"state\":\"running\"}")?,
        message("", &CancelV1 { request: 6, job_id, sent_at_us: SENT_AT_US }, b"")?,
        message("requested", &cancel_reply(CancelOutcomeV1::Requested), b"")?,
        message("already_ended", &cancel_reply(CancelOutcomeV1::AlreadyEnded), b"")?,
        message("", &resume, b"")?,
        message("no_jobs", &nothing_to_resume, b"")?,
        message("", &ResumedV1 { request: 1, jobs: 2 }, b"")?,
        message("", &gap, b"")?,
        message("busy", &busy, b"")?,
    ])
}

fn transfers() -> Result<Vec<Vector>, Box<dyn Error>> {
    let begin = UploadBeginV1 {
        request: 70_000,
        bytes: Some(5_000_000_000),
        name: "talk.flac".to_owned(),
        media_type: "audio/flac".to_owned(),
    };
    let resumable = UploadBeginV2 {
        request: 70_001,
        upload_id: UploadId::new(0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f),
        bytes: Some(5_000_000_000),
        name: "talk.flac".to_owned(),
        media_type: "audio/flac".to_owned(),
    };
    let unknown_resumable =
        UploadBeginV2 { request: 4, bytes: None, name: String::new(), media_type: String::new(), ..resumable.clone() };
    let unknown_size = UploadBeginV1 { request: 3, bytes: None, name: String::new(), media_type: String::new() };
    let mut sha256 = [0; 32];
    for (byte, value) in sha256.iter_mut().zip((0u8..=255).step_by(8)) {
        *byte = value; // raw bytes on the wire, also those above 250
    }
    sha256[31] = 0xff;
    Ok(vec![
        message("", &begin, b"")?,
        message("unknown_size", &unknown_size, b"")?,
        message("", &resumable, b"")?,
        message("unknown_size", &unknown_resumable, b"")?,
        message("", &UploadChunkV1 { upload: 70_000, offset: 262_144 }, b"fLaC")?,
        message("", &UploadAckV1 { upload: 70_000, next: 524_288, window: 4_194_304 }, b"")?,
        message("", &UploadEndV1 { upload: 70_000, bytes: 5_000_000_000, sha256 }, b"")?,
        message("", &UploadDoneV1 { upload: 70_000 }, b"")?,
        message("", &FetchV1 { request: 9, job_id: job_id(), offset: 65_536 }, b"")?,
        message("", &FetchChunkV1 { request: 9, offset: 65_536, total: 65_539, last: true }, b"\x00\xff\x80")?,
        message("more", &FetchChunkV1 { request: 9, offset: 0, total: 65_539, last: false }, b"PNG")?,
    ])
}
