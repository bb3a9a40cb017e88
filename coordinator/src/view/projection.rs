//! What the events say of a job. Pure.
//!
//! Events come at least once, and those of a gateway beside those of an owner: each part of a row is the least or the
//! greatest of what was seen, by a total order. So the row is the same whatever the order of its events and however often
//! each came. The newest event by `seq` decides the state; a terminal event is newer than any other.

use relay_protocol::event::{JobCard, Place};
use relay_protocol::time::{rfc3339, rfc3339_option};
use relay_protocol::{Event, EventKind, JobId};
use serde::{Deserialize, Serialize};

/// Where a job lies and what it is, as its earliest place tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Its first place: of a job that was written twice, the one that ran.
    pub place: Place,
    /// What it is; `None` if no event of that place said so.
    pub card: Option<JobCard>,
}

/// The event that decides the state.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Newest {
    /// Whether the job has ended.
    pub terminal: bool,
    /// The event's number.
    pub seq: u64,
    /// When it happened, in milliseconds since the Unix epoch.
    pub at: u64,
    /// The name of its kind.
    pub kind: String,
    /// `retrying`: when the next attempt begins at the earliest, in milliseconds since the Unix epoch.
    pub retry_at: Option<u64>,
    /// What went wrong: code, message, retryable.
    pub error: Option<(String, String, bool)>,
    /// The job whose end this one repeats.
    pub duplicate_of: Option<JobId>,
    /// The attempt that it belongs to.
    pub attempt: u32,
}

/// An attempt, as its `started` tells.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Attempt {
    /// Its number.
    pub attempt: u32,
    /// When it began, in milliseconds since the Unix epoch.
    pub at: u64,
    /// Who works on it.
    pub backend: Option<String>,
    /// The node that runs it.
    pub node: Option<String>,
}

/// All that is kept of one job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRow {
    /// Whose.
    pub tenant: String,
    /// Which.
    pub job_id: JobId,
    /// The earliest time that any event names, in milliseconds since the Unix epoch.
    pub first_at: u64,
    /// The latest time that any event names: what retention counts from.
    pub last_at: u64,
    /// The earliest place.
    pub origin: Option<Origin>,
    /// The newest event.
    pub newest: Newest,
    /// The newest attempt.
    pub attempt: Option<Attempt>,
}

impl JobRow {
    /// What one event of `tenant`'s job says; `None` for those that a view has no use for.
    pub fn of(tenant: &str, event: &Event) -> Option<Self> {
        if matches!(event.event, EventKind::Progress | EventKind::Partial) {
            return None;
        }
        let card = event.job.as_deref().cloned();
        let origin = event.place.clone().map(|place| Origin { place, card });
        let attempt = (event.event == EventKind::Started).then(|| Attempt {
            attempt: event.attempt,
            at: event.at,
            backend: event.backend.clone(),
            node: event.node.clone(),
        });
        let newest = Newest {
            terminal: event.event.is_terminal(),
            seq: event.seq,
            at: event.at,
            kind: event.event.name().to_owned(),
            retry_at: event.retry_at,
            error: event.error.clone().map(|error| (error.code, error.message, error.retryable)),
            duplicate_of: event.duplicate_of,
            attempt: event.attempt,
        };
        Some(Self {
            tenant: tenant.to_owned(),
            job_id: event.job_id,
            first_at: event.at,
            last_at: event.at,
            origin,
            newest,
            attempt,
        })
    }

    /// Takes in what `other` says of the same job: commutative, associative, idempotent.
    pub fn merge(&mut self, other: Self) {
        self.first_at = self.first_at.min(other.first_at);
        self.last_at = self.last_at.max(other.last_at);
        self.origin = match (self.origin.take(), other.origin) {
            (Some(mine), Some(theirs)) => Some(mine.earlier(theirs)),
            (mine, theirs) => mine.or(theirs),
        };
        if other.newest > self.newest {
            self.newest = other.newest;
        }
        if other.attempt > self.attempt {
            self.attempt = other.attempt;
        }
    }

