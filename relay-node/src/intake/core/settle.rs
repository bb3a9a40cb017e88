//! When a lane commits and what goes into it, and which partitions are settled enough to be given up.

use std::collections::HashSet;

use relay_log::port::CommitOffset;

use super::{Batch, Core, Effect};

impl<P> Core<P> {
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
        for ((partition, offset), _, _) in &jobs {
            self.in_commit.insert(*partition);
            if let Some(owned) = self.partitions.get_mut(partition) {
                owned.tracker.finish(*offset);
            }
        }
        let aside = std::mem::take(&mut self.finished_aside);
        for ((partition, at), _, _) in &aside {
            self.in_commit.insert(*partition);
            if let Some(owned) = self.partitions.get_mut(partition) {
                owned.sides.finish(*at);
            }
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
        Some(CommitOffset { at: owned.at.clone(), epoch: owned.epoch, next: progress.next, metadata: progress.pack() })
    }

    fn releases(&mut self) -> Vec<Effect<P>> {
        let ended = self.finished.iter().map(|(at, _, _)| at.0);
        let left = self.finished_aside.iter().map(|((partition, _), _, _)| *partition);
        let busy: HashSet<u32> = self.running.keys().map(|key| key.0).chain(ended).chain(left).collect();
        let in_commit = if self.committing { self.in_commit.clone() } else { HashSet::new() };
        let settled: Vec<u32> = self
            .partitions
            .iter()
            .filter(|(number, owned)| owned.revoking && !busy.contains(number) && !in_commit.contains(number))
            .map(|(number, _)| *number)
            .collect();
        for number in &settled {
            self.partitions.remove(number);
        }
        settled.into_iter().map(Effect::Release).collect()
    }
}
