//! What was seen of one simulated cluster, and whether the promises were kept. Pure.

use std::collections::{BTreeMap, BTreeSet};

use relay_log::port::TopicPartition;
use relay_protocol::{ErrorCode, Event, EventKind, JobId};

use super::clock::BEGIN_MS;

/// Findings that a run names at most.
const NAMED_MAX: usize = 12;

/// A commit that happened.
#[derive(Debug, Clone, Default)]
pub(super) struct CommitSeen {
    /// The life of the node that committed.
    pub(super) life: u64,
    /// Whether that life had lost what it committed for.
    pub(super) is_fenced: bool,
    /// Where the records lie.
    pub(super) places: Vec<(TopicPartition, u64)>,
}

/// When a life of a node did something, by a clock that does not jump, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    /// Which life.
    pub(super) life: u64,
    /// When.
    pub(super) at_ms: u64,
}

/// An event as it lies in the log.
#[derive(Debug, Clone)]
pub(super) struct Told {
    /// Partition and offset.
    pub(super) place: (TopicPartition, u64),
    /// The event.
    pub(super) event: Event,
}

/// An event as a client was told it: seq, kind, the JSON.
pub(super) type Heard = (u64, EventKind, String);

/// A job as its submitter knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Submitted {
    /// It was acknowledged.
    pub(super) accepted: bool,
    /// It was refused for good.
    pub(super) refused: bool,
    /// Tenant and idempotency key.
    pub(super) key: Option<(String, String)>,
    /// It may expire.
    pub(super) has_deadline: bool,
    /// Attempts at most.
    pub(super) attempts_max: u32,
    /// Somebody asked to cancel it.
    pub(super) cancelled: bool,
}

/// Everything that was seen.
#[derive(Debug, Default)]
pub(super) struct History {
    /// What was submitted.
    pub(super) jobs: BTreeMap<JobId, Submitted>,
    /// What each client was told of each job, in the order in which it came.
    pub(super) heard: BTreeMap<(JobId, String), Vec<Heard>>,
    /// The answers `already_ended`: when one came, whether the log had an end.
    pub(super) ended_answers: Vec<(JobId, bool)>,
    /// The answers `cancel_requested` to requests made when the job's own client had heard its end.
    pub(super) late_cancels: Vec<JobId>,
    /// The event topic, partition by partition.
    pub(super) events: Vec<Told>,
    /// Ids of the jobs of dead letters.
    pub(super) letters: Vec<JobId>,
    /// Commits, in order.
    pub(super) commits: Vec<CommitSeen>,
    /// When which life wrote each start of an attempt of a job that was its own then.
    pub(super) starts: BTreeMap<(TopicPartition, u64), Moment>,
    /// When which life called a backend for each job.
    pub(super) calls: BTreeMap<JobId, Vec<Moment>>,
    /// Requests that were more than the slots at some backend: backend, in flight, slots.
    pub(super) overloads: Vec<(String, u32, u32)>,
    /// Clients that were still waiting when the simulation ended.
    pub(super) unsettled: Vec<String>,
}

/// What is wrong.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Findings {
    /// Some of it in words, the promise first.
    pub named: Vec<String>,
    /// All of it.
    pub count: usize,
}

impl Findings {
    fn add(&mut self, promise: &str, job: impl std::fmt::Display, what: impl std::fmt::Display) {
        self.count += 1;
        if self.named.len() < NAMED_MAX {
            self.named.push(format!("{promise} {job}: {what}"));
        }
    }
}

/// The events of one job in the order of the log.
type OfJob<'a> = BTreeMap<JobId, Vec<&'a Told>>;

impl History {
    /// Attempts whose start two lives wrote: the same number, told by two nodes or twice.
    pub(super) fn told_twice(&self) -> u64 {
        let starts = self.events.iter().filter(|told| told.event.event == EventKind::Started);
        let mut count: BTreeMap<(JobId, u64), u64> = BTreeMap::new();
        starts.for_each(|told| *count.entry((told.event.job_id, told.event.seq)).or_default() += 1);
        count.into_values().filter(|count| *count > 1).count() as u64
    }

