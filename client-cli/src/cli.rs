//! The command line: what can be said, and which command does it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use relay_protocol::{JobId, Priority};
use serde_json::Value;

use crate::client::Client;
use crate::clock::now_ms;
use crate::commands;
use crate::commands::backends::BackendsArgs;
use crate::commands::dlq::DlqCommand;
use crate::commands::jobs::JobsCommand;
use crate::output::{EXIT_CODES, Failure};
use crate::settings::{ClientSettings, DEFAULT_SERVER};

/// Submits media jobs to a relay, follows them and brings their results.
#[derive(Debug, Parser)]
#[command(name = "client-cli", version, after_help = EXIT_CODES)]
pub struct Cli {
    /// URL of a relay node (http, https, ws or wss); several, separated by commas, are tried in turn
    #[arg(long, global = true, env = "RELAY_URL", default_value = DEFAULT_SERVER, value_name = "URL")]
    server: String,
    /// Bearer token
    #[arg(long, global = true, env = "RELAY_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<String>,
    /// Trust the certificate authorities of this PEM file, instead of the public ones, for https and wss
    #[arg(long, global = true, env = "RELAY_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Give up the first connection after this time
    #[arg(long, global = true, default_value = "5s", value_parser = duration, value_name = "TIME")]
    connect_timeout: Duration,
    /// Give up a lost connection after this time
    #[arg(long, global = true, default_value = "60s", value_parser = duration, value_name = "TIME")]
    reconnect_timeout: Duration,
    /// Take a connection for lost after this time without a word from the node
    #[arg(long, global = true, default_value = "30s", value_parser = duration, value_name = "TIME")]
    idle_timeout: Duration,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Submit a job and wait for its result
    #[command(after_help = EXIT_CODES)]
    Submit(Box<SubmitArgs>),
    /// Follow a job from its first event to its result
    #[command(after_help = EXIT_CODES)]
    Watch(WatchArgs),
    /// Show a job's state
    Status(JobArgs),
    /// Ask to cancel a job
    Cancel(JobArgs),
    /// Bring the media that a completed job made
    Fetch(FetchArgs),
    /// List the backends of the cluster, drain one, or let it have requests again
    Backends(BackendsArgs),
    /// List the nodes of the cluster
    Nodes(ListArgs),
    /// List, show, redrive or drop dead letters
    #[command(subcommand)]
    Dlq(DlqCommand),
    /// List, show or cancel jobs by filter
    #[command(subcommand)]
    Jobs(JobsCommand),
}

/// Arguments of `submit`.
#[derive(Debug, Args)]
pub(crate) struct SubmitArgs {
    /// File, http or https URL that a node may fetch, or - for standard input
    #[arg(value_name = "FILE|URL|-")]
    pub(crate) input: String,
    /// What to do
    #[arg(long, default_value = "transcribe")]
    pub(crate) task: String,
    /// Model; without one the relay chooses
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// Parameter of the task; may be repeated
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = param)]
    pub(crate) params: Vec<(String, String)>,
    /// Lane
    #[arg(long, default_value = "default")]
    pub(crate) lane: String,
    /// batch, normal or interactive
    #[arg(long, default_value = "normal", value_parser = |text: &str| text.parse::<Priority>())]
    pub(crate) priority: Priority,
    /// Idempotency key: of the jobs with the same key one runs, the others end as it does
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// End the job at this time (RFC 3339, or +30s from now)
    #[arg(long, value_parser = time, value_name = "TIME")]
    pub(crate) deadline: Option<u64>,
    /// Do not start before this time (RFC 3339, or +30s from now)
    #[arg(long, value_parser = time, value_name = "TIME")]
    pub(crate) not_before: Option<u64>,
    /// Media type of the input, if the name does not tell
    #[arg(long)]
    pub(crate) media_type: Option<String>,
    /// Return once the job is accepted and print its id
    #[arg(long)]
    pub(crate) detach: bool,
    /// W3C trace context
    #[arg(long)]
    pub(crate) traceparent: Option<String>,
    #[command(flatten)]
    pub(crate) out: OutArgs,
}

/// Where results go.
#[derive(Debug, Args)]
pub(crate) struct OutArgs {
    /// Write the result, or the media that the job made, to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Print every event as one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `watch`.
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// Id of the job
    pub(crate) job: JobId,
    #[command(flatten)]
    pub(crate) out: OutArgs,
}

