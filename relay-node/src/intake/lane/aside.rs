//! Jobs that are set aside: their records, and reading them again when they may go on.

use actix::{AsyncContext, Context, Handler, Message};
use relay_log::port::{LogRecord, TopicPartition};
use relay_protocol::{ErrorCode, Input, JobError};

use super::{Lane, Payload, tell};
use crate::intake::side::SideKey;
use crate::job::aside::{self, Aside, PARKED};
use crate::job::delivered::Delivered;
use crate::job::outcome::{Ended, Outcome};
use crate::job::run::{self, Leaving};

/// What was read of the sides of a partition.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Fetched {
    partition: u32,
    epoch: u64,
    jobs: Vec<(SideKey, Option<LogRecord>)>,
}

impl Lane {
    /// Looks for jobs that may go on.
    pub(super) fn call_back(&mut self, ctx: &mut Context<Self>) {
        let (now, pool) = (self.now_ms(), self.context.pool.clone());
        // Also what no backend will ever do: it is read again to be refused.
        let effects = self.core.call_back(now, |class| pool.may_go_on(class.task, class.model.as_deref()));
        self.carry_out(effects, ctx);
        let (parked, later) = self.core.set_aside();
        metrics::gauge!("relay_lane_parked_jobs", "lane" => self.settings.lane.clone()).set(parked as f64);
        metrics::gauge!("relay_lane_later_jobs", "lane" => self.settings.lane.clone()).set(later as f64);
    }

    /// Sets aside a job that did not run.
    pub(super) fn set_aside(&mut self, job: &Delivered, side: aside::Side, due_ms: u64, ctx: &mut Context<Self>) {
        let leaving = Leaving { side, aside: Aside::untouched(job, due_ms), told: None };
        self.leave(job, leaving, ctx);
    }

    /// Commits that a job is set aside.
    pub(super) fn leave(&mut self, job: &Delivered, leaving: Leaving, ctx: &mut Context<Self>) {
        let key = (job.at.partition, job.place.offset);
        self.runs.remove(&key);
        self.keep_input(job);
        let to = if leaving.side == PARKED { "parked" } else { "retry" };
        metrics::counter!("relay_jobs_set_aside_total", "lane" => self.settings.lane.clone(), "to" => to).increment(1);
        let mut records = vec![leaving.aside.record(job, leaving.side)];
        records.extend(leaving.told);
        let payload = Payload { records, is_set_aside: true, ..Payload::default() };
        let effects = self.core.finished(key, job.epoch, payload, self.now_ms());
        self.carry_out(effects, ctx);
    }

    /// The record of a job is written again: its input is kept from now on.
    pub(super) fn keep_input(&self, job: &Delivered) {
        if !matches!(job.job.input, Input::Object(_)) {
            return;
        }
        let (claims, input, job_id) = (self.context.claims.clone(), job.job.input.clone(), job.job_id);
        let now = self.now_ms();
        actix::spawn(async move {
            // Its run says so, if it is gone.
            if let Err(error) = claims.keep(&input, now).await {
                tracing::warn!(%error, %job_id, "the input of a job that was written again could not be kept");
            }
        });
    }

    pub(super) fn fetch(&mut self, partition: u32, epoch: u64, wanted: Vec<SideKey>, ctx: &Context<Self>) {
        let (log, addr, lane) = (self.context.log.clone(), ctx.address(), self.settings.lane.clone());
        actix::spawn(async move {
            let mut jobs = Vec::with_capacity(wanted.len());
            for side in 0..aside::SIDES {
                let mut offsets: Vec<u64> =
                    wanted.iter().filter(|(of, _)| *of == side).map(|(_, offset)| *offset).collect();
                offsets.sort_unstable();
                let at = TopicPartition::new(aside::topic(&lane, side), partition);
                let read = crate::intake::side_topic::fetch(&*log, at, &offsets).await;
                let mut found = read.unwrap_or_else(|error| {
                    tracing::warn!(%error, "jobs that are set aside cannot be read, trying again");
                    Vec::new()
                });
                for offset in offsets {
                    let record = found.iter().position(|record| record.offset == offset);
                    jobs.push(((side, offset), record.map(|index| found.swap_remove(index))));
                }
            }
            tell(&addr, Fetched { partition, epoch, jobs }).await;
        });
    }

    /// Commits that a job goes back to its lane.
    pub(super) fn go_back(&mut self, job: &Delivered, at: SideKey, ctx: &mut Context<Self>) {
        self.keep_input(job);
        metrics::counter!("relay_jobs_returned_total", "lane" => self.settings.lane.clone()).increment(1);
        let partition = job.at.partition;
        let mark = aside::taken(&self.settings.lane, at.0, partition, at.1, self.now_ms());
        let payload = Payload { records: vec![Aside::back(job), mark], ..Payload::default() };
        let effects = self.core.left_side(partition, at, job.epoch, payload, self.now_ms());
        self.carry_out(effects, ctx);
    }

    /// Commits the end of a job that is set aside.
    pub(super) fn end_aside(&mut self, job: &Delivered, at: SideKey, cancelled: bool, ctx: &mut Context<Self>) {
        let outcome = if cancelled {
            Outcome::Cancelled(JobError::new(ErrorCode::Cancelled, "the job was cancelled"))
        } else {
            Outcome::Expired(run::expired(job))
        };
        let earlier = job.aside.as_deref();
        let ended = Ended {
            outcome,
            attempt: job.attempts_before,
            failures: earlier.map(|aside| aside.failures.clone()).unwrap_or_default(),
            last_partial_seq: earlier.and_then(|aside| aside.last_partial_seq),
            hops: job.job.hops.clone(),
            duplicate_of: None,
            told_here: false,
            at_ms: self.now_ms(),
        };
        let partition = job.at.partition;
        let mut payload = self.payload(job, &ended);
        payload.records.push(aside::taken(&self.settings.lane, at.0, partition, at.1, self.now_ms()));
        let effects = self.core.left_side(partition, at, job.epoch, payload, self.now_ms());
        self.carry_out(effects, ctx);
    }
}

impl Handler<Fetched> for Lane {
    type Result = ();

    fn handle(&mut self, Fetched { partition, epoch, jobs }: Fetched, ctx: &mut Self::Context) {
        if self.core.epoch(partition) != Some(epoch) {
            return;
        }
        for (at, record) in jobs {
            let job = record.and_then(|record| Delivered::read(&self.settings.lane, record, epoch).ok());
            let effects = self.core.fetched(partition, at, job.map(Box::new), self.now_ms());
            self.carry_out(effects, ctx);
        }
    }
}
