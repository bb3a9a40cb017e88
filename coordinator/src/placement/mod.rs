//! Where a new session goes: the least loaded node that clients can reach. Pure.

/// A node that may take a session.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate<'a> {
    /// Name of the node.
    pub node: &'a str,
    /// URL under which clients reach it.
    pub url: &'a str,
    /// Its open sessions by its last heartbeat, plus those sent to it since.
    pub sessions: u64,
    /// Its media bytes per second.
    pub bytes_per_s: u64,
    /// Its use of processor cores.
    pub cpu: f32,
}

/// The candidate with the fewest sessions, then the fewest bytes per second, then the least use of processors, then the
/// first by name. `None` if there is none.
pub fn least_loaded<'a>(candidates: impl IntoIterator<Item = Candidate<'a>>) -> Option<Candidate<'a>> {
    candidates.into_iter().min_by(|a, b| {
        (a.sessions, a.bytes_per_s)
            .cmp(&(b.sessions, b.bytes_per_s))
            .then(a.cpu.total_cmp(&b.cpu))
            .then_with(|| a.node.cmp(b.node))
    })
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
