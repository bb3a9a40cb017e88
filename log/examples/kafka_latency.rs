//! Measures the Kafka adapter beside rdkafka alone: `KAFKA_BOOTSTRAP=… cargo run --release -p relay-log --example
//! kafka_latency`.
//!
//! One in flight gives latencies, 128 in flight throughput. A commit holds one result and one offset at 1 in flight; at
//! 128 in flight, whatever waits forms the next commit.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use bytes::Bytes;
use rdkafka::ClientConfig;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::message::Message;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use relay_log::kafka::{KafkaLog, KafkaSettings};
use relay_log::port::{
    Assignment, Commit, CommitOffset, JoinSpec, Log, LogReader, LogRecord, Member, MemberEvent, NewRecord, ReadEvent,
    Retention, Start, Topic, TopicPartition, TopicSpec,
};
use relay_protocol::topics::CLUSTER;
use tokio::sync::mpsc;

const VALUE_BYTES: usize = 512;
const PARTITIONS: u32 = 4;
const IN_FLIGHT: u64 = 128;
const LATENCY_RECORDS: u64 = 500;
const THROUGHPUT_RECORDS: u64 = 40_000;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let brokers = std::env::var("KAFKA_BOOTSTRAP").context("set KAFKA_BOOTSTRAP, see deploy/kafka-dev/kafka.sh")?;
    let log = Arc::new(KafkaLog::connect(KafkaSettings::single_broker(&brokers))?);
    println!("{:<34} {:>9} {:>9} {:>12}", "512 B records, 4 partitions", "p50 ms", "p99 ms", "records/s");
    raw(&brokers, &log).await?;
    append(&log).await?;
    commit(&log).await
}

async fn raw(brokers: &str, log: &KafkaLog) -> anyhow::Result<()> {
    let topic = topic(log, "raw").await?;
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("socket.nagle.disable", "true");
    let producer: FutureProducer =
        config.clone().set("acks", "all").set("linger.ms", "0").set("enable.idempotence", "true").create()?;
    let consumer: StreamConsumer =
        config.set("group.id", "raw").set("fetch.wait.max.ms", "100").set("enable.auto.commit", "false").create()?;
    let mut places = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        places.add_partition_offset(&topic, partition.try_into()?, Offset::Beginning)?;
    }
    consumer.assign(&places)?;
    let value = vec![7u8; VALUE_BYTES];
    let send = |n: u64| {
        let partition = i32::try_from(n % u64::from(PARTITIONS)).unwrap_or(0);
        let sent = producer.send_result(FutureRecord::<(), _>::to(&topic).partition(partition).payload(&value));
        sent.map_err(|(error, _)| error)
    };
    let mut times = Vec::new();
    for n in 0..LATENCY_RECORDS {
        let start = Instant::now();
        let sent = send(n)?;
        consumer.recv().await?.payload().context("empty")?;
        times.push(start.elapsed());
        sent.await?.map_err(|(error, _)| error)?;
    }
    let start = Instant::now();
    let (mut sent, mut seen) = (0, 0);
    while seen < THROUGHPUT_RECORDS {
        while sent < THROUGHPUT_RECORDS && sent - seen < IN_FLIGHT {
            drop(send(sent)?);
            sent += 1;
        }
        consumer.recv().await?;
        seen += 1;
    }
    report("rdkafka alone: produce → consume", times, start.elapsed());
    Ok(())
}

async fn append(log: &Arc<KafkaLog>) -> anyhow::Result<()> {
    let topic = topic(log, "append").await?;
    let mut reader = reader(log, &topic).await?;
    let mut times = Vec::new();
    for n in 0..LATENCY_RECORDS {
        let start = Instant::now();
        let (appended, read) = tokio::join!(log.append(vec![record(&topic, n)]), next(&mut *reader));
        appended?;
        read?;
        times.push(start.elapsed());
    }
    let start = Instant::now();
    let (mut sent, mut seen) = (0, 0);
    while seen < THROUGHPUT_RECORDS {
        while sent < THROUGHPUT_RECORDS && sent - seen < IN_FLIGHT {
            let (log, record) = (Arc::clone(log), record(&topic, sent));
            tokio::spawn(async move { log.append(vec![record]).await });
            sent += 1;
        }
        next(&mut *reader).await?;
        seen += 1;
    }
    report("KafkaLog: append → read", times, start.elapsed());
    Ok(())
}

async fn commit(log: &Arc<KafkaLog>) -> anyhow::Result<()> {
    let (jobs, results) = (topic(log, "jobs").await?, topic(log, "results").await?);
    let spec = JoinSpec {
        group: jobs.to_string(),
        topics: vec![Arc::clone(&jobs)],
        client_id: "latency".to_owned(),
        transactional_id: jobs.to_string(),
        read_ahead_records_max: 1_000,
    };
    let member = log.join(spec).await?;
    let assignments = match member.next().await? {
        MemberEvent::Assigned(assignments) => assignments,
        other => bail!("{other:?} instead of an assignment"),
    };
    let mut reader = reader(log, &results).await?;
    let (mut times, mut acknowledged) = (Vec::new(), Vec::new());
    for n in 0..LATENCY_RECORDS {
        let start = Instant::now();
        let committed = async {
            member.commit(one(&assignments, &results, n)).await?;
            Ok::<_, anyhow::Error>(start.elapsed())
        };
        let (committed, read) = tokio::join!(committed, next(&mut *reader));
        acknowledged.push(committed?);
        read?;
        times.push(start.elapsed());
    }
    let at_rate = commits_at_a_rate(&member, &assignments, &results, &mut *reader).await?;
    let (took, commits) = commits_in_flight(&member, assignments, &results, &mut *reader).await?;
    report("KafkaLog: commit → read", times, took);
    report_latency("  commit → acknowledged", acknowledged);
    report_latency("  commit → read, 50 a second", at_rate);
    println!("  {commits} commits of {:.1} records", THROUGHPUT_RECORDS as f64 / commits as f64);
    member.leave().await;
    Ok(())
}

