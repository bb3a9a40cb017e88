//! A relay whose backends a name leads to, and what is asked of it.

use std::time::Duration;

use client_cli::{Client, ClientSettings, JobHandle, JobInput, JobRequest};
use load_tests::localai_sim::Simulator;
use load_tests::localai_sim::settings::SimulatorSettings;
use serde_json::{Value, json};
use standalone::{Options, Standalone};
use tempfile::TempDir;

use crate::name_server::NameServer;

/// Longest wait for anything that should happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Time between two look-ups.
const LOOK_MS: &str = "50";

pub(crate) struct World {
    pub(crate) relay: Standalone,
    pub(crate) client: Client,
    http: reqwest::Client,
    folder: TempDir,
    options: Options,
}

impl World {
    /// A relay with these static backends, and the names of `dns` as `names` tells them.
    pub(crate) async fn start(backends: Vec<String>, dns: &str, names: &NameServer, env: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = names.address.to_string();
        let of_names = [
            ("RELAY__BACKENDS__DNS", dns),
            ("RELAY__BACKENDS__DNS_SERVERS", server.as_str()),
            ("RELAY__BACKENDS__DNS_INTERVAL_MS", LOOK_MS),
            ("RELAY__BACKENDS__DNS_TIMEOUT_MS", "500"),
        ];
        let env = of_names.iter().chain(env).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let options = Options { backends, env, ..Options::new(folder.path()) };
        let (relay, client) = launch(&options).await;
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        Self { relay, client, http, folder, options }
    }

    /// Everything ends and begins again over the same data.
    pub(crate) async fn restarted(self) -> Self {
        let Self { relay, client, http, folder, options } = self;
        client.close().await;
        relay.stop().await;
        // The last of its tasks lets go of the folder a moment after the end.
        let again = async {
            loop {
                match Standalone::start(options.clone()).await {
                    Ok(relay) => return relay,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        let relay = tokio::time::timeout(PATIENCE, again).await.expect("the folder is free");
        let client = connect(&relay).await;
        Self { relay, client, http, folder, options }
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let answer = self.http.get(format!("{}{path}", self.relay.url())).send().await.unwrap();
        answer.json().await.unwrap()
    }

    /// `POST /v1/backends/drain` or `…/resume`, by way of the node.
    pub(crate) async fn order(&self, what: &str, backend: &str) -> (u16, Value) {
        let url = format!("{}/v1/backends/{what}", self.relay.url());
        let answer = self.http.post(url).json(&json!({ "backend": backend })).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// The list of backends, once `done` says yes to it.
    pub(crate) async fn backends(&self, what: &str, done: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let mut last = Value::Null;
        let asked = async {
            loop {
                last = self.get("/v1/backends").await;
                let list = last["backends"].as_array().cloned().unwrap_or_default();
                if done(&list) {
                    return list;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(list) => list,
            Err(_) => panic!("{what} did not happen in time: {last:#}"),
        }
    }

    /// Submits work for `whisper-1`; `number` makes it another work than before.
    pub(crate) async fn submit(&self, number: u32) -> JobHandle {
        let mut sound = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/audio/speech.wav")).unwrap();
        sound.extend_from_slice(&number.to_le_bytes());
        let request = JobRequest::new("transcribe", JobInput::Bytes(sound.into()));
        self.client.submit(JobRequest { model: Some("whisper-1".to_owned()), ..request }).await.unwrap()
    }

    pub(crate) async fn stop(self) {
        self.client.close().await;
        self.relay.stop().await;
        drop(self.folder);
    }
}

async fn launch(options: &Options) -> (Standalone, Client) {
    let relay = Standalone::start(options.clone()).await.unwrap();
    let client = connect(&relay).await;
    (relay, client)
}

async fn connect(relay: &Standalone) -> Client {
    Client::connect(ClientSettings { servers: relay.url(), ..ClientSettings::default() }).await.unwrap()
}

/// The next event of a job that is none of its way, with its kind.
pub(crate) async fn next(job: &mut JobHandle) -> (String, Value) {
    loop {
        let event = tokio::time::timeout(PATIENCE, job.next_event()).await.unwrap().unwrap().expect("an event");
        let event: Value = serde_json::from_slice(&event.json).unwrap();
        let kind = event["event"].as_str().unwrap().to_owned();
        if kind != "partial" && kind != "progress" {
            return (kind, event);
        }
    }
}

/// Where a job starts.
pub(crate) async fn started(job: &mut JobHandle) -> String {
    let (kind, event) = next(job).await;
    assert_eq!(kind, "started", "{event:#}");
    event["backend"].as_str().unwrap().to_owned()
}

/// Simulators of work that takes `work` on these addresses, all on one port; their URLs are by address.
pub(crate) fn simulators(addresses: &[&str], work: Duration) -> (u16, Vec<Simulator>) {
    relay_runtime::tls::install_provider();
    let settings = |listen| SimulatorSettings { listen, ..SimulatorSettings::transcriber(work) };
    // The port that is free on the first address may be taken on another one.
    for _ in 0..20 {
        let first = Simulator::start(settings(format!("{}:0", addresses[0]))).unwrap();
        let port: u16 = first.url.rsplit(':').next().unwrap().parse().unwrap();
        let others: Result<Vec<_>, _> =
            addresses[1..].iter().map(|address| Simulator::start(settings(format!("{address}:{port}")))).collect();
        if let Ok(others) = others {
            return (port, std::iter::once(first).chain(others).collect());
        }
    }
    panic!("no port is free on all addresses");
}

pub(crate) fn is_healthy(list: &[Value], url: &str) -> bool {
    list.iter().any(|backend| backend["url"] == url && backend["healthy"] == true && backend["state"] == "serving")
}

pub(crate) fn one<'a>(list: &'a [Value], url: &str) -> &'a Value {
    list.iter().find(|backend| backend["url"] == url).unwrap_or(&Value::Null)
}
