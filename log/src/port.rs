//! What the relay needs of a log: partitions, readers, groups with fencing, and one atomic
//! "append records + commit offsets with metadata".
//!
//! Words follow Apache Kafka. Offsets rise within a partition but may have gaps.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

/// Largest value of a record, in bytes (1 MiB and room for a head).
pub const RECORD_BYTES_MAX: usize = 1_100_000;

/// Largest metadata of a committed offset, in bytes of UTF-8: Kafka's `offset.metadata.max.bytes` default.
pub const METADATA_BYTES_MAX: usize = 4096;

/// A topic's name. Cheap to clone.
pub type Topic = Arc<str>;

/// One partition of one topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// Name of the topic.
    pub topic: Topic,
    /// Number of the partition, from 0.
    pub partition: u32,
}

impl TopicPartition {
    /// The partition `partition` of `topic`.
    pub fn new(topic: impl Into<Topic>, partition: u32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// A header of a record: a name and its bytes.
pub type Header = (String, Bytes);

/// A record to append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRecord {
    /// Where it goes; the caller chooses the partition.
    pub to: TopicPartition,
    /// Key, meaningful to compaction and to other consumers.
    pub key: Option<Bytes>,
    /// Value of at most [`RECORD_BYTES_MAX`] bytes; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Headers, in order.
    pub headers: Vec<Header>,
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: u64,
}

/// A record as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Where it lies.
    pub at: TopicPartition,
    /// Its offset in the partition.
    pub offset: u64,
    /// Key, if any.
    pub key: Option<Bytes>,
    /// Value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Headers, in order.
    pub headers: Vec<Header>,
    /// Milliseconds since the Unix epoch, set by whoever appended it.
    pub timestamp_ms: u64,
}

impl LogRecord {
    /// The first header called `name`.
    pub fn header(&self, name: &str) -> Option<&Bytes> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }
}

/// A topic as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Name of the topic.
    pub name: Topic,
    /// Number of partitions.
    pub partitions: u32,
    /// How old records are dropped.
    pub retention: Retention,
}

/// How a topic forgets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// Never by itself: the owner calls [`Log::delete_before`].
    Forever,
    /// Records older than this.
    Age(Duration),
    /// All but the newest record of each key; tombstones go after a while.
    Compact,
}

/// What [`Log::check_topics`] found about one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicState {
    /// It exists with the number of partitions asked for.
    Ready,
    /// It does not exist.
    Missing,
    /// It exists with another number of partitions.
    Partitions {
        /// Partitions that it has.
        found: u32,
    },
    /// It exists, and drops records that must be kept.
    Retention {
        /// What to set, as `key=value` separated by commas, in the words of the log's own tools.
        to_set: String,
    },
}

/// The borders of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermarks {
    /// First offset that is still there.
    pub low: u64,
    /// One after the last committed record: what a reader of committed records can reach (Kafka's last stable offset).
    pub stable: u64,
    /// One after the last record, open transactions included.
    pub high: u64,
}

/// Where a reader begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The first record still there.
    Earliest,
    /// After the last record there is now.
    Latest,
    /// This offset; below the low watermark is [`LogError::OffsetOutOfRange`].
    Offset(u64),
    /// The first record whose timestamp is at or after this many milliseconds since the Unix epoch.
    Time(u64),
}

/// What a reader or a member gets.
#[derive(Debug)]
pub enum ReadEvent {
    /// The next record of some partition; within a partition in order.
    Record(LogRecord),
    /// The reader has delivered everything that was readable when the end was observed. Comes each time the end is reached anew.
    End {
        /// Which partition ended.
        at: TopicPartition,
        /// The offset that the next record will have at least.
        next: u64,
    },
}

/// Reads given partitions from given places, committed records only, outside any group.
#[async_trait]
pub trait LogReader: Send {
    /// The next event; waits for one. Cancel safe: a dropped call loses nothing.
    ///
    /// # Errors
    /// [`LogError::OffsetOutOfRange`] once if a start lies before the low watermark; [`LogError::Unavailable`] while the
    /// log cannot be reached (call again after a back-off: the reader keeps its place).
    async fn next(&mut self) -> Result<ReadEvent, LogError>;
}

