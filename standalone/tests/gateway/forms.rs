//! Bad jobs as `multipart/form-data`.

use reqwest::multipart::{Form, Part};
use serde_json::json;

use crate::cluster::{Cluster, fixture, on_cluster};
use crate::http::{
    answer, expect_accepted, expect_failed, expect_refusal, file_form, file_part, post_form, terminal_event,
};

/// A form, and status, code and text of its refusal.
type Case = (&'static str, fn() -> Form, u16, &'static str, &'static [&'static str]);

fn probe() -> Form {
    file_form("probe", fixture("images/picture.png"))
}

fn task(task: &str) -> Form {
    file_form(task, fixture("audio/noise.wav"))
}

fn without_task() -> Form {
    Form::new().part("file", file_part(b"x".as_slice()))
}

/// A task, a parameter of it, a value as text, and what the refusal says.
type BadParam = (&'static str, &'static str, &'static str, &'static str);

const BAD_PARAMS: &[BadParam] = &[
    ("waveform", "points", "many", "a whole number from 1 to 10000, not \"many\""),
    ("waveform", "points", "0", "a whole number from 1 to 10000, not \"0\""),
    ("waveform", "width", "4294967296", "from 16 to 4096"),
    ("vad", "threshold", "7", "a number from 0.01 to 0.99, not \"7\""),
    ("thumbnail", "format", "gif", "one of png, jpeg, jpg, not \"gif\""),
    ("speak", "speed", "5", "a number from 0.25 to 4, not \"5\""),
    ("chat", "max_tokens", "0", "from 1 to 2147483647"),
];

