//! The LocalAI simulator as a program, for load tests by hand.

use std::time::Duration;

use clap::Parser;
use load_tests::localai_sim::Simulator;
use load_tests::localai_sim::settings::SimulatorSettings;
use relay_runtime::shutdown;

/// Answers like a LocalAI server, with the shapes, errors and delays of recorded answers, and does no inference: for load
/// tests only. Prints `ready http://HOST:PORT`; SIGTERM fails what runs and ends it, as it does LocalAI.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Where it listens: HOST:PORT, port 0 for any.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: String,
    /// How much faster than LocalAI it loads and works.
    #[arg(long, default_value_t = 1.0)]
    speed: f64,
    /// Seed of the service times.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Sigma of the log-normal factor on service times; 0 for none.
    #[arg(long, default_value_t = 0.0)]
    spread: f64,
    /// Requests that each model works on at a time.
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Seconds that a model whose worker was killed answers with instant failures.
    #[arg(long, default_value_t = 30)]
    dead_window_s: u64,
    /// Key that requests must show.
    #[arg(long)]
    api_key: Option<String>,
}

#[actix_web::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let stop = shutdown::on_signals()?;
    let mut settings = SimulatorSettings {
        listen: arguments.listen,
        speed: arguments.speed,
        seed: arguments.seed,
        dead_window: Duration::from_secs(arguments.dead_window_s),
        api_key: arguments.api_key,
        ..SimulatorSettings::default()
    };
    for model in &mut settings.models {
        model.spread = arguments.spread;
        model.workers = arguments.workers;
    }
    let simulator = Simulator::start(settings)?;
    println!("ready {}", simulator.url);
    stop.cancelled().await;
    simulator.stop().await;
    Ok(())
}
