//! Jobs in lanes: JSON and frame hold the same job.

use bytes::Bytes;
use proptest::prelude::*;
use relay_protocol::job::{Hop, InlineMedia};
use relay_protocol::limits::{
    ATTEMPT_NUMBER_MAX, ATTEMPTS_MAX, HOPS_MAX, IDEMPOTENCY_KEY_BYTES_MAX, MEDIA_TYPE_BYTES_MAX, NAME_BYTES_MAX,
    OBJECT_PATH_BYTES_MAX, PARAMS_BYTES_MAX, TRACEPARENT_BYTES_MAX, UPLOAD_BYTES_MAX, URL_BYTES_MAX,
};
use relay_protocol::record::{decode_job, encode_job};
use relay_protocol::time::TIME_MS_MAX;
use relay_protocol::{Input, Job, JobId, Priority, StoredObject, Task};
use serde_json::{Map, Value, json};

use crate::support::{bytes, golden, golden_files};

fn golden_jobs() -> Vec<(String, Value)> {
    golden_files().into_iter().filter(|(file, _)| file.starts_with("record.job.")).collect()
}

fn read_json(json: &Value) -> Job {
    decode_job(&json.to_string().into_bytes().into()).unwrap()
}

#[test]
fn json_and_frame_are_the_same_job() {
    let jobs = golden_jobs();
    assert!(jobs.len() >= 4, "every kind of input has a golden record");
    for (file, vector) in jobs {
        let frame = bytes(&vector, "frame");
        let from_json = read_json(&vector["json"]);
        assert_eq!(decode_job(&frame), Ok(from_json.clone()), "{file}");
        assert_eq!(encode_job(&from_json).unwrap(), frame, "{file}: the writer changed the format");
    }
}

#[test]
fn a_short_record_gets_the_defaults() {
    let job = read_json(&json!({ "task": "chat", "input": { "text": "hi" } }));
    assert_eq!((job.tenant.as_str(), job.subject.as_str(), job.priority), ("default", "producer", Priority::Normal));
    assert_eq!((job.id, job.attempts_max, job.attempt), (None, None, 0));
}

