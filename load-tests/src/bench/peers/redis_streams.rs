//! Redis streams: jobs and results are entries of two streams; a consumer group reads the jobs.

use std::path::Path;

use anyhow::Context as _;
use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use redis::streams::{StreamReadOptions, StreamReadReply};
use redis::{AsyncCommands, AsyncConnectionConfig, Client, Value};
use tokio::task::JoinHandle;

use super::Server;
use super::waiting::Waiting;
use crate::bench::jobs::Queue;

/// Entries of one read.
const BATCH: usize = 256;
/// Wait for entries, in milliseconds.
const BLOCK_MS: usize = 1_000;

pub(super) struct RedisStreams {
    connection: MultiplexedConnection,
    input: Vec<u8>,
    waiting: Waiting,
    tasks: Vec<JoinHandle<()>>,
    _server: Server,
}

impl Drop for RedisStreams {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl RedisStreams {
    pub(super) async fn start(folder: &Path, bytes: usize) -> anyhow::Result<Self> {
        let server = Server::redis(folder)?;
        let client = Client::open(format!("redis://127.0.0.1:{}/", server.port))?;
        // Reads that block answer after BLOCK_MS: the client's own time-out is shorter.
        let patient = AsyncConnectionConfig::new().set_response_timeout(None);
        let connect = || client.get_multiplexed_async_connection_with_config(&patient);
        let (mut worker, results, connection) = (connect().await?, connect().await?, connect().await?);
        let () = worker.xgroup_create_mkstream("jobs", "workers", "0").await?;
        let waiting = Waiting::default();
        let came = waiting.clone();
        let tasks = vec![
            tokio::spawn(async move { report("worker", work(worker).await) }),
            tokio::spawn(async move { report("reader", collect(results, came).await) }),
        ];
        Ok(Self { connection, input: vec![7; bytes], waiting, tasks, _server: server })
    }
}

#[async_trait]
impl Queue for RedisStreams {
    async fn job(&self, number: u64) -> anyhow::Result<()> {
        let result = self.waiting.expect(number);
        let mut connection = self.connection.clone();
        let id = number.to_string();
        let fields = [("number", id.as_bytes()), ("input", self.input.as_slice())];
        let _: String = connection.xadd("jobs", "*", &fields).await?;
        result.wait().await
    }
}

fn report(who: &str, ended: anyhow::Result<()>) {
    if let Err(error) = ended {
        eprintln!("the {who} on Redis ended: {error:#}");
    }
}

/// Answers jobs: results and acknowledgements of one read go together.
async fn work(mut connection: MultiplexedConnection) -> anyhow::Result<()> {
    let options = StreamReadOptions::default().group("workers", "one").count(BATCH).block(BLOCK_MS);
    loop {
        let read: Option<StreamReadReply> = connection.xread_options(&["jobs"], &[">"], &options).await?;
        let jobs: Vec<_> = read.into_iter().flat_map(|read| read.keys).flat_map(|key| key.ids).collect();
        if jobs.is_empty() {
            continue;
        }
        let mut answer = redis::pipe();
        answer.atomic();
        for job in &jobs {
            let number: String = job.get("number").context("a job without a number")?;
            answer.xadd("results", "*", &[("number", number)]).ignore();
        }
        let ids: Vec<&str> = jobs.iter().map(|job| job.id.as_str()).collect();
        answer.xack("jobs", "workers", &ids).ignore();
        let _: Value = answer.query_async(&mut connection).await?;
    }
}

async fn collect(mut connection: MultiplexedConnection, waiting: Waiting) -> anyhow::Result<()> {
    let options = StreamReadOptions::default().count(BATCH).block(BLOCK_MS);
    let mut last = "0".to_owned();
    loop {
        let read: Option<StreamReadReply> = connection.xread_options(&["results"], &[&last], &options).await?;
        for result in read.into_iter().flat_map(|read| read.keys).flat_map(|key| key.ids) {
            let number: u64 = result.get("number").context("a result without a number")?;
            waiting.came(number);
            last = result.id;
        }
    }
}
