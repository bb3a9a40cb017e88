//! `LocalLog`: the log of one process, durable in a folder, with nothing to install.
//!
//! One thread writes: it takes all commands that wait, applies them to the pure [`core`], makes their writes durable with
//! one fsync, and only then answers and shows the records to readers. Under load, groups form by themselves.

pub mod core;
#[cfg(test)]
mod local_test;
mod member;
pub mod places;
mod reader;
mod record;
mod space;
#[cfg(test)]
mod space_test;
mod store;
#[cfg(test)]
mod store_test;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, mpsc, oneshot};

use self::core::Core;
use self::member::LocalMember;
use self::reader::LocalReader;
pub use self::space::Free;
use self::space::Space;
use self::store::Store;
use self::writer::{Command, Writer};
use crate::port::{
    CommitError, Committed, JoinSpec, Log, LogError, LogReader, Member, NewRecord, Start, TopicPartition, TopicSpec,
    TopicState, Watermarks,
};

/// Name of the file in the data folder.
const FILE: &str = "log.redb";
/// Commands that may wait for the writer; callers wait beyond.
const COMMANDS_MAX: usize = 4_096;

/// Settings of a [`LocalLog`].
#[derive(Debug, Clone)]
pub struct LocalLogSettings {
    /// Newest records kept in memory, in bytes of their values.
    pub cache_bytes_max: usize,
    /// The store's own cache of pages, in bytes.
    pub store_cache_bytes: usize,
    /// How long a member may take to settle a partition that is taken from it.
    pub session_timeout: Duration,
    /// Bytes that must stay free on the disk: nothing new is taken beyond that, and what was taken may use three quarters of it to end.
    pub free_bytes_min: u64,
}

impl Default for LocalLogSettings {
    fn default() -> Self {
        Self {
            cache_bytes_max: 64 * 1024 * 1024,
            store_cache_bytes: 32 * 1024 * 1024,
            session_timeout: Duration::from_secs(6),
            free_bytes_min: 32 * 1024 * 1024,
        }
    }
}

/// The embedded log. Cheap to clone; the last clone that is dropped closes the file.
#[derive(Clone)]
pub struct LocalLog(Arc<Shared>);

/// What the handles share with the writer.
struct Shared {
    core: Mutex<Core>,
    store: Store,
    /// Something was published, or a group changed.
    changed: Notify,
    commands: mpsc::Sender<Command>,
}

impl Shared {
    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LocalLog {
    /// Opens the log in `folder`, making it if there is none.
    ///
    /// # Errors
    /// [`LogError::Unavailable`]: the folder cannot be used, or another process has it open.
    pub fn open(folder: &Path, settings: &LocalLogSettings) -> Result<Self, LogError> {
        Self::open_with(folder, settings, space::free_of(folder))
    }

    /// The same, with another view of how much room there is.
    ///
    /// # Errors
    /// As [`LocalLog::open`].
    pub fn open_with(folder: &Path, settings: &LocalLogSettings, free: Free) -> Result<Self, LogError> {
        let unusable = |error: std::io::Error| LogError::Unavailable(format!("{}: {error}", folder.display()));
        std::fs::create_dir_all(folder).map_err(unusable)?;
        let (store, kept) = Store::open(&folder.join(FILE), settings.store_cache_bytes)?;
        let core = Core::new(kept, settings.session_timeout, settings.cache_bytes_max);
        let (commands, waiting) = mpsc::channel(COMMANDS_MAX);
        let shared = Arc::new(Shared { core: Mutex::new(core), store, changed: Notify::new(), commands });
        let writer = Writer::new(Arc::downgrade(&shared), waiting, Space::new(free, settings.free_bytes_min));
        std::thread::Builder::new().name("local-log".to_owned()).spawn(move || writer.run()).map_err(unusable)?;
        Ok(Self(shared))
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, LogError> {
        ask(&self.0, command).await
    }
}

/// Hands the writer a command and waits for its answer.
async fn ask<T>(shared: &Shared, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, LogError> {
    let (reply, answer) = oneshot::channel();
    shared.commands.send(command(reply)).await.map_err(|_| LogError::Closed)?;
    answer.await.map_err(|_| LogError::Closed)
}

#[async_trait]
impl Log for LocalLog {
    async fn create_topics(&self, specs: &[TopicSpec]) -> Result<(), LogError> {
        self.ask(|reply| Command::CreateTopics(specs.to_vec(), reply)).await?
    }

    async fn check_topics(&self, specs: &[TopicSpec]) -> Result<Vec<TopicState>, LogError> {
        let core = self.0.core();
        Ok(specs.iter().map(|spec| core.topic_state(spec)).collect())
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<u64>, LogError> {
        self.0.core().check(&records)?;
        self.ask(|reply| Command::Append(records, reply)).await?
    }

    async fn watermarks(&self, at: &TopicPartition) -> Result<Watermarks, LogError> {
        self.0.core().watermarks(at)
    }

    async fn read(&self, starts: Vec<(TopicPartition, Start)>) -> Result<Box<dyn LogReader>, LogError> {
        Ok(Box::new(LocalReader::open(self.0.clone(), &starts)?))
    }

    async fn join(&self, spec: JoinSpec) -> Result<Arc<dyn Member>, LogError> {
        let id = self.0.core().join(&spec);
        self.0.changed.notify_waiters();
        Ok(Arc::new(LocalMember::new(self.0.clone(), spec.group, id)))
    }

    async fn committed(&self, group: &str, at: &TopicPartition) -> Result<Option<Committed>, LogError> {
        Ok(self.0.core().committed(group, at))
    }

    async fn fence(&self, transactional_id: &str) -> Result<(), LogError> {
        self.0.core().fence(transactional_id);
        Ok(())
    }

    async fn delete_before(&self, at: &TopicPartition, offset: u64) -> Result<(), LogError> {
        self.ask(|reply| Command::DeleteBefore(at.clone(), offset, reply)).await?
    }

    async fn health(&self) -> Result<(), LogError> {
        // The writer answers only while it can write.
        self.ask(Command::Health).await?
    }
}

/// A commit that could not be handed over.
fn closed() -> CommitError {
    CommitError::Aborted("the log is closed".to_owned())
}
