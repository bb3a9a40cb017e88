//! Reading given partitions outside any group.
//!
//! The end of a partition is only told once everything that lay in it when the reader was opened has been delivered,
//! open transactions of that moment included: a new owner that reads to the end must not miss what a dead one had
//! almost committed. librdkafka tells the end without its offset, so an end that may have come too early is asked for
//! again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::Notify;

use super::context::{self, Plain};
use super::errors::{is_denial, is_unknown_partition, log_error};
use super::feed::{Feed, Fetched, IDLE_LOOK, partition_id};
use super::properties::{Role, properties};
use super::query::Query;
use super::{KafkaSettings, blocking, close_on_own_thread};
use crate::port::{LogError, LogReader, ReadEvent, Start, TopicPartition, Watermarks};

/// First and longest pause between two looks whether an open transaction has ended.
const LOOK_MIN: Duration = Duration::from_millis(5);
const LOOK_MAX: Duration = Duration::from_millis(100);

/// Opens a reader.
pub(super) async fn open(
    settings: &KafkaSettings,
    query: &Arc<Query>,
    starts: Vec<(TopicPartition, Start)>,
) -> Result<Box<dyn LogReader>, LogError> {
    let (settings, asked) = (settings.clone(), Arc::clone(query));
    let mut reader = blocking(move || Reader::open(&settings, asked, &starts)).await?;
    reader.watch_open_transactions();
    Ok(Box::new(reader))
}

struct Reader {
    inner: Inner,
    query: Arc<Query>,
    wake: Arc<Notify>,
    errors: VecDeque<LogError>,
    /// A partition whose place is no longer there, until the caller has been told.
    out_of_range: Option<usize>,
    /// Partition to look at next, so that none waits behind a busier one.
    turn: usize,
    watcher: Option<tokio::task::AbortHandle>,
}

/// What must be closed on a thread that may block.
#[derive(Default)]
struct Inner {
    parts: Vec<Part>,
    consumer: Option<Arc<BaseConsumer<Plain>>>,
}

struct Part {
    feed: Feed<Plain>,
    /// The offset that the next record has at least.
    next: u64,
    /// High watermark when the reader was opened.
    target: u64,
    /// All transactions below `target` have ended.
    settled: Arc<AtomicBool>,
    /// An end that comes now lies at or beyond `target`.
    armed: bool,
    /// An end came before it could be believed.
    held_back: bool,
}

impl Reader {
    /// Blocks for three questions to the cluster.
    fn open(settings: &KafkaSettings, query: Arc<Query>, starts: &[(TopicPartition, Start)]) -> Result<Self, LogError> {
        for (at, _) in starts {
            query.require(at)?;
        }
        let partitions: Vec<_> = starts.iter().map(|(at, _)| at.clone()).collect();
        let borders = query.borders(&partitions)?;
        let found = resolve(&query, starts, &borders)?;
        let consumer: BaseConsumer<Plain> = context::create(properties(settings, Role::Reader), Plain)?;
        let (consumer, wake) = (Arc::new(consumer), Arc::new(Notify::new()));
        let mut reader = Self {
            inner: Inner::default(),
            query,
            wake,
            errors: VecDeque::new(),
            out_of_range: None,
            turn: 0,
            watcher: None,
        };
        let mut assignment = TopicPartitionList::with_capacity(starts.len());
        for ((at, borders), found) in partitions.into_iter().zip(borders).zip(found) {
            match found {
                Ok(next) => reader.add(&consumer, at, next, borders, &mut assignment)?,
                Err(error) => reader.errors.push_back(error),
            }
        }
        consumer.assign(&assignment).map_err(|error| log_error("assigning partitions", &error))?;
        reader.inner.consumer = Some(consumer);
        Ok(reader)
    }

