//! Jobs that this node runs for others: it had their partitions when they began, and gave those up while they ran. Pure: time
//! is passed in.
//!
//! A run is kept from the moment at which its partition is asked back. It is announced first, in the partition's control
//! topic, and reported again and again; a node whose reports are not acknowledged for as long as owners wait for them drops
//! its runs, because the owner runs them anew.

use std::collections::BTreeMap;

use relay_protocol::JobId;
use relay_protocol::record::{CancelRequest, StartedJob};

/// Names a kept run: partition, offset, and the epoch of the assignment under which it began.
pub type KeptKey = (u32, u64, u64);

/// What is known of a kept run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptRun {
    /// Its job.
    pub job_id: JobId,
    /// Whose job.
    pub tenant: String,
    /// Number of the attempt.
    pub attempt: u32,
}

#[derive(Debug)]
struct Kept {
    run: KeptRun,
    /// When the newest acknowledged report of it was sent, in milliseconds since the Unix epoch; `None` before the first.
    told_ms: Option<u64>,
}

/// The runs that this node keeps.
#[derive(Debug)]
pub struct Keeping {
    timeout_ms: u64,
    runs: BTreeMap<KeptKey, Kept>,
}

impl Keeping {
    /// Nothing is kept; owners wait `timeout_ms` for reports.
    pub fn new(timeout_ms: u64) -> Self {
        Self { timeout_ms, runs: BTreeMap::new() }
    }

    /// Runs that are kept.
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Whether there is one of this partition.
    pub fn is_of(&self, partition: u32) -> bool {
        self.runs.range((partition, 0, 0)..=(partition, u64::MAX, u64::MAX)).next().is_some()
    }

    /// The attempt of a kept run.
    pub fn attempt(&self, key: KeptKey) -> Option<u32> {
        self.runs.get(&key).map(|kept| kept.run.attempt)
    }

    /// A run is kept from now on; it must be announced.
    pub fn keep(&mut self, key: KeptKey, run: KeptRun) {
        self.runs.insert(key, Kept { run, told_ms: None });
    }

    /// What is to be reported of the runs that were announced, partition by partition, with their names.
    pub fn reports(&self) -> (BTreeMap<u32, Vec<StartedJob>>, Vec<KeptKey>) {
        let (mut jobs, mut keys) = (BTreeMap::<u32, Vec<StartedJob>>::new(), Vec::new());
        for (key, kept) in self.runs.iter().filter(|(_, kept)| kept.told_ms.is_some()) {
            let job = StartedJob { offset: key.1, attempt: kept.run.attempt, alone: false };
            jobs.entry(key.0).or_default().push(job);
            keys.push(*key);
        }
        (jobs, keys)
    }

    /// A report of these runs, sent at `sent_ms`, was acknowledged.
    pub fn told(&mut self, keys: &[KeptKey], sent_ms: u64) {
        for key in keys {
            if let Some(kept) = self.runs.get_mut(key) {
                kept.told_ms = kept.told_ms.max(Some(sent_ms));
            }
        }
    }

    /// The runs of a partition and epoch that were not announced yet.
    pub fn unannounced(&self, partition: u32, epoch: u64) -> Vec<KeptKey> {
        let of = self.runs.range((partition, 0, 0)..=(partition, u64::MAX, u64::MAX));
        of.filter(|(key, kept)| key.2 == epoch && kept.told_ms.is_none()).map(|(key, _)| *key).collect()
    }

    /// Takes out the runs that owners have not heard of for too long.
    pub fn take_silent(&mut self, now_ms: u64) -> Vec<KeptKey> {
        let late = |at: u64| at.saturating_add(self.timeout_ms) <= now_ms;
        self.runs.extract_if(.., |_, kept| kept.told_ms.is_some_and(late)).map(|(key, _)| key).collect()
    }

    /// The runs that a request cancels.
    pub fn cancelled(&self, partition: u32, request: &CancelRequest) -> Vec<KeptKey> {
        let of = self.runs.range((partition, 0, 0)..=(partition, u64::MAX, u64::MAX));
        let asked = |kept: &Kept| kept.run.job_id == request.job_id && kept.run.tenant == request.tenant;
        of.filter(|(_, kept)| asked(kept)).map(|(key, _)| *key).collect()
    }

    /// A run is over, or was dropped; `false` if it is not kept.
    pub fn remove(&mut self, key: KeptKey) -> bool {
        self.runs.remove(&key).is_some()
    }

    /// All of them, with what a report says of them.
    pub fn drain(&mut self) -> BTreeMap<u32, Vec<StartedJob>> {
        let (jobs, _) = self.reports();
        self.runs.clear();
        jobs
    }
}
