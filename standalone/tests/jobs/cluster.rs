//! A cluster for one test, and what lies in its log.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use client_cli::{Client, ClientSettings};
use relay_log::local::{LocalLog, LocalLogSettings};
use relay_log::port::{Log, LogRecord, ReadEvent, Retention, Start, TopicPartition, TopicSpec, TopicState};
use relay_protocol::event::Place;
use relay_protocol::record::AuditEntry;
use relay_protocol::{Event, JobId, topics};
use standalone::{Options, Standalone};
use tokio::time::{Instant, sleep, timeout};

use crate::api::Api;
use crate::stage::{Calls, Stage};

/// Longest wait for anything that should happen, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Wait between two looks at something that has no event to wait for.
const LOOK: Duration = Duration::from_millis(20);

/// A running cluster in this process.
pub(crate) struct Cluster {
    /// The cluster.
    pub(crate) standalone: Standalone,
    /// Its log, for the test to read.
    pub(crate) log: Arc<dyn Log>,
    options: Options,
    folder: tempfile::TempDir,
}

impl Cluster {
    /// One node with these `RELAY__…` variables whose built-in tasks are `stage`'s.
    pub(crate) async fn staged(env: &[(&str, &str)]) -> (Self, Calls) {
        let (stage, calls) = Stage::new();
        let cluster = Self::start(env, |options| options.builtin = Some(stage)).await;
        (cluster, calls)
    }

    /// A cluster with these `RELAY__…` variables, and whatever `change` does to its options.
    pub(crate) async fn start(env: &[(&str, &str)], change: impl FnOnce(&mut Options)) -> Self {
        let (options, folder) = Self::options(env, change);
        Self::run(options, folder, |log| log).await
    }

    /// As [`Cluster::start`], but the cluster has what `over` makes of its log; the test reads the log itself.
    pub(crate) async fn start_over<L: Log>(
        env: &[(&str, &str)],
        change: impl FnOnce(&mut Options),
        over: impl FnOnce(Arc<dyn Log>) -> L,
    ) -> Self {
        let (options, folder) = Self::options(env, change);
        Self::run(options, folder, |log| Arc::new(over(log))).await
    }

    fn options(env: &[(&str, &str)], change: impl FnOnce(&mut Options)) -> (Options, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let mut options = Options::new(folder.path().join("data"));
        options.env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        // As many calls at a time as a test may want, whatever the machine.
        options.env.entry("RELAY__BUILTIN__SLOTS".to_owned()).or_insert("64".to_owned());
        change(&mut options);
        (options, folder)
    }

    async fn run(
        mut options: Options,
        folder: tempfile::TempDir,
        over: impl FnOnce(Arc<dyn Log>) -> Arc<dyn Log>,
    ) -> Self {
        let log = open_log(&options.data_dir.join("log")).await;
        options.log = Some(over(log.clone()));
        let standalone = timeout(PATIENCE, Standalone::start(options.clone())).await;
        let standalone = standalone.expect("the cluster starts in time").expect("the cluster starts");
        options.log = None;
        Self { standalone, log, options, folder }
    }

    /// Stops everything and starts it again on the same folder, its log read anew.
    pub(crate) async fn restart(self) -> Self {
        let Self { standalone, log, options, folder } = self;
        timeout(PATIENCE, standalone.stop()).await.expect("the cluster stops in time");
        drop(log);
        Self::run(options, folder, |log| log).await
    }

    /// Stops everything.
    pub(crate) async fn stop(self) {
        timeout(PATIENCE, self.standalone.stop()).await.expect("the cluster stops in time");
    }

    /// Where the first node is.
    pub(crate) fn url(&self) -> String {
        self.standalone.url()
    }

    /// The folder of the object store.
    #[allow(dead_code, reason = "the tests of dead letters look into it")]
    pub(crate) fn store_folder(&self) -> std::path::PathBuf {
        self.folder.path().join("data/objects")
    }

    /// The HTTP API, without a token.
    pub(crate) fn api(&self) -> Api {
        Api::new(self.url(), None)
    }

    /// The HTTP API, with a token.
    pub(crate) fn api_of(&self, token: &str) -> Api {
        Api::new(self.url(), Some(token.to_owned()))
    }

    /// A session of the SDK.
    pub(crate) async fn client(&self, token: Option<&str>) -> Client {
        self.client_at(&self.url(), token).await
    }

    /// A session of the SDK at this node.
    pub(crate) async fn client_at(&self, url: &str, token: Option<&str>) -> Client {
        let settings = ClientSettings {
            servers: url.to_owned(),
            token: token.map(str::to_owned),
            connect_timeout: PATIENCE,
            attempt_timeout: PATIENCE,
            placement: false,
            ..ClientSettings::default()
        };
        Client::connect(settings).await.expect("the client connects")
    }