    fn add(
        &mut self,
        consumer: &Arc<BaseConsumer<Plain>>,
        at: TopicPartition,
        next: u64,
        borders: Watermarks,
        assignment: &mut TopicPartitionList,
    ) -> Result<(), LogError> {
        let unknown = || LogError::UnknownTopic(at.clone());
        let raw = Offset::Offset(i64::try_from(next).unwrap_or(i64::MAX));
        assignment
            .add_partition(&at.topic, partition_id(&at))
            .set_offset(raw)
            .map_err(|error| log_error("assigning partitions", &error))?;
        let feed = Feed::open(consumer, at.clone(), &self.wake).ok_or_else(unknown)?;
        let settled = borders.stable >= borders.high;
        self.inner.parts.push(Part {
            feed,
            next,
            target: borders.high,
            settled: Arc::new(AtomicBool::new(settled)),
            armed: settled,
            held_back: false,
        });
        Ok(())
    }

    /// Looks until the transactions that were open when the reader was opened have ended.
    fn watch_open_transactions(&mut self) {
        let unsettled = |part: &&Part| !part.settled.load(Ordering::Acquire);
        let wait = |part: &Part| (part.feed.at.clone(), part.target, Arc::clone(&part.settled));
        let waits: Vec<_> = self.inner.parts.iter().filter(unsettled).map(wait).collect();
        if !waits.is_empty() {
            let watcher = tokio::spawn(await_stable(Arc::clone(&self.query), waits, Arc::clone(&self.wake)));
            self.watcher = Some(watcher.abort_handle());
        }
    }

    /// The next event that is there, without waiting.
    fn ready(&mut self) -> Option<Result<ReadEvent, LogError>> {
        if let Some(error) = self.errors.pop_front() {
            return Some(Err(error));
        }
        self.rearm();
        for _ in 0..self.inner.parts.len() {
            let index = self.turn % self.inner.parts.len();
            self.turn = index + 1;
            while let Some(fetched) = self.inner.parts[index].feed.poll() {
                if let Some(event) = self.take(index, fetched) {
                    return Some(event);
                }
            }
        }
        self.client_error().map(Err)
    }

    /// What the client as a whole complains of. Records do not come this way: they have queues of their own.
    fn client_error(&self) -> Option<LogError> {
        let consumer = self.inner.consumer.as_ref()?;
        while let Some(outcome) = consumer.poll(Duration::ZERO) {
            let Err(error) = outcome else { continue };
            let code = error.rdkafka_error_code();
            if code == Some(RDKafkaErrorCode::AllBrokersDown) || code.is_some_and(is_denial) {
                return Some(log_error("reading", &error));
            }
        }
        None
    }

    /// What `fetched` means to the caller; `None` if nothing.
    fn take(&mut self, index: usize, fetched: Fetched) -> Option<Result<ReadEvent, LogError>> {
        let part = &mut self.inner.parts[index];
        match fetched {
            Fetched::Record(record) if record.offset < part.next => None, // fetched again after a seek
            Fetched::Record(record) => {
                part.next = record.offset + 1;
                Some(Ok(ReadEvent::Record(record)))
            }
            Fetched::End if part.armed => {
                part.next = part.next.max(part.target);
                Some(Ok(ReadEvent::End { at: part.feed.at.clone(), next: part.next }))
            }
            Fetched::End => {
                part.held_back = true;
                self.rearm();
                None
            }
            Fetched::Failed(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                self.out_of_range = Some(index);
                None
            }
            Fetched::Failed(code) if is_denial(code) => {
                Some(Err(LogError::Denied(format!("reading {}: {code}", part.feed.at))))
            }
            Fetched::Failed(code) if is_unknown_partition(code) => {
                Some(Err(LogError::UnknownTopic(part.feed.at.clone())))
            }
            Fetched::Failed(code) => {
                tracing::debug!(%code, at = %part.feed.at, "a fetch failed; librdkafka tries again");
                None
            }
        }
    }

