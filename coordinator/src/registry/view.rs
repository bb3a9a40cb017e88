//! What readers see: an immutable picture of the cluster, replaced as a whole after each change.

use std::sync::Arc;

use relay_protocol::cluster::{
    BackendInfo, BackendNameInfo, ClusterInfo, Heartbeat, NodeInfo, NodeLoad, SessionInfo, SlotGrant,
};
use relay_protocol::id::SessionId;

use crate::placement::PlacementSettings;

/// A node's last heartbeat.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeRecord {
    /// Name of the node.
    pub node: String,
    /// Its life.
    pub incarnation: u64,
    /// URL for clients, if it has one.
    pub advertised_url: Option<String>,
    /// Version of its software.
    pub version: String,
    /// Whether it takes work.
    pub ready: bool,
    /// Whether it is going down.
    pub draining: bool,
    /// How busy it said it was.
    pub load: NodeLoad,
    /// Its open sessions, as far as they are listed.
    pub sessions: Vec<SessionInfo>,
    /// When the heartbeat came, in milliseconds of the registry's clock.
    pub heard_ms: u64,
}

/// Whether a node can take sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeState {
    /// It takes work.
    Ready,
    /// It says that it does not.
    NotReady,
    /// It is going down.
    Draining,
    /// No heartbeat came in time.
    Lost,
}

impl NodeState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Ready, Self::NotReady, Self::Draining, Self::Lost];

    /// The state as written in the API and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::NotReady => "not_ready",
            Self::Draining => "draining",
            Self::Lost => "lost",
        }
    }
}

impl NodeRecord {
    pub(super) fn of(beat: &Heartbeat, heard_ms: u64) -> Self {
        Self {
            node: beat.node.clone(),
            incarnation: beat.incarnation,
            advertised_url: beat.advertised_url.clone(),
            version: beat.version.clone(),
            ready: beat.ready,
            draining: beat.draining,
            load: beat.load.clone(),
            sessions: beat.sessions.clone(),
            heard_ms,
        }
    }

    /// Whether no heartbeat came for `timeout_ms`.
    pub fn is_lost(&self, now_ms: u64, timeout_ms: u64) -> bool {
        now_ms.saturating_sub(self.heard_ms) >= timeout_ms
    }

    /// Its state at `now_ms`.
    pub fn state(&self, now_ms: u64, timeout_ms: u64) -> NodeState {
        match self {
            _ if self.is_lost(now_ms, timeout_ms) => NodeState::Lost,
            _ if self.draining => NodeState::Draining,
            _ if self.ready => NodeState::Ready,
            _ => NodeState::NotReady,
        }
    }
}

/// The cluster at one moment. States follow the reader's time: a node is lost on time, even if the writer is behind.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Life of the coordinator.
    pub incarnation: u64,
    /// Silence after which a node is lost, in milliseconds.
    pub node_timeout_ms: u64,
    /// Nodes sorted by name, with what they were granted.
    pub nodes: Vec<(Arc<NodeRecord>, Arc<[SlotGrant]>)>,
    /// Backends sorted by URL.
    pub backends: Vec<BackendInfo>,
    /// The DNS names that lead to some of them.
    pub names: Vec<BackendNameInfo>,
    /// What a node's load is worth in sessions.
    pub placement: PlacementSettings,
}

/// One page of sessions.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionPage {
    /// Sorted by session id.
    pub sessions: Vec<SessionInfo>,
    /// Where the next page begins, if there is one.
    pub next: Option<SessionId>,
}

impl View {
    /// Every node.
    pub fn nodes(&self, now_ms: u64) -> Vec<NodeInfo> {
        let info = |(record, grants): &(Arc<NodeRecord>, Arc<[SlotGrant]>)| NodeInfo {
            node: record.node.clone(),
            incarnation: record.incarnation,
            advertised_url: record.advertised_url.clone(),
            version: record.version.clone(),
            state: record.state(now_ms, self.node_timeout_ms).as_str().to_owned(),
            heartbeat_age_ms: now_ms.saturating_sub(record.heard_ms),
            load: record.load.clone(),
            grants: grants.to_vec(),
        };
        self.nodes.iter().map(info).collect()
    }

    /// How many nodes are in `state`.
    pub fn nodes_in(&self, state: NodeState, now_ms: u64) -> u32 {
        let count = self.nodes.iter().filter(|(record, _)| record.state(now_ms, self.node_timeout_ms) == state).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// The cluster at a glance; sessions of lost nodes do not count.
    pub fn cluster(&self, now_ms: u64) -> ClusterInfo {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let sum = |of: fn(&BackendInfo) -> u32| self.backends.iter().map(of).fold(0, u32::saturating_add);
        let sessions = self.living(now_ms).map(|record| record.load.sessions).fold(0, u32::saturating_add);
        ClusterInfo {
            coordinator_incarnation: self.incarnation,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            nodes_ready: self.nodes_in(NodeState::Ready, now_ms),
            nodes: count(self.nodes.len()),
            backends_healthy: count(self.backends.iter().filter(|backend| backend.healthy).count()),
            backends: count(self.backends.len()),
            slots: sum(|backend| backend.slots),
            slots_in_use: sum(|backend| backend.slots_in_use),
            sessions,
        }
    }

    /// At most `limit` sessions of nodes that are not lost, those of `tenant` only if given, sorted by id, after `after`.
    pub fn sessions(&self, now_ms: u64, tenant: Option<&str>, after: Option<SessionId>, limit: usize) -> SessionPage {
        let all = self.living(now_ms).flat_map(|record| &record.sessions);
        let mine = all.filter(|session| tenant.is_none_or(|tenant| session.tenant == tenant));
        let mut page: Vec<&SessionInfo> =
            mine.filter(|session| after.is_none_or(|after| session.session_id > after)).collect();
        let more = page.len() > limit;
        if more && limit > 0 {
            page.select_nth_unstable_by_key(limit - 1, |session| session.session_id);
        }
        page.truncate(limit);
        page.sort_unstable_by_key(|session| session.session_id);
        let next = page.last().map(|session| session.session_id).filter(|_| more);
        SessionPage { sessions: page.into_iter().cloned().collect(), next }
    }

    /// What each node that is not lost carries, in thousandths of a session ([`PlacementSettings::weight`]).
    pub fn weights(&self, now_ms: u64) -> impl Iterator<Item = (&str, u64)> {
        self.living(now_ms).map(|record| (record.node.as_str(), self.placement.weight(&record.load)))
    }

    fn living(&self, now_ms: u64) -> impl Iterator<Item = &NodeRecord> {
        let timeout = self.node_timeout_ms;
        self.nodes.iter().map(|(record, _)| &**record).filter(move |record| !record.is_lost(now_ms, timeout))
    }
}
