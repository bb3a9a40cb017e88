//! Jobs of one partition of ours that other nodes run: those had the partition when the jobs began. Pure: time is passed in.
//!
//! The partition's control topic is all that is known of them. A job counts as running elsewhere as long as the newest attempt
//! that anybody began is reported; its end counts once, for that attempt alone.

use std::collections::{BTreeMap, HashMap};

/// What the reports say of a job that was not admitted yet.
#[derive(Debug)]
struct Report<E> {
    attempt: u32,
    heard_ms: u64,
    end: Option<E>,
}

/// A job that runs elsewhere.
#[derive(Debug)]
struct Remote<J> {
    job: J,
    attempt: u32,
    heard_ms: u64,
    /// Reports do not count beyond it: its deadline has passed or it was cancelled, and its run does not end.
    end_by_ms: Option<u64>,
}

/// What a job is that was delivered.
#[derive(Debug, PartialEq, Eq)]
pub enum Admitted<J, E> {
    /// It does not run elsewhere.
    Here(J),
    /// It runs elsewhere, and is kept here until its end or silence.
    Elsewhere,
    /// It ran elsewhere and came to this.
    Ended(J, E),
}

/// The jobs of one partition that run elsewhere. `J` is a job, `E` its end.
#[derive(Debug)]
pub struct Remotes<J, E> {
    timeout_ms: u64,
    /// Reports, by offset, of jobs that were not admitted yet.
    reports: HashMap<u64, Report<E>>,
    jobs: BTreeMap<u64, Remote<J>>,
    /// All reports that can be of news were read.
    is_read: bool,
}

impl<J, E> Remotes<J, E> {
    /// Nothing was read yet; a job is run anew `timeout_ms` after its last report.
    pub fn new(timeout_ms: u64) -> Self {
        Self { timeout_ms, reports: HashMap::new(), jobs: BTreeMap::new(), is_read: false }
    }

    /// Jobs that run elsewhere.
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// The control topic was read to its end: whoever keeps jobs of this partition had announced them before it was ours.
    pub fn read(&mut self) {
        self.is_read = true;
    }

    /// A node reports that it runs this attempt of the job at `offset`. While the topic is read for the first time the reports
    /// are old; the nodes' clocks may differ, so that half of the time-out is left in any case.
    pub fn kept(&mut self, offset: u64, attempt: u32, written_ms: u64, now_ms: u64) {
        let heard_ms = match self.is_read {
            true => now_ms,
            false => written_ms.clamp(now_ms.saturating_sub(self.timeout_ms / 2), now_ms),
        };
        if let Some(remote) = self.jobs.get_mut(&offset) {
            if remote.attempt == attempt {
                remote.heard_ms = remote.heard_ms.max(heard_ms);
            }
            return;
        }
        match self.reports.get_mut(&offset) {
            Some(report) if report.attempt == attempt => report.heard_ms = report.heard_ms.max(heard_ms),
            Some(report) if report.attempt > attempt => {}
            Some(report) => *report = Report { attempt, heard_ms, end: None },
            None if self.is_read => {}
            None => _ = self.reports.insert(offset, Report { attempt, heard_ms, end: None }),
        }
    }

    /// The attempt that was reported of a job that was not admitted yet; 0: none.
    pub fn reported(&self, offset: u64) -> u32 {
        self.reports.get(&offset).map_or(0, |report| report.attempt)
    }

    /// This attempt of the job at `offset` has ended so; the job and its end if it is to end now.
    pub fn ended(&mut self, offset: u64, attempt: u32, end: E) -> Option<(J, E)> {
        if self.jobs.get(&offset).is_some_and(|remote| remote.attempt == attempt) {
            return self.jobs.remove(&offset).map(|remote| (remote.job, end));
        }
        if let Some(report) = self.reports.get_mut(&offset).filter(|report| report.attempt == attempt) {
            // What came first counts.
            report.end.get_or_insert(end);
        }
        None
    }

    /// Nobody runs this attempt of the job at `offset` any more; the job, if it must be run here.
    pub fn given_up(&mut self, offset: u64, attempt: u32) -> Option<J> {
        if self.jobs.get(&offset).is_some_and(|remote| remote.attempt == attempt) {
            return self.jobs.remove(&offset).map(|remote| remote.job);
        }
        if self.reports.get(&offset).is_some_and(|report| report.attempt == attempt && report.end.is_none()) {
            self.reports.remove(&offset);
        }
        None
    }

    /// A job was delivered, of which `begun` is the newest attempt that anybody began. It ends at `deadline_ms`, or at once if
    /// it `is_cancelled`.
    pub fn admit(
        &mut self,
        offset: u64,
        job: J,
        begun: u32,
        deadline_ms: Option<u64>,
        is_cancelled: bool,
        now_ms: u64,
    ) -> Admitted<J, E> {
        // A later attempt than the reported one: somebody did not wait for the report's end.
        let report = self.reports.remove(&offset).filter(|report| report.attempt >= begun);
        match report {
            Some(Report { end: Some(end), .. }) => Admitted::Ended(job, end),
            Some(report) if report.heard_ms.saturating_add(self.timeout_ms) > now_ms => {
                let end_at_ms = deadline_ms.into_iter().chain(is_cancelled.then_some(now_ms)).min();
                let end_by_ms = end_at_ms.map(|at| at.saturating_add(self.timeout_ms));
                let (attempt, heard_ms) = (report.attempt, report.heard_ms);
                self.jobs.insert(offset, Remote { job, attempt, heard_ms, end_by_ms });
                Admitted::Elsewhere
            }
            Some(_) | None => Admitted::Here(job),
        }
    }

    /// Jobs that are `asked` for must end: their runs are given a last time-out for it.
    pub fn hurry(&mut self, now_ms: u64, asked: impl Fn(&J) -> bool) {
        let end_by_ms = now_ms.saturating_add(self.timeout_ms);
        for remote in self.jobs.values_mut().filter(|remote| asked(&remote.job)) {
            remote.end_by_ms = Some(remote.end_by_ms.map_or(end_by_ms, |earlier| earlier.min(end_by_ms)));
        }
    }

    /// Takes out the jobs of whose runs nothing was heard for too long, or that do not end though they must.
    pub fn take_silent(&mut self, now_ms: u64) -> Vec<J> {
        let timeout_ms = self.timeout_ms;
        let is_over = |_: &u64, remote: &mut Remote<J>| {
            remote.heard_ms.saturating_add(timeout_ms) <= now_ms || remote.end_by_ms.is_some_and(|at| at <= now_ms)
        };
        self.jobs.extract_if(.., is_over).map(|(_, remote)| remote.job).collect()
    }

    /// The partition is being taken: its next owner reads all of it again.
    pub fn clear(&mut self) {
        self.reports.clear();
        self.jobs.clear();
    }
}
