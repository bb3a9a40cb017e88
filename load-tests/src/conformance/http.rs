//! A node's HTTP API, driven as a reference client does.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use relay_protocol::{Event, JobId};
use relay_runtime::clock::{Clock as _, SystemClock};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use serde_json::{Value, json};

use super::report::Report;
use super::sound::tone;

/// Longest wait for an answer, and for the end of a job.
const PATIENCE: Duration = Duration::from_secs(60);

/// The built-in task that the checks submit: it needs no backend.
pub(super) const TASK: &str = "loudness";

/// Checks the HTTP API at `url`.
pub async fn check(url: &Url, token: Option<&str>, report: &mut Report) {
    let api = match Api::new(url, token) {
        Ok(api) => api,
        Err(error) => return report.expect("http.client", "a client can be made", Err(error)),
    };
    report.expect("http.ready", "GET /readyz is 200 and says ready", api.ready().await);
    let id = new_job_id();
    report.expect(
        "http.submit",
        "POST /v1/jobs is 202 with Location, the job's id and its receipt",
        api.submit(id).await,
    );
    report.expect("http.submit_again", "the same job submitted again is answered by the same id", api.submit(id).await);
    let expected = "GET /v1/jobs/{id}/events: rising ids, accepted first, one terminal event, then the end";
    report.expect("http.events", expected, api.events(id).await);
    report.expect("http.status", "GET /v1/jobs/{id} tells the terminal event", api.status(id).await);
    let submit = |body: &str| api.post("/v1/jobs").header("content-type", "application/json").body(body.to_owned());
    let sing = r#"{"task":"sing","input":{"text":"la"}}"#;
    let field = r#"{"task":"chat","input":{"text":"la"},"verson":1}"#;
    let empty = r#"{"task":"chat","input":{"text":""}}"#;
    let cases = [
        ("http.unknown_task", "an unknown task", submit(sing), StatusCode::BAD_REQUEST, "unknown_task"),
        ("http.unknown_field", "an unknown field", submit(field), StatusCode::BAD_REQUEST, "bad_request"),
        ("http.not_json", "a body that is not JSON", submit("{"), StatusCode::BAD_REQUEST, "bad_request"),
        ("http.empty_input", "an empty input", submit(empty), StatusCode::BAD_REQUEST, "empty_media"),
        ("http.no_uuid", "a job id that is no UUID", api.get("/v1/jobs/1"), StatusCode::BAD_REQUEST, "invalid_field"),
        (
            "http.unknown_job",
            "a job that is not there",
            api.get(&format!("/v1/jobs/{}", new_job_id())),
            StatusCode::NOT_FOUND,
            "unknown_job",
        ),
        ("http.unknown_path", "an unknown address", api.get("/v1/nothing"), StatusCode::NOT_FOUND, "not_found"),
    ];
    for (name, what, request, status, code) in cases {
        report.expect(
            name,
            &format!("{what} is refused with {} {code}", status.as_u16()),
            refused(request, status, code).await,
        );
    }
}

/// A version 7 id of now, its events in any partition.
pub(super) fn new_job_id() -> JobId {
    JobId::new(SystemClock.now_ms(), rand::random(), rand::random())
}

struct Api {
    client: Client,
    base: Url,
    token: Option<String>,
}

impl Api {
    fn new(url: &Url, token: Option<&str>) -> anyhow::Result<Self> {
        let client = Client::builder().timeout(PATIENCE).build()?;
        Ok(Self { client, base: url.clone(), token: token.map(str::to_owned) })
    }

