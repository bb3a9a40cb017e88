//! A reader of published records.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use relay_log::local::places::Places;
use relay_log::port::{LogError, LogReader, ReadEvent};
use relay_runtime::random::Random as _;
use tokio::sync::Notify;

use super::{Engine, Listener, READ_TIMEOUT, lock, unavailable};
use crate::simulate::counts::{Fault, Op, Phase};
use crate::simulate::gate::Gate;

pub(super) struct SimReader {
    engine: Arc<Engine>,
    gate: Arc<Gate>,
    number: u64,
    places: Places,
    notify: Arc<Notify>,
}

impl SimReader {
    pub(super) fn new(engine: Arc<Engine>, gate: Arc<Gate>, places: Places) -> Self {
        let (number, notify) = (engine.number(), Arc::new(Notify::new()));
        let topics = places.partitions().map(|at| at.topic.clone()).collect();
        lock(&engine.listeners).insert(number, Listener { topics, notify: notify.clone() });
        Self { engine, gate, number, places, notify }
    }

    /// Takes what is there now.
    fn fill(&mut self) -> Result<(), LogError> {
        let core = lock(&self.engine.core);
        // There is no store: what is not in memory was deleted.
        while let Some(stored) = self.places.fill(&core)? {
            self.places.take(&stored, Vec::new(), true);
        }
        Ok(())
    }
}

#[async_trait]
impl LogReader for SimReader {
    async fn next(&mut self) -> Result<ReadEvent, LogError> {
        loop {
            self.gate.pass(Op::Read, Phase::Before).await;
            if !self.places.is_empty() {
                self.gate.pass(Op::Read, Phase::After).await;
            }
            if let Some(event) = self.places.pop() {
                return Ok(event);
            }
            if self.gate.is_cut() {
                tokio::time::sleep(READ_TIMEOUT).await;
                return Err(unavailable("cut off"));
            }
            if self.engine.rolls(Fault::ReadFailed, 3) {
                return Err(unavailable("a read failed"));
            }
            self.fill()?;
            if self.places.is_empty() {
                self.notify.notified().await;
                let ms = self.engine.random.below(12);
                if ms > 0 {
                    tokio::time::sleep(Duration::from_millis(ms)).await;
                }
            }
        }
    }
}

impl Drop for SimReader {
    fn drop(&mut self) {
        lock(&self.engine.listeners).remove(&self.number);
    }
}
