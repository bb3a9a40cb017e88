//! What the marks on one letter say. Pure: marks come in the order of the log, and the first one decides.
//!
//! A redrive first claims the letter with a `redriving` mark, which names the new job's id. The first claim's id is the
//! one: whoever else claims the letter meanwhile, or after a crash, claims it for the same id and submits the same job,
//! which runs once. The letter opens again only when every claim was taken back by its own writer, who knows that it did
//! not submit the job; so no second id is ever used while one may have been submitted.

use relay_protocol::JobId;
use relay_protocol::dead_letter::{LetterState, Mark, MarkKind};

/// Age at which a claim is taken for abandoned, in milliseconds. Its writer uses it for [`CLAIM_USE_MS_MAX`] at most, and
/// clocks differ by less than the rest ([`crate::events::find::CLOCK_SKEW_MS_MAX`]).
pub const CLAIM_ABANDONED_MS: u64 = 900_000;
/// How long after it was written a claim may be used, in milliseconds.
pub const CLAIM_USE_MS_MAX: u64 = 60_000;

/// What has become of a letter.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    Open,
    Redriving { job_id: JobId, claims: Vec<Claim> },
    Redriven { job_id: JobId, by: u64 },
    Dropped { by: u64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Claim {
    offset: u64,
    at_ms: u64,
}

impl Claim {
    fn is_abandoned(&self, now_ms: u64) -> bool {
        self.at_ms.saturating_add(CLAIM_ABANDONED_MS) <= now_ms
    }
}

/// The marks on one letter, so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marks {
    fate: Fate,
    count: usize,
}

impl Default for Marks {
    fn default() -> Self {
        Self { fate: Fate::Open, count: 0 }
    }
}

impl Marks {
    /// The next mark, which lies at `offset`. One that comes too late, or says less than it must, changes nothing.
    pub fn on(&mut self, offset: u64, mark: &Mark) {
        self.count += 1;
        let claim = Claim { offset, at_ms: mark.at };
        if mark.mark == MarkKind::Dropped && self.can_be_dropped(mark.at) {
            self.fate = Fate::Dropped { by: offset };
            return;
        }
        match (&mut self.fate, mark.mark, mark.job_id) {
            (Fate::Open, MarkKind::Redriving, Some(job_id)) => {
                self.fate = Fate::Redriving { job_id, claims: vec![claim] };
            }
            // It is a fact: whatever was taken back before, this job is there.
            (Fate::Open, MarkKind::Redriven, Some(job_id)) => self.fate = Fate::Redriven { job_id, by: offset },
            (Fate::Redriving { job_id, claims }, kind, Some(named)) if *job_id == named => match kind {
                MarkKind::Redriving => claims.push(claim),
                MarkKind::Redriven => self.fate = Fate::Redriven { job_id: named, by: offset },
                MarkKind::Released => {
                    claims.retain(|claim| mark.claim != Some(claim.offset));
                    if claims.is_empty() {
                        self.fate = Fate::Open;
                    }
                }
                MarkKind::Dropped => {}
            },
            _ => {}
        }
    }

    /// What has become of the letter.
    pub fn state(&self) -> LetterState {
        match self.fate {
            Fate::Open => LetterState::Open,
            Fate::Redriving { .. } => LetterState::Redriving,
            Fate::Redriven { .. } => LetterState::Redriven,
            Fate::Dropped { .. } => LetterState::Dropped,
        }
    }

    /// The job that repeats the letter's, or is about to.
    pub fn redriven_as(&self) -> Option<JobId> {
        match self.fate {
            Fate::Redriving { job_id, .. } | Fate::Redriven { job_id, .. } => Some(job_id),
            Fate::Open | Fate::Dropped { .. } => None,
        }
    }

    /// How many marks there are, those without effect included.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The id to claim the letter for: that of the redrive under way, else `fresh`; `None` if the letter is closed.
    pub fn job_to_claim(&self, fresh: JobId) -> Option<JobId> {
        match &self.fate {
            Fate::Open => Some(fresh),
            Fate::Redriving { job_id, .. } => Some(*job_id),
            Fate::Redriven { .. } | Fate::Dropped { .. } => None,
        }
    }

    /// Whether the claim at `offset` for `job_id` counts: its writer may submit that job.
    pub fn is_claimed(&self, offset: u64, job_id: JobId) -> bool {
        match &self.fate {
            Fate::Redriving { job_id: named, claims } => {
                *named == job_id && claims.iter().any(|claim| claim.offset == offset)
            }
            _ => false,
        }
    }

    /// Whether a drop at `now_ms` would count: nothing has become of the letter, or a redrive that was given up long ago.
    pub fn can_be_dropped(&self, now_ms: u64) -> bool {
        match &self.fate {
            Fate::Open => true,
            Fate::Redriving { claims, .. } => claims.iter().all(|claim| claim.is_abandoned(now_ms)),
            Fate::Redriven { .. } | Fate::Dropped { .. } => false,
        }
    }

    /// Whether the mark at `offset` is the one that dropped the letter.
    pub fn was_dropped_by(&self, offset: u64) -> bool {
        self.fate == Fate::Dropped { by: offset }
    }
}