#[test]
fn what_is_no_job_says_why() {
    let cases: &[(&[u8], &str, &str)] = &[
        (b"", "not_a_job", "the record is not a job"),
        (b"\x00\x01", "not_a_job", "the record is not a job"),
        (b"[]", "not_a_job", "the record is not a job"),
        (b"RM", "not_a_job", "its header promises 12"),
        (br#"{"task":"vad"}"#, "not_a_job", "missing field `input`"),
        (br#"{"task":"vad","input":{"text":"a"},"colour":1}"#, "not_a_job", "colour"),
        (br#"{"task":"sing","input":{"text":"a"}}"#, "unknown_task", "unknown task \"sing\"; known are: transcribe"),
        (br#"{"task":7,"input":{"text":"a"}}"#, "not_a_job", "the record is not a job"),
        (br#"{"task":"vad","input":{"inline":{"data":"?"}}}"#, "not_a_job", "the record is not a job"),
        (br#"{"task":"vad","input":{"inline":{"data":""}}}"#, "empty_media", "send the media's bytes"),
        (br#"{"task":"vad","input":{"text":"a"},"params":{"speed":1}}"#, "unknown_parameter", "it knows: threshold"),
        (
            br#"{"task":"vad","input":{"text":"a"},"params":{"pad_ms":-1}}"#,
            "invalid_parameter",
            "from 0 to 10000, not -1",
        ),
    ];
    for (value, code, reason) in cases {
        let error = decode_job(&Bytes::from_static(value)).unwrap_err();
        assert_eq!(error.code, *code, "{error:?}");
        assert!(error.message.contains(reason), "{error:?} does not say {reason:?}");
    }
}

#[test]
fn a_frame_of_another_kind_is_no_job() {
    let error = decode_job(&bytes(&golden("ping_v1"), "frame")).unwrap_err();
    assert_eq!(error.code, "not_a_job");
    assert!(error.message.contains("expected kind 0x0100 version 1, found kind 0x0004"), "{error:?}");
}

#[test]
fn a_frame_of_another_version_is_no_job() {
    let mut value = bytes(&golden("record.job.object"), "frame").to_vec();
    assert!(decode_job(&Bytes::from(value.clone())).is_ok());
    value[4] = 2;
    let error = decode_job(&Bytes::from(value)).unwrap_err();
    assert_eq!(error.code, "not_a_job");
    assert!(error.message.contains("found kind 0x0100 version 2"), "{error:?}");
}

#[test]
fn a_payload_beside_an_input_elsewhere_is_refused() {
    for name in ["record.job.object", "record.job.url"] {
        let mut frame = bytes(&golden(name), "frame").to_vec();
        frame[8] = 1;
        frame.push(b'x');
        let error = decode_job(&frame.into()).unwrap_err();
        assert_eq!((error.code.as_str(), error.message.contains("payload")), ("not_a_job", true), "{error:?}");
    }
}

#[test]
fn a_frame_with_an_unknown_task_priority_or_text_is_refused() {
    let vector = golden("job_v1.text");
    let with = |field: &str, value: Value, payload: &[u8]| {
        let mut head = vector["head"].clone();
        head[field] = value;
        let head: relay_protocol::job::JobHeadV1 = serde_json::from_value(head).unwrap();
        decode_job(&relay_protocol::frame::encode(&head, payload).unwrap()).unwrap_err()
    };
    assert_eq!(with("task", json!("sing"), b"x").code, "unknown_task");
    assert!(with("priority", json!(3), b"x").message.contains("there is no priority 3"));
    assert!(with("params", json!("[1]"), b"x").message.contains("not a JSON object"));
    assert!(with("priority", json!(1), b"\xff").message.contains("not UTF-8"));
}

/// Everything as large as the checks allow still fits a frame and is read again.
#[test]
fn the_largest_valid_job_fits_a_frame() {
    let name = "n".repeat(NAME_BYTES_MAX);
    let media_type = Some("m".repeat(MEDIA_TYPE_BYTES_MAX));
    let object = StoredObject {
        path: "p".repeat(OBJECT_PATH_BYTES_MAX),
        bytes: UPLOAD_BYTES_MAX,
        sha256: "f".repeat(64),
        name: Some(name.clone()),
        media_type,
    };
    let stop = "s".repeat(PARAMS_BYTES_MAX - "stop".len() - 2);
    let hop = Hop { hop: name.clone(), at_us: u64::MAX };
    let mut job = Job {
        id: Some(JobId::from_bytes([0xff; 16])),
        tenant: name.clone(),
        subject: name.clone(),
        task: Task::Chat,
        model: Some(name),
        params: Map::from_iter([("stop".to_owned(), Value::String(stop))]),
        input: Input::Object(object),
        priority: Priority::Interactive,
        idempotency_key: Some("k".repeat(IDEMPOTENCY_KEY_BYTES_MAX)),
        deadline: Some(TIME_MS_MAX),
        not_before: Some(TIME_MS_MAX),
        attempts_max: Some(ATTEMPTS_MAX),
        attempt: ATTEMPT_NUMBER_MAX,
        traceparent: Some("t".repeat(TRACEPARENT_BYTES_MAX)),
        hops: vec![hop; HOPS_MAX],
        redrive_of: Some(JobId::from_bytes([0xff; 16])),
    };
    for input in [job.input.clone(), Input::Url("u".repeat(URL_BYTES_MAX))] {
        job.input = input;
        job.check().unwrap();
        assert_eq!(decode_job(&encode_job(&job).unwrap()), Ok(job.clone()));
    }
}

/// A resume of as many jobs as a session may have fits a frame.
#[test]
fn the_largest_resume_fits_a_frame() {
    let job = (JobId::from_bytes([0xff; 16]), u64::MAX);
    let resume = relay_protocol::session::ResumeV1 {
        request: 1,
        resume_token: "t".repeat(1_024),
        jobs: vec![job; relay_protocol::limits::SESSION_JOBS_MAX],
    };
    let frame = relay_protocol::frame::split(relay_protocol::frame::encode(&resume, b"").unwrap()).unwrap();
    assert_eq!(frame.head(), Ok(resume));
}

fn text(bytes_max: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(prop_oneof![prop::char::range(' ', '~'), prop::char::range('à', '日')], 1..bytes_max / 3)
        .prop_map(|chars| chars.into_iter().filter(|c| *c != '/').chain(['x']).collect())
}

fn input() -> impl Strategy<Value = Input> {
    let named = || (prop::option::of(text(60)), prop::option::of("[a-z]{1,9}/[a-z]{1,9}"));
    let data = prop::collection::vec(any::<u8>(), 1..99);
    prop_oneof![
        (data, named()).prop_map(|(data, (name, media_type))| {
            Input::Inline(InlineMedia { data: data.into(), name, media_type })
        }),
        text(99).prop_map(Input::Text),
        ("[a-z]{1,9}/[a-z.-]{2,9}x", 1..=UPLOAD_BYTES_MAX, "[0-9a-f]{64}", named()).prop_map(
            |(path, bytes, sha256, (name, media_type))| {
                Input::Object(StoredObject { path, bytes, sha256, name, media_type })
            }
        ),
        "https?://[a-z]{1,9}/[a-z]{0,9}".prop_map(Input::Url),
    ]
}

prop_compose! {
    fn job()(
        (id, redrive_of) in (prop::option::of(any::<[u8; 16]>()), prop::option::of(any::<[u8; 16]>())),
        (tenant, subject, model) in (text(60), text(60), prop::option::of(text(60))),
        (language, temperature) in (prop::option::of(text(30)), prop::option::of(0..=8_u32)),
        input in input(),
        priority in prop::sample::select(vec![Priority::Batch, Priority::Normal, Priority::Interactive]),
        idempotency_key in prop::option::of(text(60)),
        (deadline, not_before) in (prop::option::of(0..=TIME_MS_MAX), prop::option::of(0..=TIME_MS_MAX)),
        (attempts_max, attempt) in (prop::option::of(1..=ATTEMPTS_MAX), 0..=ATTEMPT_NUMBER_MAX),
        traceparent in prop::option::of("[!-~]{0,55}"),
        hops in prop::collection::vec((text(30), any::<u64>()), 0..4),
    ) -> Job {
        let language = language.map(|language| ("language".to_owned(), json!(language)));
        let temperature = temperature.map(|eighths| ("temperature".to_owned(), json!(f64::from(eighths) / 8.0)));
        Job {
            id: id.map(JobId::from_bytes), tenant, subject, task: Task::Transcribe, model,
            params: language.into_iter().chain(temperature).collect(),
            input, priority, idempotency_key, deadline, not_before, attempts_max, attempt, traceparent,
            hops: hops.into_iter().map(|(hop, at_us)| Hop { hop, at_us }).collect(),
            redrive_of: redrive_of.map(JobId::from_bytes),
        }
    }
}

proptest! {
    #[test]
    fn a_valid_job_survives_both_forms(job in job()) {
        prop_assert_eq!(job.check(), Ok(()));
        prop_assert_eq!(decode_job(&encode_job(&job).unwrap()), Ok(job.clone()));
        prop_assert_eq!(decode_job(&serde_json::to_vec(&job).unwrap().into()), Ok(job));
    }
}
