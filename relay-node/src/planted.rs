//! The planted bugs of a node that are more than a condition; see [`relay_log::planted`]. Without them what is here is one call.

use relay_log::planted::{Bug, is_planted};
use relay_log::port::{Commit, CommitError, Log, Member};

/// Commits.
///
/// # Errors
/// As [`Member::commit`].
pub async fn commit(member: &dyn Member, log: &dyn Log, commit: Commit) -> Result<(), CommitError> {
    if is_planted(Bug::OffsetsBeforeResult) {
        member.commit(Commit { records: Vec::new(), ..commit.clone() }).await?;
        return log.append(commit.records).await.map(drop).map_err(|error| CommitError::Aborted(error.to_string()));
    }
    if is_planted(Bug::ResultOutsideCommit) {
        let written = log.append(commit.records.clone()).await;
        written.map_err(|error| CommitError::Aborted(error.to_string()))?;
        return member.commit(Commit { records: Vec::new(), ..commit }).await;
    }
    member.commit(commit).await
}
