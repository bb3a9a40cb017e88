//! A reader of published records.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use relay_log::local::core::{Core, Fetched};
use relay_log::port::{LogError, LogReader, ReadEvent, Start, TopicPartition};
use relay_runtime::random::Random as _;
use tokio::sync::Notify;

use super::{Engine, Listener, READ_TIMEOUT, lock, unavailable};
use crate::simulate::counts::{Fault, Op, Phase};
use crate::simulate::gate::Gate;

/// Records taken at once from one partition.
const BATCH: usize = 64;

/// A partition that is read.
pub(super) struct Place {
    at: TopicPartition,
    next: u64,
    not_before_ms: Option<u64>,
    told_end: Option<u64>,
    gone: bool,
}

/// Where a reader begins.
pub(super) fn open(core: &Core, starts: &[(TopicPartition, Start)]) -> Result<Vec<Place>, LogError> {
    let mut places = Vec::with_capacity(starts.len());
    for (at, start) in starts {
        let not_before_ms = if let Start::Time(ms) = start { Some(*ms) } else { None };
        let next = match core.start(at, *start) {
            // Told by the first `next`, as by every log.
            Err(LogError::OffsetOutOfRange { offset, .. }) => offset,
            other => other?,
        };
        places.push(Place { at: at.clone(), next, not_before_ms, told_end: None, gone: false });
    }
    Ok(places)
}

pub(super) struct SimReader {
    engine: Arc<Engine>,
    gate: Arc<Gate>,
    number: u64,
    places: Vec<Place>,
    ready: VecDeque<ReadEvent>,
    notify: Arc<Notify>,
}

impl SimReader {
    pub(super) fn new(engine: Arc<Engine>, gate: Arc<Gate>, places: Vec<Place>) -> Self {
        let (number, notify) = (engine.number(), Arc::new(Notify::new()));
        let topics = places.iter().map(|place| place.at.topic.clone()).collect();
        lock(&engine.listeners).insert(number, Listener { topics, notify: notify.clone() });
        Self { engine, gate, number, places, ready: VecDeque::new(), notify }
    }

    /// Takes what is there now.
    fn fill(&mut self) -> Result<(), LogError> {
        let core = lock(&self.engine.core);
        for place in self.places.iter_mut().filter(|place| !place.gone) {
            for _ in 0..BATCH {
                match core.fetch(&place.at, place.next) {
                    Fetched::Record(record) => {
                        place.next = record.offset + 1;
                        place.told_end = None;
                        if place.not_before_ms.is_some_and(|ms| record.timestamp_ms < ms) {
                            continue;
                        }
                        place.not_before_ms = None;
                        self.ready.push_back(ReadEvent::Record(record));
                    }
                    Fetched::Stored(_, to) => place.next = to,
                    Fetched::End => {
                        let end = core.watermarks(&place.at)?.stable;
                        if place.told_end != Some(end) && place.next <= end {
                            place.told_end = Some(end);
                            self.ready.push_back(ReadEvent::End { at: place.at.clone(), next: end });
                        }
                        break;
                    }
                    Fetched::Gone { low, high } => {
                        place.gone = true;
                        let (at, offset) = (place.at.clone(), place.next);
                        return Err(LogError::OffsetOutOfRange { at, offset, low, high });
                    }
                }
            }
        }
        Ok(())
    }
}

#[async_trait]
impl LogReader for SimReader {
    async fn next(&mut self) -> Result<ReadEvent, LogError> {
        loop {
            self.gate.pass(Op::Read, Phase::Before).await;
            if !self.ready.is_empty() {
                self.gate.pass(Op::Read, Phase::After).await;
            }
            if let Some(event) = self.ready.pop_front() {
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
            if self.ready.is_empty() {
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
