//! Jobs as the SDK sees them: what is asked for, and the handle on what comes back.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use relay_protocol::event::is_news;
use relay_protocol::{JobId, Priority};
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use crate::connection::{Command, JobShared};
use crate::error::ClientError;
use crate::queue::{self, Look};

/// What a job works on.
#[derive(Debug, Clone)]
pub enum JobInput {
    /// Bytes in memory.
    Bytes(Bytes),
    /// A file, read when it is sent; again after a lost connection.
    File(PathBuf),
    /// A URL that the node fetches, if its allow-list has it.
    Url(String),
}

/// A job to submit.
#[derive(Debug, Clone)]
pub struct JobRequest {
    /// Task, by name.
    pub task: String,
    /// Model; `None` lets the relay choose.
    pub model: Option<String>,
    /// Parameters of the task.
    pub params: Map<String, Value>,
    /// What to work on.
    pub input: JobInput,
    /// Name of the input's file.
    pub name: Option<String>,
    /// Media type of the input.
    pub media_type: Option<String>,
    /// Lane; `default` by default.
    pub lane: String,
    /// Order among waiting jobs.
    pub priority: Priority,
    /// Of the jobs of a tenant and lane with the same key one runs; the others end as it does.
    pub idempotency_key: Option<String>,
    /// Ended at this time, in milliseconds since the Unix epoch.
    pub deadline_ms: Option<u64>,
    /// Not started before this time, in milliseconds since the Unix epoch.
    pub not_before_ms: Option<u64>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// Identity of the job; `None` makes one. A program that must not submit twice even if it dies keeps it.
    pub job_id: Option<JobId>,
}

impl JobRequest {
    /// A job in the default lane with normal priority and nothing else set.
    pub fn new(task: impl Into<String>, input: JobInput) -> Self {
        Self {
            task: task.into(),
            model: None,
            params: Map::new(),
            input,
            name: None,
            media_type: None,
            lane: "default".to_owned(),
            priority: Priority::Normal,
            idempotency_key: None,
            deadline_ms: None,
            not_before_ms: None,
            traceparent: None,
            job_id: None,
        }
    }
}

/// One event of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientEvent {
    /// Which job.
    pub job_id: JobId,
    /// Number of the event, rising through the job.
    pub seq: u64,
    /// Whether it is the job's last.
    pub terminal: bool,
    /// The event as the node sent it ([`relay_protocol::Event`]).
    pub json: Bytes,
}

/// The events of one job. Dropping it ends the watch, not the job.
pub struct JobHandle {
    pub(crate) job_id: JobId,
    pub(crate) accepted: Bytes,
    pub(crate) events: mpsc::Receiver<ClientEvent>,
    pub(crate) shared: Arc<JobShared>,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) last_seq: u64,
    pub(crate) ended: bool,
}

impl std::fmt::Debug for JobHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JobHandle")
            .field("job_id", &self.job_id)
            .field("last_seq", &self.last_seq)
            .finish_non_exhaustive()
    }
}

impl JobHandle {
    /// Identity of the job.
    pub fn job_id(&self) -> JobId {
        self.job_id
    }

    /// The `accepted` event as the node sent it; empty for a job that was not submitted here.
    pub fn accepted(&self) -> &Bytes {
        &self.accepted
    }

    /// Seq of the last event that was returned.
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// The next event, by rising seq, each once; `None` after the terminal one. A submitted job's begin after `accepted`.
    ///
    /// A handle that is not read misses `partial` and `progress` events, nothing else. Cancel-safe.
    ///
    /// # Errors
    /// [`ClientError::NoConnection`] once a lost connection is given up, [`ClientError::Rejected`] if there is no such job,
    /// [`ClientError::Closed`].
    pub async fn next_event(&mut self) -> Result<Option<ClientEvent>, ClientError> {
        while !self.ended {
            match queue::look(&mut self.events, &self.shared.lagging).await {
                Look::Item(event) => {
                    if let Some(event) = self.take(event) {
                        return Ok(Some(event));
                    }
                }
                Look::Lagging => {
                    let again = Command::Rewatch { job_id: self.job_id, after_seq: self.last_seq };
                    queue::ask_again(&self.commands, &self.shared.lagging, again).await;
                }
                Look::Closed => return Err(self.shared.failed.get().cloned().unwrap_or(ClientError::Closed)),
            }
        }
        Ok(None)
    }

    /// The event, unless a second watch brought it twice.
    fn take(&mut self, event: ClientEvent) -> Option<ClientEvent> {
        if self.ended || !is_news(event.seq, event.terminal, self.last_seq) {
            return None;
        }
        self.last_seq = event.seq;
        self.ended = event.terminal;
        Some(event)
    }
}

impl Drop for JobHandle {
    fn drop(&mut self) {
        if !self.ended {
            // If the connection is busy, it notices at the job's next event.
            drop(self.commands.try_send(Command::Unwatch { job_id: self.job_id }));
        }
    }
}

#[cfg(test)]
#[path = "job_test.rs"]
mod tests;
