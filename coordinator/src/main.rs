//! The coordinator's binary: settings, telemetry, start, wait for a signal, stop.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use coordinator::{Coordinator, Settings};
use relay_log::kafka::KafkaLog;
use relay_runtime::{settings::process_env, shutdown, telemetry};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The coordinator of a media relay cluster. Prints `ready http://HOST:PORT` on standard output once it serves; SIGTERM ends
/// it in order with exit code 0.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Settings in TOML; the environment (RELAY__SECTION__KEY) goes before them. Without it, defaults.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[actix_web::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let settings = Settings::load(arguments.config.as_deref(), process_env()?)?;
    let stop = shutdown::on_signals().context("listening for signals")?;
    let mut telemetry = telemetry::init(&settings.telemetry)?;
    let log = Arc::new(KafkaLog::connect(settings.kafka_settings()).context("setting up the Kafka client")?);
    let coordinator = Coordinator::start(settings, log.clone()).await?;
    println!("ready {}", coordinator.url());
    let refused = tokio::select! {
        () = stop.cancelled() => None,
        error = log.refused() => Some(error),
    };
    coordinator.stop().await;
    telemetry.shutdown();
    refused.map_or(Ok(()), |error| Err(error.into()))
}
