//! A relay in front of simulated servers, and plain HTTP requests to both.

use std::time::Duration;

use load_tests::localai_sim::Simulator;
use load_tests::localai_sim::settings::SimulatorSettings;
use reqwest::multipart::{Form, Part};
use serde_json::Value;
use standalone::{Options, Standalone};
use tempfile::TempDir;

/// Longest wait for anything that should happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Cluster {
    pub(crate) relay: Standalone,
    pub(crate) http: reqwest::Client,
    _folder: TempDir,
}

impl Cluster {
    pub(crate) async fn start(backends: &[&Simulator], env: &[(&str, &str)]) -> anyhow::Result<Self> {
        let backends = backends.iter().map(|backend| format!("{};slots=4", backend.url)).collect();
        Self::of_urls(backends, env).await
    }

    pub(crate) async fn of_urls(backends: Vec<String>, env: &[(&str, &str)]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let relay = Standalone::start(Options { backends, env, ..Options::new(folder.path()) }).await?;
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
        let cluster = Self { relay, http, _folder: folder };
        tokio::time::timeout(PATIENCE, async {
            while !cluster.knows_all().await? {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            anyhow::Ok(())
        })
        .await??;
        Ok(cluster)
    }

    /// Whether each backend was probed, and the node has heard of all their models.
    async fn knows_all(&self) -> anyhow::Result<bool> {
        let list: Value = self.http.get(self.url("/v1/backends")).send().await?.json().await?;
        let (mut models, mut is_whole) = (std::collections::BTreeSet::new(), true);
        for backend in list["backends"].as_array().into_iter().flatten() {
            let of_it: Vec<_> = backend["models"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            is_whole &= !of_it.is_empty();
            models.extend(of_it.into_iter().map(str::to_owned));
        }
        Ok(is_whole && !models.is_empty() && self.models().await?.into_iter().eq(models))
    }

    /// Names of the models that the relay knows.
    pub(crate) async fn models(&self) -> anyhow::Result<Vec<String>> {
        let list: Value = self.http.get(self.url("/v1/models")).send().await?.json().await?;
        let models = list["data"].as_array().into_iter().flatten();
        Ok(models.filter_map(|model| model["id"].as_str().map(str::to_owned)).collect())
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.relay.url())
    }

    /// Sends JSON to the relay.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<reqwest::Response> {
        Ok(self.http.post(self.url(path)).json(body).send().await?)
    }

    pub(crate) async fn stop(self) {
        self.relay.stop().await;
    }
}

pub(crate) fn simulator(settings: SimulatorSettings) -> anyhow::Result<Simulator> {
    relay_runtime::tls::install_provider();
    Simulator::start(settings)
}

pub(crate) fn fast() -> SimulatorSettings {
    SimulatorSettings { speed: 1_000.0, ..SimulatorSettings::default() }
}

pub(crate) fn speech() -> Vec<u8> {
    std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/audio/speech.wav")).expect("the fixture")
}

/// A transcription form whose model comes after the file, as some clients write it.
pub(crate) fn form(audio: Vec<u8>, model: &str, fields: &[(&'static str, &str)]) -> Form {
    let form = Form::new().part("file", Part::bytes(audio).file_name("speech.wav")).text("model", model.to_owned());
    fields.iter().fold(form, |form, (name, value)| form.text(*name, (*value).to_owned()))
}

/// Looks again and again until `reached` says yes.
pub(crate) async fn wait_until(reached: impl Fn() -> bool) -> anyhow::Result<()> {
    let wait = async {
        while !reached() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    Ok(tokio::time::timeout(PATIENCE, wait).await?)
}