/// Keeps results in flight; whatever waits forms the next commit. The time it took, and how many commits.
async fn commits_in_flight(
    member: &Arc<dyn Member>,
    assignments: Vec<Assignment>,
    results: &Topic,
    reader: &mut dyn LogReader,
) -> anyhow::Result<(Duration, u64)> {
    let (waiting, mut queue) = mpsc::channel::<u64>(usize::try_from(IN_FLIGHT)?);
    let (committer, to) = (Arc::clone(member), Arc::clone(results));
    let committing = tokio::spawn(async move {
        let (mut batch, mut commits) = (Vec::new(), 0u64);
        while queue.recv_many(&mut batch, usize::try_from(IN_FLIGHT)?).await > 0 {
            let mut commit = Commit::default();
            for n in batch.drain(..) {
                let single = one(&assignments, &to, n);
                commit.records.extend(single.records);
                commit.offsets.retain(|offset| offset.at != single.offsets[0].at);
                commit.offsets.extend(single.offsets);
            }
            committer.commit(commit).await?;
            commits += 1;
        }
        anyhow::Ok(commits)
    });
    let start = Instant::now();
    let (mut sent, mut seen) = (0, 0);
    while seen < THROUGHPUT_RECORDS {
        while sent < THROUGHPUT_RECORDS && sent - seen < IN_FLIGHT {
            waiting.send(LATENCY_RECORDS * 2 + sent).await?;
            sent += 1;
        }
        next(reader).await?;
        seen += 1;
    }
    let took = start.elapsed();
    drop(waiting);
    Ok((took, committing.await??))
}

/// The same with pauses, as a quiet cluster sees it.
async fn commits_at_a_rate(
    member: &Arc<dyn Member>,
    assignments: &[Assignment],
    results: &Topic,
    reader: &mut dyn LogReader,
) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::new();
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    for n in 0..LATENCY_RECORDS {
        tick.tick().await;
        let start = Instant::now();
        let commit = one(assignments, results, LATENCY_RECORDS + n);
        let (committed, read) = tokio::join!(member.commit(commit), next(reader));
        committed?;
        read?;
        times.push(start.elapsed());
    }
    Ok(times)
}

fn one(assignments: &[Assignment], results: &Topic, n: u64) -> Commit {
    let assignment = &assignments[usize::try_from(n).unwrap_or(0) % assignments.len()];
    let offset = CommitOffset {
        at: assignment.at.clone(),
        epoch: assignment.epoch,
        next: n,
        metadata: "finished beyond: none".to_owned(),
    };
    Commit { records: vec![record(results, n)], offsets: vec![offset] }
}

async fn topic(log: &KafkaLog, name: &str) -> anyhow::Result<Topic> {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    let name = Topic::from(format!("latency-{name}-{nanos}"));
    let spec = TopicSpec { name: Arc::clone(&name), partitions: PARTITIONS, retention: Retention::Forever };
    // Members register there.
    let cluster = TopicSpec { name: CLUSTER.into(), partitions: 1, retention: Retention::Compact };
    log.create_topics(&[spec, cluster]).await?;
    Ok(name)
}

async fn reader(log: &KafkaLog, topic: &Topic) -> anyhow::Result<Box<dyn LogReader>> {
    let at = |partition| TopicPartition { topic: Arc::clone(topic), partition };
    Ok(log.read((0..PARTITIONS).map(|partition| (at(partition), Start::Earliest)).collect()).await?)
}

async fn next(reader: &mut dyn LogReader) -> anyhow::Result<LogRecord> {
    loop {
        if let ReadEvent::Record(record) = reader.next().await? {
            return Ok(record);
        }
    }
}

fn record(topic: &Topic, n: u64) -> NewRecord {
    let partition = u32::try_from(n % u64::from(PARTITIONS)).unwrap_or(0);
    NewRecord {
        to: TopicPartition { topic: Arc::clone(topic), partition },
        key: None,
        value: Some(Bytes::from_static(&[7; VALUE_BYTES])),
        headers: Vec::new(),
        timestamp_ms: 1_700_000_000_000,
    }
}

fn percentiles(mut times: Vec<Duration>) -> (f64, f64) {
    times.sort();
    let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)].as_secs_f64() * 1e3;
    (at(50), at(99))
}

fn report(what: &str, times: Vec<Duration>, took: Duration) {
    let (p50, p99) = percentiles(times);
    println!("{what:<34} {p50:>9.2} {p99:>9.2} {:>12.0}", THROUGHPUT_RECORDS as f64 / took.as_secs_f64());
}

fn report_latency(what: &str, times: Vec<Duration>) {
    let (p50, p99) = percentiles(times);
    println!("{what:<34} {p50:>9.2} {p99:>9.2}");
}
