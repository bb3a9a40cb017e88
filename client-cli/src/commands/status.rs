//! `status`: what of this job?

use std::process::ExitCode;

use relay_protocol::time::format_rfc3339;

use crate::cli::JobArgs;
use crate::client::Client;
use crate::output::{Failure, print_line};

/// Runs the command.
pub(crate) async fn run(client: &Client, args: &JobArgs) -> Result<ExitCode, Failure> {
    if args.json {
        print_line(&client.status_json(args.job).await?)?;
    } else {
        let status = client.status(args.job).await?;
        let last = &status.last;
        let why = last.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
        let line =
            format!("{}  {}  {} at {}{why}", status.job_id, status.state, last.event.name(), format_rfc3339(last.at));
        print_line(line.as_bytes())?;
    }
    client.clone().close().await;
    Ok(ExitCode::SUCCESS)
}
