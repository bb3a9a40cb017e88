//! `bench path`: what the relay adds to Kafka on the way of a job.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use relay_log::kafka::{KafkaLog, KafkaSettings};
use relay_log::port::Log;

use super::raw::Raw;
use super::relay::Relay;
use super::report::{Report, Row};
use super::timing::{Times, in_flight};
use crate::broker::Broker;

/// Unmeasured time before each measurement: the broker's just-in-time compiler works on new code for about that long.
const WARM_UP: Duration = Duration::from_secs(12);

/// The same for the embedded log, which compiles nothing.
const WARM_UP_LOCAL: Duration = Duration::from_secs(3);

/// What to measure.
#[derive(Debug, Args)]
pub struct PathArguments {
    /// Requests in flight, one measurement each.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 32, 128])]
    in_flight: Vec<usize>,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Bytes of each request.
    #[arg(long, default_value_t = 512)]
    bytes: usize,
    /// Partitions of the raw topics and of the relay's lane.
    #[arg(long, default_value_t = 8)]
    partitions: u32,
    /// A broker to use; none starts one on this machine.
    #[arg(long, env = "KAFKA_BOOTSTRAP")]
    bootstrap: Option<String>,
    /// Measures the relay on the embedded log too.
    #[arg(long)]
    local: bool,
    /// Measures the relay on the embedded log alone: what it costs itself, without a broker beside it.
    #[arg(long)]
    local_only: bool,
    /// Where the figures go as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Measures and prints.
///
/// # Errors
/// A broker or relay that does not start, a request that fails.
pub async fn run(arguments: PathArguments) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut measured = Vec::new();
    if arguments.local_only {
        for &count in &arguments.in_flight {
            measured.push(on_local_log(&arguments, folder.path(), count).await?);
        }
    } else {
        beside_raw(&arguments, folder.path(), &mut measured).await?;
    }
    report(&arguments, &measured).publish(arguments.json.as_deref())
}

type Measured = (&'static str, usize, Times);

async fn beside_raw(arguments: &PathArguments, folder: &Path, measured: &mut Vec<Measured>) -> anyhow::Result<()> {
    let (bootstrap, _broker) = match &arguments.bootstrap {
        Some(bootstrap) => (bootstrap.clone(), None),
        None => {
            let broker = Broker::start(&folder.join("kafka"))?;
            (broker.bootstrap.clone(), Some(broker))
        }
    };
    for &count in &arguments.in_flight {
        measured.push(on_raw(arguments, &bootstrap, count).await?);
        let log = Arc::new(KafkaLog::connect(KafkaSettings::single_broker(&bootstrap))?);
        // One cluster has one store, over restarts too.
        let at = folder.join("relay");
        measured.push((
            "relay on Kafka, submit to completed",
            count,
            on_relay(arguments, &at, Some(log), count, WARM_UP).await?,
        ));
        if arguments.local {
            measured.push(on_local_log(arguments, folder, count).await?);
        }
    }
    Ok(())
}

async fn on_raw(arguments: &PathArguments, bootstrap: &str, count: usize) -> anyhow::Result<Measured> {
    eprintln!("{count} in flight …");
    let raw = Arc::new(Raw::start(bootstrap, arguments.partitions, arguments.bytes).await?);
    let request = move |number| {
        let raw = raw.clone();
        async move { raw.request(number).await }
    };
    let times = in_flight(count, WARM_UP, Duration::from_secs(arguments.seconds), request).await?;
    Ok(("raw rdkafka, request and reply", count, times))
}

async fn on_local_log(arguments: &PathArguments, folder: &Path, count: usize) -> anyhow::Result<Measured> {
    let at = folder.join(format!("local-{count}"));
    let times = on_relay(arguments, &at, None, count, WARM_UP_LOCAL).await?;
    Ok(("relay on LocalLog, submit to completed", count, times))
}

async fn on_relay(
    arguments: &PathArguments,
    folder: &Path,
    log: Option<Arc<KafkaLog>>,
    count: usize,
    warm_up: Duration,
) -> anyhow::Result<Times> {
    let log = log.map(|log| log as Arc<dyn Log>);
    let relay = Arc::new(Relay::start(folder, log, arguments.partitions, arguments.bytes).await?);
    let requester = relay.clone();
    let request = move |_| {
        let relay = requester.clone();
        async move { relay.request().await }
    };
    let times = in_flight(count, warm_up, Duration::from_secs(arguments.seconds), request).await?;
    for (part, ms) in relay.mean_hops_ms() {
        eprintln!("  {part:<20} {ms:>8.2} ms");
    }
    relay.stop().await?;
    Ok(times)
}

fn report(arguments: &PathArguments, measured: &[Measured]) -> Report {
    let settings = serde_json::json!({
        "bytes": arguments.bytes,
        "seconds": arguments.seconds,
        "partitions": arguments.partitions,
    });
    let mut report = Report::new("bench path", settings);
    for (what, count, times) in measured {
        report.rows.push(Row {
            what: (*what).to_owned(),
            figures: vec![
                ("in flight".to_owned(), *count as f64),
                ("p50 ms".to_owned(), times.percentile_ms(50)),
                ("p99 ms".to_owned(), times.percentile_ms(99)),
                ("per second".to_owned(), times.per_second()),
            ],
        });
    }
    for pair in measured.chunk_by(|one, other| one.1 == other.1) {
        let [(_, count, raw), (_, _, relay), ..] = pair else { continue };
        report.rows.push(Row {
            what: "relay on Kafka / raw".to_owned(),
            figures: vec![
                ("in flight".to_owned(), *count as f64),
                ("p50 ratio".to_owned(), relay.percentile_ms(50) / raw.percentile_ms(50)),
                ("p99 ratio".to_owned(), relay.percentile_ms(99) / raw.percentile_ms(99)),
                ("rate ratio".to_owned(), relay.per_second() / raw.per_second()),
            ],
        });
    }
    report
}
