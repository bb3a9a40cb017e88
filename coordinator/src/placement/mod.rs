//! Where a new session goes: the least loaded node that clients can reach. Pure.

use relay_protocol::cluster::NodeLoad;
use serde::Deserialize;

/// Thousandths of a session: the unit of a node's weight.
const WEIGHT_OF_A_SESSION: u64 = 1_000;
/// Most cores whose use counts: more is no number that a node can mean.
const CORES_MAX: f32 = 4_096.0;
/// Use of processors counts in steps of this part of a core, so that what a node does for itself decides nothing.
const CORE_STEPS: f32 = 10.0;
/// Bytes of the unit in which traffic is weighed.
const MIB: u64 = 1_048_576;

/// Section `[placement]`; meaning and defaults are in `config/coordinator.toml`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/coordinator.toml is their documentation")]
pub struct PlacementSettings {
    pub core_sessions: u32,
    pub mib_per_s_sessions: u32,
}

impl PlacementSettings {
    /// What a node carries, in thousandths of a session: its sessions, and its traffic and use of processors by what they are
    /// worth in sessions.
    pub fn weight(&self, load: &NodeLoad) -> u64 {
        let sessions = u64::from(load.sessions).saturating_mul(WEIGHT_OF_A_SESSION);
        let traffic =
            u128::from(load.bytes_per_s) * u128::from(self.mib_per_s_sessions) * u128::from(WEIGHT_OF_A_SESSION);
        let traffic = u64::try_from(traffic / u128::from(MIB)).unwrap_or(u64::MAX);
        // No number is none.
        let steps = (load.cpu.clamp(0.0, CORES_MAX) * CORE_STEPS) as u64;
        let cores = steps * u64::from(self.core_sessions) * WEIGHT_OF_A_SESSION / CORE_STEPS as u64;
        sessions.saturating_add(traffic).saturating_add(cores)
    }
}

/// A node that may take a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// Name of the node.
    pub node: &'a str,
    /// URL under which clients reach it.
    pub url: &'a str,
    /// What it carried by its last heartbeat ([`PlacementSettings::weight`]).
    pub weight: u64,
    /// Sessions sent to it that are not in `weight` yet.
    pub pending: u64,
    /// Whether a heartbeat of it is overdue: it may be gone.
    pub is_late: bool,
}

impl Candidate<'_> {
    /// What it will carry once everybody has arrived, in thousandths of a session.
    pub fn expected(&self) -> u64 {
        self.weight.saturating_add(self.pending.saturating_mul(WEIGHT_OF_A_SESSION))
    }
}

/// The candidate that will carry least, of several the first by name; late ones only if all are. `None` if there is none.
pub fn least_loaded<'a>(candidates: impl IntoIterator<Item = Candidate<'a>>) -> Option<Candidate<'a>> {
    candidates.into_iter().min_by(|a, b| (a.is_late, a.expected(), a.node).cmp(&(b.is_late, b.expected(), b.node)))
}

/// Time that a client takes to open its session on the node it was sent to, in milliseconds: a heartbeat that comes later
/// has the session in its count.
pub const SETTLE_MS: u64 = 500;

/// Sessions that were sent to one node and are not in its own count yet.
#[derive(Debug, Clone, Default)]
pub struct Recent {
    /// (when, how many), rising in time; one entry for each millisecond at most.
    sent: Vec<(u64, u32)>,
}

impl Recent {
    /// One session was sent to the node.
    pub fn sent(&mut self, now_ms: u64) {
        match self.sent.last_mut() {
            Some((at, count)) if *at == now_ms => *count = count.saturating_add(1),
            _ => self.sent.push((now_ms, 1)),
        }
    }

    /// The node counted its sessions: those sent more than [`SETTLE_MS`] ago are in its count.
    pub fn counted(&mut self, now_ms: u64) {
        self.sent.retain(|&(at, _)| at.saturating_add(SETTLE_MS) > now_ms);
    }

    /// Sessions not in the node's own count.
    pub fn pending(&self) -> u64 {
        self.sent.iter().map(|&(_, count)| u64::from(count)).sum()
    }
}
