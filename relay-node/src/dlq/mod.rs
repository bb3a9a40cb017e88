//! Dead letters: what lies in `media.dlq`, who may see it, and how it is redriven or dropped.
//!
//! A letter never changes. What has become of it is told by marks, records behind it in its own partition: [`marks`]
//! (pure) says what they mean, [`look`] reads letters with their marks, [`redrive`] and [`drop`] write them.

pub mod dead;
pub mod drop;
pub mod filter;
pub mod look;
pub mod marks;
#[cfg(test)]
mod marks_test;
pub mod prepare;
pub mod redrive;
pub mod results;
pub mod settings;
pub mod write;

use std::sync::Arc;

use relay_protocol::{ErrorCode, JobError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use settings::DlqSettings;

/// What the requests about dead letters share on one node.
#[derive(Debug)]
pub struct DeadLetters {
    /// Partitions of `media.dlq`.
    pub partitions: u32,
    requests: Arc<Semaphore>,
    requests_max: usize,
}

impl DeadLetters {
    /// For a topic of `partitions` partitions; at most `requests_max` requests at a time.
    pub fn new(partitions: u32, requests_max: usize) -> Self {
        Self { partitions, requests: Arc::new(Semaphore::new(requests_max)), requests_max }
    }

    /// A place among the requests that are worked on; held until the answer.
    ///
    /// # Errors
    /// [`ErrorCode::TooManyRequests`] when all places are taken.
    pub fn enter(&self) -> Result<OwnedSemaphorePermit, JobError> {
        self.requests.clone().try_acquire_owned().map_err(|_| {
            metrics::counter!("relay_dlq_requests_refused_total").increment(1);
            let message = format!("{} requests about dead letters are under way on this node", self.requests_max);
            JobError::new(ErrorCode::TooManyRequests, message)
        })
    }
}
