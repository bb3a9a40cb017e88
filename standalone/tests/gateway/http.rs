//! The client's end of the HTTP job API.

use relay_protocol::{Event, EventKind};
use reqwest::multipart::{Form, Part};
use reqwest::{Response, StatusCode};
use serde_json::Value;
use tokio::time::timeout;

use crate::cluster::{Cluster, PATIENCE};

/// An error body, checked for its shape.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// Stable code.
    pub(crate) code: String,
    /// What went wrong and what to do.
    pub(crate) message: String,
    /// Whether the same may succeed later.
    pub(crate) retryable: bool,
}

/// A form with one file and a task.
pub(crate) fn file_form(task: &str, file: impl Into<Vec<u8>>) -> Form {
    Form::new().text("task", task.to_owned()).part("file", file_part(file))
}

/// A file of a form.
pub(crate) fn file_part(file: impl Into<Vec<u8>>) -> Part {
    Part::bytes(file.into()).file_name("input.bin")
}

/// `POST /v1/jobs` with a form.
pub(crate) async fn post_form(cluster: &Cluster, form: Form) -> Response {
    let request = reqwest::Client::new().post(format!("{}/v1/jobs", cluster.url())).multipart(form);
    answer(request).await
}

/// `POST /v1/jobs` with a body that says it is JSON.
pub(crate) async fn post_json(cluster: &Cluster, body: impl Into<reqwest::Body>) -> Response {
    let request = reqwest::Client::new().post(format!("{}/v1/jobs", cluster.url()));
    answer(request.header("Content-Type", "application/json").body(body)).await
}

/// The answer, in time.
pub(crate) async fn answer(request: reqwest::RequestBuilder) -> Response {
    timeout(PATIENCE, request.send()).await.expect("an answer in time").expect("an answer")
}

/// Checks status, code and shape of a refusal and that its message holds each of `says`.
pub(crate) async fn expect_refusal(case: &str, response: Response, status: u16, code: &str, says: &[&str]) -> Refusal {
    let found = response.status();
    let text = response.text().await.expect("the body comes");
    assert_eq!(found.as_u16(), status, "{case}: {text}");
    let body: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{case}: {error}: {text}"));
    let body = body.as_object().unwrap_or_else(|| panic!("{case}: {text}"));
    assert_eq!(body.keys().collect::<Vec<_>>(), ["error"], "{case}");
    let error = body["error"].as_object().unwrap_or_else(|| panic!("{case}: {text}"));
    assert_eq!(error.keys().collect::<Vec<_>>(), ["code", "message", "retryable"], "{case}");
    let refusal = Refusal {
        code: error["code"].as_str().expect("a code").to_owned(),
        message: error["message"].as_str().expect("a message").to_owned(),
        retryable: error["retryable"].as_bool().expect("retryable"),
    };
    assert_eq!(refusal.code, code, "{case}: {refusal:?}");
    expect_says(case, &refusal.message, says);
    assert!(!refusal.retryable, "{case}: the same request will be refused again: {refusal:?}");
    refusal
}

/// The message holds each of `says`.
pub(crate) fn expect_says(case: &str, message: &str, says: &[&str]) {
    for part in says {
        assert!(message.contains(part), "{case}: the message does not say {part:?}: {message}");
    }
}

/// The id of an accepted job.
pub(crate) async fn expect_accepted(case: &str, response: Response) -> String {
    let status = response.status();
    let body: Value = response.json().await.expect("the answer is JSON");
    assert_eq!(status, StatusCode::ACCEPTED, "{case}: {body}");
    body["job_id"].as_str().expect("a job id").to_owned()
}

/// The job's last event, from its stream of server-sent events, which must end by itself.
pub(crate) async fn terminal_event(cluster: &Cluster, job_id: &str) -> Event {
    let stream = async {
        let response = answer(reqwest::Client::new().get(format!("{}/v1/jobs/{job_id}/events", cluster.url()))).await;
        assert_eq!(response.status(), StatusCode::OK);
        response.text().await.expect("the stream ends")
    };
    let text = timeout(PATIENCE, stream).await.expect("the job ends in time");
    let events: Vec<Event> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|json| serde_json::from_str(json).expect("an event"))
        .collect();
    let last = events.last().cloned().expect("at least one event");
    assert!(last.event.is_terminal(), "{last:?}");
    assert_eq!(events.iter().filter(|event| event.event.is_terminal()).count(), 1, "{text}");
    last
}

/// The job failed for good with this code, at its first attempt, and its message holds each of `says`.
pub(crate) async fn expect_failed(cluster: &Cluster, case: &str, job_id: &str, code: &str, says: &[&str]) {
    let last = terminal_event(cluster, job_id).await;
    assert_eq!(last.event, EventKind::Failed, "{case}: {last:?}");
    assert_eq!(last.attempt, 1, "{case}: tried more than once");
    let error = last.error.expect("a failed event has its error");
    assert_eq!((error.code.as_str(), error.retryable), (code, false), "{case}: {error:?}");
    expect_says(case, &error.message, says);
}
