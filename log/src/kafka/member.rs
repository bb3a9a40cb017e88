//! A member of a group: what the caller holds.

use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::topic_partition_list::Offset;
use tokio::sync::{oneshot, watch};

use super::append::Appender;
use super::errors::{is_denial, log_error};
use super::feed::{Fetched, IDLE_LOOK, partition_id};
use super::group::{Group, Membership};
use super::heir::Heir;
use super::properties::{Role, properties};
use super::query::Query;
use super::registry::{Registered, Registry};
use super::transaction::{Committer, Request, take_over};
use super::{KafkaSettings, blocking, context, lock, millis};
use crate::port::{Commit, CommitError, JoinSpec, LogError, Member, MemberEvent, TopicPartition};

/// Joins a group.
pub(super) async fn join(
    settings: &KafkaSettings,
    query: &Arc<Query>,
    appender: &Arc<Appender>,
    spec: JoinSpec,
) -> Result<Arc<dyn Member>, LogError> {
    let registry = Arc::new(Registry::new(settings, query, appender));
    let (settings, query) = (settings.clone(), Arc::clone(query));
    let member = blocking(move || KafkaMember::join(settings, query, registry, spec)).await?;
    Ok(Arc::new(member))
}

struct KafkaMember {
    settings: KafkaSettings,
    query: Arc<Query>,
    group: Arc<Group>,
    /// `None` once the member has left: the commit thread ends.
    commits: Mutex<Option<mpsc::Sender<Request>>>,
    /// Becomes true when the consumer is closed and the partitions are given away.
    closed: watch::Receiver<bool>,
    /// A partition whose place is no longer there, until that was looked into.
    out_of_range: Mutex<Option<TopicPartition>>,
}

impl KafkaMember {
    /// Blocks until the transactional id is ours and registered; the assignment comes later.
    fn join(
        settings: KafkaSettings,
        query: Arc<Query>,
        registry: Arc<Registry>,
        spec: JoinSpec,
    ) -> Result<Self, LogError> {
        for topic in &spec.topics {
            query.require(&TopicPartition::new(Arc::clone(topic), 0))?;
        }
        let producer = take_over(&settings, &spec.transactional_id, &spec.client_id)?;
        let heir = Arc::new(Heir::new(&settings, &query, &registry, &spec));
        let mut registered = Registered::new(registry, &spec);
        registered.renew()?;
        let group = Arc::new(Group::new(&settings, &query, &spec, heir));
        let role = Role::Member {
            group: &spec.group,
            client_id: &spec.client_id,
            instance_id: &spec.transactional_id,
            read_ahead_records_max: spec.read_ahead_records_max,
        };
        let consumer: BaseConsumer<Membership> =
            context::create(properties(&settings, role), Membership(Arc::clone(&group)))?;
        let consumer = Arc::new(consumer);
        group.attach(&consumer);
        let topics: Vec<_> = spec.topics.iter().map(|topic| &**topic).collect();
        consumer.subscribe(&topics).map_err(|error| log_error("joining the group", &error))?;
        let committer = Committer {
            settings: settings.clone(),
            id: spec.transactional_id,
            client_id: spec.client_id,
            query: Arc::clone(&query),
            group: Arc::clone(&group),
            consumer: Arc::clone(&consumer),
            producer: Some(producer),
            ended: None,
            registered,
        };
        let (commits, closed) = start_threads(committer, &group, consumer)?;
        let (commits, out_of_range) = (Mutex::new(Some(commits)), Mutex::default());
        Ok(Self { settings, query, group, commits, closed, out_of_range })
    }

    /// The next event that is there, without waiting.
    fn ready(&self) -> Option<Result<MemberEvent, LogError>> {
        // Assignments come before their records, and a revocation must not wait behind a backlog.
        if let Some(event) = self.group.next_event() {
            return Some(event);
        }
        let mut feeds = lock(&self.group.feeds);
        for _ in 0..feeds.list.len() {
            let index = feeds.turn % feeds.list.len();
            feeds.turn = index + 1;
            let feed = &mut feeds.list[index];
            while !feed.paused
                && let Some(fetched) = feed.feed.poll()
            {
                match fetched {
                    // Fetched again after the place was corrected.
                    Fetched::Record(record) if record.offset < feed.next => {}
                    Fetched::Record(record) => {
                        feed.next = record.offset + 1;
                        return Some(Ok(MemberEvent::Record { record, epoch: feed.epoch }));
                    }
                    Fetched::End => {}
                    Fetched::Failed(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                        *lock(&self.out_of_range) = Some(feed.feed.at.clone());
                    }
                    Fetched::Failed(code) if is_denial(code) => {
                        return Some(Err(LogError::Denied(format!("reading {}: {code}", feed.feed.at))));
                    }
                    Fetched::Failed(code) => {
                        tracing::debug!(%code, at = %feed.feed.at, "a fetch failed; librdkafka tries again");
                    }
                }
            }
        }
        None
    }

