//! What the CLI prints, and with which code it exits.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use relay_protocol::event::EventKind;
use relay_protocol::{Event, JobError, JobId};
use serde_json::json;

use crate::error::ClientError;

/// The exit codes, as `--help` shows them.
pub(crate) const EXIT_CODES: &str = "Exit codes:
  0    the job completed; with --detach: it was accepted
  1    the result could not be written or was damaged on the way
  2    wrong usage, or the input cannot be read
  3    the request was rejected
  4    the job failed or was dead-lettered
  5    no connection to the relay
  6    the job was cancelled or expired
  130  interrupted while waiting; the job goes on";

/// Code of an error that only the client can tell.
pub(crate) const NO_CONNECTION: &str = "no_connection";

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// An output cannot be written, or what came is damaged.
    Output(String),
    /// The input cannot be read, or a setting is wrong.
    Usage(String),
    /// Rejected, here or by the node.
    Rejected(JobError),
    /// No connection.
    NoConnection(String),
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Rejected(error) => Self::Rejected(error),
            ClientError::NoConnection { reason } => Self::NoConnection(reason),
            ClientError::Closed => Self::NoConnection("the connection ended".to_owned()),
            ClientError::Io { .. } => Self::Output(error.to_string()),
            error => Self::Usage(error.to_string()),
        }
    }
}

impl From<JobError> for Failure {
    fn from(error: JobError) -> Self {
        Self::Rejected(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(format!("the output cannot be written: {error}"))
    }
}

impl Failure {
    /// Prints it, with `json` what programs read on stdout, and returns its exit code.
    pub(crate) fn report(self, json: bool) -> ExitCode {
        let (code, error) = match self {
            Self::Output(message) => return plain(&message, 1),
            Self::Usage(message) => return plain(&message, 2),
            Self::Rejected(error) => (3, error),
            Self::NoConnection(message) => (5, JobError { code: NO_CONNECTION.to_owned(), message, retryable: true }),
        };
        if json {
            // Nobody reads stdout any more: the exit code still tells.
            drop(print_line(json!({ "error": error }).to_string().as_bytes()));
        } else {
            eprintln!("error: {error}");
        }
        ExitCode::from(code)
    }
}

fn plain(message: &str, code: u8) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::from(code)
}

/// Writes one line to stdout at once.
///
/// # Errors
/// Stdout is closed.
pub(crate) fn print_line(line: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(line)?;
    stdout.write_all(b"\n")?;
    stdout.flush()
}

/// The exit code for a job that ended so.
pub(crate) fn exit_code(kind: EventKind) -> ExitCode {
    ExitCode::from(match kind {
        EventKind::Completed => 0,
        EventKind::Cancelled | EventKind::Expired => 6,
        _ => 4,
    })
}

/// Tells a human how far things are: a bar if stderr is a terminal, else lines.
pub(crate) struct Reporter {
    bar: Option<ProgressBar>,
    quiet: bool,
}

impl Reporter {
    /// With `json` only a bar is shown, no lines.
    pub(crate) fn new(json: bool) -> Self {
        let terminal = io::stderr().is_terminal();
        Self { bar: terminal.then(|| ProgressBar::new_spinner().with_message("connecting")), quiet: json }
    }

    /// Shows the bytes of an upload that the node has.
    pub(crate) fn uploaded(&self, done: u64, all: u64) {
        let Some(bar) = &self.bar else { return };
        if bar.length() != Some(all) {
            bar.set_style(style("{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}"));
            bar.set_message("uploading");
            bar.set_length(all);
        }
        bar.set_position(done);
    }

    /// Shows that the job is durable.
    pub(crate) fn accepted(&self, job_id: JobId) {
        self.say(&format!("accepted: job {job_id}"));
        self.work("queued");
    }

    /// Shows an event.
    pub(crate) fn event(&self, event: &Event) {
        match event.event {
            EventKind::Progress => {
                let percent = (event.fraction.unwrap_or_default().clamp(0.0, 1.0) * 100.0) as u64;
                let left = left(event);
                match &self.bar {
                    Some(bar) => {
                        bar.set_position(percent);
                        bar.set_message(left.map_or("working".to_owned(), |left| format!("working, {left} left")));
                    }
                    None => self.say(&format!(
                        "progress: {percent} %{}",
                        left.map(|l| format!(", {l} left")).unwrap_or_default()
                    )),
                }
            }
            EventKind::Started => {
                let by = event.backend.as_deref().unwrap_or("the node");
                self.say(&format!("started: attempt {} on {by}", event.attempt));
                self.work("working");
            }
            EventKind::Retrying => {
                let why = event.error.as_ref().map(ToString::to_string).unwrap_or_default();
                self.say(&format!("retrying: {why}"));
                self.work("waiting for the next attempt");
            }
            EventKind::Accepted | EventKind::Partial | EventKind::Restarted => {}
            kind => {
                self.end();
                let why = event.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
                self.say(&format!("{}{why}", kind.name()));
            }
        }
    }

    /// A line for humans.
    pub(crate) fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) if !bar.is_finished() => bar.suspend(|| eprintln!("{line}")),
            _ if self.quiet => {}
            _ => eprintln!("{line}"),
        }
    }

    /// Takes the bar away.
    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn work(&self, what: &'static str) {
        let Some(bar) = &self.bar else { return };
        bar.set_style(style("{spinner} {msg} [{bar:30}] {percent} % {elapsed}"));
        bar.set_length(100);
        bar.set_position(0);
        bar.set_message(what);
        bar.enable_steady_tick(Duration::from_millis(200));
    }
}

/// How long a `progress` event says that it takes still, by the node's own clock; `None` if it does not say.
fn left(event: &Event) -> Option<String> {
    let seconds = event.eta?.saturating_sub(event.at).div_ceil(1_000);
    Some(match seconds {
        0..=119 => format!("about {seconds} s"),
        120..=7_199 => format!("about {} min", seconds.div_ceil(60)),
        _ => format!("about {} h", seconds.div_ceil(3_600)),
    })
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
