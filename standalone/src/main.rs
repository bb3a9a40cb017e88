//! The whole relay in one process, durable in a folder.

use std::path::PathBuf;

use clap::Parser;
use relay_runtime::{settings, shutdown, telemetry};
use standalone::{Options, Standalone};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The whole media relay in one process: coordinator, nodes and an embedded log. Prints `ready http://HOST:PORT` once it
/// takes work; SIGTERM ends it in order. RELAY__SECTION__KEY variables set what relay-node's settings know.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Where clients connect: HOST:PORT. Anything but loopback needs tokens (RELAY__AUTH__TOKENS).
    #[arg(long, default_value = "127.0.0.1:8700")]
    listen: String,
    /// Folder for jobs, events and media.
    #[arg(long, default_value = "relay-data")]
    data_dir: PathBuf,
    /// Nodes to run.
    #[arg(long, default_value_t = 1)]
    nodes: u32,
    /// A LocalAI server: URL or URL;slots=N. Repeat for more.
    #[arg(long = "backend", value_name = "URL")]
    backends: Vec<String>,
}

#[actix_web::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { listen, data_dir, nodes, backends } = Arguments::parse();
    let env = settings::process_env()?;
    let stop = shutdown::on_signals()?;
    let options = Options { listen, nodes, backends, env, ..Options::new(data_dir) };
    let mut telemetry = telemetry::init(&options.telemetry()?)?;
    let standalone = tokio::select! {
        started = Standalone::start(options) => started?,
        () = stop.cancelled() => return Ok(()),
    };
    println!("ready {}", standalone.url());
    stop.cancelled().await;
    standalone.stop().await;
    telemetry.shutdown();
    Ok(())
}