    /// Waits until something may be there.
    async fn wait(&self) {
        if tokio::time::timeout(IDLE_LOOK, self.group.wake.notified()).await.is_err() {
            lock(&self.group.feeds).list.iter().for_each(|feed| feed.feed.look_again());
        }
    }

    /// Goes on at the first record still there if records were deleted under the member.
    ///
    /// # Errors
    /// [`LogError::OffsetOutOfRange`] if the place lies above the partition's end: the log has lost records.
    async fn correct_place(&self, at: TopicPartition) -> Result<(), LogError> {
        let (query, place) = (Arc::clone(&self.query), at.clone());
        let borders = blocking(move || query.borders(&[place])).await?;
        *lock(&self.out_of_range) = None;
        let Some(borders) = borders.first() else { return Ok(()) };
        let mut feeds = lock(&self.group.feeds);
        let Some(feed) = feeds.list.iter_mut().find(|feed| feed.feed.at == at) else { return Ok(()) };
        let offset = feed.next;
        if offset > borders.high {
            return Err(LogError::OffsetOutOfRange { at, offset, low: borders.low, high: borders.high });
        }
        feed.next = offset.max(borders.low);
        let place = Offset::Offset(i64::try_from(feed.next).unwrap_or(i64::MAX));
        tracing::warn!(%at, offset, next = feed.next, "records were deleted before they were delivered");
        let Some(consumer) = self.group.consumer() else { return Ok(()) };
        let sought = consumer.seek(&at.topic, partition_id(&at), place, Duration::ZERO);
        sought.map_err(|error| log_error("correcting the place", &error))
    }
}

type Started = (mpsc::Sender<Request>, watch::Receiver<bool>);

/// Starts the thread of the commits and the one of the group.
fn start_threads(
    committer: Committer,
    group: &Arc<Group>,
    consumer: Arc<BaseConsumer<Membership>>,
) -> Result<Started, LogError> {
    let failed = |error: std::io::Error| LogError::Unavailable(format!("no thread for the member: {error}"));
    let (commits, requests) = mpsc::channel();
    let committing = thread::Builder::new().name("kafka-commit".to_owned());
    let committing = committing.spawn(move || committer.run(&requests)).map_err(failed)?;
    let (done, closed) = watch::channel(false);
    let group = Arc::clone(group);
    let polling = thread::Builder::new().name("kafka-group".to_owned());
    polling
        .spawn(move || {
            group.poll_until_left(&consumer);
            group.give_up_place(&consumer);
            // A commit that is being carried out needs the membership.
            let registered = committing.join();
            drop(consumer);
            if let Ok(Some(registered)) = registered {
                registered.end();
            }
            done.send_replace(true);
        })
        .map_err(failed)?;
    Ok((commits, closed))
}

#[async_trait]
impl Member for KafkaMember {
    async fn next(&self) -> Result<MemberEvent, LogError> {
        // A backlog is always ready: let other tasks run in between.
        tokio::task::consume_budget().await;
        loop {
            if self.group.has_left() {
                return Err(LogError::Closed);
            }
            if let Some(event) = self.ready() {
                return event;
            }
            let misplaced = lock(&self.out_of_range).clone();
            match misplaced {
                Some(at) => self.correct_place(at).await?,
                None => self.wait().await,
            }
        }
    }

    async fn commit(&self, commit: Commit) -> Result<(), CommitError> {
        let partitions: Vec<_> = commit.offsets.iter().map(|offset| offset.at.clone()).collect();
        let left = || CommitError::NotOwner(partitions);
        let Some(commits) = lock(&self.commits).clone() else { return Err(left()) };
        let (reply, outcome) = oneshot::channel();
        if commits.send(Request { commit, reply }).is_err() {
            return Err(left());
        }
        drop(commits);
        outcome.await.unwrap_or_else(|_| Err(CommitError::InDoubt("the commit thread ended".to_owned())))
    }

    fn pause(&self, at: &TopicPartition, paused: bool) {
        let mut feeds = lock(&self.group.feeds);
        if let Some(feed) = feeds.list.iter_mut().find(|feed| feed.feed.at == *at) {
            feed.paused = paused;
        }
        drop(feeds);
        if !paused {
            self.group.wake.notify_one();
        }
    }

    async fn leave(&self) {
        lock(&self.commits).take();
        self.group.leave();
        let mut closed = self.closed.clone();
        let timeout = millis(self.settings.leave_timeout_ms);
        if tokio::time::timeout(timeout, closed.wait_for(|closed| *closed)).await.is_err() {
            tracing::warn!(
                ?timeout,
                "the group did not let the member go in time; it is left to its session's time-out"
            );
        }
    }
}

impl Drop for KafkaMember {
    fn drop(&mut self) {
        self.group.leave();
    }
}
