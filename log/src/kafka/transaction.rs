//! The thread that carries out a member's commits, one after the other.
//!
//! A commit is one Kafka transaction: the records, and the offsets sent under the consumer's group metadata, so that
//! the broker refuses them if the member or its generation is no longer current. The partitions' owner map stays locked
//! from the ownership check to the end of the transaction: the broker fences by member, not by partition, so a
//! partition must not change hands in between. After an error the lock is released before anybody tries again.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, Producer, ProducerContext, PurgeConfig};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::oneshot;

use super::errors::{code_of, is_fencing, log_error};
use super::feed::partition_id;
use super::group::{Group, Membership};
use super::properties::{Role, properties};
use super::query::Query;
use super::registry::Registered;
use super::{KafkaSettings, close_on_own_thread, context, lock, millis, record};
use crate::port::{Commit, CommitError, CommitOffset, LogError, METADATA_BYTES_MAX, NewRecord};

/// Pause between two looks whether the records have arrived; `flush` inside librdkafka would look every 100 ms.
const DELIVERY_LOOK: Duration = Duration::from_micros(100);

/// Time that a broker takes to end a transaction after it has answered the commit.
const ENDING: Duration = Duration::from_millis(5);

/// A commit of more records than these is after throughput.
const SMALL_RECORDS: usize = 16;

/// How often an idle thread lets the client speak, or tries to make a lost producer anew.
const IDLE_LOOK: Duration = Duration::from_millis(500);

/// A commit and where its outcome goes.
pub(super) struct Request {
    pub(super) commit: Commit,
    pub(super) reply: oneshot::Sender<Result<(), CommitError>>,
}

/// A transactional producer with nothing open.
pub(super) type Transactions = BaseProducer<Quiet>;

/// Makes the producer of `id`: ends what an earlier holder has open, and fences it.
pub(super) fn take_over(settings: &KafkaSettings, id: &str, client_id: &str) -> Result<Transactions, LogError> {
    let producer: Transactions = context::create(properties(settings, Role::Transaction { id, client_id }), Quiet)?;
    // An earlier transaction whose commit had begun must end first: the coordinator needs the partitions' leaders for
    // that.
    let timeout = millis(settings.request_timeout_ms) + millis(settings.transaction_timeout_ms);
    producer.init_transactions(timeout).map_err(|error| log_error("taking over the transactional id", &error))?;
    Ok(producer)
}

/// Fences the holder of `id`.
pub(super) fn fence(settings: &KafkaSettings, id: &str) -> Result<(), LogError> {
    // Whatever a returning holder does must not meet this one.
    take_over(settings, id, &settings.client_id).map(close_on_own_thread)
}

/// What the thread needs.
pub(super) struct Committer {
    pub(super) settings: KafkaSettings,
    pub(super) id: String,
    pub(super) client_id: String,
    pub(super) query: Arc<Query>,
    pub(super) group: Arc<Group>,
    pub(super) consumer: Arc<BaseConsumer<Membership>>,
    /// `None` while a lost producer could not be made anew.
    pub(super) producer: Option<Transactions>,
    /// When the last commit was answered.
    pub(super) ended: Option<Instant>,
    /// So that an heir can end what this one has open.
    pub(super) registered: Registered,
}

/// How a transaction failed.
enum Failure {
    /// Before its commit was asked for: nothing happened, the producer can go on after an abort.
    Abortable(String),
    /// The producer is of no use any more; another one has its id.
    Fenced(String),
    /// The producer is of no use any more, and nothing happened.
    Dead(String),
    /// The commit was asked for and not answered.
    InDoubt(String),
}

impl Committer {
    /// Carries out commits until every sender is gone; the registration, if nothing can be open under it any more.
    pub(super) fn run(mut self, requests: &Receiver<Request>) -> Option<Registered> {
        loop {
            match requests.recv_timeout(IDLE_LOOK) {
                Ok(Request { commit, reply }) => {
                    let outcome = self.commit(&commit);
                    // Whoever asked may have given up: the outcome stays in the log.
                    drop(reply.send(outcome));
                }
                Err(RecvTimeoutError::Timeout) => self.idle(),
                Err(RecvTimeoutError::Disconnected) => return self.producer.map(|_| self.registered),
            }
        }
    }

    fn idle(&mut self) {
        match &self.producer {
            Some(producer) => producer.poll(Duration::ZERO),
            // An open transaction of the lost producer hides records: end it, also when nobody commits.
            None => drop(self.renew()),
        }
    }

