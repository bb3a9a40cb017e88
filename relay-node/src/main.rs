//! The relay node's process: settings in, a node on Kafka out.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser;
use relay_log::kafka::KafkaLog;
use relay_node::node::{Node, Parts};
use relay_node::settings::Settings;
use relay_runtime::{metrics, settings, shutdown, telemetry, tls};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A stateless relay node on Apache Kafka.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Settings on top of the defaults (TOML); the environment (RELAY__SECTION__KEY) comes on top of it.
    #[arg(long)]
    config: Option<PathBuf>,
}

#[actix_web::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let settings = Settings::load(arguments.config.as_deref(), settings::process_env()?)?;
    let stop = shutdown::on_signals()?;
    tls::install_provider();
    let _telemetry = telemetry::init(&settings.telemetry)?;
    let metrics = metrics::install()?;
    let log = Arc::new(KafkaLog::connect(settings.kafka.clone()).context("section [kafka]")?);
    let node = Node::start(settings, Parts { log: log.clone(), metrics, builtin: None })?;
    let serve = async {
        node.wait_ready().await;
        println!("ready http://{}", node.addr);
        stop.cancelled().await;
    };
    let refused = tokio::select! {
        () = serve => None,
        () = stop.cancelled() => None,
        reason = node.refusal() => Some(reason),
        error = log.refused() => Some(error.to_string()),
    };
    node.stop().await;
    refused.map_or(Ok(()), |reason| Err(anyhow::anyhow!(reason)))
}
