//! The raw limit: request and reply over two topics with rdkafka alone, nothing kept, nothing decided.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use rdkafka::ClientConfig;
use rdkafka::consumer::{CommitMode, Consumer, StreamConsumer};
use rdkafka::message::Message;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use relay_log::kafka::{KafkaLog, KafkaSettings};
use relay_log::port::{Log, Retention, TopicSpec};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// How often the echoing worker commits what it has done.
const COMMIT_INTERVAL: Duration = Duration::from_millis(100);

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<()>>>>;

/// A requester and a worker that echoes.
pub(super) struct Raw {
    producer: FutureProducer,
    requests: String,
    value: Vec<u8>,
    partitions: u32,
    waiting: Waiting,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Raw {
    /// Makes two topics and starts the worker.
    pub(super) async fn start(bootstrap: &str, partitions: u32, value_bytes: usize) -> anyhow::Result<Self> {
        let run = Uuid::new_v4();
        let topic = |what: &str| format!("bench-{what}-{run}");
        let (requests, replies) = (topic("requests"), topic("replies"));
        let specs = [&requests, &replies].map(|name| TopicSpec {
            name: name.as_str().into(),
            partitions,
            retention: Retention::Forever,
        });
        KafkaLog::connect(KafkaSettings::single_broker(bootstrap))?.create_topics(&specs).await?;
        let producer = producer(bootstrap)?;
        let waiting = Waiting::default();
        let answered = consumer(bootstrap, "bench-requester", &replies, partitions)?;
        let worker = consumer(bootstrap, &requests, &requests, partitions)?;
        let tasks = vec![
            tokio::spawn(collect(answered, waiting.clone())),
            tokio::spawn(echo(worker, producer.clone(), replies)),
        ];
        Ok(Self { producer, requests, value: vec![7; value_bytes], partitions, waiting, tasks })
    }

    /// One request and its reply.
    pub(super) async fn request(&self, number: u64) -> anyhow::Result<()> {
        let (done, answer) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(number, done);
        let (key, partition) = (number.to_le_bytes(), i32::try_from(number % u64::from(self.partitions))?);
        let record = FutureRecord::to(&self.requests).key(&key[..]).partition(partition).payload(&self.value);
        let delivered = self.producer.send_result(record).map_err(|(error, _)| error)?;
        answer.await.context("the reply's reader ended")?;
        delivered.await?.map_err(|(error, _)| error)?;
        Ok(())
    }
}

fn producer(bootstrap: &str) -> anyhow::Result<FutureProducer> {
    let producer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("socket.nagle.disable", "true")
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("linger.ms", "0")
        .create();
    producer.context("making a producer")
}

fn consumer(bootstrap: &str, group: &str, topic: &str, partitions: u32) -> anyhow::Result<StreamConsumer> {
    let consumer: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("socket.nagle.disable", "true")
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "100")
        .set("fetch.min.bytes", "1")
        .create()?;
    let mut places = TopicPartitionList::new();
    for partition in 0..partitions {
        places.add_partition_offset(topic, partition.try_into()?, Offset::Beginning)?;
    }
    consumer.assign(&places)?;
    Ok(consumer)
}

async fn collect(consumer: StreamConsumer, waiting: Waiting) {
    while let Ok(message) = consumer.recv().await {
        let number = message.key().and_then(|key| key.try_into().ok()).map(u64::from_le_bytes);
        let done = number.and_then(|number| waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&number));
        if let Some(done) = done {
            // A requester that gave up does not wait.
            _ = done.send(());
        }
    }
}

async fn echo(consumer: StreamConsumer, producer: FutureProducer, replies: String) {
    let mut committed = std::time::Instant::now();
    while let Ok(message) = consumer.recv().await {
        let record = FutureRecord::to(&replies)
            .key(message.key().unwrap_or_default())
            .partition(message.partition())
            .payload(message.payload().unwrap_or_default());
        if let Err((error, _)) = producer.send_result(record) {
            eprintln!("a reply was not sent: {error}");
        }
        if committed.elapsed() >= COMMIT_INTERVAL {
            committed = std::time::Instant::now();
            // Its failure changes nothing that is measured.
            _ = consumer.commit_message(&message, CommitMode::Async);
        }
    }
}
