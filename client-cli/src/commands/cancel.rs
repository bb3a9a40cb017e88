//! `cancel`: asks to cancel a job.

use std::process::ExitCode;

use relay_protocol::session::CancelOutcomeV1;
use relay_protocol::{ErrorCode, JobError};
use serde_json::json;

use crate::cli::JobArgs;
use crate::client::Client;
use crate::output::{Failure, print_line};

/// Runs the command.
pub(crate) async fn run(client: &Client, args: &JobArgs) -> Result<ExitCode, Failure> {
    let job_id = args.job;
    let outcome = client.cancel(job_id).await?;
    client.clone().close().await;
    match outcome {
        CancelOutcomeV1::Requested if args.json => {
            print_line(json!({ "job_id": job_id, "state": "cancel_requested" }).to_string().as_bytes())?;
        }
        CancelOutcomeV1::Requested => print_line(format!("cancel of job {job_id} requested").as_bytes())?,
        CancelOutcomeV1::AlreadyEnded => {
            return Err(JobError::new(ErrorCode::AlreadyEnded, format!("job {job_id} has ended already")).into());
        }
    }
    Ok(ExitCode::SUCCESS)
}
