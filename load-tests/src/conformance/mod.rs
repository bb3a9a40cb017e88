//! Checks of somebody else's client, producer or node against the contract of docs/kafka.md and docs/protocol.md.

pub mod http;
pub mod lane;
pub mod record;
pub mod report;
pub mod session;
pub mod sound;

use std::path::PathBuf;

use anyhow::ensure;
use clap::Args;
use reqwest::Url;

use self::lane::LaneArguments;
use self::report::Report;

/// What to check.
#[derive(Args)]
pub struct ConformanceArguments {
    /// Drives the node at this URL as a reference client does: HTTP and the session protocol.
    #[arg(long, required_unless_present = "brokers")]
    url: Option<Url>,
    /// Bearer token for --url.
    #[arg(long, env = "RELAY_TOKEN", hide_env_values = true, requires = "url")]
    token: Option<String>,
    /// Watches what a producer writes to a lane on these brokers (host:port, separated by commas).
    #[arg(long)]
    brokers: Option<String>,
    #[command(flatten)]
    lane: LaneArguments,
    /// Writes the report to this file as JUnit XML.
    #[arg(long)]
    junit: Option<PathBuf>,
}

/// Checks, prints each check, and writes the report.
///
/// # Errors
/// A check failed, the brokers cannot be read, or the report cannot be written.
pub async fn run(arguments: ConformanceArguments) -> anyhow::Result<()> {
    let mut report = Report::default();
    if let Some(brokers) = &arguments.brokers {
        lane::watch(brokers, &arguments.lane, &mut report).await?;
    }
    if let Some(url) = &arguments.url {
        http::check(url, arguments.token.as_deref(), &mut report).await;
        session::check(url, arguments.token.as_deref(), &mut report).await;
    }
    print!("{report}");
    if let Some(path) = &arguments.junit {
        std::fs::write(path, report.junit())?;
    }
    ensure!(report.failed() == 0, "{} of {} checks failed", report.failed(), report.checks().len());
    Ok(())
}
