//! When a lane commits and what goes into it, and which partitions are settled enough to be given up.

use std::collections::{BTreeSet, HashMap};

use relay_log::planted::{Bug, is_planted};
use relay_log::port::{CommitOffset, Committed};

use super::{Batch, Core, Effect, Ends, Key, Partition};
use crate::intake::progress::Progress;
use crate::intake::side::SideKey;
use crate::job::delivered::Duplicate;

impl<P> Batch<P> {
    /// The epoch under which it was to be committed for a partition.
    pub fn epoch(&self, partition: u32) -> Option<u64> {
        self.offsets.iter().find(|offset| offset.at.partition == partition).map(|offset| offset.epoch)
    }
}

impl<P: Ends> Core<P> {
    /// The time to gather is over.
    pub fn gathered(&mut self) -> Vec<Effect<P>> {
        self.gathering = false;
        let mut effects: Vec<_> = self.commit().into_iter().collect();
        effects.extend(self.releases());
        effects
    }

    /// The next commit, if there is something to commit and none is under way.
    pub(super) fn settle(&mut self) -> Vec<Effect<P>> {
        let mut effects = Vec::new();
        if self.gathering {
            // It comes when the time is over.
        } else if self.is_worth_gathering() {
            self.gathering = true;
            effects.push(Effect::Gather);
        } else {
            effects.extend(self.commit());
        }
        effects.extend(self.releases());
        effects
    }

    /// Jobs that were read together end together: without a pause the first of them has a transaction to itself, and all
    /// others wait for it.
    fn is_worth_gathering(&self) -> bool {
        let in_a_hurry = self.draining || self.partitions.values().any(|owned| owned.revoking);
        !self.committing
            && !self.finished.is_empty()
            && self.finished_aside.is_empty()
            && !self.running.is_empty()
            && !in_a_hurry
    }

    fn commit(&mut self) -> Option<Effect<P>> {
        if self.committing || (self.finished.is_empty() && self.finished_aside.is_empty()) {
            return None;
        }
        let jobs = std::mem::take(&mut self.finished);
        for ((partition, offset), _, payload) in &jobs {
            self.in_commit.insert(*partition);
            if let Some(owned) = self.partitions.get_mut(partition) {
                let seen_until_ms = payload.ended().map(|(_, ended)| ended.expires_at_ms);
                let set_aside = Some(u64::MAX).filter(|_| payload.is_set_aside());
                // Nothing here proves a move: a successor makes it once more, and its job comes once more.
                owned.tracker.finish(*offset, seen_until_ms.or(set_aside).or(payload.moved_until_ms()));
            }
        }
        let aside = std::mem::take(&mut self.finished_aside);
        for ((partition, _), _, _) in &aside {
            self.in_commit.insert(*partition);
        }
        for number in &self.in_commit {
            if let Some(owned) = self.partitions.get_mut(number) {
                owned.serial += 1;
            }
        }
        let offsets = self.in_commit.iter().filter_map(|number| self.offset(*number)).collect();
        self.committing = true;
        Some(Effect::Commit(Batch { jobs, aside, offsets }))
    }

    fn offset(&self, number: u32) -> Option<CommitOffset> {
        let owned = self.partitions.get(&number)?;
        let mut progress = owned.tracker.proposal();
        progress.serial = owned.serial;
        progress.sides = owned.sides.nexts();
        let inherited = Some(owned.tracker.inherited().oldest_ms).filter(|_| !owned.sides_read);
        let oldest = owned.sides.oldest_ms().into_iter().chain(inherited).min();
        progress.oldest_ms = oldest.map_or(progress.oldest_ms, |ms| ms.min(progress.oldest_ms));
        let metadata = if is_planted(Bug::LostMetadata) { String::new() } else { progress.pack() };
        Some(CommitOffset { at: owned.at.clone(), epoch: owned.epoch, next: progress.next, metadata })
    }

