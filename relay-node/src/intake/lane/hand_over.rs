//! Jobs that run while their partition moves: what this node tells the owners of those that it keeps, and what it hears of
//! those that others keep for it.

use std::collections::BTreeMap;

use actix::{AsyncContext, Context, Handler, Message};
use bytes::Bytes;
use relay_log::port::{Log, LogError, NewRecord, TopicPartition};
use relay_protocol::hand_over::{KeptEnd, KeptJobs};
use relay_protocol::record::{ControlRecord, StartedJob};
use relay_protocol::topics;
use tokio::time::{Duration, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{COMMIT_RETRY, Lane, tell};
use crate::intake::core::Key;
use crate::intake::keeping::KeptKey;
use crate::job::delivered::Delivered;
use crate::job::hand_over;
use crate::job::run::Finish;

/// The runs that are kept of a partition were announced at a time, in milliseconds since the Unix epoch, or could not be.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Announced(u32, u64, Option<u64>);

/// A report of these runs, sent at a time, is durable.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Reported(Vec<KeptKey>, u64);

/// The owner knows, or will know, how this kept run ended.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct HandedIn(KeptKey);

impl Lane {
    /// A rebalance takes partitions.
    pub(super) fn hand_over(&mut self, partitions: &[u32], ctx: &mut Context<Self>) {
        let at_backend = |(key, run): (&Key, &super::RunningJob)| run.link.attempt().map(|attempt| (*key, attempt));
        let at_backend: BTreeMap<Key, u32> = self.runs.iter().filter_map(at_backend).collect();
        self.tell_dropped(partitions, &at_backend);
        let effects = self.core.hand_over(partitions, &at_backend);
        self.carry_out(effects, ctx);
    }

    /// Says of the runs that are no backend's, and end here for that, that this node did not die of them.
    fn tell_dropped(&self, partitions: &[u32], at_backend: &BTreeMap<Key, u32>) {
        let mut dropped = BTreeMap::<u32, Vec<StartedJob>>::new();
        for (partition, offset) in self.runs.keys().filter(|key| !at_backend.contains_key(key)) {
            if partitions.contains(partition) {
                let job = StartedJob { offset: *offset, attempt: 0, alone: false };
                dropped.entry(*partition).or_default().push(job);
            }
        }
        let records = self.kept_records(dropped, ControlRecord::GivenUp);
        if records.is_empty() {
            return;
        }
        let log = self.context.log.clone();
        actix::spawn(async move {
            if let Err(error) = log.append(records).await {
                tracing::warn!(%error, "the next owner takes it for a crash that waiting jobs were dropped");
            }
        });
    }

    /// Goes on with runs whose partition is given up once that is announced.
    pub(super) fn keep(&mut self, partition: u32, epoch: u64, jobs: Vec<StartedJob>, ctx: &Context<Self>) {
        let announced = CancellationToken::new();
        for job in &jobs {
            if let Some(mut running) = self.runs.remove(&(partition, job.offset)) {
                running.link.keep();
                running.announced = announced.clone();
                self.kept.insert((partition, job.offset, epoch), running);
            }
        }
        tracing::info!(
            lane = self.settings.lane,
            partition,
            jobs = jobs.len(),
            "running jobs are kept for the next owner"
        );
        let given_up = self.control_record(partition, ControlRecord::GivenUp(self.kept_jobs(jobs.clone())));
        let record = self.control_record(partition, ControlRecord::Kept(self.kept_jobs(jobs)));
        let (log, addr, grace) = (self.context.log.clone(), ctx.address(), self.settings.revoke_grace);
        let sent_ms = self.now_ms();
        actix::spawn(async move {
            let failed = match timeout(grace, log.append(vec![record])).await {
                Ok(Ok(_)) => {
                    announced.cancel();
                    return tell(&addr, Announced(partition, epoch, Some(sent_ms))).await;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {grace:?}"),
            };
            tracing::warn!(failed, partition, "running jobs are not handed over; their next owner runs them again");
            tell(&addr, Announced(partition, epoch, None)).await;
            // It may have been written all the same.
            if let Err(error) = log.append(vec![given_up]).await {
                tracing::debug!(%error, partition, "the next owner waits for reports that do not come");
            }
        });
    }

    /// Tells the owners of kept runs that they go on.
    pub(super) fn report(&mut self, ctx: &mut Context<Self>) {
        let (jobs, keys) = self.core.keeping().reports();
        if keys.is_empty() {
            return;
        }
        let records = self.kept_records(jobs, ControlRecord::Kept);
        let (log, addr, sent_ms) = (self.context.log.clone(), ctx.address(), self.now_ms());
        let useful = self.settings.handover_timeout();
        actix::spawn(async move {
            match timeout(useful, log.append(records)).await {
                Ok(Ok(_)) => tell(&addr, Reported(keys, sent_ms)).await,
                Ok(Err(error)) => tracing::warn!(%error, "a report of kept jobs was not written"),
                Err(_) => tracing::warn!("a report of kept jobs was not written in time"),
            }
        });
    }

    /// A kept run has ended: its owner is told.
    pub(super) fn kept_ended(&mut self, job: &Delivered, finish: &Finish, ctx: &Context<Self>) {
        let key = (job.at.partition, job.place.offset, job.epoch);
        let Some(attempt) = self.core.keeping().attempt(key) else { return };
        let end = hand_over::end_of(job, attempt, finish, self.context.starts.life());
        let end = end.map(|end| self.control_record(key.0, ControlRecord::KeptEnd(Box::new(end))));
        let jobs = vec![StartedJob { offset: key.1, attempt, alone: false }];
        let given_up = self.control_record(key.0, ControlRecord::GivenUp(self.kept_jobs(jobs)));
        let Some(running) = self.kept.get_mut(&key) else { return };
        let (log, addr, announced) = (self.context.log.clone(), ctx.address(), running.announced.clone());
        let useful = self.settings.handover_timeout();
        running.task = actix::spawn(async move {
            announced.cancelled().await;
            hand_in(&*log, end, given_up, useful).await;
            tell(&addr, HandedIn(key)).await;
        });
    }

    /// Drops a kept run: its owner does not wait for it.
    pub(super) fn abandon_kept(&mut self, key: KeptKey) {
        if let Some(running) = self.kept.remove(&key) {
            running.task.abort();
            tracing::warn!(partition = key.0, offset = key.1, "a kept job is dropped; its owner runs it again");
            metrics::counter!("relay_kept_jobs_dropped_total", "lane" => self.settings.lane.clone()).increment(1);
        }
        self.follow_no_longer(key.0);
    }

    /// Ends the reading of a control partition that is not ours, if no kept run needs it.
    pub(super) fn follow_no_longer(&mut self, partition: u32) {
        if self.core.epoch(partition).is_none()
            && !self.core.keeping().is_of(partition)
            && let Some(stop) = self.controls.remove(&partition)
        {
            stop.cancel();
        }
    }

    /// Commits how a job ended that another node kept.
    pub(super) fn take_end(&mut self, job: Box<Delivered>, end: KeptEnd, ctx: &mut Context<Self>) {
        let (node, attempt) = (end.node.clone(), end.attempt);
        match hand_over::finish_of(&job, end, &self.context.events) {
            Some(finish) => {
                metrics::counter!("relay_jobs_handed_over_total", "lane" => self.settings.lane.clone()).increment(1);
                self.context.audit.handed_over(&job, &node, attempt);
                match finish {
                    Finish::Ended(ended) => self.end(&job, &ended, ctx),
                    Finish::SetAside(leaving) => self.leave(&job, leaving, ctx),
                }
            }
            None => {
                tracing::warn!(job_id = %job.job_id, node, "the end of a job that another node kept is not whole; it runs again");
                let effects = self.core.untaken(job, self.now_ms());
                self.carry_out(effects, ctx);
            }
        }
    }

    /// Drops all runs, kept ones too, and tells the next owners, if the log takes it in time.
    pub(super) fn give_up(&mut self) -> impl Future<Output = ()> + use<> {
        let mut jobs = self.core.keeping_mut().drain();
        for ((partition, offset), running) in &self.runs {
            let attempt = running.link.attempt().unwrap_or_default();
            jobs.entry(*partition).or_default().push(StartedJob { offset: *offset, attempt, alone: false });
        }
        let runs = std::mem::take(&mut self.runs).into_values().chain(std::mem::take(&mut self.kept).into_values());
        runs.for_each(|running| running.task.abort());
        let records = self.kept_records(jobs, ControlRecord::GivenUp);
        let (log, grace) = (self.context.log.clone(), self.settings.revoke_grace);
        async move {
            if !records.is_empty() && !matches!(timeout(grace, log.append(records)).await, Ok(Ok(_))) {
                tracing::warn!(
                    "the next owners were not told that running jobs are dropped: they wait for reports, or take this for a crash"
                );
            }
        }
    }

    /// Shows how many jobs run for others, and elsewhere for us.
    pub(super) fn show_hand_overs(&mut self) {
        let lane = self.settings.lane.clone();
        let (elsewhere, silences) = self.core.elsewhere();
        metrics::gauge!("relay_lane_kept_jobs", "lane" => lane.clone()).set(self.core.keeping().len() as f64);
        metrics::gauge!("relay_lane_elsewhere_jobs", "lane" => lane.clone()).set(elsewhere as f64);
        let more = silences - self.silences;
        self.silences = silences;
        metrics::counter!("relay_hand_overs_silent_total", "lane" => lane).increment(more);
    }

    fn kept_jobs(&self, jobs: Vec<StartedJob>) -> KeptJobs {
        let (node, incarnation) = self.context.starts.life();
        KeptJobs { node: node.to_owned(), incarnation, jobs }
    }

    fn kept_records(
        &self,
        jobs: BTreeMap<u32, Vec<StartedJob>>,
        kind: fn(KeptJobs) -> ControlRecord,
    ) -> Vec<NewRecord> {
        jobs.into_iter().map(|(partition, jobs)| self.control_record(partition, kind(self.kept_jobs(jobs)))).collect()
    }

    fn control_record(&self, partition: u32, record: ControlRecord) -> NewRecord {
        NewRecord {
            to: TopicPartition::new(topics::control(&self.settings.lane), partition),
            // Owners pass over records without a key once they have read to the end.
            key: Some(Bytes::copy_from_slice(self.context.node.as_bytes())),
            // Such a record has string keys only and cannot fail.
            value: Some(Bytes::from(serde_json::to_vec(&record).unwrap_or_default())),
            headers: Vec::new(),
            timestamp_ms: self.context.starts.stamp(self.now_ms()),
        }
    }
}

/// Writes how a kept run ended, or, if that cannot be, that nobody runs its job any more. Tries until the log takes it: the
/// lane aborts it when the owner waits no longer.
/// An append that has no answer within `useful` is tried again: the first end that the owner reads counts.
async fn hand_in(log: &dyn Log, end: Option<NewRecord>, given_up: NewRecord, useful: Duration) {
    let mut record = end.unwrap_or_else(|| given_up.clone());
    loop {
        let unanswered = |_| Err(LogError::Unavailable(format!("no answer within {useful:?}")));
        match timeout(useful, log.append(vec![record.clone()])).await.unwrap_or_else(unanswered) {
            Ok(_) => return,
            Err(LogError::TooLarge { bytes, limit }) if record != given_up => {
                tracing::warn!(
                    bytes,
                    limit,
                    "the end of a kept job is too large to be handed over; its owner runs it again"
                );
                record = given_up.clone();
            }
            Err(LogError::Closed) => return,
            Err(error) => tracing::warn!(%error, "the end of a kept job is not handed over yet, trying again"),
        }
        sleep(COMMIT_RETRY).await;
    }
}

impl Handler<Announced> for Lane {
    type Result = ();

    fn handle(&mut self, Announced(partition, epoch, sent_ms): Announced, ctx: &mut Self::Context) {
        // An announced run counts for no crash here any more.
        let kept = self.kept.iter().filter(|((of, _, under), _)| (*of, *under) == (partition, epoch));
        kept.for_each(|(_, running)| running.link.suspicion.left());
        let effects = self.core.announced(partition, epoch, sent_ms);
        self.carry_out(effects, ctx);
    }
}

impl Handler<Reported> for Lane {
    type Result = ();

    fn handle(&mut self, Reported(keys, sent_ms): Reported, _: &mut Self::Context) {
        self.core.keeping_mut().told(&keys, sent_ms);
    }
}

impl Handler<HandedIn> for Lane {
    type Result = ();

    fn handle(&mut self, HandedIn(key): HandedIn, ctx: &mut Self::Context) {
        self.kept.remove(&key);
        let effects = self.core.kept_over(key, self.now_ms());
        self.follow_no_longer(key.0);
        self.carry_out(effects, ctx);
    }
}
