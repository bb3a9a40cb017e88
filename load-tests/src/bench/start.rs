//! `bench start`: how soon a relay takes work, and what it holds in memory when it has none.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use clap::Args;

use super::process::{binary, coordinator, node, start};
use super::report::{Report, Row};
use crate::broker::Broker;

/// What to measure.
#[derive(Debug, Args)]
pub struct StartArguments {
    /// Starts of each kind.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds without work before memory is read.
    #[arg(long, default_value_t = 5)]
    idle_seconds: u64,
    /// Where the figures go as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Measures and prints.
///
/// # Errors
/// A binary that is not built or does not start, a broker that does not start.
pub fn run(arguments: &StartArguments) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut report = Report::new("bench start", serde_json::json!({ "idle_seconds": arguments.idle_seconds }));
    let alone = |round: usize| {
        let mut command = binary("standalone")?;
        command.args(["--listen", "127.0.0.1:0", "--data-dir"]).arg(folder.path().join(format!("alone-{round}")));
        Ok(command)
    };
    report.rows.push(measure("standalone on LocalLog", arguments, alone)?);
    let broker = Broker::start(&folder.path().join("kafka"))?;
    let coordinator = start(&mut coordinator(&broker.bootstrap)?)?;
    let node = |_| node("node-1", &broker.bootstrap, &coordinator.url, folder.path());
    // The first start waits for the coordinator to have created the topics.
    drop(start(&mut node(0)?)?);
    report.rows.push(measure("relay-node on Kafka", arguments, node)?);
    report.publish(arguments.json.as_deref())
}

fn measure(
    what: &str,
    arguments: &StartArguments,
    mut command: impl FnMut(usize) -> anyhow::Result<Command>,
) -> anyhow::Result<Row> {
    let mut times = Vec::new();
    let mut resident = 0.0;
    for round in 0..arguments.rounds {
        let started = start(&mut command(round)?)?;
        times.push(started.took);
        if round + 1 == arguments.rounds {
            std::thread::sleep(Duration::from_secs(arguments.idle_seconds));
            resident = started.resident_mb()?;
        }
    }
    times.sort_unstable();
    let ms = |time: Option<&Duration>| time.map_or(f64::NAN, |time| time.as_secs_f64() * 1e3);
    Ok(Row {
        what: what.to_owned(),
        figures: vec![
            ("ready p50 ms".to_owned(), ms(times.get(times.len() / 2))),
            ("ready max ms".to_owned(), ms(times.last())),
            ("idle RSS MB".to_owned(), resident),
        ],
    })
}
