//! `submit`: checks what can be checked here, submits, then follows the job like `watch`.

use std::path::PathBuf;
use std::process::ExitCode;

use bytes::Bytes;
use relay_protocol::job::check_params;
use relay_protocol::task::{Param, ParamKind};
use relay_protocol::{ErrorCode, JobError, Task};
use serde_json::{Map, Value};
use tokio::io::AsyncReadExt;

use super::watch;
use crate::cli::{SubmitArgs, json_or_text};
use crate::client::Client;
use crate::job::{JobInput, JobRequest};
use crate::output::{Failure, Reporter, print_line};
use crate::settings::ClientSettings;

/// Most bytes that are taken from standard input: they are kept in memory, to be sent again if the connection breaks.
const STDIN_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Runs the command.
pub(crate) async fn run(settings: ClientSettings, args: SubmitArgs) -> Result<ExitCode, Failure> {
    let task: Task = args.task.parse().map_err(|error| JobError::new(ErrorCode::UnknownTask, format!("{error}")))?;
    let params = params(task, &args.params)?;
    let (input, name) = input(&args.input).await?;
    let job = JobRequest {
        model: args.model,
        params,
        name,
        media_type: args.media_type,
        lane: args.lane,
        priority: args.priority,
        idempotency_key: args.key,
        deadline_ms: args.deadline,
        not_before_ms: args.not_before,
        traceparent: args.traceparent,
        ..JobRequest::new(task.name(), input)
    };
    let reporter = Reporter::new(args.out.json);
    let client = Client::connect(settings).await?;
    let progress = |done, all| reporter.uploaded(done, all);
    if args.detach {
        let (job_id, json) = client.submit_detached(job, &progress).await.inspect_err(|_| reporter.end())?;
        reporter.end();
        if args.out.json {
            print_line(&json)?
        } else {
            print_line(job_id.to_string().as_bytes())?
        }
        client.close().await;
        return Ok(ExitCode::SUCCESS);
    }
    let handle = client.submit_with_progress(job, &progress).await.inspect_err(|_| reporter.end())?;
    if args.out.json {
        print_line(handle.accepted())?;
    }
    reporter.accepted(handle.job_id());
    watch::follow(&client, handle, &args.out, reporter).await
}

/// The parameters, checked by the rules that the node has too.
fn params(task: Task, given: &[(String, String)]) -> Result<Map<String, Value>, JobError> {
    let any_json =
        |name: &str| task.params().iter().any(|Param { name: known, kind }| *known == name && *kind == ParamKind::Json);
    let value =
        |name: &str, text: &str| if any_json(name) { json_or_text(text) } else { Value::String(text.to_owned()) };
    let params = given.iter().map(|(name, text)| (name.clone(), value(name, text))).collect();
    check_params(task, &params)?;
    Ok(params)
}

/// The input and the name of its file.
async fn input(text: &str) -> Result<(JobInput, Option<String>), Failure> {
    if text == "-" {
        return Ok((JobInput::Bytes(stdin().await?), None));
    }
    if text.starts_with("http://") || text.starts_with("https://") {
        return Ok((JobInput::Url(text.to_owned()), None));
    }
    let path = PathBuf::from(text);
    let unreadable = |error: std::io::Error| Failure::Usage(format!("{text}: {error}"));
    // Opened too: a file that may not be read is told before a connection is made.
    let file = tokio::fs::File::open(&path).await.map_err(unreadable)?;
    let facts = file.metadata().await.map_err(unreadable)?;
    if !facts.is_file() {
        return Err(Failure::Usage(format!("{text} is no regular file; use - to read a pipe from standard input")));
    }
    if facts.len() == 0 {
        return Err(JobError::new(ErrorCode::EmptyMedia, format!("{text} is empty")).into());
    }
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    Ok((JobInput::File(path), name))
}

async fn stdin() -> Result<Bytes, Failure> {
    let mut bytes = Vec::new();
    let mut limited = tokio::io::stdin().take(STDIN_BYTES_MAX + 1);
    let read =
        limited.read_to_end(&mut bytes).await.map_err(|error| Failure::Usage(format!("standard input: {error}")))?;
    if read as u64 > STDIN_BYTES_MAX {
        let message = format!("standard input has more than {STDIN_BYTES_MAX} bytes: submit a file instead");
        return Err(JobError::new(ErrorCode::TooLarge, message).into());
    }
    if bytes.is_empty() {
        return Err(JobError::new(ErrorCode::EmptyMedia, "standard input is empty").into());
    }
    Ok(bytes.into())
}
