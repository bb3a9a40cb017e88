//! Vectors of records in topics, of ids and of partitions.

use std::error::Error;

use relay_protocol::record::encode_job;
use relay_protocol::{Job, JobId, frame, job::JobHeadV1, partition};
use serde::Serialize;
use serde_json::{Value, json};

use crate::jobs::job_id;
use crate::{Vector, message, pretty};

/// How a job's vector is written: the same job as JSON and as a frame.
#[derive(Serialize)]
struct JobVector {
    name: String,
    json: Job,
    frame: String,
}

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const SHA256: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

pub(crate) fn vectors() -> Result<Vec<Vector>, Box<dyn Error>> {
    let mut vectors = Vec::new();
    for (case, json) in jobs() {
        let job: Job = serde_json::from_value(json)?;
        let encoded = encode_job(&job)?;
        let frame = frame::split(encoded.clone())?;
        vectors.push(message(case, &frame.head::<JobHeadV1>()?, &frame.payload)?);
        let name = format!("record.job.{case}");
        vectors.push((name.clone(), pretty(&JobVector { name, json: job, frame: hex::encode(encoded) })?));
    }
    for (case, json) in events().into_iter().chain(others()) {
        let name = format!("record.{case}");
        vectors.push((name.clone(), pretty(&json!({ "name": name, "json": json }))?));
    }
    vectors.push(("ids".to_owned(), pretty(&ids())?));
    vectors.push(("partitions".to_owned(), pretty(&partitions())?));
    vectors.push(("bodies".to_owned(), pretty(&bodies()?)?));
    Ok(vectors)
}

fn jobs() -> Vec<(&'static str, Value)> {
    vec![
        ("text", json!({ "task": "chat", "input": { "text": "Grüße!" } })),
        (
            "inline",
            json!({
                "id": job_id(), "tenant": "team-a", "subject": "alice", "task": "vad",
                "input": { "inline": { "data": "UklGRgQAAABXQVZF", "name": "hello.wav", "media_type": "audio/wav" } },
            }),
        ),
        (
            "object",
            json!({
                "id": job_id(), "tenant": "team-a", "subject": "alice", "task": "transcribe", "model": "whisper-1",
                "params": { "language": "de", "temperature": 0.5, "words": true },
                "input": { "object": {
                    "path": "team-a/019f/talk.flac", "bytes": 5_000_000, "sha256": SHA256,
                    "name": "talk.flac", "media_type": "audio/flac",
                } },
                "priority": "interactive", "idempotency_key": "order-4711",
                "deadline": "2026-11-23T18:31:00.123Z", "not_before": "2026-11-23T18:30:01.000Z",
                "attempts_max": 3, "attempt": 2, "traceparent": TRACEPARENT,
                "hops": [{ "hop": "client", "at_us": 1_795_458_600_123_456_u64 },
                         { "hop": "gateway", "at_us": 1_795_458_600_124_000_u64 }],
                "redrive_of": JobId::new(1_795_458_500_000, 251, 9),
            }),
        ),
        ("url", json!({ "task": "probe", "input": { "url": "https://media.example/a.flac" }, "priority": "batch" })),
    ]
}

fn event(seq: u64, attempt: u32, event: &str, more: &Value) -> (String, Value) {
    let mut json = json!({
        "job_id": job_id(), "seq": seq, "attempt": attempt, "event": event, "at": "2026-11-23T18:30:00.130Z",
    });
    if let (Some(json), Some(more)) = (json.as_object_mut(), more.as_object()) {
        json.extend(more.clone());
    }
    (format!("event.{event}"), json)
}

fn events() -> Vec<(String, Value)> {
    let first = 1_u64 << 32;
    let second = 2 * first;
    let last = |attempt: u64| attempt * first + u64::from(u32::MAX);
    let error = |code: &str, retryable: bool| json!({ "code": code, "message": "what to do", "retryable": retryable });
    let place = json!({ "lane": "default", "partition": 3, "offset": 42, "accepted_at": "2026-11-23T18:30:00.130Z" });
    vec![
        event(1, 0, "accepted", &json!({ "place": place, "traceparent": TRACEPARENT })),
        event(first, 1, "started", &json!({ "place": place, "backend": "http://localai:8080", "node": "node-1" })),
        event(first + 1, 1, "progress", &json!({ "fraction": 0.25 })),
        (
            "event.progress.eta".to_owned(),
            event(first + 1, 1, "progress", &json!({ "fraction": 0.25, "eta": "2026-11-23T18:30:12.500Z" })).1,
        ),
        event(first + 2, 1, "partial", &json!({ "partial": { "text": "Guten" } })),
        event(
            first + 3,
            1,
            "retrying",
            &json!({ "error": error("backend_failed", true), "retry_at": "2026-11-23T18:30:02.000Z" }),
        ),
        event(second, 2, "restarted", &json!({})),
        event(
            last(2),
            2,
            "completed",
            &json!({
                "result": { "segments": [{ "start": 0.5, "end": 1.25 }] }, "last_partial_seq": second + 9,
                "hops": [{ "hop": "intake", "at_us": 1_795_458_600_131_000_u64 }],
            }),
        ),
        event(last(2), 2, "failed", &json!({ "error": error("not_media", false) })),
        event(last(0), 0, "cancelled", &json!({ "error": error("cancelled", false) })),
        event(last(1), 1, "expired", &json!({ "error": error("deadline_exceeded", false) })),
        event(last(3), 3, "dead_lettered", &json!({ "error": error("attempts_exhausted", false) })),
    ]
}

