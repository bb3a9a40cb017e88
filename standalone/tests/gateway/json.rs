//! Bad jobs as JSON.

use serde_json::{Value, json};

use crate::cluster::on_cluster;
use crate::http::{expect_accepted, expect_failed, expect_refusal, post_json};

/// A job that is accepted, with these fields set instead; `null` takes a field away.
fn job(changes: Value) -> String {
    let mut job = json!({ "task": "probe", "input": { "inline": { "data": "eA==" } } });
    for (name, value) in changes.as_object().expect("an object") {
        match value {
            Value::Null => _ = job.as_object_mut().expect("an object").remove(name),
            value => job[name] = value.clone(),
        }
    }
    job.to_string()
}

/// A body, and status, code and text of its refusal.
type Case = (&'static str, String, u16, &'static str, &'static [&'static str]);

/// Bodies that are no jobs, or jobs without a good task or input.
fn no_jobs() -> Vec<Case> {
    let inline = |text: &str| json!({ "input": { "inline": { "data": text } } });
    vec![
        ("empty body", String::new(), 400, "bad_request", &["not a JSON object"]),
        ("no JSON", "task=probe".to_owned(), 400, "bad_request", &["not a JSON object"]),
        ("half of a job", job(json!({}))[..20].to_owned(), 400, "bad_request", &["not a JSON object", "column 20"]),
        ("two jobs", format!("{}{}", job(json!({})), job(json!({}))), 400, "bad_request", &["not a JSON object"]),
        ("a list", "[]".to_owned(), 400, "bad_request", &["not a JSON object"]),
        ("null", "null".to_owned(), 400, "bad_request", &["not a JSON object"]),
        ("deeply nested", "[".repeat(100_000), 400, "bad_request", &["not a JSON object"]),
        (
            "deeply nested field",
            format!("{{\"params\":{}", "{\"a\":".repeat(100_000)),
            400,
            "bad_request",
            &["recursion"],
        ),
        ("unknown field", job(json!({ "tasks": 1 })), 400, "bad_request", &["not a job", "`tasks`", "`task`"]),
        ("no task", job(json!({ "task": null })), 400, "bad_request", &["not a job", "`task`"]),
        ("task of a number", job(json!({ "task": 7 })), 400, "bad_request", &["not a job"]),
        ("unknown task", job(json!({ "task": "sing" })), 400, "unknown_task", &["\"sing\"", "known are", "probe"]),
        ("no input", job(json!({ "input": null })), 400, "bad_request", &["not a job", "`input`"]),
        (
            "URL and inline",
            job(json!({ "input": { "url": "http://x/", "inline": { "data": "eA==" } } })),
            400,
            "bad_request",
            &["not a job"],
        ),
        ("input of no kind", job(json!({ "input": { "file": "x" } })), 400, "bad_request", &["`file`", "`inline`"]),
        ("no base64", job(inline("**")), 400, "bad_request", &["not a job"]),
        ("empty input", job(inline("")), 400, "empty_media", &["empty", "send the media"]),
        ("empty text", job(json!({ "input": { "text": "" } })), 400, "empty_media", &["empty"]),
        ("large input", job(inline(&"eHh4".repeat(87_382))), 413, "too_large", &["262144", "upload it"]),
        (
            "larger than a body",
            job(inline(&"eHh4".repeat(262_144))),
            413,
            "too_large",
            &["1048576", "multipart/form-data"],
        ),
    ]
}

/// Jobs with one bad field.
fn bad_fields() -> Vec<Case> {
    let object = |path: &str| json!({ "input": { "object": { "path": path, "bytes": 1, "sha256": "0".repeat(64) } } });
    vec![
        (
            "parameter",
            job(json!({ "params": { "loud": 1 } })),
            400,
            "unknown_parameter",
            &["\"loud\"", "it knows: none"],
        ),
        (
            "type of a parameter",
            job(json!({ "task": "waveform", "params": { "points": -1 } })),
            400,
            "invalid_parameter",
            &["\"points\"", "a whole number from 1 to 10000, not -1"],
        ),
        (
            "range of a parameter of LocalAI",
            job(json!({ "task": "image", "params": { "size": "1000000x1" } })),
            400,
            "invalid_parameter",
            &["\"size\"", "WIDTHxHEIGHT", "from 16 to 4096, not \"1000000x1\""],
        ),
        ("parameters in a list", job(json!({ "params": [1] })), 400, "bad_request", &["not a job"]),
        ("no LocalAI", job(json!({ "task": "chat" })), 422, "needs_localai", &["needs a LocalAI backend", "--backend"]),
        ("lane of a number", job(json!({ "lane": 1 })), 400, "bad_request", &["lane must be text"]),
        ("unknown lane", job(json!({ "lane": "../x" })), 404, "unknown_lane", &["known are: default"]),
        ("id", job(json!({ "id": "x" })), 400, "bad_request", &["not a job", "UUID"]),
        (
            "id from the future",
            job(json!({ "id": "ffffffff-ffff-7000-8000-000000000000" })),
            400,
            "invalid_field",
            &["future", "clock"],
        ),
        ("attempts", job(json!({ "attempts_max": 17 })), 400, "invalid_field", &["attempts_max", "1 to 16"]),
        ("priority", job(json!({ "priority": "high" })), 400, "bad_request", &["`high`", "`batch`"]),
        ("deadline", job(json!({ "deadline": "soon" })), 400, "bad_request", &["not a job"]),
        ("past", job(json!({ "deadline": "2020-01-01T00:00:00Z" })), 504, "deadline_exceeded", &["passed already"]),
        ("trace", job(json!({ "traceparent": "a b" })), 400, "invalid_field", &["traceparent", "visible ASCII"]),
        ("path out of the store", job(object("../../etc/passwd")), 400, "invalid_field", &["path must be relative"]),
        ("absolute path", job(object("/etc/passwd")), 400, "invalid_field", &["path must be relative"]),
        ("object of another tenant", job(object("uploads/00/x")), 404, "unknown_upload", &["tenant that uploaded it"]),
        (
            "forbidden URL",
            job(json!({ "input": { "url": "http://10.0.0.1/" } })),
            403,
            "url_not_allowed",
            &["url_allow"],
        ),
        ("no URL", job(json!({ "input": { "url": "a b" } })), 400, "invalid_field", &["url", "no blanks"]),
    ]
}

#[actix_web::test]
async fn a_bad_json_job_is_refused_before_it_is_a_job() {
    on_cluster(&[], async |cluster| {
        for (case, body, status, code, says) in no_jobs().into_iter().chain(bad_fields()) {
            let response = post_json(cluster, body).await;
            expect_refusal(case, response, status, code, says).await;
        }
        // Unchanged, the job that all cases are made of is accepted, and fails for what its input is.
        let id = expect_accepted("unchanged", post_json(cluster, job(json!({}))).await).await;
        expect_failed(cluster, "unchanged", &id, "not_media", &["not recognised as media", "send"]).await;
    })
    .await;
}

#[actix_web::test]
async fn who_submits_cannot_be_claimed_in_the_body() {
    on_cluster(&[], async |cluster| {
        let body = job(json!({ "tenant": "victim", "subject": "somebody", "attempt": 7 }));
        let id = expect_accepted("claimed", post_json(cluster, body).await).await;
        // The job is the caller's own: it can be read, and its first attempt is the first.
        expect_failed(cluster, "claimed", &id, "not_media", &[]).await;
    })
    .await;
}
