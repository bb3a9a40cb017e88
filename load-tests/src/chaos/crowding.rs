//! How many requests the backends have at a time, by their own count: never more than slots, but for those of a node that stands still for
//! longer than its lease (docs/balancing.md).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::task::AbortHandle;
use tokio::time::sleep;

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// Time that a simulator may take to answer: a dead one is looked at again.
const PATIENCE: Duration = Duration::from_millis(500);

/// What was seen.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Crowding {
    /// Most requests that one backend had at a look, or of one model between looks.
    pub(super) most: u64,
    /// Looks that were answered.
    pub(super) looks: u64,
    /// Those that found more requests than slots.
    pub(super) over: u64,
}

/// Looks at the simulators until it is dropped.
pub(super) struct Watch {
    seen: Arc<Mutex<Crowding>>,
    task: AbortHandle,
}

impl Watch {
    pub(super) fn start(simulators: Vec<String>, slots: u64) -> Self {
        let seen = Arc::<Mutex<Crowding>>::default();
        let task = tokio::spawn(look(simulators, slots, seen.clone())).abort_handle();
        Self { seen, task }
    }

    /// What was seen so far.
    pub(super) fn seen(&self) -> Crowding {
        *lock(&self.seen)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn look(simulators: Vec<String>, slots: u64, seen: Arc<Mutex<Crowding>>) {
    let client = reqwest::Client::new();
    loop {
        for url in &simulators {
            let Some(counters) = counters(&client, url).await else { continue };
            let models = || counters["models"].as_object().into_iter().flat_map(|models| models.values());
            let now: u64 = models().filter_map(|model| model["in_flight"].as_u64()).sum();
            let of_one = models().filter_map(|model| model["in_flight_max"].as_u64()).max().unwrap_or(0);
            let mut seen = lock(&seen);
            seen.looks += 1;
            seen.over += u64::from(now > slots);
            seen.most = seen.most.max(now).max(of_one);
        }
        sleep(LOOK).await;
    }
}

async fn counters(client: &reqwest::Client, url: &str) -> Option<Value> {
    let answer = client.get(format!("{url}/simulator/counters")).timeout(PATIENCE).send().await.ok()?;
    serde_json::from_slice(&answer.bytes().await.ok()?).ok()
}

fn lock(seen: &Mutex<Crowding>) -> MutexGuard<'_, Crowding> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
