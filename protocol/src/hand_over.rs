//! Records of a lane's control topic by which jobs that run go on running while their partition goes to another node: the
//! node that runs them reports them, and the partition's owner ends them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::Event;
use crate::record::{AttemptFailure, StartedJob};

/// Attempts that go on at a node whose partition is another's now. Written before the partition is given up and again and
/// again while they run; when the reports stop, the owner runs the jobs anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeptJobs {
    /// The node that runs them.
    pub node: String,
    /// Its life.
    pub incarnation: u64,
    /// Which attempts of which jobs.
    pub jobs: Vec<StartedJob>,
}

/// What a kept attempt came to, with all that its end's commit needs. It counts only for the attempt that the owner knows to
/// run, once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct KeptEnd {
    /// The node that ran it.
    pub node: String,
    /// Its life.
    pub incarnation: u64,
    /// The job's offset in the partition of its lane.
    pub offset: u64,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// The terminal event; or `retrying`: the job waits in `tier` until its `retry_at`.
    pub event: Event,
    /// Every failed attempt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<AttemptFailure>,
    /// With `retrying`: the delay tier, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<u32>,
    /// With `retrying`: seq of the last `partial` or `progress` event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_partial_seq: Option<u64>,
}