    /// Attempts that were cut off with the lease of their slot.
    pub(super) fn cut_off(&self) -> usize {
        self.events.iter().filter(|told| is_cut_off(&told.event)).count()
    }

    /// Checks every promise.
    pub(super) fn check(&self) -> Findings {
        let mut found = Findings::default();
        let mut of_job: OfJob<'_> = BTreeMap::new();
        for told in &self.events {
            of_job.entry(told.event.job_id).or_default().push(told);
        }
        self.check_ends(&of_job, &mut found);
        self.check_changes(&of_job, &mut found);
        self.check_keys(&of_job, &mut found);
        self.check_heard(&of_job, &mut found);
        self.check_commits(&mut found);
        self.check_letters(&of_job, &mut found);
        for (backend, in_flight, slots) in &self.overloads {
            found.add("P5", backend, format!("{in_flight} requests at {slots} slots"));
        }
        for waiting in &self.unsettled {
            found.add("P1", waiting, "still waits");
        }
        found
    }

    /// P1: exactly one end of what was accepted, at most one of anything, and none that nobody asked for.
    fn check_ends(&self, of_job: &OfJob<'_>, found: &mut Findings) {
        for (job, submitted) in self.jobs.iter().filter(|(_, submitted)| submitted.accepted) {
            let has_end = of_job.get(job).is_some_and(|all| all.iter().any(|told| told.event.event.is_terminal()));
            if !has_end {
                found.add("P1", job, "accepted, never ended");
            }
            if submitted.refused {
                found.add("P1", job, "accepted and refused");
            }
        }
        for (job, all) in of_job {
            let ends: Vec<_> = all.iter().filter(|told| told.event.event.is_terminal()).collect();
            if ends.len() > 1 {
                let kinds: Vec<_> = ends.iter().map(|told| (told.event.event.name(), told.event.seq)).collect();
                found.add("P1", job, format!("{} ends: {kinds:?}", ends.len()));
            }
            let Some(submitted) = self.jobs.get(job) else { continue };
            let retried = all.iter().filter(|told| told.event.event == EventKind::Retrying);
            // A job is not charged with attempts that were cut off.
            let allowed = submitted.attempts_max + all.iter().filter(|told| is_cut_off(&told.event)).count() as u32;
            if let Some(last) = retried.map(|told| told.event.attempt).max().filter(|last| *last >= allowed) {
                found.add("P6", job, format!("attempt {last} of {} is followed by another", submitted.attempts_max));
            }
            for end in ends {
                match end.event.event {
                    // A repeated job ends as the first did.
                    EventKind::Cancelled if !submitted.cancelled && end.event.duplicate_of.is_none() => {
                        found.add("P1", job, "cancelled, and nobody asked for it");
                    }
                    EventKind::Expired if !submitted.has_deadline && end.event.duplicate_of.is_none() => {
                        found.add("P1", job, "expired, and it has no deadline");
                    }
                    _ => {}
                }
            }
        }
    }

    /// P3: what is in the log for a job and seq never changes, and nothing is committed after the end.
    fn check_changes(&self, of_job: &OfJob<'_>, found: &mut Findings) {
        for (job, all) in of_job {
            let mut by_seq: BTreeMap<u64, &Told> = BTreeMap::new();
            for told in all {
                let kind = told.event.event;
                match by_seq.get(&told.event.seq) {
                    // A receipt is made again where it may be missing, and the start of an attempt that an owner wrote while it
                    // lost the partition, or that never began, is told by its successor too: neither is part of any commit.
                    Some(first) if first.event.event == kind && !kind.is_terminal() => {
                        if kind == EventKind::Started && self.began_twice(first, told) {
                            found.add("P3", job, format!("attempt {} began twice", told.event.attempt));
                        }
                    }
                    Some(_) => found.add("P3", job, format!("two events have seq {}", told.event.seq)),
                    None => drop(by_seq.insert(told.event.seq, told)),
                }
            }
        }
    }

