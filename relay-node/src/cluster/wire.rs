//! How questions reach a coordinator: HTTP, or whatever a simulation has in its place.

use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use bytes::Bytes;
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;

use crate::settings::CoordinatorSettings;

/// Largest answer of a coordinator, in bytes.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A question to one coordinator.
#[derive(Debug, Clone)]
pub struct Question {
    /// Which, by its URL without a slash at the end.
    pub url: String,
    /// What is asked for, from the slash on.
    pub path_and_query: String,
    /// JSON; with it the question is a POST, else a GET.
    pub body: Option<Bytes>,
    /// How long it may take.
    pub timeout: Duration,
}

/// Brings questions to coordinators.
#[async_trait]
pub trait Wire: Send + Sync {
    /// Status and body of the answer.
    ///
    /// # Errors
    /// None came within the question's time.
    async fn ask(&self, question: Question) -> anyhow::Result<(u16, Bytes)>;
}

/// HTTP, with the node's token.
pub struct HttpWire {
    token: Option<String>,
    client: reqwest::Client,
}

impl HttpWire {
    /// What the settings say.
    ///
    /// # Errors
    /// The token file cannot be read, or no HTTP client can be made.
    pub fn new(settings: &CoordinatorSettings) -> anyhow::Result<Self> {
        let token = match settings.token_file.as_str() {
            "" => None,
            file => {
                let text =
                    std::fs::read_to_string(file).with_context(|| format!("reading coordinator.token_file {file}"))?;
                Some(text.trim().to_owned())
            }
        };
        let client = reqwest::Client::builder().no_proxy().build().context("making an HTTP client")?;
        Ok(Self { token, client })
    }
}

#[async_trait]
impl Wire for HttpWire {
    async fn ask(&self, question: Question) -> anyhow::Result<(u16, Bytes)> {
        let Question { url, path_and_query, body, timeout } = question;
        let method = if body.is_some() { Method::POST } else { Method::GET };
        let mut request = self.client.request(method, format!("{url}{path_and_query}")).timeout(timeout);
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        let body = response.bytes().await?;
        anyhow::ensure!(body.len() <= ANSWER_BYTES_MAX, "the coordinator's answer has {} bytes", body.len());
        Ok((status, body))
    }
}
