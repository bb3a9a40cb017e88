//! What a request did, letter by letter.

use std::collections::BTreeMap;

use relay_protocol::dead_letter::{LetterOutcome, LetterResult};
use relay_protocol::{JobError, JobId};

use super::look::Look;

/// By the letter's place in the look: done, with the job that repeats it if there is one, or why not.
pub type Results = BTreeMap<usize, Result<Option<JobId>, JobError>>;

/// The results in the order of the letters; those that succeeded are `done`.
pub fn told(look: &Look, mut results: Results, done: LetterOutcome) -> Vec<LetterResult> {
    let told = look.found.iter().enumerate().filter_map(|(index, found)| {
        let (id, job_id) = (found.dead.id.to_string(), found.dead.job_id);
        Some(match results.remove(&index)? {
            Ok(redriven_as) => LetterResult { id, job_id, outcome: done, redriven_as, error: None },
            Err(error) => {
                let redriven_as = found.marks.redriven_as();
                LetterResult { id, job_id, outcome: LetterOutcome::Refused, redriven_as, error: Some(error) }
            }
        })
    });
    told.collect()
}