    fn commit(&mut self, commit: &Commit) -> Result<(), CommitError> {
        self.check(commit)?;
        if commit.records.is_empty() && commit.offsets.is_empty() {
            return Ok(());
        }
        if self.producer.is_none() {
            self.renew().map_err(|error| CommitError::Aborted(error.to_string()))?;
        }
        let Some(producer) = &self.producer else { return Err(CommitError::Aborted("no producer".to_owned())) };
        let group = Arc::clone(&self.group);
        let owned = lock(&group.owned);
        let lost: Vec<_> = commit.offsets.iter().filter(|o| owned.get(&o.at) != Some(&o.epoch)).collect();
        if !lost.is_empty() {
            return Err(CommitError::NotOwner(lost.into_iter().map(|offset| offset.at.clone()).collect()));
        }
        let outcome = self.transact(producer, commit);
        let outcome = match outcome {
            Err(Failure::Abortable(reason)) => Err(self.abort(producer, reason)),
            outcome => outcome,
        };
        drop(owned);
        self.ended = Some(Instant::now());
        outcome.map_err(|failure| self.settle(failure))
    }

    /// What can be refused before anything was begun.
    fn check(&self, commit: &Commit) -> Result<(), CommitError> {
        let invalid = |error: LogError| match error {
            LogError::TooLarge { .. } | LogError::UnknownTopic(_) => CommitError::Invalid(error.to_string()),
            other => CommitError::Aborted(other.to_string()),
        };
        for record in &commit.records {
            record::check_size(record).map_err(invalid)?;
            self.query.require(&record.to).map_err(invalid)?;
        }
        if let Some(offset) = commit.offsets.iter().find(|offset| offset.metadata.len() > METADATA_BYTES_MAX) {
            let bytes = offset.metadata.len();
            let reason = format!("metadata of {bytes} bytes for {} is larger than {METADATA_BYTES_MAX}", offset.at);
            return Err(CommitError::Invalid(reason));
        }
        Ok(())
    }

    /// One transaction, from its begin to the answer to its commit.
    fn transact(&self, producer: &Transactions, commit: &Commit) -> Result<(), Failure> {
        producer.poll(Duration::ZERO);
        producer.begin_transaction().map_err(|error| before_commit(producer, &error))?;
        let timeout = millis(self.settings.transaction_timeout_ms);
        let until = Instant::now() + timeout;
        if self.offsets_come_first(commit) {
            self.send_offsets(producer, &commit.offsets, timeout)?;
            send_all(producer, &commit.records, until)?;
        } else {
            send_all(producer, &commit.records, until)?;
            self.send_offsets(producer, &commit.offsets, timeout)?;
        }
        if !await_deliveries(producer, until) {
            return Err(Failure::Abortable("the records were not acknowledged in time".to_owned()));
        }
        ask_for_commit(producer, timeout)
    }

    /// Whether the offsets go before the records. Side by side is quicker by a millisecond. But while the broker is
    /// still ending the previous transaction it turns the new one away, and librdkafka tries again after
    /// `retry.backoff.ms` with offsets and after 20 ms with records: small commits in quick succession would wait for
    /// that one time in fifty.
    fn offsets_come_first(&self, commit: &Commit) -> bool {
        commit.records.len() <= SMALL_RECORDS && self.ended.is_some_and(|ended| ended.elapsed() < ENDING)
    }

    fn send_offsets(
        &self,
        producer: &Transactions,
        offsets: &[CommitOffset],
        timeout: Duration,
    ) -> Result<(), Failure> {
        if offsets.is_empty() {
            return Ok(());
        }
        let offsets = offset_list(offsets).map_err(|error| before_commit(producer, &error))?;
        let metadata = self.consumer.group_metadata();
        let metadata = metadata.ok_or_else(|| Failure::Abortable("the member has no group yet".to_owned()))?;
        let sent = producer.send_offsets_to_transaction(&offsets, &metadata, timeout);
        sent.map_err(|error| before_commit(producer, &error))
    }