    /// Asks for the end again where one was held back and can be believed now: from the same place, so nothing is lost.
    fn rearm(&mut self) {
        let Some(consumer) = &self.inner.consumer else { return };
        for part in self.inner.parts.iter_mut().filter(|part| part.held_back && part.settled.load(Ordering::Acquire)) {
            let at = &part.feed.at;
            let place = Offset::Offset(i64::try_from(part.next).unwrap_or(i64::MAX));
            match consumer.seek(&at.topic, partition_id(at), place, Duration::ZERO) {
                Ok(()) => (part.armed, part.held_back) = (true, false),
                Err(error) => tracing::debug!(%error, %at, "the end cannot be asked for yet"),
            }
        }
    }

    async fn out_of_range(&mut self, index: usize) -> LogError {
        let (query, at) = (Arc::clone(&self.query), self.inner.parts[index].feed.at.clone());
        let offset = self.inner.parts[index].next;
        let place = at.clone();
        match blocking(move || query.borders(&[place])).await {
            Ok(borders) => {
                self.out_of_range = None;
                let (low, high) = borders.first().map_or((0, 0), |borders| (borders.low, borders.high));
                LogError::OffsetOutOfRange { at, offset, low, high }
            }
            Err(error) => error,
        }
    }
}

#[async_trait]
impl LogReader for Reader {
    async fn next(&mut self) -> Result<ReadEvent, LogError> {
        // A backlog is always ready: let other tasks run in between.
        tokio::task::consume_budget().await;
        loop {
            if let Some(event) = self.ready() {
                return event;
            }
            if let Some(index) = self.out_of_range {
                return Err(self.out_of_range(index).await);
            }
            let wake = Arc::clone(&self.wake);
            if tokio::time::timeout(IDLE_LOOK, wake.notified()).await.is_err() {
                self.inner.parts.iter().for_each(|part| part.feed.look_again());
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(watcher) = self.watcher.take() {
            watcher.abort();
        }
        close_on_own_thread(std::mem::take(&mut self.inner));
    }
}

/// Sets the flag of each partition once its last stable offset has reached the offset beside it.
async fn await_stable(query: Arc<Query>, mut waits: Vec<(TopicPartition, u64, Arc<AtomicBool>)>, wake: Arc<Notify>) {
    let mut pause = LOOK_MIN;
    while !waits.is_empty() {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LOOK_MAX);
        let asked = Arc::clone(&query);
        let partitions: Vec<_> = waits.iter().map(|(at, ..)| at.clone()).collect();
        let Ok(stables) = blocking(move || asked.stables(&partitions)).await else { continue };
        let mut stables = stables.into_iter();
        waits.retain(|(_, target, settled)| {
            let reached = stables.next().is_some_and(|stable| stable >= *target);
            if reached {
                settled.store(true, Ordering::Release);
            }
            !reached
        });
        wake.notify_one();
    }
}

/// The offset where each partition begins, or why it cannot.
fn resolve(
    query: &Query,
    starts: &[(TopicPartition, Start)],
    borders: &[Watermarks],
) -> Result<Vec<Result<u64, LogError>>, LogError> {
    let time_of = |(at, start): &(TopicPartition, Start)| match start {
        Start::Time(ms) => Some((at.clone(), *ms)),
        _ => None,
    };
    let times: Vec<_> = starts.iter().filter_map(time_of).collect();
    let mut found = if times.is_empty() { Vec::new() } else { query.at_times(&times)? }.into_iter();
    let place = |((at, start), borders): (&(TopicPartition, Start), &Watermarks)| match *start {
        Start::Earliest => Ok(borders.low),
        Start::Latest => Ok(borders.stable),
        Start::Time(_) => Ok(found.next().flatten().unwrap_or(borders.stable)),
        Start::Offset(offset) if (borders.low..=borders.high).contains(&offset) => Ok(offset),
        Start::Offset(offset) => {
            Err(LogError::OffsetOutOfRange { at: at.clone(), offset, low: borders.low, high: borders.high })
        }
    };
    Ok(starts.iter().zip(borders).map(place).collect())
}
