//! Measures how long a new owner reads what ended: `KAFKA_BOOTSTRAP=… cargo run --release -p relay-node --example
//! dedup_take_over [ENTRIES] [PARTITIONS]`.
//!
//! Each partition has ENTRIES (50,000, the default of `dedup.entries_max`); all are read by one reader, as after the death
//! of a node that had them all.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use relay_log::kafka::{KafkaLog, KafkaSettings};
use relay_log::port::{Log, NewRecord, Retention, TopicPartition, TopicSpec};
use relay_node::intake::control::{Followed, What};
use relay_node::intake::dedup_topic::{Reading, read};
use relay_protocol::event::{Place, TERMINAL_N, seq};
use relay_protocol::record::DedupEntry;
use relay_protocol::{EventKind, JobId};
use relay_runtime::clock::{Clock, SystemClock};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Records in one append.
const BATCH: u64 = 5_000;
const HOUR_MS: u64 = 3_600_000;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let brokers = std::env::var("KAFKA_BOOTSTRAP").context("set KAFKA_BOOTSTRAP, see deploy/kafka-dev/kafka.sh")?;
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<u64>());
    let entries = numbers.next().transpose()?.unwrap_or(50_000);
    let partitions = u32::try_from(numbers.next().transpose()?.unwrap_or(1))?;
    let log: Arc<dyn Log> = Arc::new(KafkaLog::connect(KafkaSettings::single_broker(&brokers))?);
    let now_ms = SystemClock.now_ms();
    let spec = TopicSpec {
        name: format!("media.dedup.bench-{now_ms}").into(),
        partitions,
        retention: Retention::Age(Duration::from_secs(3_600)),
    };
    log.create_topics(std::slice::from_ref(&spec)).await?;
    for partition in 0..partitions {
        let at = TopicPartition::new(spec.name.clone(), partition);
        for from in (0..entries).step_by(usize::try_from(BATCH)?) {
            let records = (from..entries.min(from + BATCH)).map(|number| record(&at, number, now_ms));
            log.append(records.collect::<anyhow::Result<_>>()?).await?;
        }
    }
    let followed = (0..partitions).map(|partition| Followed {
        at: TopicPartition::new(spec.name.clone(), partition),
        epoch: 1,
        since_ms: None,
        doubted: Vec::new(),
        stop: CancellationToken::new(),
    });
    let (said, mut sayings) = mpsc::channel(8);
    let (began, before) = (Instant::now(), resident_kib()?);
    let reading = Reading { log: log.clone(), clock: Arc::new(SystemClock), entries_max: usize::try_from(entries)? };
    let reader = tokio::spawn(read(reading, followed.collect(), said));
    let mut indexes = Vec::new();
    while let Some(told) = sayings.recv().await {
        let What::Ended(index, _) = told.what else { continue };
        println!("partition {}: {} ended jobs after {:.2?}", told.partition, index.len(), began.elapsed());
        indexes.push(index);
    }
    reader.await?;
    let jobs: usize = indexes.iter().map(relay_node::intake::dedup::DedupIndex::len).sum();
    println!(
        "{jobs} in all after {:.2?}; {} KiB more resident",
        began.elapsed(),
        resident_kib()?.saturating_sub(before)
    );
    Ok(())
}

fn record(at: &TopicPartition, number: u64, now_ms: u64) -> anyhow::Result<NewRecord> {
    let entry = DedupEntry {
        job_id: JobId::new(now_ms, at.partition, number),
        tenant: "default".to_owned(),
        idempotency_key: Some(format!("order-{}-{number}", at.partition)),
        body_sha256: Some("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".to_owned()),
        place: Place { lane: "default".to_owned(), partition: at.partition, offset: number, accepted_at: now_ms },
        outcome: EventKind::Completed,
        seq: seq(1, TERMINAL_N),
        ended_at: now_ms,
        duplicate_of: None,
        expires_at: now_ms + 24 * HOUR_MS,
    };
    Ok(NewRecord {
        to: at.clone(),
        key: Some(Bytes::from(format!("default/order-{}-{number}", at.partition))),
        value: Some(Bytes::from(serde_json::to_vec(&entry)?)),
        headers: Vec::new(),
        timestamp_ms: now_ms,
    })
}

/// Resident memory of this process.
fn resident_kib() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
