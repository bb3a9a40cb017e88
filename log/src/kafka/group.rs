//! A group's member as librdkafka drives it: rebalances become events, and hold until the partitions are safe to give
//! up.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::Notify;

use super::errors::{is_denial, is_unknown_partition, log_error};
use super::feed::{Feed, partition_id};
use super::heir::Heir;
use super::query::{Query, committed_of, open_transaction_max};
use super::{KafkaSettings, context, lock, millis};
use crate::port::{Assignment, JoinSpec, LogError, MemberEvent, Release, Topic, TopicPartition};

/// Longest blocking poll: how soon the thread notices that the member left.
const POLL: Duration = Duration::from_millis(100);

/// How long one question for committed offsets may take before the assignment is looked at again.
const COMMITTED_TIMEOUT: Duration = Duration::from_millis(1_000);

/// How often the caller is told that new partitions cannot begin, once no transaction of ours can be the reason any
/// more.
const OVERDUE_REPEAT: Duration = Duration::from_secs(10);

/// How often a held revocation looks whether the partitions are lost anyway.
const RELEASE_LOOK: Duration = Duration::from_millis(50);

/// Pause between two looks whether a static member has left.
const LEAVE_LOOK: Duration = Duration::from_millis(20);

/// Errors that are kept for the caller at most; a member that nobody asks must not gather them for ever.
const ERRORS_MAX: usize = 16;

/// What the poll thread, the commit thread and the caller share.
pub(super) struct Group {
    settings: KafkaSettings,
    topics: Vec<Topic>,
    name: String,
    client_id: String,
    query: Arc<Query>,
    /// Ends what dead members have open.
    heir: Arc<Heir>,
    /// Partitions that may be committed, with the epoch of their assignment. Locked through each transaction.
    pub(super) owned: Mutex<BTreeMap<TopicPartition, u64>>,
    /// Partitions that are delivered.
    pub(super) feeds: Mutex<Feeds>,
    events: Mutex<VecDeque<Result<MemberEvent, LogError>>>,
    pub(super) wake: Arc<Notify>,
    left: AtomicBool,
    /// Another process has our place.
    displaced: AtomicBool,
    consumer: OnceLock<Weak<BaseConsumer<Membership>>>,
}

/// Queues of the partitions that are delivered.
#[derive(Default)]
pub(super) struct Feeds {
    pub(super) list: Vec<MemberFeed>,
    /// Partition to look at next, so that none waits behind a busier one.
    pub(super) turn: usize,
    /// Epoch of the newest assignment.
    epoch: u64,
}

/// A partition that is delivered.
pub(super) struct MemberFeed {
    pub(super) feed: Feed<Membership>,
    pub(super) epoch: u64,
    pub(super) paused: bool,
    /// The offset that the next record has at least.
    pub(super) next: u64,
}

impl Group {
    pub(super) fn new(settings: &KafkaSettings, query: &Arc<Query>, spec: &JoinSpec, heir: Arc<Heir>) -> Self {
        Self {
            settings: settings.clone(),
            topics: spec.topics.clone(),
            name: spec.group.clone(),
            client_id: spec.client_id.clone(),
            query: Arc::clone(query),
            heir,
            owned: Mutex::default(),
            feeds: Mutex::default(),
            events: Mutex::default(),
            wake: Arc::default(),
            left: AtomicBool::new(false),
            displaced: AtomicBool::new(false),
            consumer: OnceLock::new(),
        }
    }

    /// Tells the group its consumer, which cannot be there before the group.
    pub(super) fn attach(&self, consumer: &Arc<BaseConsumer<Membership>>) {
        drop(self.consumer.set(Arc::downgrade(consumer)));
    }

    /// The consumer, while it lives.
    pub(super) fn consumer(&self) -> Option<Arc<BaseConsumer<Membership>>> {
        self.consumer.get().and_then(Weak::upgrade)
    }

    /// The member wants to leave; nothing is delivered any more.
    pub(super) fn leave(&self) {
        self.left.store(true, Ordering::Release);
        self.heir.end();
        self.wake.notify_one();
    }

    pub(super) fn has_left(&self) -> bool {
        self.left.load(Ordering::Acquire)
    }

    pub(super) fn next_event(&self) -> Option<Result<MemberEvent, LogError>> {
        lock(&self.events).pop_front()
    }

    fn tell(&self, event: Result<MemberEvent, LogError>) {
        let mut events = lock(&self.events);
        if event.is_err() && events.iter().filter(|event| event.is_err()).count() >= ERRORS_MAX {
            return;
        }
        events.push_back(event);
        drop(events);
        self.wake.notify_one();
    }

