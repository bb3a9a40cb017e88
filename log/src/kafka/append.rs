//! Appends outside transactions: one idempotent producer for the process.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{Producer, ProducerContext, ThreadedProducer};
use tokio::sync::oneshot;

use super::errors::{is_denial, is_unknown_partition};
use super::properties::{Role, properties};
use super::{KafkaSettings, context, lock, record};
use crate::port::{LogError, NewRecord};

/// Wait for room when as many appends wait for the broker as may.
const FULL_BACK_OFF: Duration = Duration::from_millis(2);

/// Added to the delivery time-out, within which librdkafka answers; beyond it something is wrong with librdkafka
/// itself.
const ANSWER_GRACE: Duration = Duration::from_secs(2);

type Handle = ThreadedProducer<Deliveries>;

/// Appends records and waits until they are durable.
pub(super) struct Appender {
    settings: KafkaSettings,
    producer: Mutex<Handle>,
}

impl Appender {
    pub(super) fn new(settings: &KafkaSettings) -> Result<Self, LogError> {
        Ok(Self { settings: settings.clone(), producer: Mutex::new(create(settings)?) })
    }

    /// Appends `records`, whose sizes and partitions were checked.
    pub(super) async fn append(&self, records: &[NewRecord]) -> Result<Vec<u64>, LogError> {
        let timeout = Duration::from_millis(self.settings.delivery_timeout_ms.into());
        let until = Instant::now() + timeout;
        let producer = lock(&self.producer).clone();
        let (batch, answer) = Batch::new(records.len());
        for (index, record) in records.iter().enumerate() {
            if let Err(error) = send(&producer, record, Ticket { batch: Arc::clone(&batch), index }, until).await {
                // Those not sent will not be answered.
                batch.fail(records.len() - index, error);
                break;
            }
        }
        let outcome = match tokio::time::timeout(timeout + ANSWER_GRACE, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(LogError::Unavailable("the append was not answered in time".to_owned())),
        };
        if outcome.is_err() {
            self.replace_if_dead(&producer);
        }
        outcome
    }

    /// As [`Self::append`], on a thread that may block.
    pub(super) fn append_blocking(&self, records: &[NewRecord]) -> Result<Vec<u64>, LogError> {
        let until = Instant::now() + Duration::from_millis(self.settings.delivery_timeout_ms.into());
        let producer = lock(&self.producer).clone();
        let (batch, answer) = Batch::new(records.len());
        for (index, record) in records.iter().enumerate() {
            let mut ticket = Box::new(Ticket { batch: Arc::clone(&batch), index });
            let refused = loop {
                match offer(&producer, record, ticket, until) {
                    Offer::Taken => break None,
                    Offer::Full(returned) => ticket = returned,
                    Offer::Refused(error) => break Some(error),
                }
                std::thread::sleep(FULL_BACK_OFF);
            };
            if let Some(error) = refused {
                batch.fail(records.len() - index, error);
                break;
            }
        }
        // librdkafka answers each record within its delivery time-out.
        let lost = || LogError::Unavailable("the append was not answered".to_owned());
        let outcome = answer.blocking_recv().unwrap_or_else(|_| Err(lost()));
        if outcome.is_err() {
            self.replace_if_dead(&producer);
        }
        outcome
    }

    /// A producer that lost its numbering for good (after a broker lost data) refuses everything: take a new one.
    fn replace_if_dead(&self, producer: &Handle) {
        let Some((code, reason)) = producer.client().fatal_error() else { return };
        let mut current = lock(&self.producer);
        if current.client().fatal_error().is_none() {
            return; // somebody else was quicker
        }
        match create(&self.settings) {
            Ok(fresh) => {
                tracing::warn!(%code, reason, "the idempotent producer had to be replaced");
                *current = fresh;
            }
            Err(error) => tracing::error!(%error, "the idempotent producer cannot be replaced"),
        }
    }
}

fn create(settings: &KafkaSettings) -> Result<Handle, LogError> {
    context::create(properties(settings, Role::Append), Deliveries)
}

async fn send(producer: &Handle, record: &NewRecord, ticket: Ticket, until: Instant) -> Result<(), LogError> {
    let mut ticket = Box::new(ticket);
    loop {
        match offer(producer, record, ticket, until) {
            Offer::Taken => return Ok(()),
            Offer::Full(returned) => ticket = returned,
            Offer::Refused(error) => return Err(error),
        }
        tokio::time::sleep(FULL_BACK_OFF).await;
    }
}

/// What librdkafka made of a record.
enum Offer {
    Taken,
    /// Its queue is full: again after a pause.
    Full(Box<Ticket>),
    Refused(LogError),
}

fn offer(producer: &Handle, record: &NewRecord, ticket: Box<Ticket>, until: Instant) -> Offer {
    let Err((error, returned)) = producer.send(record::to_kafka(record, ticket)) else { return Offer::Taken };
    let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
    if code == RDKafkaErrorCode::QueueFull && Instant::now() < until {
        return Offer::Full(returned.delivery_opaque);
    }
    Offer::Refused(delivery_error(code, record))
}

fn delivery_error(code: RDKafkaErrorCode, record: &NewRecord) -> LogError {
    if is_unknown_partition(code) { LogError::UnknownTopic(record.to.clone()) } else { append_error(code) }
}

fn append_error(code: RDKafkaErrorCode) -> LogError {
    let reason = format!("append: {code}");
    if is_denial(code) { LogError::Denied(reason) } else { LogError::Unavailable(reason) }
}

/// The records of one append, while they are on their way.
struct Batch(Mutex<Progress>);

struct Progress {
    offsets: Vec<u64>,
    left: usize,
    error: Option<LogError>,
    answer: Option<oneshot::Sender<Result<Vec<u64>, LogError>>>,
}

impl Batch {
    fn new(records: usize) -> (Arc<Self>, oneshot::Receiver<Result<Vec<u64>, LogError>>) {
        let (sender, receiver) = oneshot::channel();
        let progress = Progress { offsets: vec![0; records], left: records, error: None, answer: Some(sender) };
        (Arc::new(Self(Mutex::new(progress))), receiver)
    }

    fn delivered(&self, index: usize, offset: u64) {
        let mut progress = lock(&self.0);
        progress.offsets[index] = offset;
        progress.settle(1);
    }

    fn fail(&self, records: usize, error: LogError) {
        let mut progress = lock(&self.0);
        progress.error.get_or_insert(error);
        progress.settle(records);
    }
}

impl Progress {
    fn settle(&mut self, records: usize) {
        self.left = self.left.saturating_sub(records);
        if self.left > 0 {
            return;
        }
        if let Some(answer) = self.answer.take() {
            let outcome = self.error.take().map_or_else(|| Ok(std::mem::take(&mut self.offsets)), Err);
            // The appender may have given up waiting: nobody is left to tell.
            drop(answer.send(outcome));
        }
    }
}

/// Travels through librdkafka with a record.
struct Ticket {
    batch: Arc<Batch>,
    index: usize,
}

/// Settles tickets as deliveries are reported.
struct Deliveries;

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        context::log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        context::log_client_error(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        match result {
            Ok(message) => ticket.batch.delivered(ticket.index, u64::try_from(message.offset()).unwrap_or(0)),
            Err((error, _)) => {
                let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
                ticket.batch.fail(1, append_error(code));
            }
        }
    }
}
