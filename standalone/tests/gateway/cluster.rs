//! A cluster for one test, and the good client that it must serve afterwards.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client_cli::{Client, ClientSettings, JobInput, JobRequest};
use relay_log::port::Log;
use relay_protocol::{Event, EventKind, SessionId};
use standalone::{Options, Standalone};

/// Longest wait for one answer of the node on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Longest time of one test's own part.
const TEST_MAX: Duration = Duration::from_secs(120);

/// A running cluster of one node.
pub(crate) struct Cluster {
    standalone: Standalone,
    folder: tempfile::TempDir,
}

/// Runs `test` against a fresh cluster whose node has these `RELAY__…` variables; then a good client must be served, and the
/// cluster must stop.
pub(crate) async fn on_cluster(env: &[(&str, &str)], test: impl AsyncFnOnce(&Cluster)) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut options = Options::new(folder.path());
    options.env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let standalone = Standalone::start(options).await.expect("the cluster starts");
    let cluster = Cluster { standalone, folder };
    tokio::time::timeout(TEST_MAX, test(&cluster)).await.expect("the test ends in time");
    cluster.serves_a_good_client().await;
    let Cluster { standalone, folder } = cluster;
    tokio::time::timeout(PATIENCE, standalone.stop()).await.expect("the cluster stops in time");
    drop(folder);
}

impl Cluster {
    /// `http://HOST:PORT` of the node.
    pub(crate) fn url(&self) -> String {
        self.standalone.url()
    }

    /// `HOST:PORT` of the node.
    pub(crate) fn address(&self) -> String {
        self.url().trim_start_matches("http://").to_owned()
    }

    /// The log, to write to it as a producer does.
    pub(crate) fn log(&self) -> Arc<dyn Log> {
        self.standalone.nodes[0].state.online().expect("the node is online").log.clone()
    }

    /// Waits until the object store holds this many uploads, whole or begun.
    pub(crate) async fn wait_for_stored_files(&self, wanted: usize) {
        let folder = self.folder.path().join("objects/uploads");
        wait_for(&format!("{wanted} stored files"), async || files(&folder) == wanted).await;
    }

    /// Waits until the coordinator lists this session, or lists it no longer.
    pub(crate) async fn wait_for_session(&self, session: SessionId, open: bool) {
        let session = session.to_string();
        let url = format!("{}/v1/sessions", self.url());
        let listed = async || {
            let text = reqwest::get(&url).await.expect("the node answers").text().await.expect("a list");
            assert!(text.contains("\"sessions\""), "{text}");
            text.contains(&session)
        };
        let what = format!("session {session} to be {}", if open { "listed" } else { "gone" });
        wait_for(&what, async || listed().await == open).await;
    }

    /// A client of the SDK submits a job over a session of its own and gets its result.
    pub(crate) async fn serves_a_good_client(&self) {
        let settings = ClientSettings {
            servers: self.url(),
            connect_timeout: PATIENCE,
            attempt_timeout: PATIENCE,
            ..ClientSettings::default()
        };
        let served = async {
            let client = Client::connect(settings).await.expect("a good client connects");
            let picture = Bytes::from(fixture("images/picture.png"));
            let job = JobRequest::new("probe", JobInput::Bytes(picture));
            let mut handle = client.submit(job).await.expect("a good job is accepted");
            let mut last = None;
            while let Some(event) = handle.next_event().await.expect("a good job's events come") {
                last = Some(event);
            }
            let last: Event = serde_json::from_slice(&last.expect("a last event").json).expect("the event is JSON");
            assert_eq!(last.event, EventKind::Completed, "the good job: {last:?}");
            client.close().await;
        };
        tokio::time::timeout(PATIENCE, served).await.expect("a good client is served in time");
    }
}

/// Waits until `reached` says yes.
pub(crate) async fn wait_for(what: &str, reached: impl AsyncFn() -> bool) {
    let wait = async {
        while !reached().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "waited in vain for {what}");
}

/// A file of `fixtures`.
pub(crate) fn fixture(path: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(path);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn files(folder: &std::path::Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries.map(|entry| entry.expect("an entry").path()).map(|path| if path.is_dir() { files(&path) } else { 1 }).sum()
}
