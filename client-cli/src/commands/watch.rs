//! `watch`: follows a job to its end, prints its events and writes its result.

use std::process::ExitCode;

use relay_protocol::{ErrorCode, Event, JobError};

use super::result;
use crate::cli::{OutArgs, WatchArgs};
use crate::client::Client;
use crate::job::JobHandle;
use crate::output::{Failure, Reporter, exit_code, print_line};

/// Exit code of a command that was interrupted, as shells have it.
const INTERRUPTED: u8 = 130;

/// Runs the command.
pub(crate) async fn run(client: &Client, args: &WatchArgs) -> Result<ExitCode, Failure> {
    let handle = client.watch(args.job, 0).await?;
    follow(client, handle, &args.out, Reporter::new(args.out.json)).await
}

/// Follows a job to its end; Ctrl-C ends the waiting, not the job.
pub(crate) async fn follow(
    client: &Client,
    mut handle: JobHandle,
    out: &OutArgs,
    reporter: Reporter,
) -> Result<ExitCode, Failure> {
    let job_id = handle.job_id();
    let last = tokio::select! {
        last = until_the_end(&mut handle, out.json, &reporter) => last.inspect_err(|_| reporter.end())?,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            reporter.end();
            eprintln!("interrupted; job {job_id} goes on:\n  client-cli watch {job_id}\n  client-cli cancel {job_id}");
            return Ok(ExitCode::from(INTERRUPTED));
        }
    };
    result::write(client, &last, out).await?;
    client.clone().close().await;
    Ok(exit_code(last.event))
}

/// Prints every event and returns the last.
async fn until_the_end(handle: &mut JobHandle, json: bool, reporter: &Reporter) -> Result<Event, Failure> {
    while let Some(event) = handle.next_event().await? {
        let parsed = serde_json::from_slice::<Event>(&event.json);
        if let Ok(parsed) = &parsed {
            reporter.event(parsed);
        }
        if json {
            print_line(&event.json)?;
        }
        if event.terminal {
            return parsed.map_err(|error| {
                JobError::new(ErrorCode::Internal, format!("the job's last event cannot be read: {error}")).into()
            });
        }
    }
    Err(Failure::NoConnection("the events ended before the job".to_owned()))
}