    fn with_token(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    fn address(&self, path: &str) -> String {
        format!("{}{path}", self.base.as_str().trim_end_matches('/'))
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.with_token(self.client.get(self.address(path)))
    }

    fn post(&self, path: &str) -> RequestBuilder {
        self.with_token(self.client.post(self.address(path)))
    }

    async fn ready(&self) -> anyhow::Result<()> {
        let answer = answered(self.get("/readyz"), StatusCode::OK).await?;
        let body: Value = answer.json().await.context("the body is not JSON")?;
        ensure!(body["ready"] == true, "{body}");
        Ok(())
    }

    async fn submit(&self, id: JobId) -> anyhow::Result<()> {
        let data = STANDARD.encode(tone()?);
        let job = json!({ "id": id, "task": TASK, "input": { "inline": { "data": data, "name": "tone.wav" } } });
        let answer = answered(self.post("/v1/jobs").json(&job), StatusCode::ACCEPTED).await?;
        let location = answer.headers().get("location").and_then(|value| value.to_str().ok()).unwrap_or_default();
        ensure!(location == format!("/v1/jobs/{id}"), "Location {location:?}");
        let body: Value = answer.json().await.context("the body is not JSON")?;
        ensure!(body["job_id"] == json!(id), "{body}");
        let receipt: Event = serde_json::from_value(body["last"].clone()).context("no receipt in last")?;
        ensure!(receipt.place.is_some(), "the receipt names no place: {body}");
        Ok(())
    }

    async fn events(&self, id: JobId) -> anyhow::Result<()> {
        let answer = answered(self.get(&format!("/v1/jobs/{id}/events")), StatusCode::OK).await?;
        let text = answer.text().await.context("the stream broke off")?;
        let mut events: Vec<Event> = Vec::new();
        for message in text.split("\n\n") {
            let field = |name: &str| message.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            let (Some(data), Some(sent_id)) = (field("data:"), field("id:")) else { continue };
            let event: Event = serde_json::from_str(data).with_context(|| format!("no event: {data}"))?;
            ensure!(sent_id == event.seq.to_string(), "id {sent_id} beside seq {}", event.seq);
            events.push(event);
        }
        in_order(&events, id)
    }

    async fn status(&self, id: JobId) -> anyhow::Result<()> {
        let answer = answered(self.get(&format!("/v1/jobs/{id}")), StatusCode::OK).await?;
        let body: Value = answer.json().await.context("the body is not JSON")?;
        ensure!(body["state"] == "completed" && body["last"]["event"] == "completed", "{body}");
        ensure!(body["last"]["result"].is_object(), "no result: {body}");
        Ok(())
    }
}

/// The events of a job that completed: `accepted` first, seqs rising, the only terminal one last.
///
/// # Errors
/// What is wrong with them.
pub(super) fn in_order(events: &[Event], id: JobId) -> anyhow::Result<()> {
    let kinds: Vec<_> = events.iter().map(|event| event.event.name()).collect();
    ensure!(events.iter().all(|event| event.job_id == id), "an event of another job");
    ensure!(kinds.first() == Some(&"accepted") && kinds.last() == Some(&"completed"), "{kinds:?}");
    ensure!(events.windows(2).all(|pair| pair[0].seq < pair[1].seq), "seqs do not rise: {kinds:?}");
    ensure!(events.iter().filter(|event| event.event.is_terminal()).count() == 1, "{kinds:?}");
    Ok(())
}

async fn answered(request: RequestBuilder, status: StatusCode) -> anyhow::Result<Response> {
    let answer = request.send().await.context("no answer")?;
    if answer.status() != status {
        let (found, body) = (answer.status(), answer.text().await.unwrap_or_default());
        anyhow::bail!("{found} instead of {status}: {}", body.chars().take(300).collect::<String>());
    }
    Ok(answer)
}

async fn refused(request: RequestBuilder, status: StatusCode, code: &str) -> anyhow::Result<()> {
    let body: Value = answered(request, status).await?.json().await.context("the body is not JSON")?;
    let error = &body["error"];
    ensure!(error["code"] == code, "{body}");
    ensure!(error["message"].is_string() && error["retryable"].is_boolean(), "no message or retryable: {body}");
    Ok(())
}
