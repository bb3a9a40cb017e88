//! Which of the coordinators leads. The decision is [`core`] (pure), [`candidate`] takes it to the log and back, and what
//! comes of it is an [`Office`] that everyone in the process can look at.

pub mod candidate;
pub mod core;

use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::Instant;

use self::core::ElectionRules;

/// Section `[election]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/coordinator.toml is their documentation")]
pub struct ElectionSettings {
    pub silence_ms: u64,
    pub confirm_ms: u64,
    pub beat_ms: u64,
    pub advertised_url: String,
}

impl ElectionSettings {
    /// The election's times.
    pub fn rules(&self) -> ElectionRules {
        ElectionRules { silence_ms: self.silence_ms, confirm_ms: self.confirm_ms, beat_ms: self.beat_ms }
    }
}

/// The right to lead, for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Term {
    /// Offset of the claim that began it.
    pub incarnation: u64,
    /// When it ends unless it is confirmed again; `None` is never.
    pub until: Option<Instant>,
}

/// What this coordinator is now, and who leads if it does not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Office {
    /// Its term, as last confirmed.
    pub term: Option<Term>,
    /// Incarnation of the leader that is known.
    pub leader: Option<u64>,
    /// Where the leader is reached, if it is known and says so.
    pub leader_url: Option<String>,
}

impl Office {
    /// The incarnation that it leads under at this moment. Ask right before acting on it: the answer does not last.
    pub fn leads(&self) -> Option<u64> {
        let now = Instant::now();
        self.term.filter(|term| term.until.is_none_or(|until| now < until)).map(|term| term.incarnation)
    }

    /// `leader` or `standby`.
    pub fn role(&self) -> &'static str {
        if self.leads().is_some() { "leader" } else { "standby" }
    }
}

/// Follows the office.
pub type OfficeWatch = watch::Receiver<Office>;
