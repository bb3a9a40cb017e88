//! One question to the relay's HTTP API: the first server that can be reached answers it.

use relay_protocol::{ErrorCode, JobError};
use reqwest::RequestBuilder;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::output::Failure;
use crate::settings::{ClientSettings, http_url};
use crate::tls::Trust;

/// Asks, in the way that `GET` does.
pub(super) async fn get<T: DeserializeOwned>(settings: &ClientSettings, path: &str) -> Result<T, Failure> {
    ask(settings, path, |client, url| client.get(url)).await
}

/// Asks for something to be done. The relay does it once, however often it is asked.
pub(super) async fn post<T: DeserializeOwned>(
    settings: &ClientSettings,
    path: &str,
    body: &impl Serialize,
) -> Result<T, Failure> {
    let body = serde_json::to_vec(body).map_err(|error| Failure::Usage(error.to_string()))?;
    let post = |client: &reqwest::Client, url: String| {
        client.post(url).header(reqwest::header::CONTENT_TYPE, "application/json").body(body.clone())
    };
    ask(settings, path, post).await
}

async fn ask<T: DeserializeOwned>(
    settings: &ClientSettings,
    path: &str,
    request: impl Fn(&reqwest::Client, String) -> RequestBuilder,
) -> Result<T, Failure> {
    let client = Trust::of(settings)?
        .http()?
        .connect_timeout(settings.connect_timeout)
        .timeout(settings.reconnect_timeout)
        .build()
        .map_err(|error| Failure::NoConnection(error.to_string()))?;
    let mut last = String::new();
    for server in settings.server_urls()? {
        let mut request = request(&client, http_url(&server, path));
        if let Some(token) = &settings.token {
            request = request.bearer_auth(token);
        }
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => {
                last = format!("{server}: {}", chain(&error));
                continue;
            }
        };
        let status = answer.status();
        let body = answer.bytes().await.map_err(|error| Failure::NoConnection(chain(&error)))?;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| {
                JobError::new(ErrorCode::Internal, format!("the answer of {server} cannot be read: {error}")).into()
            });
        }
        let told = serde_json::from_slice::<Value>(&body).ok();
        let told = told.and_then(|mut body| serde_json::from_value(body.get_mut("error")?.take()).ok());
        return Err(Failure::Rejected(
            told.unwrap_or_else(|| JobError::new(ErrorCode::NotFound, format!("{server} answers {status}"))),
        ));
    }
    Err(Failure::NoConnection(last))
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
