//! The registry's decisions: which life of a node counts, who is lost, what a heartbeat is answered. Pure: time comes in
//! as milliseconds of a monotonic clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use relay_protocol::cluster::{Heartbeat, HeartbeatReply, Placement, SlotGrant};
use relay_protocol::limits::is_name;

use super::backends::Backends;
use super::view::{NodeRecord, NodeState, View};
use crate::backends::roster::Roster;
use crate::backends::{BackendEntry, ProbeReport};
use crate::leases::{Grants, LeaseRules, LeaseTable, Report};
use crate::placement::{Candidate, PlacementSettings, Recent, least_loaded};

/// Sessions of one heartbeat that are kept for display.
pub const SESSIONS_LISTED_MAX: usize = 1_000;
/// Longest advertised URL, in bytes.
pub const ADVERTISED_URL_BYTES_MAX: usize = 2_048;
/// Heartbeats without which a node gets sessions only if there is no other.
const HEARTBEATS_LATE: u64 = 3;
/// Entries of one heartbeat's demand, and of its held slots.
pub const SLOT_ENTRIES_MAX: usize = 1_000;

/// Times and limits of the registry.
#[derive(Debug, Clone)]
pub struct RegistryRules {
    /// Incarnation of the leader; the first one's, until [`Registry::lead`] says another.
    pub incarnation: u64,
    /// Silence after which a node is lost, in milliseconds.
    pub node_timeout_ms: u64,
    /// Time between two heartbeats, in milliseconds.
    pub heartbeat_interval_ms: u64,
    /// The same while a slot can change hands, in milliseconds.
    pub heartbeat_fast_ms: u64,
    /// Silence after which a lost node is no longer shown, in milliseconds.
    pub forget_after_ms: u64,
    /// Nodes that are known at a time, lost ones included.
    pub nodes_max: usize,
    /// Times of the leases.
    pub leases: LeaseRules,
    /// What a node's load is worth in sessions.
    pub placement: PlacementSettings,
}

/// Who sent a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sender {
    /// Whose.
    pub tenant: String,
    /// Who.
    pub subject: String,
}

/// Why a heartbeat is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeartbeatRefusal {
    /// A later life of the node is known: this one must stop.
    #[error("node {node} lives as incarnation {newest}; incarnation {refused} is over and must stop")]
    Stale {
        /// Name of the node.
        node: String,
        /// The life that counts.
        newest: u64,
        /// The life that was refused.
        refused: u64,
    },
    /// A field breaks a rule.
    #[error("the heartbeat's {field} is not usable: {reason}")]
    Invalid {
        /// Which field.
        field: &'static str,
        /// The rule.
        reason: String,
    },
    /// No room for another node.
    #[error("{nodes_max} nodes are known already (nodes.nodes_max)")]
    TooManyNodes {
        /// The limit.
        nodes_max: usize,
    },
}

/// What is to be told about nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// A life of a node began to count.
    Joined {
        /// Name of the node.
        node: String,
        /// Its life.
        incarnation: u64,
        /// `new`, `restarted` or `returned`.
        reason: &'static str,
        /// Who sent its heartbeat.
        by: Sender,
    },
    /// It counts no more.
    Left {
        /// Name of the node.
        node: String,
        /// Its life.
        incarnation: u64,
        /// `drained`, `lost` or `replaced`.
        reason: &'static str,
        /// Who sent its last heartbeat.
        by: Sender,
    },
}

#[derive(Debug)]
struct Node {
    record: Arc<NodeRecord>,
    by: Sender,
    /// Whether it was reported as left.
    left: bool,
    recent: Recent,
    /// What it may use by its last answer, with what it used then.
    grants: Arc<[SlotGrant]>,
}

/// The registry: one writer, no clock, no I/O.
#[derive(Debug)]
pub struct Registry {
    rules: RegistryRules,
    nodes: BTreeMap<String, Node>,
    backends: Backends,
    leases: LeaseTable,
}

impl Registry {
    /// A registry that begins at `now_ms` and knows no node.
    pub fn new(rules: RegistryRules, now_ms: u64, backends: &[BackendEntry]) -> Self {
        let slots = backends.iter().map(|entry| (entry.url.clone(), entry.slots));
        let leases = LeaseTable::new(rules.leases, now_ms, slots);
        Self { rules, nodes: BTreeMap::new(), backends: Backends::new(backends), leases }
    }

