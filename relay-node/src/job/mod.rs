//! One job: its input, its run, its retries, its outcome.

pub mod aside;
mod attempt;
pub mod attempts;
pub mod claim_check;
pub mod deadline;
pub mod delivered;
pub mod duplicate;
pub mod eta;
pub mod hand_over;
pub mod link;
pub mod media;
pub mod misplaced;
pub mod outcome;
pub mod poison;
pub mod retry;
pub mod run;
pub mod suspicion;
pub mod url_input;

#[cfg(test)]
mod letter_test;
#[cfg(test)]
mod retry_test;
