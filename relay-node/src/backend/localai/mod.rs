//! A client of one LocalAI server.
//!
//! What is sent and what comes back follow recorded answers of LocalAI v4.9 (`fixtures/localai`). Whether a failure is
//! permanent is decided by what it says, not by its status alone: see [`failure`].

mod answer;
pub mod failure;
pub mod paced;
mod request;
mod sse;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use futures_util::StreamExt;
use relay_protocol::cluster::BackendInfo;
use relay_protocol::{ErrorCode, JobId, Task};
use relay_runtime::reach::Reach;
use serde::Deserialize;

use self::paced::Limits;
use super::forward::Forward;
use super::pool::Connect;
use super::{Backend, BackendError, Call, Output, Updates};

/// Section `[localai]`; meaning and defaults are in `config/relay-node.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/relay-node.toml is their documentation")]
pub struct LocalAiSettings {
    pub connect_timeout_ms: u64,
    pub silence_timeout_ms: u64,
    pub answer_bytes_max: usize,
    pub api_key_file: String,
}

/// One LocalAI server.
pub struct LocalAi {
    url: String,
    reach: Reach,
    api_key: Option<Arc<str>>,
    limits: Limits,
}

impl LocalAi {
    /// What makes a client for each server; they share connections and settings.
    ///
    /// # Errors
    /// The API key cannot be read, or no HTTP client can be made.
    pub fn connector(settings: &LocalAiSettings) -> anyhow::Result<Box<Connect>> {
        let api_key: Option<Arc<str>> = match settings.api_key_file.as_str() {
            "" => None,
            file => {
                let key =
                    std::fs::read_to_string(file).with_context(|| format!("reading localai.api_key_file {file}"))?;
                Some(key.trim().into())
            }
        };
        let connect_timeout = Duration::from_millis(settings.connect_timeout_ms);
        let silence_timeout = Duration::from_millis(settings.silence_timeout_ms);
        let builder = move || {
            let builder = reqwest::Client::builder().connect_timeout(connect_timeout);
            builder.read_timeout(silence_timeout).no_proxy()
        };
        let client = builder().build().context("making an HTTP client")?;
        let limits = Limits { bytes_max: settings.answer_bytes_max, silence: silence_timeout };
        Ok(Box::new(move |info: &BackendInfo| {
            let reach = Reach::new(&client, builder, &info.url, info.via.as_deref())?;
            let (url, api_key) = (info.url.trim_end_matches('/').to_owned(), api_key.clone());
            Ok(Arc::new(Self { url, reach, api_key, limits }))
        }))
    }

    fn post(&self, path: &str, call: &Call) -> reqwest::RequestBuilder {
        self.request(path, call.job_id, call.traceparent.as_deref())
    }

    fn request(&self, path: &str, job_id: JobId, traceparent: Option<&str>) -> reqwest::RequestBuilder {
        let mut request =
            self.reach.request(reqwest::Method::POST, path).header("X-Correlation-ID", job_id.to_string());
        if let Some(traceparent) = traceparent {
            request = request.header("traceparent", traceparent);
        }
        match &self.api_key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// Sends a request and returns its answer if it is a good one.
    async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, BackendError> {
        let response = request.send().await.map_err(|error| failure::transport(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let (status, retry_after) = (response.status().as_u16(), failure::retry_after(response.headers()));
        let body = self.body(response).await?;
        Err(failure::of_answer(status, &body, retry_after))
    }

    /// The whole body, up to the limit.
    async fn body(&self, response: reqwest::Response) -> Result<bytes::Bytes, BackendError> {
        let mut bytes = bytes::BytesMut::new();
        let mut parts = pin!(paced::parts(response, self.limits));
        while let Some(part) = parts.next().await {
            bytes.extend_from_slice(&part?);
        }
        Ok(bytes.freeze())
    }
}

#[async_trait]
impl Backend for LocalAi {
    fn name(&self) -> &str {
        &self.url
    }

    async fn call(&self, call: Call, updates: Updates) -> Result<Output, BackendError> {
        match call.task {
            Task::Transcribe | Task::Translate => self.transcribe(&call, &updates).await,
            Task::Chat => self.chat(&call, &updates).await,
            Task::Speak => self.speak(&call).await,
            Task::Image => self.image(&call).await,
            Task::Embed => self.embed(&call).await,
            Task::Vad => self.vad(&call).await,
            Task::Probe | Task::Loudness | Task::Waveform | Task::Thumbnail => Err(BackendError::Rejected {
                code: ErrorCode::BackendRejected,
                reason: format!("task {} does not run on LocalAI", call.task),
            }),
        }
    }

    async fn forward(&self, forward: Forward) -> Result<reqwest::Response, BackendError> {
        let Forward { path, content_type, body, bytes, job_id, traceparent } = forward;
        let request = self
            .request(path, job_id, Some(&traceparent))
            .header(reqwest::header::CONTENT_TYPE, content_type)
            .header(reqwest::header::CONTENT_LENGTH, bytes)
            .body(body);
        request.send().await.map_err(|error| failure::transport(&error))
    }
}

impl LocalAi {
    async fn transcribe(&self, call: &Call, updates: &Updates) -> Result<Output, BackendError> {
        let words = request::flag(&call.params, "words");
        let form = request::transcription(call, words).await?;
        let response = self.send(self.post("/v1/audio/transcriptions", call).multipart(form)).await?;
        if words {
            return answer::transcript(&self.body(response).await?);
        }
        sse::transcript(response, self.limits, updates).await
    }

    async fn chat(&self, call: &Call, updates: &Updates) -> Result<Output, BackendError> {
        let body = request::chat(call).await?;
        let response = self.send(self.post("/v1/chat/completions", call).json(&body)).await?;
        sse::chat(response, self.limits, updates).await
    }

    async fn speak(&self, call: &Call) -> Result<Output, BackendError> {
        let body = request::speech(call).await?;
        let response = self.send(self.post("/v1/audio/speech", call).json(&body)).await?;
        let media_type = response
            .headers()
            .get(reqwest::header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("application/octet-stream")
            .to_owned();
        answer::speech(&media_type, self.body(response).await?)
    }

    async fn image(&self, call: &Call) -> Result<Output, BackendError> {
        let body = request::image(call).await?;
        let response = self.send(self.post("/v1/images/generations", call).json(&body)).await?;
        answer::image(&self.body(response).await?)
    }

    async fn embed(&self, call: &Call) -> Result<Output, BackendError> {
        let body = request::embedding(call).await?;
        let response = self.send(self.post("/v1/embeddings", call).json(&body)).await?;
        answer::embeddings(&self.body(response).await?)
    }

    async fn vad(&self, call: &Call) -> Result<Output, BackendError> {
        let (body, duration) = request::vad(call).await?;
        let response = self.send(self.post("/vad", call).json(&body)).await?;
        answer::vad(&self.body(response).await?, duration)
    }
}
