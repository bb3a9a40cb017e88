//! What of a job's events a watcher gets: each durable event once and in rising order, partials only of the attempt that
//! is known to run, and the end in any case. Pure.
//!
//! Durable and revocable events come from two topics, so a partial can overtake its `started`, and an `accepted` that a
//! gateway writes can come after the owner's `started`, or after the end of a job that never started. Both tell the place, and so
//! bring the receipt along.

use relay_log::planted::{Bug, is_planted};
use relay_protocol::{Event, EventKind};

use super::route::RoutedEvent;

/// The order of one watched job.
#[derive(Debug, Clone, Default)]
pub struct Order {
    /// Everything up to here was delivered, or is not wanted.
    after_seq: u64,
    /// Attempt whose `started` was seen.
    attempt: Option<u32>,
    ended: bool,
}

/// What to deliver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivered {
    /// Nothing: it was delivered before, is not wanted, or comes too late.
    Nothing,
    /// This event.
    One(RoutedEvent),
    /// The receipt that should have come before, then this event.
    Two(RoutedEvent, RoutedEvent),
}

impl Order {
    /// Delivers what comes after `after_seq`.
    pub fn after(after_seq: u64) -> Self {
        let after_seq = off(after_seq);
        let attempt = (after_seq > 1).then_some((after_seq / relay_protocol::event::EVENTS_PER_ATTEMPT) as u32);
        Self { after_seq, attempt, ended: false }
    }

    /// The newest seq that was delivered.
    pub fn last_seq(&self) -> u64 {
        self.after_seq
    }

    /// Whether the terminal event was delivered.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Takes an event as it comes and says what to deliver.
    pub fn on(&mut self, event: RoutedEvent) -> Delivered {
        let attempt = event.attempt();
        if !event.is_revocable() && self.attempt.is_none_or(|known| attempt > known) {
            self.attempt = Some(attempt);
        }
        if self.ended || !event.is_news(self.after_seq) || (event.is_revocable() && self.attempt != Some(attempt)) {
            return Delivered::Nothing;
        }
        let tells_place = event.kind == EventKind::Started || event.kind.is_terminal();
        let receipt = if self.after_seq == 0 && tells_place { receipt_of(&event) } else { None };
        self.after_seq = event.seq;
        self.ended = event.kind.is_terminal();
        match receipt {
            Some(receipt) => Delivered::Two(receipt, event),
            None => Delivered::One(event),
        }
    }
}

/// Where to go on, but for a planted bug.
fn off(after_seq: u64) -> u64 {
    match after_seq {
        2.. if is_planted(Bug::ResumeRepeats) => after_seq - 1,
        1.. if is_planted(Bug::ResumeSkips) => after_seq + relay_protocol::event::EVENTS_PER_ATTEMPT,
        _ => after_seq,
    }
}

/// The `accepted` event that belongs to one that tells the job's place.
fn receipt_of(first: &RoutedEvent) -> Option<RoutedEvent> {
    let event: Event = serde_json::from_slice(&first.json).ok()?;
    let receipt = Event { job: event.job, ..Event::accepted(event.job_id, event.place?, event.traceparent) };
    let json = serde_json::to_vec(&receipt).ok()?;
    Some(RoutedEvent { job_id: receipt.job_id, seq: receipt.seq, kind: receipt.event, json: json.into() })
}
