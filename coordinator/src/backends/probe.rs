//! One probe of a LocalAI server: `GET /readyz`, then `GET /v1/models`.
//!
//! Both must answer in time. `/readyz` alone is not believed: LocalAI says 200 while its models are dead or absent. A
//! server without `/readyz` (404 or 405: another OpenAI-compatible one) is judged by its models alone; any other answer
//! but a success makes it not usable. `/backend/monitor` is never asked: it waits behind running work.

use std::time::Duration;

use relay_runtime::reach::Reach;
use reqwest::{Client, ClientBuilder, Method, Response, StatusCode};
use serde::Deserialize;
use tokio::time::timeout;

use super::entry::BackendEntry;

/// Largest answer of `/v1/models` that is read, in bytes.
pub const PROBE_BODY_BYTES_MAX: usize = 1_048_576;
/// Models of one backend that are kept; names beyond the limit of a name are left out.
pub const MODELS_MAX: usize = 10_000;
/// Largest key file, in bytes.
const KEY_BYTES_MAX: usize = 8_192;

/// Why a backend cannot be used now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// No answer in time.
    #[error("{path} did not answer within {timeout_ms} ms")]
    TimedOut {
        /// What was asked.
        path: &'static str,
        /// The limit, in milliseconds.
        timeout_ms: u64,
    },
    /// No connection.
    #[error("{path} is not reachable: {reason}")]
    Unreachable {
        /// What was asked.
        path: &'static str,
        /// What the client said.
        reason: String,
    },
    /// It wants a key, or another one.
    #[error(
        "{path} answered {status}: set backends.api_key_file (or api_key_file= at the entry) to a file with a valid key"
    )]
    Unauthorized {
        /// What was asked.
        path: &'static str,
        /// Status of the answer.
        status: u16,
    },
    /// It says that it is not ready.
    #[error("{path} answered {status}")]
    NotReady {
        /// What was asked.
        path: &'static str,
        /// Status of the answer.
        status: u16,
    },
    /// Its list of models cannot be read.
    #[error("/v1/models: {0}")]
    Invalid(String),
    /// Its URL cannot be asked at all.
    #[error("{0}")]
    Unusable(String),
    /// The key file cannot be used.
    #[error("api_key_file {path}: {reason}")]
    KeyFile {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl ProbeError {
    /// Label in metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::TimedOut { .. } => "timed_out",
            Self::Unreachable { .. } => "unreachable",
            Self::Unauthorized { .. } => "unauthorized",
            Self::NotReady { .. } => "not_ready",
            Self::Invalid(_) => "invalid",
            Self::KeyFile { .. } => "key_file",
            Self::Unusable(_) => "unusable",
        }
    }
}

#[derive(Deserialize)]
struct ModelList {
    data: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    id: String,
}

/// Probes backends. Cheap to clone; clones share connections.
#[derive(Debug, Clone)]
pub struct Prober {
    client: Client,
    timeout: Duration,
}

impl Prober {
    /// A prober that waits at most `timeout` for each of the two answers. Needs the process's TLS provider
    /// (`relay_runtime::tls::install_provider`).
    ///
    /// # Errors
    /// The HTTP client cannot be built.
    pub fn new(timeout: Duration) -> reqwest::Result<Self> {
        Ok(Self { client: builder(timeout).build()?, timeout })
    }

    /// The way to a backend, for its probes.
    ///
    /// # Errors
    /// [`ProbeError::Unusable`].
    pub fn reach(&self, entry: &BackendEntry) -> Result<Reach, ProbeError> {
        let reach = Reach::new(&self.client, || builder(self.timeout), &entry.url, entry.via.as_deref());
        reach.map_err(|error| ProbeError::Unusable(error.to_string()))
    }

    /// The backend's models, sorted, each once.
    ///
    /// # Errors
    /// [`ProbeError`].
    pub async fn probe(&self, entry: &BackendEntry, reach: &Reach) -> Result<Vec<String>, ProbeError> {
        let key = read_key(entry).await?;
        self.within("/readyz", async {
            let status = get(reach, "/readyz", key.as_deref()).await?.status();
            // A server of another make has no /readyz; its models decide.
            if matches!(status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) {
                return Ok(());
            }
            success("/readyz", status)
        })
        .await?;
        self.within("/v1/models", async {
            let response = get(reach, "/v1/models", key.as_deref()).await?;
            success("/v1/models", response.status())?;
            models(&body(response).await?)
        })
        .await
    }

    async fn within<T>(
        &self,
        path: &'static str,
        answer: impl Future<Output = Result<T, ProbeError>>,
    ) -> Result<T, ProbeError> {
        let timeout_ms = u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX);
        timeout(self.timeout, answer).await.unwrap_or(Err(ProbeError::TimedOut { path, timeout_ms }))
    }
}

/// Straight to the backend, as nodes go: no proxy, and nowhere else if it says so.
fn builder(timeout: Duration) -> ClientBuilder {
    Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(timeout)
        .no_proxy()
        .user_agent(concat!("media-relay-coordinator/", env!("CARGO_PKG_VERSION")))
}

async fn get(reach: &Reach, path: &'static str, key: Option<&str>) -> Result<Response, ProbeError> {
    let mut request = reach.request(Method::GET, path);
    if let Some(key) = key {
        request = request.bearer_auth(key);
    }
    request.send().await.map_err(|error| ProbeError::Unreachable { path, reason: words(&error) })
}

fn success(path: &'static str, status: StatusCode) -> Result<(), ProbeError> {
    match status {
        status if status.is_success() => Ok(()),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Err(ProbeError::Unauthorized { path, status: status.as_u16() })
        }
        status => Err(ProbeError::NotReady { path, status: status.as_u16() }),
    }
}

async fn body(mut response: Response) -> Result<Vec<u8>, ProbeError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| ProbeError::Invalid(words(&error)))? {
        if body.len() + chunk.len() > PROBE_BODY_BYTES_MAX {
            return Err(ProbeError::Invalid(format!("the answer is larger than {PROBE_BODY_BYTES_MAX} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Sorted, because LocalAI lists its models in random order.
fn models(body: &[u8]) -> Result<Vec<String>, ProbeError> {
    let list: ModelList =
        serde_json::from_slice(body).map_err(|error| ProbeError::Invalid(format!("not a list of models: {error}")))?;
    let named = list.data.into_iter().map(|model| model.id).filter(|id| relay_protocol::limits::is_name(id));
    let mut models: Vec<String> = named.collect();
    models.sort_unstable();
    models.dedup();
    models.truncate(MODELS_MAX);
    Ok(models)
}

/// Read anew for each probe, so that a rotated key needs no restart.
async fn read_key(entry: &BackendEntry) -> Result<Option<String>, ProbeError> {
    let Some(path) = &entry.api_key_file else { return Ok(None) };
    let refuse = |reason: String| ProbeError::KeyFile { path: path.display().to_string(), reason };
    let text = tokio::fs::read_to_string(path).await.map_err(|error| refuse(error.to_string()))?;
    let key = text.trim();
    if key.is_empty() || key.len() > KEY_BYTES_MAX || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(refuse(format!("holds no key: one line of 1 to {KEY_BYTES_MAX} printable ASCII characters")));
    }
    Ok(Some(key.to_owned()))
}

/// The error with its causes; reqwest's own text hides the operating system's.
fn words(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
