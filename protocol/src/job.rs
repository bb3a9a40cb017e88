//! A job as a record in a lane: its JSON shape and its frame. [`Job::check`] holds the rules that every way in shares.

use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::id::JobId;
use crate::task::Task;
use crate::time::rfc3339_option;

pub use crate::param::check_params;

/// Tenant of a record that names none.
pub const DEFAULT_TENANT: &str = "default";

/// One unit of media work. As JSON it is the record that any producer may write to a lane; unknown fields are refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Identity; a record without one gets an id made from its place in the lane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<JobId>,
    /// Whose job it is: events and results are visible to this tenant only.
    #[serde(default = "default_tenant")]
    pub tenant: String,
    /// Who submitted it.
    #[serde(default = "default_subject")]
    pub subject: String,
    /// What to do.
    pub task: Task,
    /// Model, by name; without one the relay chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Parameters of the task.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub params: Map<String, Value>,
    /// What to do it with.
    pub input: Input,
    /// Order among waiting jobs.
    #[serde(default)]
    pub priority: Priority,
    /// Of the jobs of a tenant and lane with the same key one runs; the others end as it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// Not started after this, and ended at it.
    #[serde(default, with = "rfc3339_option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub deadline: Option<u64>,
    /// Not started before this.
    #[serde(default, with = "rfc3339_option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub not_before: Option<u64>,
    /// Attempts at most; the lane's setting if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16))]
    pub attempts_max: Option<u32>,
    /// Attempts that were made before this record was written.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempt: u32,
    /// W3C trace context of whoever submitted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Where it was when, in microseconds since the Unix epoch by each place's clock.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hops: Vec<Hop>,
    /// The dead-lettered job that this one repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redrive_of: Option<JobId>,
}

/// A place on a job's way and the time it was there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hop {
    /// Name of the place: `client`, `gateway`, `log`, `intake`, `backend`, `commit`.
    pub hop: String,
    /// Microseconds since the Unix epoch by that place's clock.
    pub at_us: u64,
}

/// What a job works on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Input {
    /// The bytes themselves, in JSON as base64.
    Inline(InlineMedia),
    /// Text: a prompt, a message, a sentence to speak.
    Text(String),
    /// Bytes in the cluster's object store.
    Object(StoredObject),
    /// A node fetches it, if its allow-list has it.
    Url(String),
}

/// Media inside a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InlineMedia {
    /// The bytes, at most [`crate::limits::INLINE_BYTES_MAX`].
    #[serde(with = "base64_bytes")]
    #[schemars(with = "String", extend("contentEncoding" = "base64"))]
    pub data: bytes::Bytes,
    /// Name of the file, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Media type, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
}

/// Bytes in the cluster's object store, with what is needed to check them: the claim of a claim check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoredObject {
    /// Where in the store.
    pub path: String,
    /// Size.
    pub bytes: u64,
    /// SHA-256 of the bytes, in lower-case hex.
    pub sha256: String,
    /// Name of the file, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Media type, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
}

/// Order among waiting jobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// When nothing else waits.
    Batch,
    /// In turn.
    #[default]
    Normal,
    /// Before the others.
    Interactive,
}

impl Priority {
    /// The priority with this number on the wire: 0 batch, 1 normal, 2 interactive.
    pub fn from_wire(number: u8) -> Option<Self> {
        [Self::Batch, Self::Normal, Self::Interactive].get(usize::from(number)).copied()
    }

    /// Its number on the wire.
    pub fn to_wire(self) -> u8 {
        self as u8
    }
}

impl FromStr for Priority {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "batch" => Ok(Self::Batch),
            "normal" => Ok(Self::Normal),
            "interactive" => Ok(Self::Interactive),
            _ => Err(format!("unknown priority {text:?}; known are: batch, normal, interactive")),
        }
    }
}

/// Head of a job's frame in a lane; an inline input is the payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobHeadV1 {
    /// The job's JSON fields that are neither input nor parameters, in the order of [`Job`].
    pub id: Option<JobId>,
    /// See [`Job::tenant`].
    pub tenant: String,
    /// See [`Job::subject`].
    pub subject: String,
    /// Name of the task.
    pub task: String,
    /// See [`Job::model`].
    pub model: Option<String>,
    /// Parameters: the text of a JSON object.
    pub params: String,
    /// Where the input is.
    pub input: InputHeadV1,
    /// Number of the priority.
    pub priority: u8,
    /// See [`Job::idempotency_key`].
    pub idempotency_key: Option<String>,
    /// Milliseconds since the Unix epoch.
    pub deadline_ms: Option<u64>,
    /// Milliseconds since the Unix epoch.
    pub not_before_ms: Option<u64>,
    /// See [`Job::attempts_max`].
    pub attempts_max: Option<u32>,
    /// See [`Job::attempt`].
    pub attempt: u32,
    /// See [`Job::traceparent`].
    pub traceparent: Option<String>,
    /// See [`Job::hops`]: name and microseconds.
    pub hops: Vec<(String, u64)>,
    /// See [`Job::redrive_of`].
    pub redrive_of: Option<JobId>,
}

/// Where the input of a job's frame is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum InputHeadV1 {
    /// The payload, with the file's name and media type.
    Inline(Option<String>, Option<String>),
    /// The payload is UTF-8 text.
    Text,
    /// In the object store: path, bytes, SHA-256, name, media type.
    Object(String, u64, [u8; 32], Option<String>, Option<String>),
    /// To be fetched.
    Url(String),
}

fn default_tenant() -> String {
    DEFAULT_TENANT.to_owned()
}

fn default_subject() -> String {
    "producer".to_owned()
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Serde adapter: bytes as base64 text.
mod base64_bytes {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Bytes::from).map_err(D::Error::custom)
    }
}
