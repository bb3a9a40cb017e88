//! What was accepted and what came of it, and whether the promises were kept. No I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use relay_protocol::{Event, EventKind, JobId};
use serde::Serialize;

/// Jobs that a finding names at most.
pub const LISTED_MAX: usize = 20;

/// Everything that was seen.
#[derive(Debug, Default)]
pub struct History {
    /// Jobs that were acknowledged, with the idempotency key that they have.
    pub accepted: BTreeMap<JobId, Option<String>>,
    /// Submissions that were never acknowledged: they may have run, at most once.
    pub unanswered: BTreeSet<JobId>,
    /// Numbers of the events that a client was told, by job, in the order in which they came.
    pub heard: BTreeMap<JobId, Vec<(u64, bool)>>,
    /// Nodes that were killed, and when, in milliseconds since the Unix epoch.
    pub kills: Vec<(String, u64)>,
    /// The event topic, in the order of each partition.
    pub events: Vec<Event>,
}

/// A job that was begun again after its node was killed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct TakeOver {
    /// Milliseconds from the kill to the next attempt.
    pub took_ms: u64,
    /// When the node was killed, in milliseconds since the Unix epoch.
    pub killed: u64,
    /// Which job.
    pub job: JobId,
    /// Which node.
    pub node: String,
}

/// What is wrong. Each list has some of the jobs only; a number counts all.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// Accepted jobs that never ended.
    pub lost: usize,
    /// Jobs with more than one end.
    pub doubled: usize,
    /// Keys for which more than one job ran to its end.
    pub ran_twice: usize,
    /// Jobs that ended otherwise than `completed`, though nothing was wrong with them.
    pub not_completed: usize,
    /// Jobs whose client was told an event twice, or out of order, or after the end.
    pub out_of_order: usize,
    /// Jobs that ended, and whose waiting client never heard of it.
    pub unheard: usize,
    /// Some of all those, with what is wrong.
    pub named: Vec<String>,
}

impl Findings {
    /// Whether everything was as promised.
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }

    fn name(&mut self, job: impl std::fmt::Display, what: &str) -> usize {
        if self.named.len() < LISTED_MAX {
            self.named.push(format!("{job}: {what}"));
        }
        1
    }
}

impl History {
    /// Accepted jobs without an end.
    pub fn unended(&self) -> usize {
        let ended: BTreeSet<JobId> = self.ends().map(|event| event.job_id).collect();
        self.accepted.keys().filter(|job| !ended.contains(job)).count()
    }

    fn ends(&self) -> impl Iterator<Item = &Event> {
        self.events.iter().filter(|event| event.event.is_terminal())
    }

    /// Checks everything.
    pub fn check(&self) -> Findings {
        let mut found = Findings::default();
        let mut ends: BTreeMap<JobId, Vec<&Event>> = BTreeMap::new();
        for event in self.ends() {
            ends.entry(event.job_id).or_default().push(event);
        }
        for job in self.accepted.keys().filter(|job| !ends.contains_key(job)) {
            found.lost += found.name(job, "accepted, never ended");
        }
        for (job, ends) in &ends {
            if ends.len() > 1 {
                found.doubled += found.name(job, &format!("{} ends", ends.len()));
            }
            if let Some(end) = ends.iter().find(|end| end.event != EventKind::Completed) {
                let why = end.error.as_ref().map_or_else(String::new, ToString::to_string);
                found.not_completed += found.name(job, &format!("{}: {why}", end.event.name()));
            }
        }
        self.check_keys(&ends, &mut found);
        self.check_clients(&ends, &mut found);
        found
    }

    /// Of the jobs with one key one runs.
    fn check_keys(&self, ends: &BTreeMap<JobId, Vec<&Event>>, found: &mut Findings) {
        let mut runs: HashMap<&str, usize> = HashMap::new();
        for (job, key) in &self.accepted {
            let ran = ends.get(job).is_some_and(|ends| ends.iter().any(|end| end.duplicate_of.is_none()));
            if let Some(key) = key.as_deref().filter(|_| ran) {
                *runs.entry(key).or_default() += 1;
            }
        }
        for (key, count) in runs.into_iter().filter(|(_, count)| *count > 1) {
            found.ran_twice += found.name(format!("key {key}"), &format!("{count} jobs ran"));
        }
    }

    fn check_clients(&self, ends: &BTreeMap<JobId, Vec<&Event>>, found: &mut Findings) {
        for (job, heard) in &self.heard {
            let rises = heard.windows(2).all(|pair| pair[0].0 < pair[1].0 && !pair[0].1);
            if !rises {
                found.out_of_order += found.name(job, &format!("its client heard {heard:?}"));
            }
            if ends.contains_key(job) && !heard.iter().any(|(_, terminal)| *terminal) {
                found.unheard += found.name(job, "its client never heard of its end");
            }
        }
    }

    /// Each job that a killed node was running and that was begun again, fastest first.
    pub fn take_overs(&self) -> Vec<TakeOver> {
        let mut by_job: HashMap<JobId, Vec<&Event>> = HashMap::new();
        for event in &self.events {
            by_job.entry(event.job_id).or_default().push(event);
        }
        let mut found = Vec::new();
        for (node, killed) in &self.kills {
            for (job, events) in &by_job {
                let ran_there = |event: &&&Event| event.node.as_ref() == Some(node) && event.at <= *killed;
                let Some(last) = events.iter().filter(ran_there).max_by_key(|event| event.seq) else { continue };
                // A job in a delay tier runs nowhere.
                let waits = |event: &Event| event.event == EventKind::Retrying && event.seq >= last.seq;
                let is_over = |event: &&&Event| event.at <= *killed && (event.event.is_terminal() || waits(event));
                let ended = events.iter().any(|event| is_over(&event));
                let later = |event: &&&Event| event.event == EventKind::Started && event.seq > last.seq;
                let next = events.iter().filter(later).min_by_key(|event| event.seq);
                if let Some(next) = next.filter(|next| !ended && next.at > *killed) {
                    found.push(TakeOver { took_ms: next.at - killed, killed: *killed, job: *job, node: node.clone() });
                }
            }
        }
        found.sort_unstable();
        found
    }
}

#[cfg(test)]
#[path = "history_test.rs"]
mod tests;