    /// Serves the group until the member leaves. Dropping the consumer at the end leaves the group, and may take long.
    pub(super) fn poll_until_left(&self, consumer: &BaseConsumer<Membership>) {
        while !self.has_left() {
            match consumer.poll(POLL) {
                None => {}
                Some(Err(error)) => self.report(&error),
                // Each partition's queue was split off before it was assigned.
                Some(Ok(_)) => tracing::error!("a record came past its partition's queue and was not delivered"),
            }
        }
        lock(&self.feeds).list.clear();
    }

    /// Makes a static member leave at once: closing its consumer keeps its place until its session ends.
    pub(super) fn give_up_place(&self, consumer: &BaseConsumer<Membership>) {
        if !self.settings.static_membership || self.displaced.load(Ordering::Acquire) {
            return;
        }
        consumer.unsubscribe();
        let until = Instant::now() + millis(self.settings.leave_timeout_ms) * 4 / 5;
        // The partitions are given back in the rebalance callback, which a poll calls; then librdkafka sends the leave. A close
        // that comes before that drops it.
        while Instant::now() < until {
            drop(consumer.poll(LEAVE_LOOK));
            let is_member = |names: Vec<String>| names.contains(&self.client_id);
            if self.query.members(&self.name, COMMITTED_TIMEOUT).is_ok_and(|names| !is_member(names)) {
                return;
            }
        }
        tracing::warn!(group = self.name, "the member's place is kept until its session ends");
    }

    fn report(&self, error: &KafkaError) {
        let code = error.rdkafka_error_code();
        if code == Some(RDKafkaErrorCode::FencedInstanceId) {
            let reason = format!("another process took this member's place in {}: are two called the same?", self.name);
            tracing::error!(reason, "the member is out of its group for good");
            self.displaced.store(true, Ordering::Release);
            self.query.displace(&reason);
            return self.tell(Err(LogError::Denied(reason)));
        }
        if code == Some(RDKafkaErrorCode::AllBrokersDown) || code.is_some_and(is_denial) {
            self.tell(Err(log_error("group", error)));
        } else if code.is_some_and(is_unknown_partition) {
            self.tell(Err(LogError::Unavailable(format!("a topic of the group is gone: {error}"))));
        } else {
            tracing::debug!(%error, "group");
        }
    }

    fn assigned(&self, consumer: &BaseConsumer<Membership>, list: &TopicPartitionList) -> KafkaResult<()> {
        if list.count() == 0 {
            return consumer.incremental_assign(list);
        }
        self.heir.assigned();
        let found = self.await_committed(consumer, list);
        self.heir.answered();
        let Some(found) = found else {
            // Lost while asking: assigned without being delivered, until the revocation comes that is on its way.
            let mut nowhere = list.clone();
            nowhere.set_all_offsets(Offset::End)?;
            return consumer.incremental_assign(&nowhere);
        };
        let (assignments, places) = self.open_feeds(found)?;
        // Told before the first record can be there.
        self.tell(Ok(MemberEvent::Assigned(assignments)));
        consumer.incremental_assign(&places)
    }

    /// What the group has committed for `list` and where each partition begins. The question waits for open
    /// transactions, and is asked until it is answered; `None` if the member lost the partitions or left.
    fn await_committed(
        &self,
        consumer: &BaseConsumer<Membership>,
        list: &TopicPartitionList,
    ) -> Option<Vec<Assignment>> {
        let mut overdue = Instant::now() + open_transaction_max(&self.settings);
        loop {
            if self.has_left() || consumer.assignment_lost() {
                return None;
            }
            let answer = consumer
                .committed_offsets(list.clone(), COMMITTED_TIMEOUT)
                .map_err(|error| log_error("committed offsets", &error))
                .and_then(|committed| self.beginnings(&committed));
            match answer {
                Ok(found) => return Some(found),
                Err(error) if Instant::now() >= overdue => {
                    overdue = Instant::now() + OVERDUE_REPEAT;
                    tracing::error!(%error, "new partitions cannot begin: a transaction may hang");
                    self.tell(Err(error));
                }
                Err(error) => tracing::info!(%error, "waiting for the committed offsets of new partitions"),
            }
        }
    }

