//! `fetch`: brings the media that a completed job made.

use std::process::ExitCode;

use relay_protocol::{ErrorCode, JobError};

use super::result;
use crate::cli::FetchArgs;
use crate::client::Client;
use crate::output::Failure;

/// Runs the command.
pub(crate) async fn run(client: &Client, args: &FetchArgs) -> Result<ExitCode, Failure> {
    let status = client.status(args.job).await?;
    let media = status.last.result.as_ref().and_then(result::media_of);
    let media = media.ok_or_else(|| {
        let message = format!("job {} is {} and has no media", args.job, status.state);
        JobError::new(ErrorCode::NoResult, message)
    })?;
    if args.output.as_os_str() == "-" {
        result::checked(client, args.job, &media, tokio::io::stdout()).await?;
    } else {
        result::to_file(client, args.job, &media, &args.output).await?;
        eprintln!("{}: {} bytes", args.output.display(), media.bytes);
    }
    client.clone().close().await;
    Ok(ExitCode::SUCCESS)
}
