//! Dead letters as users meet them: what a letter is called, what marks say of it, and the bodies of `/v1/dlq`.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::event::JobError;
use crate::id::JobId;
use crate::record::AttemptFailure;
use crate::task::Task;
use crate::time::{rfc3339, rfc3339_option};

/// Header of a record in [`crate::topics::DEAD_LETTERS`] that is no letter but a mark on one: name of its
/// [`MarkKind`]. The record's value is a [`Mark`].
pub const HEADER_MARK: &str = "relay-mark";

/// What a letter is called: the place of its record in [`crate::topics::DEAD_LETTERS`], written `PARTITION-OFFSET`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LetterId {
    /// Partition of the topic.
    pub partition: u32,
    /// Offset in the partition.
    pub offset: u64,
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.partition, self.offset)
    }
}

impl FromStr for LetterId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // `parse` alone would take a sign and leading zeros: a letter has one name.
        let read = || {
            let (partition, offset) = text.split_once('-')?;
            Some(Self { partition: partition.parse().ok()?, offset: offset.parse().ok()? })
        };
        read()
            .filter(|id| id.to_string() == text)
            .ok_or_else(|| format!("{text:?} is no dead letter: they are called PARTITION-OFFSET, as 3-17"))
    }
}

impl Serialize for LetterId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LetterId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// What names a letter in a request: its own name, or the id of its job, which stands for the job's newest letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LetterName {
    /// Its place.
    Letter(LetterId),
    /// Its job.
    Job(JobId),
}

impl fmt::Display for LetterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Letter(id) => id.fmt(f),
            Self::Job(id) => id.fmt(f),
        }
    }
}

impl FromStr for LetterName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let job = |_| text.parse().map(Self::Job);
        text.parse().map(Self::Letter).or_else(job).map_err(|_| {
            format!("{text:?} is no dead letter: name it PARTITION-OFFSET, as 3-17, or by the id of its job")
        })
    }
}

/// What a mark says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MarkKind {
    /// Somebody is about to submit the letter's job anew, under [`Mark::job_id`].
    Redriving,
    /// It was submitted.
    Redriven,
    /// It was not submitted, for certain.
    Released,
    /// Nobody wants it any more.
    Dropped,
}

impl MarkKind {
    /// The name in [`HEADER_MARK`].
    pub fn name(self) -> &'static str {
        match self {
            Self::Redriving => "redriving",
            Self::Redriven => "redriven",
            Self::Released => "released",
            Self::Dropped => "dropped",
        }
    }
}

/// The value of a mark, as JSON. It lies in the partition of its letter, so that its place among the letter's other marks
/// is certain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// What it says.
    pub mark: MarkKind,
    /// Offset of the letter, in the mark's own partition.
    pub letter: u64,
    /// All but `dropped`: the job that repeats the letter's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
    /// `released`: offset of the `redriving` mark that its writer takes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<u64>,
    /// Who asked for it.
    pub subject: String,
    /// When.
    #[serde(with = "rfc3339")]
    pub at: u64,
}

/// What has become of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LetterState {
    /// Nothing yet.
    Open,
    /// A redrive has begun and is not known to have ended: another redrive brings it to its end.
    Redriving,
    /// Its job was submitted anew.
    Redriven,
    /// Nobody wants it any more.
    Dropped,
}

impl LetterState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Open, Self::Redriving, Self::Redriven, Self::Dropped];

    /// The name in requests and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Redriving => "redriving",
            Self::Redriven => "redriven",
            Self::Dropped => "dropped",
        }
    }
}

/// Which letters; a field that is not set does not count.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LetterFilter {
    /// Lane of the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<String>,
    /// Task of the job; records that are no job have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Task>,
    /// Code of the error that the job ended with, or that one of its attempts did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Dead from this time on.
    #[serde(default, with = "rfc3339_option", skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// Dead before this time.
    #[serde(default, with = "rfc3339_option", skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// Of this tenant; callers without the scope `admin` see their own alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
}

impl LetterFilter {
    /// Whether it lets every letter through.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A dead letter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Letter {
    /// What it is called.
    pub id: LetterId,
    /// What has become of it.
    pub state: LetterState,
    /// The job that died; a foreign record has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
    /// Whose it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Lane that it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<String>,
    /// What was to be done; records that are no job have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Task>,
    /// With which model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<JobError>,
    /// When it died.
    #[serde(with = "rfc3339")]
    pub at: u64,
    /// Attempts that are told in `attempts` of the whole letter.
    pub attempts_made: u32,
    /// `redriving` and `redriven`: the job that repeats it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redriven_as: Option<JobId>,
}

/// A dead letter with all that it carries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WholeLetter {
    /// The letter.
    #[serde(flatten)]
    pub letter: Letter,
    /// Every attempt: its number, backend, time and error.
    pub attempts: Vec<AttemptFailure>,
    /// `topic/partition/offset` of the original record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Key of the original record, if it is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The original record's own headers; bytes that are no text are replaced.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub headers: Map<String, Value>,
    /// The job, as JSON; of bytes inside the record only their number is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Value>,
    /// Size of the original record's value, in bytes.
    pub value_bytes: u64,
    /// Of a record that is no job, how its value begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_begin: Option<String>,
}

/// Some letters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LetterPage {
    /// The letters, by partition and offset. May be fewer than asked for, or none, though there are more.
    pub letters: Vec<Letter>,
    /// Where to go on; none: there are no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<LetterId>,
}

/// Body of a redrive or a drop: of the letters in `ids`, or of those that `filter` lets through.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LetterRequest {
    /// Names of letters, each as [`LetterName`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
    /// Which letters.
    #[serde(default, skip_serializing_if = "LetterFilter::is_empty")]
    pub filter: LetterFilter,
    /// That an empty filter is meant.
    #[serde(default)]
    pub everything: bool,
    /// Only tell what would happen.
    #[serde(default)]
    pub dry_run: bool,
    /// With a filter: letters at most that this request looks at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// With a filter: go on behind this letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<LetterId>,
}

/// What became of one letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LetterOutcome {
    /// Its job was submitted anew.
    Redriven,
    /// It is gone from the open letters.
    Dropped,
    /// A dry run: it would have been.
    WouldRedrive,
    /// A dry run: it would have been.
    WouldDrop,
    /// Nothing; the error says why.
    Refused,
}

/// What a redrive or a drop did with one letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterResult {
    /// The letter as the request named it, or what it is called.
    pub id: String,
    /// The job that died.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
    /// What became of it.
    pub outcome: LetterOutcome,
    /// The job that repeats it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redriven_as: Option<JobId>,
    /// Why nothing was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<JobError>,
}

/// What a redrive or a drop did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterAnswer {
    /// Nothing was done.
    pub dry_run: bool,
    /// One result for each letter.
    pub letters: Vec<LetterResult>,
    /// With a filter: where to go on; none: there are no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<LetterId>,
}
