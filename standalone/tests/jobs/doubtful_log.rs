//! A log that does not always do what it is asked, or does not always admit to have done it, as the test says.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use relay_log::port::{
    Commit, CommitError, Committed, Header, JoinSpec, Log, LogError, LogReader, Member, MemberEvent, NewRecord,
    ReadEvent, Start, TopicPartition, TopicSpec, TopicState, Watermarks,
};
use relay_protocol::EventKind::{self, Accepted};
use relay_protocol::record::HEADER_EVENT;
use relay_protocol::topics;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::cluster::PATIENCE;

/// What became of a commit or an append that did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing was written, and the caller knows it.
    Aborted,
    /// Nothing was written, and the caller does not know.
    Lost,
    /// All was written, and the caller does not know.
    Written,
}

/// What a [`DoubtfulLog`] does, and what it has seen. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Script {
    /// What becomes of the first append that has an event of this kind.
    pub(crate) append: Arc<Mutex<Option<(EventKind, Fate)>>>,
    /// What becomes of the first commits that end a job; all others succeed.
    pub(crate) commits: Arc<Mutex<VecDeque<Fate>>>,
    /// Commits that end a job wait for it once `commits` is empty.
    pub(crate) let_commit: CancellationToken,
    /// How many commits that end a job were asked for.
    pub(crate) asked: watch::Sender<usize>,
    /// Whoever follows events gets none before it.
    pub(crate) let_follow: CancellationToken,
    /// How often the follower of durable events has reached their end.
    pub(crate) followed: watch::Sender<usize>,
    /// Before `let_follow` nor does whoever reads the past get any event but receipts, as if an open transaction of
    /// somebody else hid the rest.
    pub(crate) hides_past: bool,
    /// While it is set, nothing is appended to control topics.
    pub(crate) mutes_control: Arc<AtomicBool>,
}

impl Script {
    /// Everything succeeds; followers are held back.
    pub(crate) fn new() -> Self {
        let let_commit = CancellationToken::new();
        let_commit.cancel();
        Self {
            append: Arc::default(),
            commits: Arc::default(),
            let_commit,
            asked: watch::Sender::default(),
            let_follow: CancellationToken::new(),
            followed: watch::Sender::default(),
            hides_past: false,
            mutes_control: Arc::default(),
        }
    }

    /// The first append of an event of this kind comes to this.
    pub(crate) fn append_in_doubt(kind: EventKind, fate: Fate) -> Self {
        Self { append: Arc::new(Mutex::new(Some((kind, fate)))), ..Self::new() }
    }

    /// The first commit that ends a job comes to this.
    pub(crate) fn commit_in_doubt(fate: Fate) -> Self {
        Self { commits: Arc::new(Mutex::new(VecDeque::from([fate]))), ..Self::new() }
    }

    /// Waits until so many commits that end a job were asked for.
    pub(crate) async fn wait_asked(&self, count: usize) {
        reached(&self.asked, count, "commits are asked for").await;
    }

    /// Lets followers go on, and waits until they have read all that was written before.
    pub(crate) async fn follow(&self) {
        assert_eq!(*self.followed.borrow(), 0, "the follower was not held back");
        self.let_follow.cancel();
        reached(&self.followed, 1, "the follower catches up").await;
    }
}

async fn reached(counter: &watch::Sender<usize>, count: usize, what: &str) {
    let mut seen = counter.subscribe();
    timeout(PATIENCE, seen.wait_for(|seen| *seen >= count)).await.expect(what).expect("the script lives");
}

/// A log that is asked for what it does not always do, or does not always admit to have done.
pub(crate) struct DoubtfulLog {
    log: Arc<dyn Log>,
    script: Script,
}

impl DoubtfulLog {
    /// `log`, as `script` lets it be seen.
    pub(crate) fn new(log: Arc<dyn Log>, script: &Script) -> Self {
        Self { log, script: script.clone() }
    }
}

struct DoubtfulMember {
    member: Arc<dyn Member>,
    script: Script,
}

/// Follows events once it is let.
struct HeldReader {
    reader: Box<dyn LogReader>,
    script: Script,
}

/// Reads the past, but of events only receipts until followers are let.
struct HidingReader {
    reader: Box<dyn LogReader>,
    script: Script,
}

/// The kind of a durable event's record.
fn kind_of(at: &TopicPartition, headers: &[Header]) -> Option<EventKind> {
    let (_, name) = headers.iter().find(|(name, _)| name == HEADER_EVENT)?;
    EventKind::from_name(std::str::from_utf8(name).ok()?).filter(|_| &*at.topic == topics::EVENTS)
}

