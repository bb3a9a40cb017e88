//! Each rule of a job: just kept, and just broken with its code.

use relay_protocol::job::{Hop, InlineMedia};
use relay_protocol::limits::{
    ATTEMPT_NUMBER_MAX, ATTEMPTS_MAX, HOPS_MAX, INLINE_BYTES_MAX, MEDIA_TYPE_BYTES_MAX, NAME_BYTES_MAX,
    OBJECT_PATH_BYTES_MAX, PARAMS_BYTES_MAX, TRACEPARENT_BYTES_MAX, UPLOAD_BYTES_MAX, URL_BYTES_MAX,
};
use relay_protocol::param::ParamKind;
use relay_protocol::task::TASKS;
use relay_protocol::time::TIME_MS_MAX;
use relay_protocol::{Input, Job, StoredObject, Task};
use serde_json::{Map, Value, json};

const SHA256: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

fn job() -> Job {
    serde_json::from_value(json!({ "task": "chat", "input": { "text": "hi" } })).unwrap()
}

fn object(path: &str, sha256: &str) -> StoredObject {
    StoredObject { path: path.to_owned(), bytes: 1, sha256: sha256.to_owned(), name: None, media_type: None }
}

fn inline(bytes: usize, name: Option<&str>, media_type: Option<&str>) -> Input {
    let [name, media_type] = [name, media_type].map(|text| text.map(str::to_owned));
    Input::Inline(InlineMedia { data: vec![7; bytes].into(), name, media_type })
}

#[track_caller]
fn keeps(change: impl FnOnce(&mut Job)) {
    let mut job = job();
    change(&mut job);
    assert_eq!(job.check(), Ok(()));
}

#[track_caller]
fn breaks(code: &str, named: &str, change: impl FnOnce(&mut Job)) {
    let mut job = job();
    change(&mut job);
    let error = job.check().unwrap_err();
    assert_eq!(error.code, code, "{error:?}");
    assert!(error.message.contains(named), "{error:?} does not name {named:?}");
}

#[test]
fn names() {
    let longest = "n".repeat(NAME_BYTES_MAX);
    let longer = "n".repeat(NAME_BYTES_MAX + 1);
    keeps(|job| (job.tenant, job.subject, job.model) = (longest.clone(), longest.clone(), Some(longest.clone())));
    keeps(|job| (job.subject, job.model) = ("a/b c".to_owned(), Some("org/whisper:large".to_owned())));
    for bad in [longer.as_str(), "", "a\nb", "a\0", "\u{85}"] {
        breaks("invalid_field", "tenant", |job| job.tenant = bad.to_owned());
        breaks("invalid_field", "subject", |job| job.subject = bad.to_owned());
        breaks("invalid_field", "model", |job| job.model = Some(bad.to_owned()));
        breaks("invalid_field", "hop", |job| job.hops = vec![Hop { hop: bad.to_owned(), at_us: 0 }]);
        breaks("invalid_field", "name", |job| job.input = inline(1, Some(bad), None));
    }
    breaks("invalid_field", "tenant", |job| job.tenant = "a/b".to_owned());
}

#[test]
fn keys_times_attempts_hops() {
    keeps(|job| job.idempotency_key = Some("k".repeat(255)));
    breaks("invalid_field", "idempotency_key", |job| job.idempotency_key = Some("k".repeat(256)));
    breaks("invalid_field", "idempotency_key", |job| job.idempotency_key = Some(String::new()));
    keeps(|job| (job.deadline, job.not_before) = (Some(TIME_MS_MAX), Some(0)));
    breaks("invalid_field", "deadline", |job| job.deadline = Some(TIME_MS_MAX + 1));
    breaks("invalid_field", "not_before", |job| job.not_before = Some(u64::MAX));
    keeps(|job| (job.attempts_max, job.attempt) = (Some(ATTEMPTS_MAX), ATTEMPT_NUMBER_MAX));
    breaks("invalid_field", "attempts_max", |job| job.attempts_max = Some(0));
    breaks("invalid_field", "attempts_max", |job| job.attempts_max = Some(ATTEMPTS_MAX + 1));
    breaks("invalid_field", "attempt", |job| job.attempt = ATTEMPT_NUMBER_MAX + 1);
    let hop = Hop { hop: "client".to_owned(), at_us: u64::MAX };
    keeps(|job| job.hops = vec![hop.clone(); HOPS_MAX]);
    breaks("invalid_field", "hops", |job| job.hops = vec![hop.clone(); HOPS_MAX + 1]);
}