/// How to join a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinSpec {
    /// Name of the group.
    pub group: String,
    /// Topics whose partitions are shared out among the members.
    pub topics: Vec<Topic>,
    /// Name of this member for logs and the broker's tools.
    pub client_id: String,
    /// The producer identity that [`Log::fence`] can take over. One live holder: a later [`Log::join`] with the same id fences the earlier.
    pub transactional_id: String,
    /// Records held in the member's own buffer at most; reading pauses beyond it, rebalances and heartbeats go on.
    pub read_ahead_records_max: usize,
}

/// A partition that a member was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Which.
    pub at: TopicPartition,
    /// Rises with each assignment that this member gets; results of an older epoch must not be committed.
    pub epoch: u64,
    /// What the group has committed, if anything.
    pub committed: Option<Committed>,
    /// Where delivery begins: the committed offset, else the low watermark.
    pub next: u64,
}

/// An offset that a group has committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The next offset to process.
    pub next: u64,
    /// What the committer wrote beside it; empty if nothing.
    pub metadata: String,
}

/// What happens to a member of a group.
#[derive(Debug)]
pub enum MemberEvent {
    /// These partitions are ours from now on (added to the ones before).
    Assigned(Vec<Assignment>),
    /// A rebalance takes these partitions. Commits for them succeed until `release` is dropped; then they are given away.
    Revoking {
        /// Which partitions.
        partitions: Vec<TopicPartition>,
        /// Drop it when the partitions are safe to give up. The log waits for it, within its session time-out.
        release: Release,
    },
    /// These partitions were taken without asking (session timed out): nothing can be committed for them any more.
    Lost(Vec<TopicPartition>),
    /// The next record of a partition, with the epoch of the assignment that it came under.
    Record {
        /// The record.
        record: LogRecord,
        /// Epoch of the assignment.
        epoch: u64,
    },
}

/// Held while a member settles partitions that it is about to lose; dropping it lets the rebalance go on.
#[derive(Debug)]
pub struct Release(
    #[expect(dead_code, reason = "its drop is the message")] Option<Box<dyn std::any::Any + Send + Sync>>,
);

impl Release {
    /// A release and the receiver whose end tells that it was dropped.
    pub fn new() -> (Self, std::sync::mpsc::Receiver<()>) {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        (Self::guarded(sender), receiver)
    }

    /// A release that drops `guard` when it is dropped.
    pub fn guarded(guard: impl Send + Sync + 'static) -> Self {
        Self(Some(Box::new(guard)))
    }

    /// A release that nobody waits for.
    pub fn unobserved() -> Self {
        Self(None)
    }
}

/// One atomic step: records appended and offsets committed, or neither.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Commit {
    /// Records to append.
    pub records: Vec<NewRecord>,
    /// Offsets to commit, at most one for each partition.
    pub offsets: Vec<CommitOffset>,
}

/// An offset to commit for a partition that this member owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitOffset {
    /// Which partition.
    pub at: TopicPartition,
    /// The epoch of the assignment under which the work was done.
    pub epoch: u64,
    /// The next offset to process.
    pub next: u64,
    /// At most [`METADATA_BYTES_MAX`] bytes.
    pub metadata: String,
}

/// One member of a group. Dropping it leaves the group; prefer [`Member::leave`], which waits.
#[async_trait]
pub trait Member: Send + Sync {
    /// The next event; waits for one. One caller at a time. Cancel safe.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] while the log cannot be reached (call again after a back-off), [`LogError::Closed`] after `leave`.
    async fn next(&self) -> Result<MemberEvent, LogError>;

    /// Appends and commits atomically, fenced: it fails if any partition in `offsets` is no longer this member's under that
    /// epoch, or if another holder took the transactional id. Calls are carried out one after the other.
    ///
    /// # Errors
    /// See [`CommitError`]; each variant says whether anything happened.
    async fn commit(&self, commit: Commit) -> Result<(), CommitError>;

    /// Stops (`true`) or resumes (`false`) delivery of one partition; ignored if it is not ours.
    fn pause(&self, at: &TopicPartition, paused: bool);

    /// Leaves the group: partitions are given away at once. Bounded by a time-out of the adapter.
    async fn leave(&self);
}

