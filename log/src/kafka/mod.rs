//! The log on Apache Kafka.
//!
//! One [`KafkaLog`] serves a process. What it does with Kafka, and why, is told in `docs/kafka.md`. Every client is
//! made by
//! [`properties`], a pure function of the settings; blocking calls of librdkafka run on threads that may block.

mod append;
mod context;
mod errors;
mod feed;
mod forgetting;
mod group;
mod heir;
mod login;
mod member;
mod properties;
mod query;
mod reader;
mod record;
mod registrations;
mod registry;
mod settings;
mod topics;
mod transaction;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::admin::AdminClient;

use self::append::Appender;
use self::context::Plain;
use self::properties::{Role, properties};
use self::query::Query;
pub use self::settings::{InvalidSettings, KafkaSettings};
pub use self::topics::kafka_topics_commands;
use crate::port::{
    Committed, JoinSpec, Log, LogError, LogReader, Member, NewRecord, Start, TopicPartition, TopicSpec, TopicState,
    Watermarks,
};

/// The log on a Kafka cluster.
pub struct KafkaLog {
    settings: KafkaSettings,
    query: Arc<Query>,
    appender: Arc<Appender>,
    admin: AdminClient<Plain>,
}

impl KafkaLog {
    /// A log on the cluster that `settings` names. Asks no broker: while none answers, calls fail with
    /// [`LogError::Unavailable`] after their time-outs, and succeed once one does.
    ///
    /// # Errors
    /// [`LogError::Denied`] if a setting or a librdkafka property is not valid.
    pub fn connect(settings: KafkaSettings) -> Result<Self, LogError> {
        settings.validate().map_err(|error| LogError::Denied(error.to_string()))?;
        Ok(Self {
            query: Arc::new(Query::new(&settings)?),
            appender: Arc::new(Appender::new(&settings)?),
            admin: context::create(properties(&settings, Role::Admin), Plain)?,
            settings,
        })
    }

    /// Waits for the brokers to refuse this client: a wrong password, or a certificate of theirs that is not trusted. Going
    /// on is of no use then. Never completes if they let it in; while none answers, it waits.
    pub async fn refused(&self) -> LogError {
        match login::wait(&self.settings).await {
            Err(error) => error,
            Ok(()) => std::future::pending().await,
        }
    }

    /// Asks `question` on a thread that may block.
    async fn ask<T, F>(&self, question: F) -> Result<T, LogError>
    where
        T: Send + 'static,
        F: FnOnce(&Query) -> Result<T, LogError> + Send + 'static,
    {
        let query = Arc::clone(&self.query);
        blocking(move || question(&query)).await
    }
}

#[async_trait]
impl Log for KafkaLog {
    async fn create_topics(&self, specs: &[TopicSpec]) -> Result<(), LogError> {
        topics::create(&self.admin, &self.query, &self.settings, specs).await
    }

    async fn check_topics(&self, specs: &[TopicSpec]) -> Result<Vec<TopicState>, LogError> {
        forgetting::check(&self.admin, &self.query, &self.settings, specs).await
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<u64>, LogError> {
        records.iter().try_for_each(record::check_size)?;
        let unknown: Vec<_> =
            records.iter().filter(|record| !self.query.knows(&record.to)).map(|record| record.to.clone()).collect();
        if !unknown.is_empty() {
            self.ask(move |query| unknown.iter().try_for_each(|at| query.require(at))).await?;
        }
        if records.is_empty() {
            return Ok(Vec::new());
        }
        self.appender.append(&records).await
    }

    async fn watermarks(&self, at: &TopicPartition) -> Result<Watermarks, LogError> {
        let at = at.clone();
        self.ask(move |query| {
            query.require(&at)?;
            let borders = query.borders(std::slice::from_ref(&at))?;
            borders.first().copied().ok_or(LogError::UnknownTopic(at))
        })
        .await
    }

    async fn read(&self, starts: Vec<(TopicPartition, Start)>) -> Result<Box<dyn LogReader>, LogError> {
        reader::open(&self.settings, &self.query, starts).await
    }

    async fn join(&self, spec: JoinSpec) -> Result<Arc<dyn Member>, LogError> {
        member::join(&self.settings, &self.query, &self.appender, spec).await
    }

    async fn committed(&self, group: &str, at: &TopicPartition) -> Result<Option<Committed>, LogError> {
        let (group, at) = (group.to_owned(), at.clone());
        self.ask(move |query| query.committed(&group, &at)).await
    }

    async fn fence(&self, transactional_id: &str) -> Result<(), LogError> {
        let (settings, id) = (self.settings.clone(), transactional_id.to_owned());
        blocking(move || transaction::fence(&settings, &id)).await
    }

    async fn delete_before(&self, at: &TopicPartition, offset: u64) -> Result<(), LogError> {
        topics::delete_before(&self.admin, &self.query, &self.settings, at, offset).await
    }

    async fn health(&self) -> Result<(), LogError> {
        self.ask(Query::health).await
    }
}

/// Runs `work` on a thread that may block.
async fn blocking<T, F>(work: F) -> Result<T, LogError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, LogError> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) if error.is_cancelled() => Err(LogError::Closed),
        Err(error) => Err(LogError::Unavailable(format!("a call of the Kafka client died: {error}"))),
    }
}

/// Drops `clients` on a thread of its own: closing a client waits for brokers, and can hang.
fn close_on_own_thread<T: Send + 'static>(clients: T) {
    let closing = std::thread::Builder::new().name("kafka-close".to_owned()).spawn(move || drop(clients));
    if let Err(error) = closing {
        tracing::warn!(%error, "no thread to close a Kafka client on; it was closed in place");
    }
}

/// Locks, also after a panic elsewhere: each holder leaves the value consistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `ms` milliseconds.
fn millis(ms: u32) -> Duration {
    Duration::from_millis(ms.into())
}