#[test]
fn trace_contexts_are_small_and_plain_but_need_not_make_sense() {
    for good in ["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "garbage", ""] {
        keeps(|job| job.traceparent = Some(good.to_owned()));
    }
    for bad in ["t".repeat(TRACEPARENT_BYTES_MAX + 1), "00-\r\nx: y".to_owned(), "ü".to_owned(), "a b".to_owned()] {
        breaks("invalid_field", "traceparent", |job| job.traceparent = Some(bad));
    }
}

#[test]
fn inline_inputs() {
    keeps(|job| job.input = inline(INLINE_BYTES_MAX, Some("a.wav"), Some("audio/ogg; codecs=opus")));
    breaks("too_large", "upload it", |job| job.input = inline(INLINE_BYTES_MAX + 1, None, None));
    breaks("empty_media", "empty", |job| job.input = inline(0, None, None));
    keeps(|job| job.input = Input::Text("t".repeat(INLINE_BYTES_MAX)));
    breaks("too_large", "upload it", |job| job.input = Input::Text("t".repeat(INLINE_BYTES_MAX + 1)));
    breaks("empty_media", "empty", |job| job.input = Input::Text(String::new()));
    let long = "m".repeat(MEDIA_TYPE_BYTES_MAX + 1);
    for bad in [long.as_str(), "audio/wav\r\nx: y", "große/datei"] {
        breaks("invalid_field", "media_type", |job| job.input = inline(1, None, Some(bad)));
    }
}

#[test]
fn urls() {
    keeps(|job| job.input = Input::Url(format!("https://x.example/{}", "u".repeat(URL_BYTES_MAX - 18))));
    breaks("invalid_field", "url", |job| job.input = Input::Url("u".repeat(URL_BYTES_MAX + 1)));
    breaks("invalid_field", "url", |job| job.input = Input::Url("http://a/ b".to_owned()));
    breaks("invalid_field", "url", |job| job.input = Input::Url("http://a/\r\n".to_owned()));
    breaks("empty_media", "empty", |job| job.input = Input::Url(String::new()));
}

#[test]
fn stored_objects_stay_inside_the_store() {
    for good in ["a", "team-a/019f/talk.flac", "..a/b..", "ä/ö", &"p".repeat(OBJECT_PATH_BYTES_MAX)] {
        keeps(|job| job.input = Input::Object(object(good, SHA256)));
    }
    let long = "p".repeat(OBJECT_PATH_BYTES_MAX + 1);
    for bad in
        ["", "/etc/passwd", "..", "../a", "a/../b", "a/..", "./a", "a/./b", "a//b", "a/", "a\\..\\b", "a\0", &long]
    {
        breaks("invalid_field", "path", |job| job.input = Input::Object(object(bad, SHA256)));
    }
}

#[test]
fn digests_and_sizes_of_stored_objects() {
    let upper = SHA256.to_uppercase();
    let signed = format!("{}+f", &SHA256[..62]);
    for bad in ["", &SHA256[..63], &format!("{SHA256}0"), &upper, &signed, &"g".repeat(64), &"ü".repeat(32)] {
        breaks("invalid_field", "sha256", |job| job.input = Input::Object(object("a", bad)));
    }
    let sized = |bytes| Input::Object(StoredObject { bytes, ..object("a", SHA256) });
    keeps(|job| job.input = sized(UPLOAD_BYTES_MAX));
    breaks("too_large", "over the limit", |job| job.input = sized(UPLOAD_BYTES_MAX + 1));
    breaks("empty_media", "empty", |job| job.input = sized(0));
}

fn params(json: Value) -> impl FnOnce(&mut Job) {
    let Value::Object(params) = json else { panic!("parameters are an object") };
    move |job| job.params = params
}

