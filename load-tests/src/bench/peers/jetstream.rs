//! NATS JetStream: jobs and results are messages of two streams on disk, each synced.

use std::path::Path;
use std::process::Command;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::stream::{Config, RetentionPolicy, StorageType};
use async_nats::jetstream::{self, Context};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::task::JoinHandle;

use super::waiting::Waiting;
use super::{Server, free_port, installed};
use crate::bench::jobs::Queue;

/// Jobs that are answered side by side.
const WORKERS: usize = 256;

pub(super) struct JetStream {
    context: Context,
    input: Bytes,
    waiting: Waiting,
    tasks: Vec<JoinHandle<()>>,
    _server: Server,
}

impl Drop for JetStream {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl JetStream {
    pub(super) async fn start(folder: &Path, bytes: usize) -> anyhow::Result<Self> {
        let port = free_port()?;
        let config = folder.join("nats.conf");
        let store = folder.join("store");
        let text = format!(
            "listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: {:?}, sync_interval: always }}\n",
            store.display().to_string()
        );
        std::fs::write(&config, text)?;
        let server = Server::start(Command::new(installed("bin/nats-server")).arg("-c").arg(&config), port)?;
        let client = async_nats::connect(format!("127.0.0.1:{port}")).await?;
        let context = jetstream::new(client);
        let stream = |name: &str, retention| Config {
            name: name.to_owned(),
            subjects: vec![format!("{name}.*")],
            storage: StorageType::File,
            retention,
            ..Config::default()
        };
        let jobs = context.create_stream(stream("jobs", RetentionPolicy::WorkQueue)).await?;
        let results = context.create_stream(stream("results", RetentionPolicy::Limits)).await?;
        let consumer = |ack_policy| pull::Config {
            durable_name: Some("one".to_owned()),
            ack_policy,
            deliver_policy: DeliverPolicy::All,
            max_ack_pending: 4_096,
            ..pull::Config::default()
        };
        let jobs = jobs.create_consumer(consumer(AckPolicy::Explicit)).await?.messages().await?;
        let results = results.create_consumer(consumer(AckPolicy::None)).await?.messages().await?;
        let waiting = Waiting::default();
        let (worker, came) = (context.clone(), waiting.clone());
        let tasks = vec![
            tokio::spawn(jobs.for_each_concurrent(WORKERS, move |job| answer(worker.clone(), job))),
            tokio::spawn(results.for_each(move |result| {
                match result {
                    Ok(result) => number_of(&result.subject).into_iter().for_each(|number| came.came(number)),
                    Err(error) => eprintln!("results on JetStream: {error}"),
                }
                std::future::ready(())
            })),
        ];
        Ok(Self { context, input: vec![7; bytes].into(), waiting, tasks, _server: server })
    }
}

#[async_trait]
impl Queue for JetStream {
    async fn job(&self, number: u64) -> anyhow::Result<()> {
        let result = self.waiting.expect(number);
        self.context.publish(format!("jobs.{number}"), self.input.clone()).await?.await?;
        result.wait().await
    }
}

fn number_of(subject: &str) -> Option<u64> {
    subject.rsplit('.').next()?.parse().ok()
}

/// The result is stored before the job is acknowledged.
async fn answer(context: Context, job: Result<jetstream::Message, impl std::error::Error>) {
    let answered = async {
        let job = job.map_err(|error| anyhow::anyhow!("{error}"))?;
        let number = number_of(&job.subject).unwrap_or_default();
        context.publish(format!("results.{number}"), Bytes::new()).await?.await?;
        job.ack().await.map_err(|error| anyhow::anyhow!("{error}"))
    };
    if let Err(error) = answered.await {
        eprintln!("a job on JetStream was not answered: {error:#}");
    }
}