    /// Aborts what is open; the failure that the caller gets.
    fn abort(&self, producer: &Transactions, reason: String) -> Failure {
        let timeout = millis(self.settings.transaction_timeout_ms);
        let until = Instant::now() + timeout;
        // An abort waits for records in flight, whose deliveries only this thread collects.
        producer.purge(PurgeConfig::default().queue());
        await_deliveries(producer, until);
        loop {
            match producer.abort_transaction(timeout) {
                Ok(()) => return Failure::Abortable(reason),
                Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < until => {}
                Err(error) if code_of(&error).is_some_and(is_fencing) => return Failure::Fenced(error.to_string()),
                Err(error) => return Failure::Dead(format!("{reason}; the abort failed: {error}")),
            }
        }
    }

    /// Readies the thread for the next commit and tells the caller of this one.
    fn settle(&mut self, failure: Failure) -> CommitError {
        let (error, dead) = match failure {
            Failure::Abortable(reason) => (CommitError::Aborted(reason), false),
            Failure::Dead(reason) => (CommitError::Aborted(reason), true),
            Failure::InDoubt(reason) => (CommitError::InDoubt(reason), true),
            Failure::Fenced(reason) => {
                tracing::warn!(id = self.id, reason, "the transactional id was taken over");
                (CommitError::Fenced, true)
            }
        };
        if dead {
            self.producer = None;
            if let Err(error) = self.renew() {
                tracing::warn!(%error, id = self.id, "the transactional producer could not be made anew yet");
            }
        }
        error
    }

    /// Makes the producer anew: whatever the lost one had open is ended.
    fn renew(&mut self) -> Result<(), LogError> {
        let producer = take_over(&self.settings, &self.id, &self.client_id)?;
        self.registered.renew()?;
        self.producer = Some(producer);
        Ok(())
    }
}

fn send_all(producer: &Transactions, records: &[NewRecord], until: Instant) -> Result<(), Failure> {
    for record in records {
        while let Err((error, _)) = producer.send(record::to_kafka(record, ())) {
            let full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
            if !full || Instant::now() >= until {
                return Err(before_commit(producer, &error));
            }
            producer.poll(DELIVERY_LOOK);
        }
    }
    Ok(())
}

/// Polls until every record was answered; false if `until` came first.
fn await_deliveries(producer: &Transactions, until: Instant) -> bool {
    loop {
        producer.poll(Duration::ZERO);
        if producer.in_flight_count() == 0 {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(DELIVERY_LOOK);
    }
}

/// Asks for the commit, again while the answer is late.
fn ask_for_commit(producer: &Transactions, timeout: Duration) -> Result<(), Failure> {
    let until = Instant::now() + timeout;
    loop {
        let error = match producer.commit_transaction(timeout) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        match &error {
            KafkaError::Transaction(inner) if inner.txn_requires_abort() => {
                return Err(Failure::Abortable(error.to_string()));
            }
            KafkaError::Transaction(inner) if inner.is_retriable() && Instant::now() < until => {}
            error if is_fenced(producer, error) => return Err(Failure::Fenced(error.to_string())),
            error => return Err(Failure::InDoubt(error.to_string())),
        }
    }
}

/// How a transaction failed whose commit was not asked for.
fn before_commit(producer: &Transactions, error: &KafkaError) -> Failure {
    if is_fenced(producer, error) {
        return Failure::Fenced(error.to_string());
    }
    match (producer.client().fatal_error(), error) {
        (Some((_, reason)), _) => Failure::Dead(reason),
        (None, KafkaError::Transaction(inner)) if inner.is_fatal() => Failure::Dead(error.to_string()),
        (None, _) => Failure::Abortable(error.to_string()),
    }
}

fn is_fenced(producer: &Transactions, error: &KafkaError) -> bool {
    let fatal = producer.client().fatal_error().map(|(code, _)| code);
    // Only a fatal error means that the id is gone; an epoch that was raised under us can be aborted and gone on with.
    let is_fatal = fatal.is_some() || matches!(error, KafkaError::Transaction(inner) if inner.is_fatal());
    is_fatal && (fatal.is_some_and(is_fencing) || code_of(error).is_some_and(is_fencing))
}

fn offset_list(offsets: &[CommitOffset]) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for offset in offsets {
        let mut element = list.add_partition(&offset.at.topic, partition_id(&offset.at));
        element.set_offset(Offset::Offset(i64::try_from(offset.next).unwrap_or(i64::MAX)))?;
        if !offset.metadata.is_empty() {
            element.set_metadata(&offset.metadata);
        }
    }
    Ok(list)
}

/// Context of transactional producers: a record that fails fails its transaction, so deliveries need no look.
pub(super) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        context::log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        context::log_client_error(&error, reason);
    }
}

impl ProducerContext for Quiet {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}
