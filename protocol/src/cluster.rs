//! What nodes and the coordinator tell each other (JSON over HTTP), and what the coordinator shows of the cluster.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A node's heartbeat; the first one registers it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Heartbeat {
    /// Name of the node, stable over restarts.
    pub node: String,
    /// One life of the node; a higher one replaces the lower.
    pub incarnation: u64,
    /// URL under which clients and other nodes reach it, if it has one.
    #[serde(default)]
    pub advertised_url: Option<String>,
    /// Version of its software.
    pub version: String,
    /// Whether it takes work.
    pub ready: bool,
    /// Whether it is going down.
    pub draining: bool,
    /// How busy it is.
    pub load: NodeLoad,
    /// Slots it wants, by model.
    #[serde(default)]
    pub demand: Vec<SlotDemand>,
    /// Slots it holds from an earlier answer, whether or not in use.
    #[serde(default)]
    pub holds: Vec<SlotGrant>,
    /// Its open sessions, for display; at most a thousand are listed.
    #[serde(default)]
    pub sessions: Vec<SessionInfo>,
}

/// How busy a node is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NodeLoad {
    /// Open sessions.
    pub sessions: u32,
    /// Jobs that run.
    pub jobs_running: u32,
    /// Jobs read ahead and waiting.
    pub jobs_waiting: u32,
    /// Media bytes per second, in and out.
    pub bytes_per_s: u64,
    /// Share of one core in use, 1.0 is a whole core.
    pub cpu: f32,
}

/// How many jobs a node has for one model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SlotDemand {
    /// Model; `None` is "any that can do the task".
    pub model: Option<String>,
    /// Jobs waiting and running.
    pub jobs: u32,
}

/// The right to run requests on a backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SlotGrant {
    /// Name of the backend: its URL.
    pub backend: String,
    /// Requests at a time.
    pub slots: u32,
    /// Requests that run now on these slots (in a heartbeat; 0 in an answer).
    #[serde(default)]
    pub in_use: u32,
}

/// The coordinator's answer to a heartbeat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HeartbeatReply {
    /// One life of the coordinator.
    pub coordinator_incarnation: u64,
    /// All that the node may use from now on; what is missing must be given back when its request ends.
    pub grants: Vec<SlotGrant>,
    /// How long the grants hold without another heartbeat, in milliseconds.
    pub lease_ttl_ms: u64,
    /// Every backend.
    pub backends: Vec<BackendInfo>,
    /// Whether a DNS name leads to no backend now. What it will lead to may have any model: nothing is refused for want of one.
    #[serde(default)]
    pub backends_expected: bool,
    /// When the next heartbeat should come, in milliseconds.
    pub heartbeat_interval_ms: u64,
}

/// A backend as the coordinator sees it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BackendInfo {
    /// Its URL, also its name. If a DNS name led to it, the URL has its address.
    pub url: String,
    /// The URL by the DNS name that led to it, if one did: requests carry that name as their host, and a certificate must be
    /// of that name, though the connection is made to the address in `url`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// Whether its last probe succeeded.
    pub healthy: bool,
    /// Whether it gets requests at all.
    #[serde(default)]
    pub state: BackendState,
    /// Why it is not healthy, why it drains, or what is wrong with the name that led to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Models that it offers, sorted; empty if never probed.
    pub models: Vec<String>,
    /// Requests that it may have at a time.
    pub slots: u32,
    /// Of these, granted to nodes.
    pub slots_granted: u32,
    /// Of these, in use by the nodes' last word.
    pub slots_in_use: u32,
}

/// Whether a backend gets requests at all; whether it can take them is another question.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BackendState {
    /// It does.
    #[default]
    Serving,
    /// It gets nothing new; requests run there, or may run.
    Draining,
    /// It gets nothing new, and nothing runs there.
    Drained,
}

impl BackendState {
    /// The state as written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Drained => "drained",
        }
    }
}

/// A DNS name that leads to backends, as the coordinator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BackendNameInfo {
    /// The URL with the name, as in the settings.
    pub url: String,
    /// Backends that it leads to.
    pub backends: u32,
    /// What is wrong with its last answer, or with what that names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A request that a backend be drained, or get requests again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackendOrder {
    /// Its URL, as it is listed.
    pub backend: String,
    /// Who asks, if a node passes it on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
}

/// A node as the coordinator sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NodeInfo {
    /// Name of the node.
    pub node: String,
    /// Its life.
    pub incarnation: u64,
    /// URL for clients, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertised_url: Option<String>,
    /// Version of its software.
    pub version: String,
    /// `ready`, `not_ready`, `draining` or `lost` (no heartbeat).
    pub state: String,
    /// Milliseconds since its last heartbeat.
    pub heartbeat_age_ms: u64,
    /// How busy it said it was.
    pub load: NodeLoad,
    /// What it was granted.
    pub grants: Vec<SlotGrant>,
}

/// A session as its node tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionInfo {
    /// Identity of the session.
    pub session_id: crate::id::SessionId,
    /// Whose.
    pub tenant: String,
    /// Who.
    pub subject: String,
    /// The node that it is on; empty in a heartbeat.
    #[serde(default)]
    pub node: String,
    /// Jobs that it watches.
    pub jobs: u32,
    /// Since when, in milliseconds since the Unix epoch.
    pub opened_at_ms: u64,
}

/// Where a client should open its session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Placement {
    /// Name of the node.
    pub node: String,
    /// Its URL.
    pub url: String,
}

/// The cluster at a glance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterInfo {
    /// Life of the coordinator that answers.
    pub coordinator_incarnation: u64,
    /// Version of its software.
    pub version: String,
    /// Nodes that are ready.
    pub nodes_ready: u32,
    /// Nodes in all.
    pub nodes: u32,
    /// Backends that are healthy.
    pub backends_healthy: u32,
    /// Backends in all.
    pub backends: u32,
    /// Slots in all.
    pub slots: u32,
    /// Slots in use.
    pub slots_in_use: u32,
    /// Open sessions.
    pub sessions: u32,
}
