//! `nodes`: what the coordinator shows of the cluster, asked of any server.

use std::process::ExitCode;

use relay_protocol::cluster::NodeInfo;
use relay_protocol::{ErrorCode, JobError};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::http;
use crate::cli::ListArgs;
use crate::output::{Failure, print_line};
use crate::settings::ClientSettings;

/// Lists the nodes.
pub(crate) async fn nodes(settings: &ClientSettings, args: &ListArgs) -> Result<ExitCode, Failure> {
    let list = list(settings, "nodes").await?;
    if args.json {
        return as_json(&list);
    }
    let nodes: Vec<NodeInfo> = parse(list)?;
    let rows = nodes.into_iter().map(|node| {
        vec![
            node.node,
            node.state,
            node.version,
            node.load.sessions.to_string(),
            node.load.jobs_running.to_string(),
            node.load.jobs_waiting.to_string(),
            format!("{} ms", node.heartbeat_age_ms),
            node.advertised_url.unwrap_or_else(|| "-".to_owned()),
        ]
    });
    table(&["NODE", "STATE", "VERSION", "SESSIONS", "RUNNING", "WAITING", "HEARTBEAT", "URL"], rows.collect())
}

/// The list from the first server that answers.
async fn list(settings: &ClientSettings, what: &str) -> Result<Value, Failure> {
    let mut body: Value = http::get(settings, &format!("/v1/{what}")).await?;
    Ok(match body.get_mut(what) {
        Some(list) => list.take(),
        None => body,
    })
}

/// What the server said, as `T`.
pub(super) fn parse<T: DeserializeOwned>(list: Value) -> Result<T, Failure> {
    let unreadable = |error| JobError::new(ErrorCode::Internal, format!("the server's list cannot be read: {error}"));
    Ok(serde_json::from_value(list).map_err(unreadable)?)
}

fn as_json(list: &Value) -> Result<ExitCode, Failure> {
    print_line(list.to_string().as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Prints rows under their heads, in columns.
pub(super) fn table(head: &[&str], rows: Vec<Vec<String>>) -> Result<ExitCode, Failure> {
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let columns = rows.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        print_line(cells.collect::<Vec<_>>().join("  ").trim_end().as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}
