//! A log that a redrive is cut off at: an append of a lane's job or of a mark comes to what the test says.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use relay_log::port::{
    Committed, JoinSpec, Log, LogError, LogReader, Member, NewRecord, Start, TopicPartition, TopicSpec, TopicState,
    Watermarks,
};
use relay_protocol::dead_letter::HEADER_MARK;
use relay_protocol::topics;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Which append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Of a job to its lane.
    Job,
    /// Of marks that have one of this name among them.
    Mark(&'static str),
}

/// What it comes to.
#[derive(Debug, Clone)]
pub(crate) enum Fate {
    /// It waits for the token, and is done then.
    Held(CancellationToken),
    /// Nothing was written, and the caller does not know.
    Lost,
    /// All was written, and the caller does not know.
    Written,
    /// Nothing was written, and the caller knows it.
    Refused,
}

/// The next appends that do not just succeed. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Cuts {
    next: Arc<Mutex<VecDeque<(Cut, Fate)>>>,
    /// How many came so far.
    pub(crate) came: watch::Sender<usize>,
    /// Readers of dead letters wait for it.
    pub(crate) hold_reads: Arc<Mutex<Option<CancellationToken>>>,
}

impl Cuts {
    /// The next such append comes to this.
    pub(crate) fn add(&self, cut: Cut, fate: Fate) {
        self.next.lock().unwrap().push_back((cut, fate));
    }

    fn take(&self, records: &[NewRecord]) -> Option<Fate> {
        let mut next = self.next.lock().unwrap();
        let is = |cut: Cut| {
            records.iter().any(|record| match cut {
                Cut::Job => topics::lane_of(&record.to.topic).is_some(),
                Cut::Mark(name) => record.headers.iter().any(|(header, value)| header == HEADER_MARK && value == name),
            })
        };
        let index = next.iter().position(|(cut, _)| is(*cut))?;
        self.came.send_modify(|came| *came += 1);
        next.remove(index).map(|(_, fate)| fate)
    }
}

/// A log with cuts.
pub(crate) struct CutLog {
    log: Arc<dyn Log>,
    cuts: Cuts,
}

impl CutLog {
    /// `log` with these cuts.
    pub(crate) fn new(log: Arc<dyn Log>, cuts: &Cuts) -> Self {
        Self { log, cuts: cuts.clone() }
    }
}

#[async_trait]
impl Log for CutLog {
    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<u64>, LogError> {
        match self.cuts.take(&records) {
            None => return self.log.append(records).await,
            Some(Fate::Held(until)) => {
                until.cancelled().await;
                return self.log.append(records).await;
            }
            Some(Fate::Refused) => return Err(LogError::TooLarge { bytes: 2, limit: 1 }),
            Some(Fate::Written) => _ = self.log.append(records).await?,
            Some(Fate::Lost) => {}
        }
        Err(LogError::Unavailable("the test says so".to_owned()))
    }

    async fn read(&self, starts: Vec<(TopicPartition, Start)>) -> Result<Box<dyn LogReader>, LogError> {
        let held = self.cuts.hold_reads.lock().unwrap().clone();
        if let Some(held) = held.filter(|_| starts.iter().any(|(at, _)| &*at.topic == topics::DEAD_LETTERS)) {
            held.cancelled().await;
        }
        self.log.read(starts).await
    }

    async fn join(&self, spec: JoinSpec) -> Result<Arc<dyn Member>, LogError> {
        self.log.join(spec).await
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