/// Arguments of `status` and `cancel`.
#[derive(Debug, Args)]
pub(crate) struct JobArgs {
    /// Id of the job
    pub(crate) job: JobId,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `fetch`.
#[derive(Debug, Args)]
pub(crate) struct FetchArgs {
    /// Id of the job
    pub(crate) job: JobId,
    /// File, or - for standard output
    #[arg(long, value_name = "FILE|-")]
    pub(crate) output: PathBuf,
}

/// Arguments of lists that have no filters.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl Cli {
    /// Does what the command line says; messages go to stderr, results to stdout.
    pub async fn run(self) -> ExitCode {
        let json = self.json();
        match self.dispatch().await {
            Ok(code) => code,
            Err(failure) => failure.report(json),
        }
    }

    fn json(&self) -> bool {
        match &self.command {
            Command::Submit(args) => args.out.json,
            Command::Watch(args) => args.out.json,
            Command::Status(args) | Command::Cancel(args) => args.json,
            Command::Backends(args) => args.json(),
            Command::Nodes(args) => args.json,
            Command::Dlq(command) => command.json(),
            Command::Jobs(command) => command.json(),
            Command::Fetch(_) => false,
        }
    }

    async fn dispatch(self) -> Result<ExitCode, Failure> {
        let settings = ClientSettings {
            servers: self.server,
            token: self.token.filter(|token| !token.is_empty()),
            ca_file: self.ca_file.filter(|path| !path.as_os_str().is_empty()),
            connect_timeout: self.connect_timeout,
            reconnect_timeout: self.reconnect_timeout,
            idle_timeout: self.idle_timeout,
            ..ClientSettings::default()
        };
        match self.command {
            Command::Submit(args) => commands::submit::run(settings, *args).await,
            Command::Watch(args) => {
                let client = Client::connect(settings).await?;
                commands::watch::run(&client, &args).await
            }
            Command::Status(args) => commands::status::run(&Client::connect(settings).await?, &args).await,
            Command::Cancel(args) => commands::cancel::run(&Client::connect(settings).await?, &args).await,
            Command::Fetch(args) => commands::fetch::run(&Client::connect(settings).await?, &args).await,
            Command::Backends(args) => commands::backends::run(&settings, &args).await,
            Command::Nodes(args) => commands::cluster::nodes(&settings, &args).await,
            Command::Dlq(command) => commands::dlq::run(&settings, &command).await,
            Command::Jobs(command) => commands::jobs::run(&settings, &command).await,
        }
    }
}

fn param(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Milliseconds since the Unix epoch of `2026-11-23T18:30:00Z` or `+30s`.
fn time(text: &str) -> Result<u64, String> {
    match text.strip_prefix('+') {
        Some(later) => Ok(now_ms() + duration(later)?.as_millis() as u64),
        None => relay_protocol::time::parse_rfc3339(text),
    }
}

/// Milliseconds since the Unix epoch of `2026-11-23T18:30:00Z`, or of `24h` ago.
pub(crate) fn past_time(text: &str) -> Result<u64, String> {
    match duration(text) {
        Ok(ago) => Ok(now_ms().saturating_sub(ago.as_millis() as u64)),
        Err(_) => relay_protocol::time::parse_rfc3339(text),
    }
}

/// A number with `ms`, `s`, `m`, `h` or `d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    const DAYS_MAX: u64 = 36_500;
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(format!("{text:?} is no time: write a number with ms, s, m, h or d")),
    };
    let number: u64 = number.parse().map_err(|_| format!("{text:?} does not begin with a number"))?;
    match number.checked_mul(unit_ms) {
        Some(ms) if ms <= DAYS_MAX * 86_400_000 => Ok(Duration::from_millis(ms)),
        _ => Err(format!("{text:?} is more than {DAYS_MAX} days")),
    }
}

/// The value of a parameter that may be any JSON, as given on the command line.
pub(crate) fn json_or_text(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_absolute_or_from_now() {
        assert_eq!(time("1970-01-01T00:00:01Z"), Ok(1_000));
        let before = now_ms();
        let later = time("+30s").unwrap();
        assert!((before + 30_000..=now_ms() + 30_000).contains(&later));
        for bad in ["+30", "+s", "30s", "tomorrow", "+99999999999999999999s", "+99999999d"] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn past_times_are_absolute_or_before_now() {
        assert_eq!(past_time("1970-01-01T00:00:01Z"), Ok(1_000));
        let before = now_ms();
        let earlier = past_time("24h").unwrap();
        assert!((before - 86_400_000..=now_ms() - 86_400_000).contains(&earlier));
        for bad in ["24", "h", "+24h", "yesterday"] {
            assert!(past_time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
