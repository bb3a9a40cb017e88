//! Real chaos: real brokers, nodes and the leading coordinator are killed, frozen and cut off while producers keep submitting; then it is
//! checked that every accepted job ended, and ended once.

mod brokers;
mod client_proxy;
mod crowding;
mod faults;
mod fleet;
pub mod history;
mod producers;
mod report;
mod signal;
pub mod topic;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;

use brokers::Brokers;
use crowding::Watch;
use faults::Injector;
use fleet::{Fleet, SLOTS};
use history::History;
use producers::Producers;
use report::Report;

/// Time without a single end after which what has not ended is lost, once all processes are whole again: how long a backlog takes depends
/// on the machine.
const SETTLE_PATIENCE: Duration = Duration::from_secs(120);

/// Time in which everything must have ended all the same.
const SETTLE_MAX: Duration = Duration::from_secs(900);

/// Time in which a second end would show after the last job ended.
const SECOND_END: Duration = Duration::from_secs(8);

/// What to do to a cluster, and for how long.
#[derive(Debug, Args)]
pub struct ChaosArguments {
    /// Seconds of faults; longer if some kind of fault did not happen by then.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Seed of the order of faults, their victims and their pauses.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Jobs a second, of all producers.
    #[arg(long, default_value_t = 12.0)]
    per_second: f64,
    /// Where data and logs of all processes stay; none is a folder that is removed.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Where the report goes as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Runs it and prints the report.
///
/// # Errors
/// A process that does not start, a promise that was not kept, a kind of fault that never happened.
pub async fn run(arguments: ChaosArguments) -> anyhow::Result<()> {
    let temporary = tempfile::tempdir()?;
    let folder = arguments.folder.clone().unwrap_or_else(|| temporary.path().to_owned());
    std::fs::create_dir_all(&folder)?;
    let report = chaos(&arguments, &folder).await?;
    report.print();
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)?;
    }
    report.verdict()
}

async fn chaos(arguments: &ChaosArguments, folder: &Path) -> anyhow::Result<Report> {
    eprintln!("seed {}; processes write to {}", arguments.seed, folder.display());
    let brokers = Brokers::start(folder).await?;
    let fleet = Fleet::start(folder, &brokers.bootstrap()).await?;
    let history = Arc::new(Mutex::new(History::default()));
    let watch = Watch::start(fleet.simulator_urls(), SLOTS);
    let producers = Producers::start(&fleet, &brokers.bootstrap(), history.clone(), arguments.per_second).await?;
    let mut injector = Injector::new(arguments.seed, brokers, fleet, history.clone());
    injector.run(Duration::from_secs(arguments.seconds)).await?;
    producers.stop().await;
    injector.heal().await?;
    settle(&injector.brokers.bootstrap(), &history).await?;
    producers.hear_the_rest().await;
    let history = history.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(Report::new(arguments.seed, &injector, &history, watch.seen()))
}

/// Waits until every accepted job has ended in the event topic, and as long again as a second end could take.
async fn settle(bootstrap: &str, history: &Mutex<History>) -> anyhow::Result<()> {
    let began = Instant::now();
    let (mut whole, mut fewest, mut went_on) = (false, usize::MAX, began);
    loop {
        let events = topic::read_all(bootstrap).await;
        let left = {
            let mut history = history.lock().unwrap_or_else(PoisonError::into_inner);
            if let Ok(events) = events {
                history.events = events;
            }
            history.unended()
        };
        if left < fewest {
            (fewest, went_on) = (left, Instant::now());
        }
        if whole || went_on.elapsed() > SETTLE_PATIENCE || began.elapsed() > SETTLE_MAX {
            ensure!(left == 0 || !whole, "jobs that ended are gone from the topic");
            return Ok(());
        }
        whole = left == 0;
        tokio::time::sleep(if whole { SECOND_END } else { Duration::from_secs(1) }).await;
    }
}
