//! `bench jobs`: durable jobs whose results come back, on the relay, on raw Kafka and on other durable queues in one run.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use clap::Args;
use relay_log::kafka::{KafkaLog, KafkaSettings};

use super::raw::Raw;
use super::relay::Relay;
use super::report::{Report, Row};
use super::timing::{Times, in_flight, paced};
use crate::broker::Broker;

/// What to measure.
#[derive(Debug, Args)]
pub struct JobsArguments {
    /// Jobs in flight when the rate is measured, one measurement each.
    #[arg(long, value_delimiter = ',', default_values_t = [128, 512])]
    in_flight: Vec<usize>,
    /// Jobs a second when latency is measured.
    #[arg(long, default_value_t = 50)]
    per_second: u32,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Seconds without measurement before each.
    #[arg(long, default_value_t = 12)]
    warm_up_seconds: u64,
    /// Bytes of each job's input.
    #[arg(long, default_value_t = 512)]
    pub(super) bytes: usize,
    /// Partitions of the raw topics and of the relay's lane.
    #[arg(long, default_value_t = 4)]
    partitions: u32,
    /// A broker to use; none starts one on this machine.
    #[arg(long, env = "KAFKA_BOOTSTRAP")]
    bootstrap: Option<String>,
    /// Other queues beside it: redis, jetstream, celery. scripts/bench-peers.sh installs them.
    #[cfg(feature = "peers")]
    #[arg(long, value_delimiter = ',')]
    peers: Vec<super::peers::Kind>,
    /// Where the figures go as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Something that does jobs.
#[async_trait]
pub(super) trait Queue: Send + Sync {
    /// One job, from its submission until its result is known; both durable. Numbers are not repeated.
    async fn job(&self, number: u64) -> anyhow::Result<()>;
}

#[async_trait]
impl Queue for Raw {
    async fn job(&self, number: u64) -> anyhow::Result<()> {
        self.request(number).await
    }
}

#[async_trait]
impl Queue for Relay {
    async fn job(&self, _: u64) -> anyhow::Result<()> {
        self.request().await
    }
}

/// Latency at a steady rate, and the rate at each number in flight.
struct Measured {
    steady: Times,
    rates: Vec<Times>,
}

/// Measures and prints.
///
/// # Errors
/// A broker, relay or peer that does not start; a job that fails.
pub async fn run(arguments: JobsArguments) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut measured = Vec::new();
    let (partitions, bytes) = (arguments.partitions, arguments.bytes);
    {
        let (bootstrap, _broker) = broker(&arguments, &folder)?;
        let raw = Arc::new(Raw::start(&bootstrap, partitions, bytes).await?);
        measured.push(("raw rdkafka, request and reply", measure(&arguments, raw).await?));
        let log = Arc::new(KafkaLog::connect(KafkaSettings::single_broker(&bootstrap))?);
        let relay = Arc::new(Relay::start(&folder.path().join("relay"), Some(log), partitions, bytes).await?);
        measured.push(("relay on Kafka, transactions", measure(&arguments, relay.clone()).await?));
        relay.stop().await?;
    }
    let relay = Arc::new(Relay::start(&folder.path().join("local"), None, partitions, bytes).await?);
    measured.push(("relay on LocalLog, fsync", measure(&arguments, relay.clone()).await?));
    relay.stop().await?;
    #[cfg(feature = "peers")]
    for kind in &arguments.peers {
        let peer = super::peers::start(*kind, &folder.path().join(kind.name()), bytes).await?;
        measured.push((kind.what(), measure(&arguments, peer).await?));
    }
    report(&arguments, &measured).publish(arguments.json.as_deref())
}

fn broker(arguments: &JobsArguments, folder: &tempfile::TempDir) -> anyhow::Result<(String, Option<Broker>)> {
    if let Some(bootstrap) = &arguments.bootstrap {
        return Ok((bootstrap.clone(), None));
    }
    let broker = Broker::start(&folder.path().join("kafka"))?;
    Ok((broker.bootstrap.clone(), Some(broker)))
}

async fn measure(arguments: &JobsArguments, queue: Arc<dyn Queue>) -> anyhow::Result<Measured> {
    let (warm_up, measure) = (Duration::from_secs(arguments.warm_up_seconds), Duration::from_secs(arguments.seconds));
    let mut numbers = 0;
    // Each measurement has numbers of its own.
    let mut job = || {
        numbers += 1;
        let (queue, base) = (queue.clone(), numbers << 32);
        move |number| {
            let queue = queue.clone();
            async move { queue.job(base + number).await }
        }
    };
    let mut rates = Vec::new();
    for count in &arguments.in_flight {
        rates.push(in_flight(*count, warm_up, measure, job()).await?);
    }
    // Last, when everything that compiles as it runs is warm.
    let steady = paced(arguments.per_second, Duration::from_secs(2), measure, job()).await?;
    Ok(Measured { steady, rates })
}

fn report(arguments: &JobsArguments, measured: &[(&str, Measured)]) -> Report {
    let settings = serde_json::json!({
        "bytes": arguments.bytes,
        "seconds": arguments.seconds,
        "partitions": arguments.partitions,
        "steady_per_second": arguments.per_second,
    });
    let mut report = Report::new("bench jobs", settings);
    let raw = measured.first().map(|(_, raw)| raw);
    for (what, one) in measured {
        let mut figures = vec![
            ("p50 ms".to_owned(), one.steady.percentile_ms(50)),
            ("p99 ms".to_owned(), one.steady.percentile_ms(99)),
        ];
        for (count, rate) in arguments.in_flight.iter().zip(&one.rates) {
            figures.push((format!("/s at {count}"), rate.per_second()));
        }
        if let Some(raw) = raw {
            figures.push(("p50 / raw".to_owned(), one.steady.percentile_ms(50) / raw.steady.percentile_ms(50)));
            for ((count, rate), limit) in arguments.in_flight.iter().zip(&one.rates).zip(&raw.rates) {
                figures.push((format!("rate/raw {count}"), rate.per_second() / limit.per_second()));
            }
        }
        report.rows.push(Row { what: (*what).to_owned(), figures });
    }
    report
}
