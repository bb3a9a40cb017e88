//! Records that come from the lane: jobs, jobs that came before or lie elsewhere than their key says, and what is no job.

use actix::Context;
use relay_protocol::Event;

use super::{Effect, Key, Lane, Payload};
use crate::job::delivered::{Delivered, NotAJob, Receipt};
use crate::job::{misplaced, outcome};

impl Lane {
    pub(super) fn delivered(&mut self, record: relay_log::port::LogRecord, epoch: u64, ctx: &mut Context<Self>) {
        let (now, key) = (self.now_ms(), (record.at.partition, record.offset));
        if !self.core.read(key, epoch, record.timestamp_ms.min(now)) {
            return;
        }
        let effects = match Delivered::read(&self.settings.lane, record, epoch) {
            Ok(mut job) => match misplaced::moved(&job, self.settings.partitions) {
                Some(moved) => {
                    self.keep_input(&job);
                    tracing::debug!(job_id = %job.job_id, at = %job.at, offset = key.1, to = %moved.to, "a job is moved");
                    metrics::counter!("relay_jobs_moved_total", "lane" => self.settings.lane.clone()).increment(1);
                    let until_ms = now.saturating_add(self.settings.dedup_window.as_millis() as u64);
                    let moved = Payload { records: vec![moved], moved_until_ms: Some(until_ms), ..Payload::default() };
                    self.core.finished(key, epoch, moved, now)
                }
                None => {
                    job.is_stuck = self.context.pool.is_stuck(job.job.task, job.job.model.as_deref());
                    self.core.job(job, now)
                }
            },
            Err(refused) => self.refuse(key, epoch, &refused, now),
        };
        self.carry_out(effects, ctx);
    }

    /// Ends a record whose job is known already: that job's events are its own.
    pub(super) fn end_same(&mut self, job: &Delivered, ctx: &mut Context<Self>) {
        tracing::debug!(job_id = %job.job_id, at = %job.at, offset = job.place.offset, "a job came once more");
        self.count_duplicate("same");
        let key = (job.at.partition, job.place.offset);
        let effects = self.core.finished(key, job.epoch, Payload::default(), self.now_ms());
        self.carry_out(effects, ctx);
    }

    /// Writes the receipt of a job that came from outside.
    pub(super) fn accept(&self, job: &Receipt) {
        let event = Event::accepted(job.job_id, job.place.clone(), job.traceparent.clone()).about(job.card.clone());
        let record = self.context.events.record(&job.tenant, &event);
        let actor = crate::audit::Actor { tenant: &job.tenant, subject: &job.subject };
        let detail = serde_json::json!({ "task": job.task, "lane": job.place.lane, "way_in": "log" });
        self.context.audit.accepted(actor, job.job_id, job.traceparent.as_deref(), detail);
        let (log, job_id) = (self.context.log.clone(), job.job_id);
        actix::spawn(async move {
            // `started` names the job's place too, so that watchers get the receipt even if this one is lost.
            if let Err(error) = log.append(vec![record]).await {
                tracing::warn!(%error, %job_id, "an accepted event was not written");
            }
        });
    }

    /// Ends a record that is not a job: its dead letter, and a `failed` event under the id that its place gives it.
    fn refuse(&mut self, key: Key, epoch: u64, refused: &NotAJob, now: u64) -> Vec<Effect<Payload>> {
        tracing::warn!(error = %refused.error, at = %refused.at, offset = key.1, "a record is not a job");
        metrics::counter!("relay_records_refused_total", "lane" => self.settings.lane.clone()).increment(1);
        let dead_letter_partitions = self.settings.dead_letter_partitions;
        let records = outcome::not_a_job(refused, &self.context.events, dead_letter_partitions, now);
        self.core.finished(key, epoch, Payload { records, ..Payload::default() }, now)
    }
}