    fn beginnings(&self, committed: &TopicPartitionList) -> Result<Vec<Assignment>, LogError> {
        let mut found = Vec::with_capacity(committed.count());
        for element in committed.elements() {
            element.error().map_err(|error| log_error("committed offsets", &error))?;
            found.push((
                self.place(element.topic(), element.partition()),
                committed_of(element.offset(), element.metadata()),
            ));
        }
        let partitions: Vec<_> = found.iter().map(|(at, _)| at.clone()).collect();
        let lows = self.query.lows(&partitions)?;
        let begin = |((at, committed), low): ((TopicPartition, Option<crate::port::Committed>), u64)| {
            // Records below the low watermark are gone: nobody can deliver them any more.
            let next = committed.as_ref().map_or(low, |committed| committed.next.max(low));
            Assignment { at, epoch: 0, committed, next }
        };
        Ok(found.into_iter().zip(lows).map(begin).collect())
    }

    /// The partition, with the topic's name shared with the other partitions.
    fn place(&self, topic: &str, partition: i32) -> TopicPartition {
        let topic = self.topics.iter().find(|known| ***known == *topic).cloned().unwrap_or_else(|| Topic::from(topic));
        TopicPartition { topic, partition: u32::try_from(partition).unwrap_or(0) }
    }

    /// Makes the partitions ours: from here on they can be committed, and their records are delivered.
    fn open_feeds(&self, mut found: Vec<Assignment>) -> KafkaResult<(Vec<Assignment>, TopicPartitionList)> {
        let closed = || KafkaError::Subscription("the consumer is closing".to_owned());
        let consumer = self.consumer().ok_or_else(closed)?;
        let mut places = TopicPartitionList::with_capacity(found.len());
        let (mut owned, mut feeds) = (lock(&self.owned), lock(&self.feeds));
        feeds.epoch += 1;
        let epoch = feeds.epoch;
        for assignment in &mut found {
            assignment.epoch = epoch;
            let at = &assignment.at;
            let feed = Feed::open(&consumer, at.clone(), &self.wake).ok_or_else(closed)?;
            let place = Offset::Offset(i64::try_from(assignment.next).unwrap_or(i64::MAX));
            places.add_partition(&at.topic, partition_id(at)).set_offset(place)?;
            feeds.list.push(MemberFeed { feed, epoch, paused: false, next: assignment.next });
            owned.insert(at.clone(), epoch);
        }
        Ok((found, places))
    }

    fn revoked(&self, consumer: &BaseConsumer<Membership>, list: &TopicPartitionList) -> KafkaResult<()> {
        let partitions: Vec<_> =
            list.elements().iter().map(|element| self.place(element.topic(), element.partition())).collect();
        lock(&self.feeds).list.retain(|feed| !partitions.contains(&feed.feed.at));
        let given_up = !consumer.assignment_lost() && (self.has_left() || self.await_release(consumer, &partitions));
        // Waits for the commit that is being carried out.
        let mut owned = lock(&self.owned);
        owned.retain(|at, _| !partitions.contains(at));
        drop(owned);
        if !given_up && !partitions.is_empty() {
            self.tell(Ok(MemberEvent::Lost(partitions)));
        }
        consumer.incremental_unassign(list)
    }

    /// Waits until the caller lets go of `partitions`, or must; false if they were lost meanwhile.
    fn await_release(&self, consumer: &BaseConsumer<Membership>, partitions: &[TopicPartition]) -> bool {
        if partitions.is_empty() {
            return true;
        }
        let (release, released) = Release::new();
        self.tell(Ok(MemberEvent::Revoking { partitions: partitions.to_vec(), release }));
        // The others wait for us: never longer than for a member that died.
        let until = Instant::now() + millis(self.settings.session_timeout_ms) * 4 / 5;
        while let Err(RecvTimeoutError::Timeout) = released.recv_timeout(RELEASE_LOOK) {
            if consumer.assignment_lost() {
                return false;
            }
            if self.has_left() {
                return true;
            }
            if Instant::now() >= until {
                tracing::warn!(?partitions, "partitions were not released in time and are given away");
                return false;
            }
        }
        true
    }
}

/// Context of a member's consumer.
pub(super) struct Membership(pub(super) Arc<Group>);

impl ClientContext for Membership {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        context::log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        context::log_client_error(&error, reason);
    }
}

impl ConsumerContext for Membership {
    /// Runs on the poll thread; heartbeats go on meanwhile.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, kind: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let assigned = kind == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        tracing::debug!(assigned, ?list, "rebalance");
        let outcome = if assigned { self.0.assigned(consumer, list) } else { self.0.revoked(consumer, list) };
        if let Err(error) = outcome {
            tracing::warn!(%error, assigned, "rebalance");
        }
    }
}