#[actix_web::test]
async fn a_bad_parameter_is_refused_with_what_the_task_takes() {
    on_cluster(&[], async |cluster| {
        for (kind, name, value, says) in BAD_PARAMS {
            let case = format!("{kind} with {name}={value}");
            let named = format!("{name:?}");
            let one = post_form(cluster, task(kind).text(format!("param.{name}"), *value)).await;
            expect_refusal(&case, one, 400, "invalid_parameter", &[&named, says]).await;
            let params = json!({ *name: value }).to_string();
            let all = post_form(cluster, task(kind).text("params", params)).await;
            expect_refusal(&case, all, 400, "invalid_parameter", &[&named, says]).await;
        }
        let list = post_form(cluster, task("vad").text("params", r#"{"threshold":[1]}"#)).await;
        expect_refusal("a list", list, 400, "invalid_parameter", &["\"threshold\"", "a number", "not [1]"]).await;
    })
    .await;
}

fn many_fields() -> Form {
    (0..63).fold(probe(), |form, number| form.text(format!("param.p{number}"), "1"))
}

const CASES: &[Case] = &[
    ("unknown task", || task("sing"), 400, "unknown_task", &["\"sing\"", "known are", "transcribe", "thumbnail"]),
    ("no task", without_task, 400, "bad_request", &["field task is needed"]),
    ("empty task", || task(""), 400, "bad_request", &["field task is needed"]),
    ("no LocalAI", || task("transcribe"), 422, "needs_localai", &["needs a LocalAI backend", "--backend URL"]),
    ("unknown model", || task("transcribe").text("model", "x"), 422, "needs_localai", &["needs a LocalAI backend"]),
    ("parameter", || probe().text("param.loud", "1"), 400, "unknown_parameter", &["\"loud\"", "it knows: none"]),
    (
        "parameter of another task",
        || task("waveform").text("params", r#"{"threshold":0.5}"#),
        400,
        "unknown_parameter",
        &["\"threshold\"", "it knows: points, width, height"],
    ),
    ("broken params", || probe().text("params", "{"), 400, "invalid_parameter", &["not a JSON object"]),
    ("empty file", || file_form("probe", b"".as_slice()), 400, "empty_media", &["empty", "send the media"]),
    ("empty text", || Form::new().text("task", "speak").text("text", ""), 400, "empty_media", &["empty"]),
    ("no file", || Form::new().text("task", "probe"), 400, "bad_request", &["file, text and url is needed"]),
    ("two files", || probe().part("file", file_part(b"x".as_slice())), 400, "bad_request", &["only one of the fields"]),
    ("file and URL", || probe().text("url", "http://x/"), 400, "bad_request", &["only one of the fields"]),
    ("text and file", || probe().text("text", "hello"), 400, "bad_request", &["only one of the fields"]),
    ("a field twice", || probe().text("task", "vad"), 400, "bad_request", &["\"task\" came twice", "send it once"]),
    (
        "params twice",
        || task("vad").text("params", "{}").text("params", "{}"),
        400,
        "bad_request",
        &["\"params\" came twice", "send it once"],
    ),
    (
        "a parameter twice",
        || task("vad").text("param.pad_ms", "1").text("param.pad_ms", "1"),
        400,
        "bad_request",
        &["\"param.pad_ms\" came twice", "send it once"],
    ),
    (
        "a parameter in two fields",
        || task("vad").text("param.pad_ms", "1").text("params", r#"{"pad_ms":2}"#),
        400,
        "bad_request",
        &["\"pad_ms\" came twice", "in params or as param.pad_ms"],
    ),
    ("many fields", many_fields, 413, "too_large", &["more than 64 fields"]),
    ("unknown field", || probe().text("tasks", "probe"), 400, "bad_request", &["no form field \"tasks\""]),
    ("long field", || probe().text("model", "m".repeat(32_769)), 413, "too_large", &["\"model\"", "32768 bytes"]),
    (
        "long parameter",
        || probe().text("param.x", "m".repeat(40_000)),
        413,
        "too_large",
        &["\"param.x\"", "32768 bytes"],
    ),
    ("long name", || task("vad").text("model", "m".repeat(256)), 400, "invalid_field", &["model", "1 to 255"]),
    ("not UTF-8", || probe().part("model", Part::bytes(vec![0xff])), 400, "bad_request", &["\"model\"", "UTF-8"]),
    (
        "priority",
        || probe().text("priority", "high"),
        400,
        "invalid_field",
        &["\"high\"", "batch, normal, interactive"],
    ),
    ("deadline", || probe().text("deadline", "tomorrow"), 400, "invalid_field", &["deadline"]),
    ("past", || probe().text("deadline", "2020-01-01T00:00:00Z"), 504, "deadline_exceeded", &["passed already"]),
    ("lane", || probe().text("lane", "fast"), 404, "unknown_lane", &["\"fast\"", "known are: default"]),
    (
        "forbidden URL",
        || Form::new().text("task", "probe").text("url", "http://127.0.0.1:1/x"),
        403,
        "url_not_allowed",
        &["url_allow"],
    ),
    ("file URL", || Form::new().text("task", "probe").text("url", "file:///etc/passwd"), 403, "url_not_allowed", &[]),
];

#[actix_web::test]
async fn a_bad_form_is_refused_before_it_is_a_job() {
    on_cluster(&[], async |cluster| {
        for (case, form, status, code, says) in CASES {
            let response = post_form(cluster, form()).await;
            expect_refusal(case, response, *status, code, says).await;
        }
        let good = expect_accepted("good", post_form(cluster, probe()).await).await;
        assert_eq!(terminal_event(cluster, &good).await.event.name(), "completed");
    })
    .await;
}

async fn post_raw(cluster: &Cluster, content_type: &str, body: &'static str) -> reqwest::Response {
    let request = reqwest::Client::new().post(format!("{}/v1/jobs", cluster.url()));
    answer(request.header("Content-Type", content_type).body(body)).await
}

#[actix_web::test]
async fn a_broken_multipart_body_is_refused() {
    const PART: &str = "--b\r\nContent-Disposition: form-data; name=\"task\"\r\n\r\nprobe\r\n";
    const NAMELESS: &str = "--b\r\nContent-Disposition: form-data\r\n\r\nprobe\r\n--b--\r\n";
    let cases = [
        ("no boundary", "multipart/form-data", "x"),
        ("empty body", "multipart/form-data; boundary=b", ""),
        ("another boundary", "multipart/form-data; boundary=c", PART),
        ("cut after a part", "multipart/form-data; boundary=b", PART),
        ("no form at all", "multipart/form-data; boundary=b", "{\"task\":\"probe\"}"),
    ];
    on_cluster(&[], async |cluster| {
        for (case, content_type, body) in cases {
            let response = post_raw(cluster, content_type, body).await;
            expect_refusal(case, response, 400, "bad_request", &["form cannot be read"]).await;
        }
        let response = post_raw(cluster, "multipart/form-data; boundary=b", NAMELESS).await;
        expect_refusal("a part without a name", response, 400, "bad_request", &["form"]).await;
    })
    .await;
}

#[actix_web::test]
async fn a_file_above_the_limit_is_refused_and_one_below_is_stored() {
    let env = [("RELAY__INPUTS__UPLOAD_BYTES_MAX", "100000"), ("RELAY__INPUTS__INLINE_BYTES_MAX", "1000")];
    on_cluster(&env, async |cluster| {
        for bytes in [100_001, 300_000, 20_000_000] {
            let response = post_form(cluster, file_form("probe", vec![b'x'; bytes])).await;
            expect_refusal(&format!("{bytes} bytes"), response, 413, "too_large", &["limit of 100000"]).await;
            // The beginning of the file goes too.
            cluster.wait_for_stored_files(0).await;
        }
        // Exactly the limit is stored, and fails for what it is.
        let response = post_form(cluster, file_form("probe", vec![b'x'; 100_000])).await;
        let id = expect_accepted("at the limit", response).await;
        expect_failed(cluster, "at the limit", &id, "not_media", &["not recognised", "send"]).await;
    })
    .await;
}