fn kinds(records: &[NewRecord]) -> impl Iterator<Item = EventKind> {
    records.iter().filter_map(|record| kind_of(&record.to, &record.headers))
}

#[async_trait]
impl Log for DoubtfulLog {
    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<u64>, LogError> {
        let is_muted = self.script.mutes_control.load(Ordering::SeqCst);
        if is_muted && records.iter().any(|record| record.to.topic.starts_with("media.control.")) {
            return Err(LogError::Unavailable("the test says so".to_owned()));
        }
        let has = |wanted| kinds(&records).any(|kind| kind == wanted);
        let fate = self.script.append.lock().unwrap().take_if(|(kind, _)| has(*kind)).map(|(_, fate)| fate);
        match fate {
            None => return self.log.append(records).await,
            Some(Fate::Written) => _ = self.log.append(records).await?,
            Some(Fate::Lost | Fate::Aborted) => {}
        }
        Err(LogError::Unavailable("the test says so".to_owned()))
    }

    async fn read(&self, starts: Vec<(TopicPartition, Start)>) -> Result<Box<dyn LogReader>, LogError> {
        let events = starts.iter().find(|(at, _)| &*at.topic == topics::EVENTS).map(|(_, start)| *start);
        let reader = self.log.read(starts).await?;
        let script = self.script.clone();
        Ok(match events {
            Some(Start::Offset(_)) => Box::new(HeldReader { reader, script }),
            Some(Start::Time(_)) if script.hides_past => Box::new(HidingReader { reader, script }),
            _ => reader,
        })
    }

    async fn join(&self, spec: JoinSpec) -> Result<Arc<dyn Member>, LogError> {
        Ok(Arc::new(DoubtfulMember { member: self.log.join(spec).await?, script: self.script.clone() }))
    }

    async fn create_topics(&self, specs: &[TopicSpec]) -> Result<(), LogError> {
        self.log.create_topics(specs).await
    }

    async fn check_topics(&self, specs: &[TopicSpec]) -> Result<Vec<TopicState>, LogError> {
        self.log.check_topics(specs).await
    }

    async fn watermarks(&self, at: &TopicPartition) -> Result<Watermarks, LogError> {
        self.log.watermarks(at).await
    }

    async fn committed(&self, group: &str, at: &TopicPartition) -> Result<Option<Committed>, LogError> {
        self.log.committed(group, at).await
    }

    async fn fence(&self, transactional_id: &str) -> Result<(), LogError> {
        self.log.fence(transactional_id).await
    }

    async fn delete_before(&self, at: &TopicPartition, offset: u64) -> Result<(), LogError> {
        self.log.delete_before(at, offset).await
    }

    async fn health(&self) -> Result<(), LogError> {
        self.log.health().await
    }
}

#[async_trait]
impl Member for DoubtfulMember {
    async fn next(&self) -> Result<MemberEvent, LogError> {
        self.member.next().await
    }

    async fn commit(&self, commit: Commit) -> Result<(), CommitError> {
        if !kinds(&commit.records).any(EventKind::is_terminal) {
            return self.member.commit(commit).await;
        }
        self.script.asked.send_modify(|asked| *asked += 1);
        let fate = self.script.commits.lock().unwrap().pop_front();
        match fate {
            Some(Fate::Aborted) => return Err(CommitError::Aborted("the test says so".to_owned())),
            Some(Fate::Lost) => {}
            Some(Fate::Written) => self.member.commit(commit).await?,
            None => {
                self.script.let_commit.cancelled().await;
                return self.member.commit(commit).await;
            }
        }
        Err(CommitError::InDoubt("the test says so".to_owned()))
    }

    fn pause(&self, at: &TopicPartition, paused: bool) {
        self.member.pause(at, paused);
    }

    async fn leave(&self) {
        self.member.leave().await;
    }
}

#[async_trait]
impl LogReader for HeldReader {
    async fn next(&mut self) -> Result<ReadEvent, LogError> {
        self.script.let_follow.cancelled().await;
        let event = self.reader.next().await;
        if matches!(&event, Ok(ReadEvent::End { at, .. }) if &*at.topic == topics::EVENTS) {
            self.script.followed.send_modify(|followed| *followed += 1);
        }
        event
    }
}

#[async_trait]
impl LogReader for HidingReader {
    async fn next(&mut self) -> Result<ReadEvent, LogError> {
        loop {
            let event = self.reader.next().await?;
            let kind = match &event {
                ReadEvent::Record(record) => kind_of(&record.at, &record.headers),
                ReadEvent::End { .. } => None,
            };
            if kind.is_none_or(|kind| kind == Accepted) || self.script.let_follow.is_cancelled() {
                return Ok(event);
            }
        }
    }
}
