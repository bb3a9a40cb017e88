//! What earlier owners did with the jobs of a partition, as its control topic tells: attempts that began, and which of them
//! their node did not survive. Pure.
//!
//! A life of a node that began an attempt of an unfinished job and is not the one that reads this has died with it, unless it
//! said that it gave the job up. Every job that such a life ran is a suspect. A suspect runs as the only one on its node, and its
//! attempt says so; if that life dies too, the job alone is charged with the crash. One that lived on through its turn says that it is
//! the only one no more, and the next begins beside it.

use std::collections::HashMap;

use relay_protocol::record::StartedJob;
use serde::Deserialize;

/// How many times as long as before a suspect is the only one after one more crash.
const TURN_GROWTH: u64 = 4;

/// Section `[poison]`: what is done about jobs that nodes do not survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoisonLimits {
    /// Crashes that a job was part of, from which on it runs one at a time with others like it.
    pub suspect_after: u32,
    /// Crashes that it was charged with, at which it is not run again.
    pub crashes_max: u32,
    /// Milliseconds within which all suspects of one crash have begun again: each is the only one for its part of them, and
    /// four times as long after each further crash.
    pub turns_ms: u64,
}

impl PoisonLimits {
    /// How long a suspect with these crashes, one of `suspects`, runs as the only one while others wait, in milliseconds: in
    /// the end longer than whatever time it takes to kill its node.
    pub fn turn_ms(&self, crashes: Crashes, suspects: usize) -> u64 {
        let part = (self.turns_ms / suspects.max(1) as u64).max(1);
        part.saturating_mul(self.growth(crashes))
    }

    /// How long a suspect with these crashes waits for its turn before it begins beside the others, in milliseconds: four
    /// times as long as the turns of all take. It waits that long only if the log is slow to take what each of them writes.
    pub fn patience_ms(&self, crashes: Crashes) -> u64 {
        self.turns_ms.saturating_mul(self.growth(crashes)).saturating_mul(TURN_GROWTH)
    }

    fn growth(&self, crashes: Crashes) -> u64 {
        TURN_GROWTH.saturating_pow(crashes.seen.saturating_sub(self.suspect_after))
    }
}

/// The crashes that a job was part of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Crashes {
    /// Lives of nodes that ended while they ran it.
    pub seen: u32,
    /// Those of them in which it was the only suspect.
    pub charged: u32,
}

/// What follows from the crashes that a job was part of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Verdict {
    /// It runs beside others.
    #[default]
    Ordinary,
    /// It may be what killed a node: it runs as the only one of its kind.
    Suspect,
    /// It is what kills nodes: it does not run again.
    Poison,
}

impl Crashes {
    /// Both together.
    #[must_use]
    pub fn and(self, more: Self) -> Self {
        Self { seen: self.seen.saturating_add(more.seen), charged: self.charged.saturating_add(more.charged) }
    }

    /// What follows.
    pub fn verdict(self, limits: &PoisonLimits) -> Verdict {
        if self.charged >= limits.crashes_max {
            Verdict::Poison
        } else if self.seen >= limits.suspect_after {
            Verdict::Suspect
        } else {
            Verdict::Ordinary
        }
    }
}

/// One life of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    /// Name of the node.
    pub node: String,
    /// Which of its lives.
    pub incarnation: u64,
}

/// What is known of the jobs of one partition that were not admitted yet.
#[derive(Debug, Default)]
pub struct Earlier {
    /// Few: the owners since the oldest unfinished job was begun.
    lives: Vec<Life>,
    jobs: HashMap<u64, Past>,
}

#[derive(Debug, Default)]
struct Past {
    attempts: u32,
    crashes: Crashes,
    /// The newest attempt, unless it is known that its life did not die with it.
    open: Option<Open>,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    life: usize,
    alone: bool,
}

impl Past {
    /// The life of the attempt that was open is over, and another one has the job.
    fn crashed(&mut self) {
        if let Some(open) = self.open.take() {
            self.crashes.seen += 1;
            self.crashes.charged += u32::from(open.alone);
        }
    }
}

impl Earlier {
    /// A life began an attempt; told in the order of the topic.
    pub fn started(&mut self, node: &str, incarnation: u64, job: StartedJob) {
        let life = self.number(node, incarnation);
        let past = self.jobs.entry(job.offset).or_default();
        if past.open.is_some_and(|open| open.life != life) {
            past.crashed();
        }
        past.attempts = past.attempts.max(job.attempt);
        past.open = Some(Open { life, alone: job.alone });
    }

    /// A life gave a job up, or handed it over, without dying: what it had begun of it is no crash.
    pub fn given_up(&mut self, node: &str, incarnation: u64, offset: u64) {
        let life = self.number(node, incarnation);
        if let Some(past) = self.jobs.get_mut(&offset).filter(|past| past.open.is_some_and(|open| open.life == life)) {
            past.open = None;
        }
    }

    /// What is known of the job at `offset`, which the life `me` takes over now: the highest number of an attempt, and the
    /// crashes. It is forgotten here.
    pub fn take(&mut self, offset: u64, me: &Life) -> Option<(u32, Crashes)> {
        let mut past = self.jobs.remove(&offset)?;
        if past.open.is_some_and(|open| self.lives.get(open.life) != Some(me)) {
            past.crashed();
        }
        Some((past.attempts, past.crashes))
    }

    fn number(&mut self, node: &str, incarnation: u64) -> usize {
        // The newest is the one that speaks, nearly always.
        let is = |life: &Life| life.incarnation == incarnation && life.node == node;
        self.lives.iter().rposition(is).unwrap_or_else(|| {
            self.lives.push(Life { node: node.to_owned(), incarnation });
            self.lives.len() - 1
        })
    }
}
