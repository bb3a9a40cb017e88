//! A cluster for one test, and the look into its store.

use std::path::{Path, PathBuf};
use std::time::Duration;

use client_cli::{Client, ClientSettings, JobHandle, JobInput, JobRequest};
use relay_node::job::claim_check::ClaimCheck;
use relay_protocol::{Event, EventKind};
use standalone::{Options, Standalone};
use tokio::time::{sleep, timeout};

use crate::s3::Bucket;

/// Longest wait for anything that should happen, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Wait between two looks at something that has no event to wait for.
const LOOK: Duration = Duration::from_millis(20);

/// A running cluster.
pub(crate) struct Cluster {
    pub(crate) standalone: Standalone,
    bucket: Option<Bucket>,
    folder: tempfile::TempDir,
}

impl Cluster {
    pub(crate) async fn start(nodes: u32, env: Vec<(String, String)>, bucket: Option<Bucket>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut options = Options::new(folder.path().join("data"));
        options.nodes = nodes;
        options.env = env.into_iter().collect();
        let cache = folder.path().join("cache").to_str().unwrap().to_owned();
        options.env.entry("RELAY__STORE__CACHE_FOLDER".to_owned()).or_insert(cache);
        let started = timeout(PATIENCE, Standalone::start(options)).await;
        let standalone = started.expect("the cluster starts in time").expect("the cluster starts");
        Self { standalone, bucket, folder }
    }

    pub(crate) async fn stop(self) {
        timeout(PATIENCE, self.standalone.stop()).await.expect("the cluster stops in time");
        let cached = files(&self.folder.path().join("cache"));
        assert!(cached.is_empty(), "the cache is left as it was found: {cached:?}");
    }

    /// `http://HOST:PORT` of a node, from 0 on.
    pub(crate) fn url(&self, node: usize) -> String {
        format!("http://{}", self.address(node))
    }

    /// `HOST:PORT` of a node.
    pub(crate) fn address(&self, node: usize) -> String {
        self.standalone.nodes[node].addr.to_string()
    }

    /// The store as a node has it.
    pub(crate) fn claims(&self, node: usize) -> ClaimCheck {
        self.standalone.nodes[node].state.online().expect("the node is online").claims.clone()
    }

    /// A session of the SDK at a node.
    pub(crate) async fn client(&self, url: &str) -> Client {
        let settings = ClientSettings {
            servers: url.to_owned(),
            connect_timeout: PATIENCE,
            attempt_timeout: PATIENCE,
            reconnect_timeout: PATIENCE,
            idle_timeout: PATIENCE,
            placement: false,
            ..ClientSettings::default()
        };
        Client::connect(settings).await.expect("the client connects")
    }

    /// Names of all objects of the store, looked at from outside.
    pub(crate) async fn objects(&self) -> Vec<String> {
        let mut objects = match &self.bucket {
            Some(bucket) => bucket.objects().await,
            None => files(&self.store_folder()),
        };
        objects.sort();
        objects
    }

    /// The folder of the store.
    pub(crate) fn store_folder(&self) -> PathBuf {
        self.folder.path().join("data/objects")
    }

    /// How many objects lie in a folder of the store.
    pub(crate) async fn count(&self, folder: &str) -> usize {
        let part = format!("{folder}/");
        self.objects().await.iter().filter(|name| name.contains(&part)).count()
    }
}

/// Waits until `reached` says yes.
pub(crate) async fn wait_for(what: &str, reached: impl AsyncFn() -> bool) {
    let wait = async {
        while !reached().await {
            sleep(LOOK).await;
        }
    };
    assert!(timeout(PATIENCE, wait).await.is_ok(), "waited in vain for {what}");
}

/// A job's last event, which must be `completed`.
pub(crate) async fn completed(mut handle: JobHandle) -> Event {
    let mut last = None;
    while let Some(event) =
        timeout(PATIENCE, handle.next_event()).await.expect("an event in time").expect("events come")
    {
        last = Some(event);
    }
    let last: Event = serde_json::from_slice(&last.expect("a last event").json).expect("the event is JSON");
    assert_eq!(last.event, EventKind::Completed, "{last:?}");
    last
}

/// A job that counts the samples of a sound.
pub(crate) fn loudness(input: Vec<u8>) -> JobRequest {
    JobRequest::new("loudness", JobInput::Bytes(input.into()))
}

/// A WAV file (16 kHz, mono, 16 bits) of so many seconds with a tone.
pub(crate) fn wav(seconds: u32) -> Vec<u8> {
    const RATE: u32 = 16_000;
    let bytes = seconds * RATE * 2;
    let mut wav = Vec::with_capacity(44 + bytes as usize);
    wav.extend(b"RIFF");
    wav.extend((36 + bytes).to_le_bytes());
    wav.extend(b"WAVEfmt ");
    wav.extend(16_u32.to_le_bytes());
    wav.extend([1_u16, 1].into_iter().flat_map(u16::to_le_bytes));
    wav.extend([RATE, RATE * 2].into_iter().flat_map(u32::to_le_bytes));
    wav.extend([2_u16, 16].into_iter().flat_map(u16::to_le_bytes));
    wav.extend(b"data");
    wav.extend(bytes.to_le_bytes());
    for sample in 0..seconds * RATE {
        let value = (f64::from(sample) * 440.0 * std::f64::consts::TAU / f64::from(RATE)).sin() * 12_000.0;
        wav.extend((value as i16).to_le_bytes());
    }
    wav
}

/// Every file below a folder, from there on.
pub(crate) fn files(root: &Path) -> Vec<String> {
    fn walk(folder: &Path, root: &Path, found: &mut Vec<String>) {
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                walk(&path, root, found);
            } else {
                found.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    let mut found = Vec::new();
    walk(root, root, &mut found);
    found
}