#[test]
fn parameters_have_their_kind() {
    keeps(params(json!({ "temperature": 0.5, "max_tokens": 7, "system": "x", "stop": ["a", { "b": null }] })));
    keeps(params(json!({ "temperature": "0.5", "max_tokens": "7" })));
    for bad in [json!("warm"), json!("NaN"), json!("inf"), json!(true), json!(null), json!([1])] {
        breaks("invalid_parameter", "temperature", params(json!({ "temperature": bad })));
    }
    for bad in [json!(-1), json!(1.5), json!("-1"), json!("1.5"), json!("")] {
        breaks("invalid_parameter", "max_tokens", params(json!({ "max_tokens": bad })));
    }
    breaks("invalid_parameter", "system", params(json!({ "system": 1 })));
    breaks("unknown_parameter", "it knows: system, temperature", params(json!({ "temprature": 1 })));
}

/// Every bound of every task: what lies on it passes, what lies just beyond is refused with the bounds.
#[test]
fn parameters_have_their_range() {
    let mut bounds = 0;
    for (task, param) in TASKS.iter().flat_map(|task| task.params().iter().map(move |param| (*task, param))) {
        let (good, bad) = match param.kind {
            ParamKind::Text | ParamKind::Flag | ParamKind::Json => continue,
            ParamKind::Number(min, max) => {
                (vec![json!(min), json!(max), json!(max.to_string())], vec![json!(min - 0.005), json!(max + 0.005)])
            }
            ParamKind::Count(min, max) => {
                let below = i64::try_from(min).unwrap() - 1;
                let good = vec![json!(min), json!(max), json!(max.to_string())];
                (good, vec![json!(below), json!(max + 1), json!(u64::MAX.to_string()), json!(min as f64 + 0.5)])
            }
            ParamKind::Choice(words) => {
                let upper = words.iter().map(|word| json!(word.to_uppercase()));
                (words.iter().map(|word| json!(word)).chain(upper).collect(), vec![json!("gif"), json!(""), json!(1)])
            }
            ParamKind::Size(min, max) => {
                let bad = ["", "x", "512", "512X512", "512x512x512", " 512x512", "-512x512"].map(|text| json!(text));
                let beyond = [json!(format!("{}x{max}", min - 1)), json!(format!("{min}x{}", max + 1)), json!(512)];
                (vec![json!(format!("{min}x{max}"))], bad.into_iter().chain(beyond).collect())
            }
        };
        let with = |value| {
            move |job: &mut Job| {
                job.task = task;
                job.params = Map::from_iter([(param.name.to_owned(), value)]);
            }
        };
        good.into_iter().for_each(|value| keeps(with(value)));
        for value in bad {
            let says = format!("parameter \"{}\" of task {task} must be {}, not {value}", param.name, param.kind);
            breaks("invalid_parameter", &says, with(value));
        }
        bounds += 1;
    }
    assert!(bounds > 15, "{bounds} parameters with bounds");
}

#[test]
fn a_refusal_says_the_bounds_and_repeats_no_long_value() {
    breaks("invalid_parameter", "must be a number from 0 to 2, not 2.5", params(json!({ "temperature": 2.5 })));
    let long = "9".repeat(1_000);
    breaks("invalid_parameter", "from 1 to 2147483647, not something longer", params(json!({ "max_tokens": long })));
}

#[test]
fn flags_and_tasks_without_parameters() {
    let flag = |value: Value| {
        move |job: &mut Job| {
            job.task = Task::Transcribe;
            job.params = Map::from_iter([("words".to_owned(), value)]);
        }
    };
    keeps(flag(json!(true)));
    keeps(flag(json!("false")));
    breaks("invalid_parameter", "true or false", flag(json!(1)));
    breaks("invalid_parameter", "true or false", flag(json!("yes")));
    breaks("unknown_parameter", "it knows: none", |job| {
        job.task = Task::Probe;
        job.params = Map::from_iter([("deep".to_owned(), json!(true))]);
    });
}

#[test]
fn parameters_have_a_limit() {
    let text = |bytes: usize| params(json!({ "system": "s".repeat(bytes - "system".len() - 2) }));
    keeps(text(PARAMS_BYTES_MAX));
    breaks("invalid_parameter", "over the limit", text(PARAMS_BYTES_MAX + 1));
}
