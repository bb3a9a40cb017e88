//! Which letters a request is about, and which of them its caller may see.

use relay_log::port::LogRecord;
use relay_protocol::dead_letter::LetterFilter;
use relay_protocol::{ErrorCode, JobError, topics};
use relay_runtime::auth::{Identity, Scope};

use super::dead::{self, Dead};

/// The letters that a caller sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    /// All of them, also records that name no job or no tenant.
    All,
    /// Those of this tenant.
    Of(String),
}

impl Sight {
    /// What `identity` sees: its tenant's letters; with the scope `admin` those of all, or of the one that it names.
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`] for another tenant without that scope.
    pub fn of(identity: &Identity, filter: &LetterFilter) -> Result<Self, JobError> {
        let is_admin = identity.scopes.contains(Scope::Admin);
        match &filter.tenant {
            Some(tenant) if is_admin || *tenant == identity.tenant => Ok(Self::Of(tenant.clone())),
            Some(_) => {
                let message = format!("the letters of another tenant need the scope {}", Scope::Admin);
                Err(JobError::new(ErrorCode::Forbidden, message))
            }
            None if is_admin => Ok(Self::All),
            None => Ok(Self::Of(identity.tenant.clone())),
        }
    }

    /// Whether a letter is seen.
    pub fn sees(&self, record: &LogRecord) -> bool {
        match self {
            Self::All => true,
            Self::Of(tenant) => dead::tenant_of(record) == Some(tenant) && dead::job_id_of(record).is_some(),
        }
    }
}

/// Whether `filter` lets a letter through. Its tenant is [`Sight`]'s to judge.
pub fn lets_through(filter: &LetterFilter, dead: &Dead) -> bool {
    let is_code = |code: &String| {
        let mut errors = dead.error.iter().chain(dead.attempts.iter().map(|attempt| &attempt.error));
        errors.any(|error| error.code == *code)
    };
    // A lane's name stands for those of its priorities too.
    let is_of = |lane: &str| dead.lane().is_some_and(|of| of == lane || topics::base_lane(of).0 == lane);
    filter.lane.as_deref().is_none_or(is_of)
        && filter.task.is_none_or(|task| dead.job.as_ref().is_ok_and(|job| job.task == task))
        && filter.code.as_ref().is_none_or(is_code)
        && filter.since.is_none_or(|since| dead.at_ms >= since)
        && filter.until.is_none_or(|until| dead.at_ms < until)
}