    fn releases(&mut self) -> Vec<Effect<P>> {
        let is_taken = |owned: &&Partition| owned.revoking && !owned.announcing;
        // Nearly always: no rebalance is under way.
        if !self.partitions.values().any(|owned| is_taken(&owned)) {
            return Vec::new();
        }
        let ended = self.finished.iter().map(|(at, _, _)| at.0);
        let left = self.finished_aside.iter().map(|((partition, _), _, _)| *partition);
        let busy: BTreeSet<u32> = self.running.keys().map(|key| key.0).chain(ended).chain(left).collect();
        let is_in_commit = |number: &u32| self.committing && self.in_commit.contains(number);
        let settled: Vec<u32> = self
            .partitions
            .iter()
            .filter(|(number, owned)| is_taken(owned) && !busy.contains(number) && !is_in_commit(number))
            .map(|(number, _)| *number)
            .collect();
        for number in &settled {
            self.partitions.remove(number);
        }
        settled.into_iter().map(Effect::Release).collect()
    }
}

impl<P: Ends> Core<P> {
    /// The batch was committed.
    pub fn committed(&mut self, batch: &Batch<P>, now_ms: u64) -> Vec<Effect<P>> {
        self.committing = false;
        self.in_commit.clear();
        for ((partition, offset), epoch, payload) in &batch.jobs {
            let Some(owned) = self.partitions.get_mut(partition).filter(|owned| owned.epoch == *epoch) else {
                continue;
            };
            if payload.is_set_aside() {
                owned.same.set_aside(*offset);
                owned.leaving = owned.leaving.saturating_sub(1);
                continue;
            }
            let ended = payload.ended();
            for follower in owned.same.committed(*offset, ended) {
                // One that was cancelled or expired meanwhile is not there any more.
                if let (Some(mut job), Some((_, first))) = (owned.followers.remove(&follower), &ended) {
                    job.duplicate = Some(Duplicate::of(first));
                    self.room.push(now_ms, job);
                }
            }
        }
        for ((partition, at), epoch, payload) in &batch.aside {
            let Some(owned) = self.partitions.get_mut(partition).filter(|owned| owned.epoch == *epoch) else {
                continue;
            };
            let Some(entry) = owned.sides.taken(*at) else { continue };
            let Some(ended) = payload.ended() else {
                owned.returning += 1;
                continue;
            };
            for follower in owned.same.ended_aside(entry.identity.by_id, ended) {
                if let Some(mut job) = owned.followers.remove(&follower) {
                    job.duplicate = Some(Duplicate::of(&ended.1));
                    self.room.push(now_ms, job);
                }
            }
        }
        for offset in &batch.offsets {
            match self.partitions.get_mut(&offset.at.partition) {
                Some(owned) if owned.epoch == offset.epoch => owned.tracker.committed(offset.next),
                _ => {}
            }
        }
        let mut effects = self.go_on(now_ms);
        effects.extend(self.settle());
        effects
    }

    /// The batch was not committed; what of it is still ours is tried again with the next.
    pub fn not_committed(&mut self, batch: Batch<P>, now_ms: u64) -> Vec<Effect<P>> {
        self.committing = false;
        self.in_commit.clear();
        let partitions = &self.partitions;
        let ours = |(at, epoch, _): &(Key, u64, P)| partitions.get(&at.0).is_some_and(|owned| owned.epoch == *epoch);
        let mut again: Vec<_> = batch.jobs.into_iter().filter(ours).collect();
        again.append(&mut self.finished);
        self.finished = again;
        let ours = |((at, _), epoch, _): &((u32, SideKey), u64, P)| {
            partitions.get(at).is_some_and(|owned| owned.epoch == *epoch)
        };
        let mut again: Vec<_> = batch.aside.into_iter().filter(ours).collect();
        again.append(&mut self.finished_aside);
        self.finished_aside = again;
        let mut effects = self.go_on(now_ms);
        effects.extend(self.settle());
        effects
    }

    /// Whether a batch of unknown fate happened, by what the group has committed since.
    pub fn was_committed(batch: &Batch<P>, committed: &HashMap<u32, Committed>) -> bool {
        // No two commits of a partition have the same metadata, and none of ours came after this one.
        let is_ours = |offset: &CommitOffset| {
            let found = committed.get(&offset.at.partition);
            found.is_some_and(|found| found.next == offset.next && found.metadata == offset.metadata)
        };
        if !batch.aside.is_empty() {
            return batch.offsets.iter().all(is_ours);
        }
        batch.jobs.iter().all(|((partition, offset), _, _)| {
            committed.get(partition).is_some_and(|found| Progress::unpack(found).is_finished(*offset))
        })
    }
}