/// A durable, partitioned log.
#[async_trait]
pub trait Log: Send + Sync + 'static {
    /// Creates the missing topics of `specs`; existing ones stay as they are. Returns when all can be written and read.
    ///
    /// # Errors
    /// [`LogError::Unavailable`], or [`LogError::Denied`] if the log does not let us.
    async fn create_topics(&self, specs: &[TopicSpec]) -> Result<(), LogError>;

    /// How each topic of `specs` stands, in their order.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn check_topics(&self, specs: &[TopicSpec]) -> Result<Vec<TopicState>, LogError>;

    /// Appends records outside any transaction, idempotently; `Ok` means that all of them are durable. Not atomic: on an
    /// error some may be there. Records of one partition keep their order within one call.
    ///
    /// Returns the offset of each record.
    ///
    /// # Errors
    /// [`LogError::TooLarge`] and [`LogError::UnknownTopic`] before anything was sent; [`LogError::Unavailable`] after the
    /// adapter's delivery time-out.
    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<u64>, LogError>;

    /// The borders of a partition.
    ///
    /// # Errors
    /// [`LogError::UnknownTopic`], [`LogError::Unavailable`].
    async fn watermarks(&self, at: &TopicPartition) -> Result<Watermarks, LogError>;

    /// Opens a reader of committed records.
    ///
    /// # Errors
    /// [`LogError::UnknownTopic`], [`LogError::Unavailable`].
    async fn read(&self, starts: Vec<(TopicPartition, Start)>) -> Result<Box<dyn LogReader>, LogError>;

    /// Joins a group. The first assignment comes as an event.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn join(&self, spec: JoinSpec) -> Result<Arc<dyn Member>, LogError>;

    /// What a group has committed for a partition. Waits for an open transaction on that offset to end.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn committed(&self, group: &str, at: &TopicPartition) -> Result<Option<Committed>, LogError>;

    /// Ends whatever the holder of `transactional_id` has open and fences it: its next commit fails with [`CommitError::Fenced`].
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn fence(&self, transactional_id: &str) -> Result<(), LogError>;

    /// Deletes the records below `offset`, which must not lie above the high watermark.
    ///
    /// # Errors
    /// [`LogError::UnknownTopic`], [`LogError::OffsetOutOfRange`], [`LogError::Unavailable`].
    async fn delete_before(&self, at: &TopicPartition, offset: u64) -> Result<(), LogError>;

    /// `Ok` if the log can be written and read now; used by `/readyz`. Answers within a second or so.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] with the reason in words.
    async fn health(&self) -> Result<(), LogError>;
}

/// Why the log did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// It cannot be reached or does not answer in time. Try again after a back-off.
    #[error("the log is unavailable: {0}")]
    Unavailable(String),
    /// The record is larger than allowed. Never succeeds.
    #[error("a record of {bytes} bytes is larger than the limit of {limit}")]
    TooLarge {
        /// Size of the value.
        bytes: usize,
        /// Limit of the value.
        limit: usize,
    },
    /// There is no such topic or partition.
    #[error("there is no topic partition {0}")]
    UnknownTopic(TopicPartition),
    /// The offset is outside the partition's borders.
    #[error("offset {offset} of {at} is outside {low}..={high}")]
    OffsetOutOfRange {
        /// Which partition.
        at: TopicPartition,
        /// The offset asked for.
        offset: u64,
        /// First offset still there.
        low: u64,
        /// One after the last record.
        high: u64,
    },
    /// The log's access rules forbid it. An operator must act.
    #[error("the log denied access: {0}")]
    Denied(String),
    /// The member left, or the log was shut down.
    #[error("the log is closed")]
    Closed,
}

/// Why a [`Member::commit`] failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// Nothing happened: these partitions are no longer this member's. Drop their results, commit the rest again.
    #[error("not the owner of {}", display(.0))]
    NotOwner(Vec<TopicPartition>),
    /// Nothing happened. Commit again after a back-off (a rebalance is under way, or the log is unavailable).
    #[error("the commit was aborted: {0}")]
    Aborted(String),
    /// The transactional id was taken over; the member has re-initialised itself. Whether the commit happened must be read
    /// before anything is committed again: from its records, once [`Log::committed`] has answered. Offsets alone prove nothing.
    #[error("another holder took the transactional id")]
    Fenced,
    /// No answer in time: whether it happened must be read as for [`CommitError::Fenced`].
    #[error("the outcome of the commit is unknown: {0}")]
    InDoubt(String),
    /// Nothing happened, and never will: a record or the metadata is too large, or a topic unknown.
    #[error("the commit is invalid: {0}")]
    Invalid(String),
}

fn display(partitions: &[TopicPartition]) -> String {
    partitions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