    /// Whether the attempt whose start owners told of twice was a backend's both times, the second time after the first.
    fn began_twice(&self, first: &Told, again_told: &Told) -> bool {
        let calls = self.calls.get(&first.event.job_id).into_iter().flatten();
        let (Some(first), Some(again)) = (self.starts.get(&first.place), self.starts.get(&again_told.place)) else {
            return false;
        };
        let called = |began: &Moment, until_ms: u64| {
            let mut of_life = calls.clone().filter(|call| call.life == began.life);
            of_life.any(|call| (began.at_ms..until_ms).contains(&call.at_ms))
        };
        called(first, again.at_ms) && called(again, self.next_start_ms(again_told, again))
    }

    /// When the life that told of an attempt's start told of a later attempt of the job: what it called from then on is that one's.
    fn next_start_ms(&self, told: &Told, began: &Moment) -> u64 {
        let is_later = |event: &Event| event.job_id == told.event.job_id && event.attempt > told.event.attempt;
        let later = self.events.iter().filter(|other| is_later(&other.event));
        let of_life = later.filter_map(|other| self.starts.get(&other.place)).filter(|other| other.life == began.life);
        of_life.map(|other| other.at_ms).filter(|at_ms| *at_ms >= began.at_ms).min().unwrap_or(u64::MAX)
    }

    /// P3: of the jobs with one key one ran.
    fn check_keys(&self, of_job: &OfJob<'_>, found: &mut Findings) {
        let mut ran: BTreeMap<&(String, String), Vec<JobId>> = BTreeMap::new();
        for (job, submitted) in &self.jobs {
            let Some(key) = &submitted.key else { continue };
            let ends = of_job.get(job).into_iter().flatten().filter(|told| told.event.event.is_terminal());
            if ends.filter(|told| told.event.duplicate_of.is_none()).count() > 0 {
                ran.entry(key).or_default().push(*job);
            }
        }
        for (key, jobs) in ran.into_iter().filter(|(_, jobs)| jobs.len() > 1) {
            found.add("P3", format!("{}/{}", key.0, key.1), format!("{jobs:?} all ran"));
        }
    }

    /// P2: to each watcher every durable event once and in order, and what it heard is what the log has.
    fn check_heard(&self, of_job: &OfJob<'_>, found: &mut Findings) {
        let nothing = Vec::new();
        for ((job, _), heard) in &self.heard {
            let all = of_job.get(job).unwrap_or(&nothing);
            let durable: Vec<_> = heard.iter().filter(|(_, kind, _)| !is_revocable(*kind)).collect();
            // An end may be that of an earlier attempt than was told of by a node that was taken for dead.
            let in_order = |before: &&Heard, after: &&Heard| {
                before.0 < after.0 || (after.1.is_terminal() && before.0 != after.0 && !before.1.is_terminal())
            };
            if !durable.is_sorted_by(in_order) {
                let seqs: Vec<_> = durable.iter().map(|(seq, kind, _)| (seq, kind.name())).collect();
                found.add("P2", job, format!("heard twice or out of order: {seqs:?}"));
            }
            let end = durable.iter().position(|(_, kind, _)| kind.is_terminal());
            if end.is_some_and(|end| end + 1 < durable.len()) {
                found.add("P2", job, "heard something after the end");
            }
            let seqs: BTreeSet<u64> = durable.iter().map(|(seq, ..)| *seq).collect();
            let newest = seqs.last().copied().unwrap_or_default();
            let mut highest = 0;
            for told in all {
                let seq = told.event.seq;
                // What comes in the log after something later was overtaken, and need not be told.
                if seq > highest && seq <= newest && !seqs.contains(&seq) {
                    found.add("P2", job, format!("never heard {} {seq}, but {seqs:?}", told.event.event.name()));
                }
                highest = highest.max(seq);
            }
            for (seq, kind, json) in durable {
                let known = all.iter().any(|told| {
                    told.event.seq == *seq && serde_json::to_string(&told.event).is_ok_and(|text| text == *json)
                });
                if !known && *kind != EventKind::Accepted {
                    found.add("P2", job, format!("heard {} {seq}, which the log does not have", kind.name()));
                }
            }
        }
        for (job, _) in self.ended_answers.iter().filter(|(_, had_end)| !had_end) {
            found.add("P2", job, "told that it had ended before it had");
        }
        for job in &self.late_cancels {
            found.add("P2", job, "a cancel of a job that had ended was taken");
        }
    }

