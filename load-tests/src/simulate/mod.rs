//! The cluster simulator: one thread, virtual time, seeded faults. It runs the production code of nodes on a log, backends and
//! clients that fail by the seed, and checks what was seen against the promises; see `docs/simulator.md`.

mod backend;
mod client;
mod clock;
mod cluster;
mod coordinators;
mod counts;
mod faults;
mod gate;
mod history;
#[cfg(test)]
mod history_test;
mod log;
mod node;
mod producer;
mod socket;
mod wire;
mod world;

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;
use relay_log::planted::{Bug, plant};

pub use counts::Tally;
pub use history::Findings;
pub use world::Outcome;

/// In a run of so many seeds every fault and every crash point happens.
pub const SEEDS_TO_SEE_ALL: u64 = 300;

/// Which seeds.
#[derive(Debug, Args)]
pub struct SimulateArguments {
    /// One seed, with its findings and its digest.
    #[arg(long)]
    seed: Option<u64>,
    /// So many seeds, one after the other.
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Seeds at a time; each has one thread.
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    threads: usize,
    /// Shows what nodes log.
    #[arg(long)]
    verbose: bool,
}

/// Runs it and prints what happened.
///
/// # Errors
/// A promise was not kept, or a fault or crash point never happened in a run of many seeds.
pub fn run(arguments: &SimulateArguments) -> anyhow::Result<()> {
    if let Some(seed) = arguments.seed {
        let began = Instant::now();
        let outcome = one(seed, arguments.verbose)?;
        println!("seed {seed}, {:.1?}, digest {}", began.elapsed(), outcome.digest);
        print_tally(&outcome.tally);
        for finding in &outcome.findings.named {
            println!("BROKEN {finding}");
        }
        outcome.story.iter().for_each(|line| println!("  {line}"));
        ensure!(outcome.findings.count == 0, "{} promises were not kept", outcome.findings.count);
        return Ok(());
    }
    let summary = many(arguments.first, arguments.seeds, arguments.threads)?;
    summary.print();
    summary.verdict()
}

/// What came of many seeds.
#[derive(Debug, Default)]
pub struct Summary {
    /// Seeds that were run.
    pub seeds: u64,
    /// All that happened.
    pub tally: Tally,
    /// Seeds that broke a promise, with what is wrong.
    pub broken: Vec<(u64, Findings)>,
    /// How long it took.
    pub took: Duration,
}

impl Summary {
    /// Prints it.
    pub fn print(&self) {
        println!("{} seeds in {:.0?}", self.seeds, self.took);
        print_tally(&self.tally);
        for (seed, findings) in self.broken.iter().take(10) {
            println!("BROKEN seed {seed}: load-tests simulate --seed {seed}");
            findings.named.iter().for_each(|finding| println!("  {finding}"));
        }
    }

    /// Whether every promise was kept, and everything happened that is meant to if there were at least [`SEEDS_TO_SEE_ALL`] seeds.
    ///
    /// # Errors
    /// Not so.
    pub fn verdict(&self) -> anyhow::Result<()> {
        let seeds: Vec<u64> = self.broken.iter().map(|(seed, _)| *seed).take(50).collect();
        ensure!(seeds.is_empty(), "{} seeds broke a promise: {seeds:?}", self.broken.len());
        let missing = self.tally.missing();
        if self.seeds < SEEDS_TO_SEE_ALL {
            return Ok(());
        }
        ensure!(missing.is_empty(), "never happened: {}", missing.join(", "));
        Ok(())
    }
}

/// One seed on this thread. Logs of nodes are shown if `verbose`.
///
/// # Errors
/// The simulation cannot be set up.
pub fn one(seed: u64, verbose: bool) -> anyhow::Result<Outcome> {
    // Thousands of faults would fill any log with warnings that are meant to be.
    let _quiet = (!verbose).then(|| tracing::subscriber::set_default(tracing::subscriber::NoSubscriber::default()));
    world::run(seed)
}

/// One seed with a bug planted; `None` if this build has no bugs to plant.
///
/// # Errors
/// The simulation cannot be set up.
pub fn one_with(bug: Bug, seed: u64) -> anyhow::Result<Option<Outcome>> {
    if !plant(Some(bug)) {
        return Ok(None);
    }
    let outcome = one(seed, false);
    plant(None);
    outcome.map(Some)
}

/// Many seeds on some threads.
///
/// # Errors
/// The simulation cannot be set up.
pub fn many(first: u64, seeds: u64, threads: usize) -> anyhow::Result<Summary> {
    let (began, next) = (Instant::now(), AtomicU64::new(first));
    let summary = Mutex::new(Summary { seeds, ..Summary::default() });
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1))
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= first + seeds {
                            return anyhow::Ok(());
                        }
                        let outcome = one(seed, false)?;
                        let mut summary = summary.lock().unwrap_or_else(PoisonError::into_inner);
                        summary.tally.merge(&outcome.tally);
                        if outcome.findings.count > 0 {
                            summary.broken.push((seed, outcome.findings));
                        }
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.join().map_err(|_| anyhow::anyhow!("a seed panicked"))??;
        }
        anyhow::Ok(())
    })?;
    let mut summary = summary.into_inner().unwrap_or_else(PoisonError::into_inner);
    summary.broken.sort_by_key(|(seed, _)| *seed);
    summary.took = began.elapsed();
    Ok(summary)
}

fn print_tally(tally: &Tally) {
    for (name, count) in &tally.figures {
        println!("  {name}: {count}");
    }
    let faults: Vec<_> = tally.faults.iter().map(|(fault, count)| format!("{fault:?} {count}")).collect();
    println!("  faults: {}", faults.join(", "));
    let crashes: Vec<_> =
        tally.crashes.iter().map(|((op, phase), count)| format!("{op:?}/{phase:?} {count}")).collect();
    println!("  crashes: {}", crashes.join(", "));
}
