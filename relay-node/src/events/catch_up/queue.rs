//! Who waits for a job's past, and what is read next. Pure.
//!
//! Those who need about the same stretch of one partition wait in one line and are served by one scan together. A line is read by
//! one scan at a time: who comes meanwhile is served by the next.

use std::collections::HashMap;

/// Age of the youngest class of times, in milliseconds: no past begins later than the allowed difference of clocks ago.
const YOUNGEST_MS: u64 = super::super::find::CLOCK_SKEW_MS_MAX;
/// Records in the nearest class of offsets.
const NEAREST_RECORDS: u64 = 4_096;

/// Pasts that one scan can serve: no member reads more than about twice what it needs alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Line {
    /// Reply partition.
    pub partition: u32,
    /// How far back.
    pub reach: Reach,
}

/// How far back a past begins, to a factor of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reach {
    /// At an offset, so many doublings of [`NEAREST_RECORDS`] behind the end.
    Offset(u32),
    /// At a time, so many doublings of [`YOUNGEST_MS`] ago.
    Time(u32),
    /// At the first record.
    All,
}

impl Reach {
    /// From `behind` records before the end on.
    pub fn behind(behind: u64) -> Self {
        Self::Offset((behind / NEAREST_RECORDS + 1).ilog2())
    }

    /// From `age_ms` ago on.
    pub fn ago(age_ms: u64) -> Self {
        Self::Time((age_ms / YOUNGEST_MS).max(1).ilog2())
    }
}

/// The lines, bounded.
#[derive(Debug)]
pub struct Queue<T> {
    readers_max: usize,
    waiting_max: usize,
    lines: HashMap<Line, Waiting<T>>,
    arrivals: u64,
    waiting: usize,
    reading: usize,
}

#[derive(Debug)]
struct Waiting<T> {
    members: Vec<T>,
    /// Number of the arrival that opened it.
    since: u64,
    is_read: bool,
}

impl<T> Queue<T> {
    /// At most `readers_max` scans at a time, and `waiting_max` that wait for one.
    pub fn new(readers_max: usize, waiting_max: usize) -> Self {
        Self { readers_max, waiting_max, lines: HashMap::new(), arrivals: 0, waiting: 0, reading: 0 }
    }

    /// Whether one more may wait.
    pub fn has_room(&self) -> bool {
        self.waiting < self.waiting_max
    }

    /// Lets one wait, also beyond the bound: the caller asks [`Queue::has_room`] where it applies.
    pub fn push(&mut self, line: Line, member: T) {
        self.arrivals += 1;
        let since = self.arrivals;
        let waiting = self.lines.entry(line).or_insert_with(|| Waiting { members: Vec::new(), since, is_read: false });
        if waiting.members.is_empty() {
            waiting.since = since;
        }
        waiting.members.push(member);
        self.waiting += 1;
    }

    /// The next scan, if one may begin: the line in which somebody waits longest, with all its members.
    pub fn next_scan(&mut self) -> Option<(Line, Vec<T>)> {
        if self.reading >= self.readers_max {
            return None;
        }
        let open = self.lines.iter_mut().filter(|(_, line)| !line.is_read && !line.members.is_empty());
        let (line, waiting) = open.min_by_key(|(_, line)| line.since)?;
        waiting.is_read = true;
        let members = std::mem::take(&mut waiting.members);
        self.waiting -= members.len();
        self.reading += 1;
        Some((*line, members))
    }

    /// The scan of this line has ended.
    pub fn ended(&mut self, line: Line) {
        let Some(waiting) = self.lines.get_mut(&line).filter(|waiting| waiting.is_read) else { return };
        self.reading -= 1;
        waiting.is_read = false;
        if waiting.members.is_empty() {
            self.lines.remove(&line);
        }
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many scans there are.
    pub fn reading(&self) -> usize {
        self.reading
    }
}

#[cfg(test)]
#[path = "queue_test.rs"]
mod tests;
