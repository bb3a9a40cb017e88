//! Benches of the relay beside the raw limit, chaos, and checks of clients and producers.

use clap::{Parser, Subcommand};
use load_tests::bench::balance::{self, BalanceArguments};
use load_tests::bench::jobs::{self, JobsArguments};
use load_tests::bench::path::{self, PathArguments};
use load_tests::bench::queued::{self, QueuedArguments};
use load_tests::bench::start::{self, StartArguments};
use load_tests::bench::take_over::{self, TakeOverArguments};
use load_tests::chaos::{self, ChaosArguments};
use load_tests::conformance::{self, ConformanceArguments};
use load_tests::simulate::{self, SimulateArguments};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Load tests of the media relay. Each bench prints a table and, with --json FILE, the same figures as JSON.
#[derive(Parser)]
#[command(version)]
enum Arguments {
    /// Measures.
    #[command(subcommand)]
    Bench(Bench),
    /// Kills, freezes and cuts off brokers, nodes, coordinator, backends and clients of a real cluster while jobs are
    /// submitted; fails unless every accepted job ended exactly once.
    Chaos(ChaosArguments),
    /// Checks a producer or a node against the contract of docs/kafka.md and docs/protocol.md; exit code 1 if a check fails.
    Conformance(ConformanceArguments),
    /// Simulates clusters in virtual time, with faults by the seed; fails unless every promise was kept.
    Simulate(SimulateArguments),
}

#[derive(Subcommand)]
enum Bench {
    /// The same requests through the relay and through other balancers, before backends of unequal speed.
    Balance(BalanceArguments),
    /// The way of a job: raw request and reply over two Kafka topics, and submit to completed with a zero-time backend.
    Path(PathArguments),
    /// Durable jobs with their results: raw Kafka, the relay, and other durable queues, one after the other.
    Jobs(JobsArguments),
    /// Memory of a node while very many jobs wait in its lane.
    Queued(QueuedArguments),
    /// Start to ready, and memory without work.
    Start(StartArguments),
    /// Nodes killed in the middle of load: the time to the next attempt of the jobs that they were running.
    Takeover(TakeOverArguments),
}

fn main() -> anyhow::Result<()> {
    relay_runtime::tls::install_provider();
    // What goes wrong during a measurement belongs beside its figures.
    tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(std::io::stderr).init();
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match Arguments::parse() {
        Arguments::Bench(Bench::Balance(arguments)) => runtime()?.block_on(balance::run(arguments)),
        Arguments::Bench(Bench::Path(arguments)) => runtime()?.block_on(path::run(arguments)),
        Arguments::Bench(Bench::Jobs(arguments)) => runtime()?.block_on(jobs::run(arguments)),
        Arguments::Bench(Bench::Queued(arguments)) => runtime()?.block_on(queued::run(arguments)),
        Arguments::Bench(Bench::Start(arguments)) => start::run(&arguments),
        Arguments::Bench(Bench::Takeover(arguments)) => runtime()?.block_on(take_over::run(arguments)),
        Arguments::Chaos(arguments) => runtime()?.block_on(chaos::run(arguments)),
        Arguments::Conformance(arguments) => runtime()?.block_on(conformance::run(arguments)),
        Arguments::Simulate(arguments) => simulate::run(&arguments),
    }
}