    /// P4: ends are written by commits alone, and by none of a life that had lost the partition.
    fn check_commits(&self, found: &mut Findings) {
        for commit in self.commits.iter().filter(|commit| commit.is_fenced) {
            found.add("P4", format!("life {}", commit.life), "committed what was no longer its own");
        }
        let committed: BTreeSet<&(TopicPartition, u64)> =
            self.commits.iter().flat_map(|commit| &commit.places).collect();
        for told in self.events.iter().filter(|told| told.event.event.is_terminal()) {
            if !committed.contains(&told.place) {
                found.add("P4", told.event.job_id, "its end was written outside a commit");
            }
        }
    }

    /// What was dead-lettered has one letter, and nothing else that is a job has any.
    fn check_letters(&self, of_job: &OfJob<'_>, found: &mut Findings) {
        for (job, all) in of_job.iter().filter(|(job, _)| self.jobs.contains_key(job)) {
            let dead = |told: &&&Told| told.event.event == EventKind::DeadLettered && told.event.duplicate_of.is_none();
            let (dead, letters) =
                (all.iter().filter(dead).count(), self.letters.iter().filter(|of| *of == job).count());
            if dead.min(1) != letters {
                found.add("P1", job, format!("{letters} dead letters of a job that died {dead} times"));
            }
        }
    }
}

impl History {
    /// What the log, the backends and the clients say of the jobs that findings name.
    pub(super) fn story(&self, findings: &Findings) -> Vec<String> {
        let is_named = |job: &JobId| findings.named.iter().any(|finding| finding.contains(&job.to_string()));
        let mut story = Vec::new();
        for (job, submitted) in self.jobs.iter().filter(|(job, _)| is_named(job)) {
            story.push(format!("{job}: {submitted:?}"));
            for told in self.events.iter().filter(|told| told.event.job_id == *job) {
                let Event { seq, event, at, node, duplicate_of, error, .. } = &told.event;
                let ((place, offset), error) = (&told.place, error.as_ref().map(|error| &error.code));
                let by = self
                    .starts
                    .get(&told.place)
                    .map(|moment| (moment.life, moment.at_ms.wrapping_sub(BEGIN_MS) as i64));
                story.push(format!(
                    "  log {place}/{offset}: {} {}.{} at {} {node:?} {duplicate_of:?} {error:?} by life, at {by:?}",
                    event.name(),
                    seq >> 32,
                    seq & 0xffff_ffff,
                    at.wrapping_sub(BEGIN_MS) as i64,
                ));
            }
            for call in self.calls.get(job).into_iter().flatten() {
                story.push(format!(
                    "  life {} called a backend at {}",
                    call.life,
                    call.at_ms.wrapping_sub(BEGIN_MS) as i64
                ));
            }
            for ((_, client), heard) in self.heard.iter().filter(|((of, _), _)| of == job) {
                let heard =
                    heard.iter().map(|(seq, kind, _)| format!("{} {}.{}", kind.name(), seq >> 32, seq & 0xffff_ffff));
                story.push(format!("  {client} heard {}", heard.collect::<Vec<_>>().join(", ")));
            }
        }
        story
    }
}

/// Whether it tells of an attempt that was cut off with the lease of its slot.
fn is_cut_off(event: &Event) -> bool {
    let code = event.error.as_ref().and_then(|error| error.known_code());
    event.event == EventKind::Retrying && code == Some(ErrorCode::AttemptLost)
}

/// Whether such an event may be missing without harm.
pub(super) fn is_revocable(kind: EventKind) -> bool {
    matches!(kind, EventKind::Partial | EventKind::Progress)
}
