//! `backends`: what the coordinator shows of them, and the orders to drain them and to use them again.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use relay_protocol::cluster::{BackendInfo, BackendNameInfo, BackendOrder, BackendState};
use serde_json::Value;

use super::cluster::{parse, table};
use super::http;
use crate::cli::ListArgs;
use crate::output::{Failure, print_line};
use crate::settings::ClientSettings;

/// Arguments of `backends`: without a command they are listed.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct BackendsArgs {
    #[command(subcommand)]
    command: Option<BackendsCommand>,
    #[command(flatten)]
    list: ListArgs,
}

/// What to do with the backends.
#[derive(Debug, Subcommand)]
enum BackendsCommand {
    /// List the backends of the cluster
    List(ListArgs),
    /// Give a backend no new requests; those that run end. Needs the scope admin
    Drain(OrderArgs),
    /// Give a drained backend requests again. Needs the scope admin
    Resume(OrderArgs),
}

/// Arguments of `backends drain` and `backends resume`.
#[derive(Debug, Args)]
struct OrderArgs {
    /// URL of the backend, as it is listed
    #[arg(value_name = "URL")]
    backend: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl BackendsArgs {
    /// Whether JSON is wanted.
    pub(crate) fn json(&self) -> bool {
        match &self.command {
            None => self.list.json,
            Some(BackendsCommand::List(args)) => args.json,
            Some(BackendsCommand::Drain(args) | BackendsCommand::Resume(args)) => args.json,
        }
    }
}

/// Does it.
pub(crate) async fn run(settings: &ClientSettings, args: &BackendsArgs) -> Result<ExitCode, Failure> {
    match &args.command {
        None => list(settings, &args.list).await,
        Some(BackendsCommand::List(args)) => list(settings, args).await,
        Some(BackendsCommand::Drain(args)) => order(settings, args, "drain").await,
        Some(BackendsCommand::Resume(args)) => order(settings, args, "resume").await,
    }
}

async fn list(settings: &ClientSettings, args: &ListArgs) -> Result<ExitCode, Failure> {
    let mut body: Value = http::get(settings, "/v1/backends").await?;
    let names: Vec<BackendNameInfo> =
        body.get_mut("names").map(Value::take).map(parse).transpose()?.unwrap_or_default();
    let backends = body.get_mut("backends").map(Value::take).unwrap_or(body);
    if args.json {
        print_line(backends.to_string().as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    for name in &names {
        if let Some(problem) = &name.problem {
            eprintln!("{}: {problem}", name.url);
        }
    }
    let backends: Vec<BackendInfo> = parse(backends)?;
    let rows = backends.into_iter().map(|backend| {
        let slots = format!("{}/{}/{}", backend.slots_in_use, backend.slots_granted, backend.slots);
        vec![backend.url.clone(), health(&backend), slots, backend.models.join(", ")]
    });
    table(&["BACKEND", "HEALTH", "IN USE/GRANTED/SLOTS", "MODELS"], rows.collect())
}

async fn order(settings: &ClientSettings, args: &OrderArgs, what: &str) -> Result<ExitCode, Failure> {
    let order = BackendOrder { backend: args.backend.clone(), subject: None };
    let mut body: Value = http::post(settings, &format!("/v1/backends/{what}"), &order).await?;
    let backend = body.get_mut("backend").map(Value::take).unwrap_or_default();
    if args.json {
        print_line(backend.to_string().as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let shown: Option<BackendInfo> = parse(backend)?;
    let line = match shown {
        Some(backend) => {
            format!("{}: {}, {} in use", backend.url, backend.state.as_str(), backend.slots_in_use)
        }
        None => format!("{}: not listed now", args.backend),
    };
    print_line(line.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// What a reader wants to know first of a backend.
fn health(backend: &BackendInfo) -> String {
    let reason = backend.reason.clone();
    match (backend.state, backend.healthy) {
        (BackendState::Serving, true) => reason.map_or("healthy".to_owned(), |reason| format!("healthy ({reason})")),
        (BackendState::Serving, false) => reason.unwrap_or("down".to_owned()),
        (state, _) => reason.map_or(state.as_str().to_owned(), |reason| format!("{} ({reason})", state.as_str())),
    }
}
