//! Jobs that are set aside: what the core knows of them, and when they go on.

use super::{Core, Effect, Ends};
use crate::intake::side::{Class, SideKey};
use crate::intake::side_topic::SideSaid;
use crate::job::aside::{PARKED, SIDES};
use crate::job::delivered::Delivered;

impl<P: Ends> Core<P> {
    /// Where the sides of a partition must be read from.
    pub fn side_starts(&self, partition: u32) -> [u64; SIDES] {
        self.partitions.get(&partition).map(|owned| owned.sides.nexts()).unwrap_or_default()
    }

    /// Jobs that are parked, and in delay tiers.
    pub fn set_aside(&self) -> (usize, usize) {
        let counts = self.partitions.values().map(|owned| (owned.sides.parked(), owned.sides.len()));
        counts.fold((0, 0), |(parked, later), (of_parked, all)| {
            (parked + of_parked, later + all.saturating_sub(of_parked))
        })
    }

    /// A record of a side of a partition.
    pub fn side(&mut self, partition: u32, at: SideKey, said: SideSaid) -> Vec<Effect<P>> {
        let Some(owned) = self.partitions.get_mut(&partition) else { return Vec::new() };
        owned.sides.passed(at);
        match said {
            SideSaid::Put(entry) => {
                let (identity, cancelled) = (entry.identity, owned.cancels.has(entry.identity.job_id, entry.tenant()));
                if let Some(from) = entry.from {
                    owned.tracker.prove(from);
                }
                owned.sides.put(at, *entry);
                if owned.sides_read {
                    owned.same.is_aside(&identity);
                }
                if cancelled {
                    owned.sides.hurry(identity.by_id);
                }
            }
            // Of our own commits it is known already.
            SideSaid::Taken(offset) if !owned.sides_read => drop(owned.sides.taken((at.0, offset))),
            SideSaid::Taken(_) | SideSaid::Nothing => {}
        }
        Vec::new()
    }

    /// Looks for jobs that may go on: whose time has come, who were cancelled, and parked ones that `can_go_on` now.
    pub fn call_back(&mut self, now_ms: u64, mut can_go_on: impl FnMut(&Class) -> bool) -> Vec<Effect<P>> {
        if self.draining {
            return Vec::new();
        }
        let on_their_way: usize = self.partitions.values().map(|owned| owned.returning + owned.sides.in_hand()).sum();
        let mut free = (self.limits.waiting_max / 2).saturating_sub(self.waiting() + on_their_way);
        let (room, shares) = (&self.room, &self.limits.shares);
        let mut effects = Vec::new();
        for (number, owned) in &mut self.partitions {
            if owned.revoking || owned.held.is_some() || owned.sides.is_empty() {
                continue;
            }
            let due = owned.sides.due(now_ms, |class| {
                let is_free =
                    can_go_on(class) && room.has_place(&class.tenant, class.model.as_deref(), 1 + on_their_way, shares);
                if is_free { free } else { 0 }
            });
            free = free.saturating_sub(due.len());
            if !due.is_empty() {
                effects.push(Effect::Fetch(*number, owned.epoch, due));
            }
        }
        effects
    }

    /// A job that [`Effect::Fetch`] named was read; `None`: it could not be, now.
    pub fn fetched(&mut self, partition: u32, at: SideKey, job: Option<Box<Delivered>>, now_ms: u64) -> Vec<Effect<P>> {
        let Some(owned) = self.partitions.get_mut(&partition).filter(|owned| !owned.revoking) else {
            return Vec::new();
        };
        let Some(job) = job else {
            owned.sides.put_back(at);
            return Vec::new();
        };
        let effect = if owned.cancels.has(job.job_id, &job.job.tenant) {
            Effect::EndAside(job, at, true)
        } else if job.job.deadline.is_some_and(|deadline| deadline <= now_ms) {
            Effect::EndAside(job, at, false)
        } else {
            Effect::Return(job, at)
        };
        vec![effect]
    }

    /// A job leaves its side, with what is to be committed for it.
    pub fn left_side(&mut self, partition: u32, at: SideKey, epoch: u64, payload: P, now_ms: u64) -> Vec<Effect<P>> {
        if self.partitions.get(&partition).is_some_and(|owned| owned.epoch == epoch) {
            self.finished_aside.push(((partition, at), epoch, payload));
        }
        let mut effects = self.go_on(now_ms);
        effects.extend(self.settle());
        effects
    }

    /// Where a job that is new goes instead of the room, if it does: a delay tier if it is for later, or the parked topic.
    pub(super) fn beside(&self, job: &Delivered, now_ms: u64) -> Option<(usize, u64)> {
        if let Some(at) = job.job.not_before.filter(|at| *at > now_ms)
            && let Some(tier) = self.limits.tiers.within(at - now_ms)
        {
            return Some((tier, at));
        }
        let has_place = self.room.has_place(&job.job.tenant, job.job.model.as_deref(), 1, &self.limits.shares);
        (job.is_stuck || !has_place).then_some((PARKED, now_ms))
    }
}
