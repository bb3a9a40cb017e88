//! The client's end of the HTTP job API.

use std::time::Duration;

use relay_protocol::{Event, EventKind};
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::cluster::PATIENCE;

/// Wait between two looks at something that has no event to wait for.
const LOOK: Duration = Duration::from_millis(20);

/// The API of one node, for one caller.
#[derive(Clone)]
pub(crate) struct Api {
    client: reqwest::Client,
    url: String,
    token: Option<String>,
}

/// A job's stream of server-sent events.
pub(crate) struct Stream {
    response: Response,
    text: String,
}

impl Api {
    /// The API at `url` with this token.
    pub(crate) fn new(url: String, token: Option<String>) -> Self {
        relay_runtime::tls::install_provider();
        Self { client: reqwest::Client::new(), url, token }
    }

    /// A request.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.url));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Status and JSON of `GET`.
    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        answer(self.request(Method::GET, path)).await
    }

    /// Status and JSON of `DELETE`.
    pub(crate) async fn delete(&self, path: &str) -> (u16, Value) {
        answer(self.request(Method::DELETE, path)).await
    }

    /// Status and JSON of a submit; `fields` are added to a job with a small input.
    pub(crate) async fn post(&self, fields: Value) -> (u16, Value) {
        answer(self.request(Method::POST, "/v1/jobs").json(&job(fields))).await
    }

    /// Submits a job and returns its id.
    pub(crate) async fn submit(&self, fields: Value) -> String {
        let (status, body) = self.post(fields).await;
        assert_eq!(status, 202, "{body}");
        body["job_id"].as_str().expect("a job id").to_owned()
    }

    /// The events from `after` (a `Last-Event-ID`) on.
    pub(crate) async fn events(&self, job_id: &str, after: Option<u64>) -> Stream {
        let mut request = self.request(Method::GET, &format!("/v1/jobs/{job_id}/events"));
        if let Some(after) = after {
            request = request.header("Last-Event-ID", after.to_string());
        }
        let response = timeout(PATIENCE, request.send()).await.expect("an answer in time").expect("an answer");
        assert_eq!(response.status().as_u16(), 200);
        let kind = response.headers().get("content-type").map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(kind.as_deref(), Some("text/event-stream"));
        Stream { response, text: String::new() }
    }

    /// A job's whole life once it has ended: a sound list.
    pub(crate) async fn life(&self, job_id: &str) -> Vec<Event> {
        let events = self.events(job_id, None).await.rest().await;
        expect_sound(&events);
        events
    }

    /// Waits until the node takes no new work: it is told to stop, or gone.
    pub(crate) async fn wait_gone(&self) {
        let began = Instant::now();
        while let Ok(answer) = self.request(Method::GET, "/readyz").send().await
            && answer.status().is_success()
        {
            assert!(began.elapsed() < PATIENCE, "the node takes work still");
            sleep(LOOK).await;
        }
    }

    /// Waits until the job is in this state.
    pub(crate) async fn wait_state(&self, job_id: &str, state: &str) -> Value {
        let began = Instant::now();
        loop {
            let (status, body) = self.get(&format!("/v1/jobs/{job_id}")).await;
            if status == 200 && body["state"] == state {
                return body;
            }
            assert!(began.elapsed() < PATIENCE, "job {job_id} should be {state}: {status} {body}");
            sleep(LOOK).await;
        }
    }
}

impl Stream {
    /// The next event; `None` once the node has closed the stream.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        timeout(PATIENCE, self.event()).await.expect("an event or the end in time")
    }

    async fn event(&mut self) -> Option<Event> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                if block.starts_with(':') {
                    continue;
                }
                return Some(event_of(&block));
            }
            match self.response.chunk().await.expect("the stream is whole") {
                Some(bytes) => self.text.push_str(std::str::from_utf8(&bytes).expect("UTF-8")),
                None => {
                    assert_eq!(self.text, "", "the stream ends within an event");
                    return None;
                }
            }
        }
    }

    /// The next event, which must be of this kind.
    pub(crate) async fn expect(&mut self, kind: EventKind) -> Event {
        let event = self.next().await.unwrap_or_else(|| panic!("{kind:?} was expected, not the end"));
        assert_eq!(event.event, kind, "{event:?}");
        event
    }

    /// All further events, until the node closes the stream.
    pub(crate) async fn rest(mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }
}

/// One event, as it must be written.
fn event_of(block: &str) -> Event {
    let lines: Vec<_> = block.lines().map(|line| line.split_once(": ").unwrap_or((line, ""))).collect();
    let [("id", id), ("event", kind), ("data", data)] = lines[..] else { panic!("not id, event, data: {block:?}") };
    let event: Event = serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data}"));
    assert_eq!((id, kind), (event.seq.to_string().as_str(), event.event.name()), "{block}");
    event
}

/// Status and JSON of a request.
pub(crate) async fn answer(request: RequestBuilder) -> (u16, Value) {
    let (status, _, body) = answer_with_headers(request).await;
    (status, body)
}

/// Status, headers and JSON of a request.
pub(crate) async fn answer_with_headers(request: RequestBuilder) -> (u16, HeaderMap, Value) {
    let response = timeout(PATIENCE, request.send()).await.expect("an answer in time").expect("an answer");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.expect("the body comes");
    let body = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {status} {text:?}"));
    (status, headers, body)
}

/// The answer is this refusal.
pub(crate) fn expect_refusal((status, body): (u16, Value), expected: u16, code: &str) -> String {
    assert_eq!((status, body["error"]["code"].as_str()), (expected, Some(code)), "{body}");
    body["error"]["message"].as_str().expect("a message").to_owned()
}

/// A job with a small input and these fields.
pub(crate) fn job(fields: Value) -> Value {
    let mut job = json!({ "task": "vad", "input": { "inline": { "data": "c291bmQ=" } } });
    for (name, value) in fields.as_object().expect("fields") {
        job[name] = value.clone();
    }
    job
}

/// `accepted` first, seqs that rise, one terminal event, last.
pub(crate) fn expect_sound(events: &[Event]) {
    assert_eq!(events.first().map(|event| event.event), Some(EventKind::Accepted), "{events:#?}");
    assert!(events.windows(2).all(|two| two[0].seq < two[1].seq), "seqs do not rise: {events:#?}");
    assert!(events.windows(2).all(|two| two[0].attempt <= two[1].attempt), "attempts fall: {events:#?}");
    let terminal: Vec<bool> = events.iter().map(|event| event.event.is_terminal()).collect();
    assert_eq!(terminal.iter().filter(|is| **is).count(), 1, "{events:#?}");
    assert_eq!(terminal.last(), Some(&true), "{events:#?}");
}

/// The kinds of events.
pub(crate) fn kinds(events: &[Event]) -> Vec<EventKind> {
    events.iter().map(|event| event.event).collect()
}