    /// When the job was submitted, as far as is known, in milliseconds since the Unix epoch: the order of lists.
    pub fn submitted_at(&self) -> u64 {
        self.origin.as_ref().map_or(self.first_at, |origin| origin.place.accepted_at)
    }

    /// `queued`, `running`, or the name of its terminal event.
    pub fn state(&self) -> &str {
        match self.newest.kind.as_str() {
            kind if self.newest.terminal => kind,
            "accepted" => "queued",
            _ => "running",
        }
    }

    /// What the job is, if an event told.
    pub fn card(&self) -> Option<&JobCard> {
        self.origin.as_ref().and_then(|origin| origin.card.as_ref())
    }

    /// The job as clients see it.
    pub fn show(&self) -> ShownJob<'_> {
        let (card, place) = (self.card(), self.origin.as_ref().map(|origin| &origin.place));
        let error = self.newest.error.as_ref();
        ShownJob {
            job_id: self.job_id,
            tenant: &self.tenant,
            state: self.state(),
            subject: card.map(|card| card.subject.as_str()),
            task: card.map(|card| card.task.name()),
            model: card.and_then(|card| card.model.as_deref()),
            priority: card.map(|card| card.priority),
            lane: place.map(|place| place.lane.as_str()),
            partition: place.map(|place| place.partition),
            offset: place.map(|place| place.offset),
            submitted_at: self.submitted_at(),
            started_at: self.attempt.as_ref().map(|attempt| attempt.at),
            updated_at: self.newest.at,
            ended_at: self.newest.terminal.then_some(self.newest.at),
            deadline: card.and_then(|card| card.deadline),
            not_before: card.and_then(|card| card.not_before),
            retry_at: self.newest.retry_at,
            attempt: self.newest.attempt,
            backend: self.attempt.as_ref().and_then(|attempt| attempt.backend.as_deref()),
            node: self.attempt.as_ref().and_then(|attempt| attempt.node.as_deref()),
            error: error.map(|(code, message, retryable)| ShownError { code, message, retryable: *retryable }),
            redrive_of: card.and_then(|card| card.redrive_of),
            duplicate_of: self.newest.duplicate_of,
        }
    }
}

impl Origin {
    /// The earlier of two places; of one place, what says more.
    fn earlier(self, other: Self) -> Self {
        let key = |place: &Place| (place.accepted_at, place.lane.clone(), place.partition, place.offset);
        match key(&self.place).cmp(&key(&other.place)) {
            std::cmp::Ordering::Less => self,
            std::cmp::Ordering::Greater => other,
            std::cmp::Ordering::Equal => Self { card: self.card.max(other.card), place: self.place },
        }
    }
}

/// A job as lists and answers have it; times as RFC 3339.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "docs/job-view.md is their documentation")]
pub struct ShownJob<'a> {
    pub job_id: JobId,
    pub tenant: &'a str,
    pub state: &'a str,
    pub subject: Option<&'a str>,
    pub task: Option<&'a str>,
    pub model: Option<&'a str>,
    pub priority: Option<relay_protocol::Priority>,
    pub lane: Option<&'a str>,
    pub partition: Option<u32>,
    pub offset: Option<u64>,
    #[serde(with = "rfc3339")]
    pub submitted_at: u64,
    #[serde(with = "rfc3339_option")]
    pub started_at: Option<u64>,
    #[serde(with = "rfc3339")]
    pub updated_at: u64,
    #[serde(with = "rfc3339_option")]
    pub ended_at: Option<u64>,
    #[serde(with = "rfc3339_option")]
    pub deadline: Option<u64>,
    #[serde(with = "rfc3339_option")]
    pub not_before: Option<u64>,
    #[serde(with = "rfc3339_option")]
    pub retry_at: Option<u64>,
    pub attempt: u32,
    pub backend: Option<&'a str>,
    pub node: Option<&'a str>,
    pub error: Option<ShownError<'a>>,
    pub redrive_of: Option<JobId>,
    pub duplicate_of: Option<JobId>,
}

/// What went wrong, in the shape of all errors.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "docs/job-view.md is their documentation")]
pub struct ShownError<'a> {
    pub code: &'a str,
    pub message: &'a str,
    pub retryable: bool,
}