    /// Begins to lead under `incarnation`: an earlier leader, ourselves maybe, may have granted what it wanted. So nodes and
    /// leases are told anew by the nodes, as after a restart; what the probes found stays.
    pub fn lead(&mut self, now_ms: u64, incarnation: u64) {
        self.rules.incarnation = incarnation;
        self.rest(now_ms);
    }

    /// Leads no more: what nodes and leases were known is not true for long.
    pub fn rest(&mut self, now_ms: u64) {
        self.nodes.clear();
        self.leases = self.backends.lease_anew(self.rules.leases, now_ms);
    }

    /// Takes a heartbeat; the first of a life registers it.
    ///
    /// # Errors
    /// [`HeartbeatRefusal`]; nothing changed then.
    pub fn heartbeat(
        &mut self,
        now_ms: u64,
        beat: Heartbeat,
        by: Sender,
    ) -> Result<(HeartbeatReply, Vec<Happening>), HeartbeatRefusal> {
        let beat = checked(beat)?;
        self.check_life(&beat)?;
        let mut happenings = self.tick(now_ms);
        happenings.extend(self.joins(&beat, &by));
        let report = Report {
            node: &beat.node,
            incarnation: beat.incarnation,
            draining: beat.draining,
            ready: beat.ready,
            demand: &beat.demand,
            holds: &beat.holds,
        };
        let grants = self.leases.heartbeat(now_ms, report);
        let shown = self.leases.granted(&beat.node, beat.incarnation);
        self.remember(now_ms, beat, by, shown.into());
        Ok((self.reply(grants), happenings))
    }

    fn check_life(&self, beat: &Heartbeat) -> Result<(), HeartbeatRefusal> {
        match self.nodes.get(&beat.node) {
            Some(known) if beat.incarnation < known.record.incarnation => Err(HeartbeatRefusal::Stale {
                node: beat.node.clone(),
                newest: known.record.incarnation,
                refused: beat.incarnation,
            }),
            None if self.nodes.len() >= self.rules.nodes_max => {
                Err(HeartbeatRefusal::TooManyNodes { nodes_max: self.rules.nodes_max })
            }
            _ => Ok(()),
        }
    }

    /// What this heartbeat begins and ends.
    fn joins(&self, beat: &Heartbeat, by: &Sender) -> Vec<Happening> {
        let joined = |reason| Happening::Joined {
            node: beat.node.clone(),
            incarnation: beat.incarnation,
            reason,
            by: by.clone(),
        };
        match self.nodes.get(&beat.node) {
            None => vec![joined("new")],
            Some(known) if known.record.incarnation < beat.incarnation => {
                let end = (!known.left).then(|| known.leaves(&beat.node, "replaced"));
                end.into_iter().chain([joined("restarted")]).collect()
            }
            Some(known) if known.left => vec![joined("returned")],
            Some(_) => Vec::new(),
        }
    }

    fn remember(&mut self, now_ms: u64, beat: Heartbeat, by: Sender, grants: Arc<[SlotGrant]>) {
        let record = Arc::new(NodeRecord::of(&beat, now_ms));
        let before = self.nodes.remove(&beat.node);
        let same_life = before.filter(|node| node.record.incarnation == beat.incarnation);
        let mut recent = same_life.map(|node| node.recent).unwrap_or_default();
        recent.counted(now_ms);
        self.nodes.insert(beat.node, Node { record, by, left: false, recent, grants });
    }

    fn reply(&self, grants: Grants) -> HeartbeatReply {
        let interval = if grants.hand_over { self.rules.heartbeat_fast_ms } else { self.rules.heartbeat_interval_ms };
        HeartbeatReply {
            coordinator_incarnation: self.rules.incarnation,
            grants: grants.slots,
            lease_ttl_ms: self.rules.leases.lease_ttl_ms,
            backends: self.backends.infos(&self.leases),
            backends_expected: self.backends.are_expected(),
            heartbeat_interval_ms: interval,
        }
    }

