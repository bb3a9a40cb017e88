//! The thread that writes: many commands, one fsync.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot};

use super::Shared;
use super::core::{Core, MemberId, Write};
use super::space::{Budget, Space};
use crate::port::{Commit, CommitError, LogError, NewRecord, TopicPartition, TopicSpec};

/// Commands that go into one group.
const GROUP_MAX: usize = 1_024;
/// Time between two looks at what time alone changes: retention, partitions that nobody settles.
const TICK: Duration = Duration::from_millis(100);

/// What the writer is asked to do.
pub(super) enum Command {
    CreateTopics(Vec<TopicSpec>, oneshot::Sender<Result<(), LogError>>),
    Append(Vec<NewRecord>, oneshot::Sender<Result<Vec<u64>, LogError>>),
    Commit(Box<(String, MemberId, Commit)>, oneshot::Sender<Result<(), CommitError>>),
    DeleteBefore(TopicPartition, u64, oneshot::Sender<Result<(), LogError>>),
    Health(oneshot::Sender<Result<(), LogError>>),
}

/// An answer that waits for its writes to be durable.
enum Answer {
    Done(Result<(), LogError>, oneshot::Sender<Result<(), LogError>>),
    Appended(Result<Vec<u64>, LogError>, oneshot::Sender<Result<Vec<u64>, LogError>>),
    Committed(Result<(), CommitError>, oneshot::Sender<Result<(), CommitError>>),
}

pub(super) struct Writer {
    shared: Weak<Shared>,
    commands: mpsc::Receiver<Command>,
    space: Space,
    /// Why nothing can be written any more: after a failed fsync nobody knows what the file holds.
    failed: Option<LogError>,
}

impl Writer {
    pub(super) fn new(shared: Weak<Shared>, commands: mpsc::Receiver<Command>, space: Space) -> Self {
        Self { shared, commands, space, failed: None }
    }

    /// Runs until the last handle of the log is gone.
    pub(super) fn run(mut self) {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() else {
            tracing::error!("the log's writer has no timer and cannot run");
            return;
        };
        let mut group = Vec::with_capacity(GROUP_MAX);
        let mut ticked = Instant::now();
        loop {
            let waiting = self.commands.recv_many(&mut group, GROUP_MAX);
            let came = runtime.block_on(async { tokio::time::timeout(TICK, waiting).await });
            let Some(shared) = self.shared.upgrade() else { return };
            if came == Ok(0) {
                return;
            }
            let tick = ticked.elapsed() >= TICK;
            if tick {
                ticked = Instant::now();
            }
            self.carry_out(&shared, &mut group, tick);
        }
    }

    fn carry_out(&mut self, shared: &Arc<Shared>, group: &mut Vec<Command>, tick: bool) {
        let mut writes = Vec::new();
        let mut answers = Vec::with_capacity(group.len());
        if self.failed.is_none() {
            let mut room = self.space.now();
            let mut core = shared.core();
            answers.extend(group.drain(..).map(|command| apply(&mut core, command, &mut room, &mut writes)));
            if tick {
                core.tick(now_ms(), &mut writes);
            }
        } else {
            answers.extend(group.drain(..).map(refuse));
        }
        if !writes.is_empty()
            && let Err(error) = shared.store.write(&writes)
        {
            tracing::error!(%error, "the log cannot be written any more");
            self.failed = Some(error);
        }
        if self.failed.is_none() && !writes.is_empty() {
            shared.core().publish();
        }
        for answer in answers {
            send(answer, self.failed.as_ref());
        }
        if tick || !writes.is_empty() {
            shared.changed.notify_waiters();
        }
    }
}

fn apply(core: &mut Core, command: Command, room: &mut Budget, writes: &mut Vec<Write>) -> Answer {
    match command {
        Command::CreateTopics(specs, reply) => {
            specs.iter().for_each(|spec| core.create_topic(spec, writes));
            Answer::Done(Ok(()), reply)
        }
        Command::Append(records, reply) => {
            Answer::Appended(room.append(&records).and_then(|()| core.append(records, writes)), reply)
        }
        Command::Commit(commit, reply) => {
            let (group, member, commit) = *commit;
            let done = room.commit(&commit.records).and_then(|()| core.commit(&group, member, commit, writes));
            Answer::Committed(done, reply)
        }
        Command::DeleteBefore(at, offset, reply) => Answer::Done(core.delete_before(&at, offset, writes), reply),
        Command::Health(reply) => Answer::Done(room.health(), reply),
    }
}

/// Nothing is applied any more; [`send`] says why.
fn refuse(command: Command) -> Answer {
    match command {
        Command::CreateTopics(_, reply) | Command::DeleteBefore(_, _, reply) | Command::Health(reply) => {
            Answer::Done(Ok(()), reply)
        }
        Command::Append(_, reply) => Answer::Appended(Ok(Vec::new()), reply),
        Command::Commit(_, reply) => Answer::Committed(Ok(()), reply),
    }
}

/// Answers, unless what the answer tells of could not be made durable. Whoever asked may have stopped waiting.
fn send(answer: Answer, failed: Option<&LogError>) {
    let error = || failed.cloned().map_or(Ok(()), Err);
    match answer {
        Answer::Done(result, reply) => drop(reply.send(error().and(result))),
        Answer::Appended(result, reply) => drop(reply.send(error().and(result))),
        Answer::Committed(result, reply) => {
            let result = match failed {
                Some(error) => Err(CommitError::InDoubt(error.to_string())),
                None => result,
            };
            drop(reply.send(result));
        }
    }
}

/// Milliseconds since the Unix epoch.
pub(super) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}
