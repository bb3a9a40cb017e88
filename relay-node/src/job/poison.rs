//! The end of a job that nodes die of.

use relay_protocol::{ErrorCode, JobError};

use crate::intake::earlier::Crashes;

/// Why it is not run again.
pub fn poison(crashes: Crashes) -> JobError {
    let Crashes { seen, charged } = crashes;
    let message = format!(
        "{seen} nodes died while they ran the job, and in {charged} of them no other job was suspected: it is not run again"
    );
    JobError::new(ErrorCode::Poison, message)
}