    /// Takes what a probe found; an unknown backend is ignored.
    pub fn probed(&mut self, backend: &str, report: ProbeReport) {
        self.backends.probed(&mut self.leases, backend, report);
    }

    /// Takes what is told of backends beside the settings, as a whole.
    pub fn renew(&mut self, roster: &Roster) {
        self.backends.renew(&mut self.leases, roster);
    }

    /// Lets time pass: who was silent for too long is lost, and forgotten later.
    pub fn tick(&mut self, now_ms: u64) -> Vec<Happening> {
        self.leases.pass_time(now_ms);
        self.backends.sweep(&mut self.leases);
        let mut happenings = Vec::new();
        let lease_ttl_ms = self.rules.leases.lease_ttl_ms;
        for (name, node) in &mut self.nodes {
            if node.record.is_lost(now_ms, lease_ttl_ms) && !node.grants.is_empty() {
                node.grants = Arc::default();
            }
            if !node.left && node.record.is_lost(now_ms, self.rules.node_timeout_ms) {
                node.left = true;
                happenings.push(node.leaves(name, if node.record.draining { "drained" } else { "lost" }));
            }
        }
        let forget_after = self.rules.forget_after_ms.max(lease_ttl_ms);
        self.nodes.retain(|_, node| !node.record.is_lost(now_ms, forget_after));
        happenings
    }

    /// The node for a new session, or `None` if none is ready and reachable; counts the session as on its way.
    pub fn place(&mut self, now_ms: u64) -> Option<Placement> {
        let timeout = self.rules.node_timeout_ms;
        let late_after = HEARTBEATS_LATE * self.rules.heartbeat_interval_ms;
        let ready = self.nodes.values().filter(|node| node.record.state(now_ms, timeout) == NodeState::Ready);
        let candidates = ready.filter_map(|node| {
            let record = &node.record;
            Some(Candidate {
                node: &record.node,
                url: record.advertised_url.as_deref()?,
                weight: self.rules.placement.weight(&record.load),
                pending: node.recent.pending(),
                is_late: record.is_lost(now_ms, late_after),
            })
        });
        let placement =
            least_loaded(candidates).map(|best| Placement { node: best.node.into(), url: best.url.into() })?;
        if let Some(node) = self.nodes.get_mut(&placement.node) {
            node.recent.sent(now_ms);
        }
        Some(placement)
    }

    /// A snapshot for readers.
    pub fn view(&self) -> View {
        let node = |node: &Node| (node.record.clone(), node.grants.clone());
        View {
            incarnation: self.rules.incarnation,
            node_timeout_ms: self.rules.node_timeout_ms,
            nodes: self.nodes.values().map(node).collect(),
            backends: self.backends.infos(&self.leases),
            names: self.backends.names(),
            placement: self.rules.placement,
        }
    }
}

impl Node {
    fn leaves(&self, node: &str, reason: &'static str) -> Happening {
        let (incarnation, by) = (self.record.incarnation, self.by.clone());
        Happening::Left { node: node.to_owned(), incarnation, reason, by }
    }
}

/// Refuses what could not mean what was meant; cuts the list of sessions.
fn checked(mut beat: Heartbeat) -> Result<Heartbeat, HeartbeatRefusal> {
    let invalid = |field, reason: &str| Err(HeartbeatRefusal::Invalid { field, reason: reason.to_owned() });
    if !is_name(&beat.node) {
        return invalid("node", "a name has 1 to 255 bytes, no control characters");
    }
    beat.advertised_url = beat.advertised_url.filter(|url| !url.is_empty());
    if let Some(url) = &beat.advertised_url {
        let parsed =
            reqwest::Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if url.len() > ADVERTISED_URL_BYTES_MAX || !parsed {
            return invalid("advertised_url", "write http://HOST:PORT or https://HOST:PORT, at most 2048 bytes");
        }
    }
    if beat.demand.len() > SLOT_ENTRIES_MAX || beat.holds.len() > SLOT_ENTRIES_MAX {
        return invalid("demand or holds", "at most 1000 entries");
    }
    beat.sessions.truncate(SESSIONS_LISTED_MAX);
    for session in &mut beat.sessions {
        session.node.clone_from(&beat.node);
    }
    Ok(beat)
}
