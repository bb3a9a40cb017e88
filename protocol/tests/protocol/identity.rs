//! The digest of a job's body: frozen, the same for the same work, another for other work.

use relay_protocol::job::InlineMedia;
use relay_protocol::{Input, Job, StoredObject};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::golden;

fn job(fields: Value) -> Job {
    let mut job = json!({ "task": "transcribe", "input": { "inline": { "data": "c291bmQ=" } } });
    job.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    serde_json::from_value(job).unwrap()
}

fn body(fields: Value) -> [u8; 32] {
    job(fields).body_sha256()
}

#[test]
fn bodies_are_the_golden_ones() {
    for vector in golden("bodies").as_array().unwrap() {
        let job = golden(vector["job"].as_str().unwrap())["json"].clone();
        let job: Job = serde_json::from_value(job).unwrap();
        assert_eq!(vector["body_sha256"], hex::encode(job.body_sha256()), "{vector}");
    }
}

#[test]
fn the_way_of_a_job_is_not_its_body() {
    let same = [
        json!({ "id": "01a209ac-0cbb-70fb-8123-456789abcdef", "tenant": "a", "subject": "b", "priority": "batch" }),
        json!({ "idempotency_key": "k", "attempts_max": 2, "attempt": 1, "traceparent": "t" }),
        json!({ "deadline": "2026-11-23T18:31:00.123Z", "not_before": "2026-11-23T18:30:01.000Z" }),
        json!({ "hops": [{ "hop": "client", "at_us": 1 }], "redrive_of": "01a209ac-0cbb-70fb-8123-456789abcdef" }),
        json!({ "input": { "inline": { "data": "c291bmQ=", "name": "a.wav", "media_type": "audio/wav" } } }),
    ];
    for fields in same {
        assert_eq!(body(fields.clone()), body(json!({})), "{fields}");
    }
    let params = |text: &str| body(json!({ "params": serde_json::from_str::<Value>(text).unwrap() }));
    let wanted = params(r#"{"language":"de","temperature":0.5,"words":true}"#);
    assert_eq!(params(r#"{"words":"true","temperature":"0.5","language":"de"}"#), wanted);
}

#[test]
fn bytes_count_the_same_wherever_they_lie() {
    let data = bytes::Bytes::from_static(b"sound");
    let inline = Job {
        input: Input::Inline(InlineMedia { data: data.clone(), name: None, media_type: None }),
        ..job(json!({}))
    };
    let object = StoredObject {
        path: "uploads/1".to_owned(),
        bytes: data.len() as u64,
        sha256: hex::encode(Sha256::digest(&data)),
        name: None,
        media_type: None,
    };
    let stored = Job { input: Input::Object(object), ..inline.clone() };
    assert_eq!(stored.body_sha256(), inline.body_sha256());
}

#[test]
fn other_work_has_another_body() {
    let all = [
        json!({}),
        json!({ "task": "translate" }),
        json!({ "model": "m" }),
        json!({ "params": { "language": "de" } }),
        json!({ "params": { "language": "en" } }),
        json!({ "params": { "prompt": "de" } }),
        json!({ "params": { "prompt": "" } }),
        json!({ "params": { "stop": ["a", "b"] } }),
        json!({ "params": { "stop": ["a,b"] } }),
        json!({ "params": { "stop": { "a": 1, "b": [{ "c": null }] } } }),
        json!({ "input": { "inline": { "data": "AAAA" } } }),
        json!({ "input": { "text": "sound" } }),
        json!({ "input": { "url": "sound" } }),
    ];
    let bodies: Vec<_> = all.iter().map(|fields| body(fields.clone())).collect();
    for (index, one) in bodies.iter().enumerate() {
        assert_eq!(bodies.iter().position(|other| other == one), Some(index), "{}", all[index]);
    }
}