fn others() -> Vec<(String, Value)> {
    let at = "2026-11-23T18:30:00.130Z";
    let place = json!({ "lane": "default", "partition": 3, "offset": 42, "accepted_at": at });
    vec![
        (
            "control.cancel".to_owned(),
            json!({ "kind": "cancel", "job_id": job_id(), "tenant": "team-a", "subject": "alice", "at": at }),
        ),
        (
            "control.started".to_owned(),
            json!({ "kind": "started", "node": "node-1", "incarnation": 1_795_458_600_123_u64,
                    "jobs": [{ "offset": 42, "attempt": 1 }, { "offset": 43, "attempt": 2 }] }),
        ),
        (
            "control.started.alone".to_owned(),
            json!({ "kind": "started", "node": "node-1", "incarnation": 1_795_458_600_123_u64,
                    "jobs": [{ "offset": 42, "attempt": 3, "alone": true }] }),
        ),
        (
            "control.given_up".to_owned(),
            json!({ "kind": "given_up", "node": "node-1", "incarnation": 1_795_458_600_123_u64,
                    "jobs": [{ "offset": 42, "attempt": 1 }, { "offset": 43, "attempt": 2 }] }),
        ),
        (
            "dedup.key".to_owned(),
            json!({ "job_id": job_id(), "tenant": "team-a", "idempotency_key": "order-4711", "body_sha256": SHA256,
                    "place": place, "outcome": "completed", "seq": (1_u64 << 32) + u64::from(u32::MAX),
                    "ended_at": at, "expires_at": "2026-11-24T18:30:00.130Z" }),
        ),
        (
            "dedup.duplicate".to_owned(),
            json!({ "job_id": job_id(), "tenant": "team-a", "place": place, "outcome": "failed",
                    "seq": u64::from(u32::MAX), "ended_at": at, "expires_at": "2026-11-24T18:30:00.130Z",
                    "duplicate_of": JobId::new(1_795_458_500_000, 251, 9) }),
        ),
        (
            "audit".to_owned(),
            json!([
                { "at": at, "action": "job.accepted", "node": "node-1", "tenant": "team-a", "subject": "alice",
                  "job_id": job_id(), "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
                  "detail": { "lane": "default", "task": "vad" } },
                { "at": at, "action": "session.opened", "node": "node-1", "tenant": "team-a", "subject": "alice",
                  "session_id": "00010203-0405-4607-8809-0a0b0c0d0e0f" },
            ]),
        ),
    ]
}

fn ids() -> Value {
    let made = |now_ms: u64, reply: u32, random: u64| {
        let id = JobId::new(now_ms, reply, random);
        json!({ "now_ms": now_ms, "reply_partition": reply, "random": random, "id": id,
                "reply_partition_of_8": id.reply_partition(8), "reply_partition_of_12": id.reply_partition(12) })
    };
    let placed = |topic: &str, partition: u32, offset: u64, timestamp_ms: u64| {
        let id = JobId::of_record(topic, partition, offset, timestamp_ms);
        json!({ "topic": topic, "partition": partition, "offset": offset, "timestamp_ms": timestamp_ms, "id": id })
    };
    json!({
        "made": [made(1_795_458_600_123, 251, 0x0123_4567_89ab), made(0, 0, 0), made(281_474_976_710_655, 4_095, 1)],
        "of_record": [
            placed("media.jobs.default", 3, 42, 1_795_458_600_123),
            placed("media.jobs.default", 3, 43, 1_795_458_600_123),
            placed("media.jobs.video", 0, 0, 0),
        ],
    })
}

fn partitions() -> Value {
    let keyed = |key: &str| {
        json!({ "key": key, "murmur2": partition::murmur2(key.as_bytes()) as i32,
                "of_8": partition::of_key(key.as_bytes(), 8), "of_12": partition::of_key(key.as_bytes(), 12) })
    };
    json!([
        keyed(""),
        keyed("21"),
        keyed("foobar"),
        keyed(&partition::job_key("team-a", Some("order-4711"), job_id())),
        keyed(&partition::job_key("team-a", None, job_id())),
    ])
}

/// What each of the jobs above does.
fn bodies() -> Result<Value, Box<dyn Error>> {
    let mut bodies = Vec::new();
    for (case, json) in jobs() {
        let job: Job = serde_json::from_value(json)?;
        bodies.push(json!({ "job": format!("record.job.{case}"), "body_sha256": hex::encode(job.body_sha256()) }));
    }
    Ok(Value::from(bodies))
}
