//! The LocalAI client against recorded answers of LocalAI (`fixtures/localai`), sent byte for byte by a server in the test.

mod answers;
mod bad_servers;
mod failures;
mod recorded;
mod replay;

use bytes::Bytes;
use relay_node::backend::localai::{LocalAi, LocalAiSettings};
use relay_node::backend::{BackendError, Call, Output, Update};
use relay_node::job::media::Media;
use relay_protocol::cluster::BackendInfo;
use relay_protocol::{JobId, Task};
use serde_json::{Map, Value};
use tokio::sync::mpsc;

const SETTINGS: LocalAiSettings = LocalAiSettings {
    connect_timeout_ms: 2_000,
    silence_timeout_ms: 2_000,
    answer_bytes_max: 1 << 20,
    api_key_file: String::new(),
};

/// A call with this text or file as its input.
fn call(task: Task, input: impl Into<Bytes>) -> Call {
    Call {
        job_id: JobId::from_bytes([7; 16]),
        task,
        model: Some("m".to_owned()),
        params: Map::new(),
        media: Media::memory(input.into(), Some("monday.wav".to_owned()), None),
        traceparent: None,
    }
}

fn with(mut call: Call, params: &[(&str, Value)]) -> Call {
    call.params = params.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    call
}

/// What comes of a call to the server at `url`, and the pieces that came before.
async fn run(url: &str, call: Call, settings: &LocalAiSettings) -> (Result<Output, BackendError>, Vec<Update>) {
    relay_runtime::tls::install_provider();
    let info = BackendInfo { url: url.to_owned(), ..BackendInfo::default() };
    let backend = LocalAi::connector(settings).expect("good settings")(&info).expect("a good URL");
    let (sender, mut receiver) = mpsc::channel(64);
    let outcome = backend.call(call, sender).await;
    let mut updates = Vec::new();
    while let Some(update) = receiver.recv().await {
        updates.push(update);
    }
    (outcome, updates)
}
