//! Who waits for which result.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use tokio::sync::oneshot;

/// Submitters by the number of their job. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Waiting(Arc<Mutex<HashMap<u64, oneshot::Sender<()>>>>);

impl Waiting {
    /// Waits for the result of this job from now on.
    pub(super) fn expect(&self, number: u64) -> Expected {
        let (done, answer) = oneshot::channel();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(number, done);
        Expected(answer)
    }

    /// The result of this job came.
    pub(super) fn came(&self, number: u64) {
        let waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
        // A submitter that failed meanwhile does not wait.
        _ = waiting.map(|waiting| waiting.send(()));
    }
}

/// The result that is waited for.
pub(super) struct Expected(oneshot::Receiver<()>);

impl Expected {
    /// Until it came.
    pub(super) async fn wait(self) -> anyhow::Result<()> {
        self.0.await.context("the results' reader ended")
    }
}
