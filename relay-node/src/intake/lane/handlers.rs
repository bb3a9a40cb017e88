//! What the lane's actor does with each message.

use actix::{ActorContext, Context, Handler};
use relay_log::port::MemberEvent;
use relay_protocol::JobId;
use relay_protocol::record::ControlRecord;

use super::{
    DrainGuard, DrainLane, Fate, FromLog, FromTopics, JobEnded, Lane, LaneState, Leave, Observe, OfKey, Settled,
};
use crate::intake::control::What;
use crate::job::run::Finish;

impl Handler<FromLog> for Lane {
    type Result = ();

    fn handle(&mut self, FromLog(event): FromLog, ctx: &mut Self::Context) {
        match event {
            MemberEvent::Record { record, epoch } => self.delivered(record, epoch, ctx),
            MemberEvent::Assigned(assignments) => {
                tracing::info!(lane = self.settings.lane, ?assignments, "partitions assigned");
                self.assigned(assignments, ctx);
            }
            MemberEvent::Revoking { partitions, release } => {
                tracing::info!(lane = self.settings.lane, ?partitions, "partitions are being taken");
                let numbers: Vec<u32> = partitions.iter().map(|at| at.partition).collect();
                self.releases.push((numbers.clone(), release));
                self.hand_over(&numbers, ctx);
            }
            MemberEvent::Lost(partitions) => {
                tracing::warn!(lane = self.settings.lane, ?partitions, "partitions were lost");
                let numbers: Vec<u32> = partitions.iter().map(|at| at.partition).collect();
                let effects = self.core.lost(&numbers);
                numbers.iter().for_each(|number| self.release(*number));
                self.carry_out(effects, ctx);
            }
        }
    }
}

impl Handler<FromTopics> for Lane {
    type Result = ();

    fn handle(&mut self, FromTopics(said): FromTopics, ctx: &mut Self::Context) {
        if let What::Control(ControlRecord::Cancel(request), _) = &said.what {
            let effects = self.core.cancel_kept(said.partition, request);
            self.carry_out(effects, ctx);
        }
        // What was read for an earlier assignment says nothing of this one.
        if self.core.epoch(said.partition) != Some(said.epoch) {
            return;
        }
        let now = self.now_ms();
        let effects = match said.what {
            What::Control(record, written) => self.core.told(said.partition, record, written, now),
            What::ControlRead => self.core.control_read(said.partition, now),
            What::Side(at, what) => self.core.side(said.partition, at, what),
            What::SidesRead => self.core.sides_read(said.partition, now),
            What::Ended(index, proven) => self.core.dedup_read(said.partition, index, &proven, now),
        };
        if let Some(below) = self.core.proven_below(said.partition) {
            self.retention.committed(said.partition, below);
        }
        self.carry_out(effects, ctx);
    }
}

impl Handler<OfKey> for Lane {
    type Result = Option<(JobId, bool)>;

    fn handle(&mut self, OfKey { partition, scope, body }: OfKey, _: &mut Self::Context) -> Self::Result {
        self.core.of_key(partition, scope, body, self.now_ms())
    }
}

impl Handler<JobEnded> for Lane {
    type Result = ();

    fn handle(&mut self, JobEnded { job, finish }: JobEnded, ctx: &mut Self::Context) {
        if self.kept.contains_key(&(job.at.partition, job.place.offset, job.epoch)) {
            return self.kept_ended(&job, &finish, ctx);
        }
        // A job that was abandoned while its last message was under way is somebody else's.
        let running = self.runs.get(&(job.at.partition, job.place.offset));
        if running.is_some_and(|running| running.epoch == job.epoch) {
            match finish {
                Finish::Ended(ended) => self.end(&job, &ended, ctx),
                Finish::SetAside(leaving) => self.leave(&job, leaving, ctx),
            }
        }
    }
}

impl Handler<Settled> for Lane {
    type Result = ();

    fn handle(&mut self, Settled { batch, fate, took }: Settled, ctx: &mut Self::Context) {
        let now = self.now_ms();
        self.commit_took = took;
        let effects = match fate {
            Fate::Committed => {
                for offset in &batch.offsets {
                    self.retention.committed(offset.at.partition, offset.next);
                }
                self.core.committed(&batch, now)
            }
            Fate::NotCommitted(mut lost) => {
                // The answer may be late: the partition may be this node's once more, under an epoch of its own.
                lost.retain(|number| batch.epoch(*number) == self.core.epoch(*number));
                let mut effects = self.core.lost(&lost);
                effects.extend(self.core.not_committed(batch, now));
                effects
            }
        };
        self.carry_out(effects, ctx);
    }
}

impl Handler<Observe> for Lane {
    type Result = actix::MessageResult<Observe>;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        actix::MessageResult(LaneState {
            running: self.core.running(),
            waiting: self.core.waiting(),
            partitions: self.core.partitions().map(|(number, _)| number).collect(),
        })
    }
}

impl Handler<DrainLane> for Lane {
    type Result = ();

    fn handle(&mut self, DrainLane(done): DrainLane, ctx: &mut Self::Context) {
        self.core.drain();
        self.drained = Some(DrainGuard(done));
        self.carry_out(Vec::new(), ctx);
    }
}

impl Handler<Leave> for Lane {
    type Result = actix::ResponseActFuture<Self, ()>;

    fn handle(&mut self, _: Leave, _: &mut Self::Context) -> Self::Result {
        let given_up = self.give_up();
        let stops =
            std::mem::take(&mut self.controls).into_values().chain(std::mem::take(&mut self.beside).into_values());
        stops.for_each(|stop| stop.cancel());
        self.releases.clear();
        let member = self.member.clone();
        let left = async move {
            // Before the next owner can ask.
            given_up.await;
            member.leave().await;
        };
        Box::pin(actix::fut::ActorFutureExt::map(actix::fut::wrap_future(left), |(), _, ctx: &mut Context<Self>| {
            ctx.stop();
        }))
    }
}