    /// Completes whatever calls come until the lane has settled this place (an `accepted` event's); how many came.
    pub(crate) async fn work_off(&self, calls: &Calls, place: &Place) -> usize {
        let at = TopicPartition::new(topics::jobs(&place.lane), place.partition);
        let group = format!("media-relay.{}", place.lane);
        let (began, mut came) = (Instant::now(), 0);
        loop {
            while let Some(call) = calls.try_next().await {
                call.complete();
                came += 1;
            }
            let committed = self.log.committed(&group, &at).await.unwrap();
            if committed.is_some_and(|committed| committed.next > place.offset) {
                return came;
            }
            assert!(began.elapsed() < PATIENCE, "{place:?} is not settled");
            sleep(LOOK).await;
        }
    }

    /// Waits until the client's session is on this node.
    pub(crate) async fn wait_client_moved(&self, client: &Client, node: &str) {
        let began = Instant::now();
        while client.node() != node {
            assert!(began.elapsed() < PATIENCE, "the session is on {} still", client.node());
            sleep(LOOK).await;
        }
    }

    /// Everything that was written about a job's life, duplicates included, in the order of the log.
    pub(crate) async fn written(&self, job_id: &str) -> Vec<Event> {
        written(&*self.log, job_id).await
    }

    /// The audit trail, from the first entry on, once `enough` finds what it looks for.
    pub(crate) async fn audit(&self, enough: impl Fn(&[AuditEntry]) -> bool) -> Vec<AuditEntry> {
        let began = Instant::now();
        loop {
            let records = records(&*self.log, topics::AUDIT).await;
            let entries: Vec<AuditEntry> = records.iter().flat_map(parse::<Vec<AuditEntry>>).collect();
            if enough(&entries) {
                return entries;
            }
            assert!(began.elapsed() < PATIENCE, "the audit trail lacks something: {entries:#?}");
            sleep(LOOK).await;
        }
    }
}

/// All that was written about a job, in the order of the log.
pub(crate) async fn written(log: &dyn Log, job_id: &str) -> Vec<Event> {
    let job_id: JobId = job_id.parse().unwrap();
    let records = records(log, topics::EVENTS).await;
    records.iter().map(parse::<Event>).filter(|event| event.job_id == job_id).collect()
}

/// All committed records of a topic, partition by partition.
pub(crate) async fn records(log: &dyn Log, topic: &str) -> Vec<LogRecord> {
    let spec = TopicSpec { name: topic.into(), partitions: 1, retention: Retention::Forever };
    let partitions = match log.check_topics(&[spec]).await.unwrap()[..] {
        [TopicState::Ready] => 1,
        [TopicState::Partitions { found }] => found,
        ref other => panic!("topic {topic}: {other:?}"),
    };
    let mut open: Vec<_> = (0..partitions).map(|partition| TopicPartition::new(topic, partition)).collect();
    let mut reader = log.read(open.iter().map(|at| (at.clone(), Start::Earliest)).collect()).await.unwrap();
    let mut records = Vec::new();
    while !open.is_empty() {
        match timeout(PATIENCE, reader.next()).await.expect("the log is read in time").unwrap() {
            ReadEvent::Record(record) => records.push(record),
            ReadEvent::End { at, .. } => open.retain(|still| *still != at),
        }
    }
    records.sort_by_key(|record| (record.at.partition, record.offset));
    records
}

/// Opens the log; waits for an earlier life of the cluster to let go of it.
pub(crate) async fn open_log(folder: &Path) -> Arc<dyn Log> {
    let began = Instant::now();
    loop {
        match LocalLog::open(folder, &LocalLogSettings::default()) {
            Ok(log) => return Arc::new(log),
            Err(error) => assert!(began.elapsed() < PATIENCE, "the log is still in use: {error}"),
        }
        sleep(LOOK).await;
    }
}

fn parse<T: serde::de::DeserializeOwned>(record: &LogRecord) -> T {
    let value = record.value.as_deref().unwrap_or_default();
    serde_json::from_slice(value).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(value)))
}

/// Two nodes on one log; the addresses of both.
#[allow(dead_code, reason = "the tests of dead letters have one node")]
pub(crate) async fn two_nodes(env: &[(&str, &str)]) -> (Cluster, Calls, [String; 2]) {
    let (stage, calls) = Stage::new();
    let cluster = Cluster::start(env, |options| {
        options.builtin = Some(stage);
        options.nodes = 2;
    });
    let cluster = cluster.await;
    let addresses = [0, 1].map(|node: usize| cluster.standalone.nodes[node].addr.to_string());
    (cluster, calls, addresses)
}
