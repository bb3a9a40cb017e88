//! What must be known of a partition before its first job runs, and which jobs are done again because of it.

use super::{Core, Effect, Ends, Partition};
use crate::intake::dedup::DedupIndex;
use crate::intake::same::Identities;

impl<P: Ends> Core<P> {
    /// Offsets of a partition whose ends must be looked for in the dedup topic.
    pub fn doubted(&self, partition: u32) -> Vec<u64> {
        let owned = self.partitions.get(&partition);
        owned.map(|owned| owned.tracker.doubted().iter().copied().collect()).unwrap_or_default()
    }

    /// Below which offset everything is done beyond doubt that earlier owners finished, if nothing of it is in doubt.
    pub fn proven_below(&self, partition: u32) -> Option<u64> {
        let owned = self.partitions.get(&partition).filter(|owned| owned.tracker.is_proven())?;
        Some(owned.tracker.inherited().next)
    }

    /// The control topic of a partition was read to its end.
    pub fn control_read(&mut self, partition: u32, now_ms: u64) -> Vec<Effect<P>> {
        let Some(owned) = self.partitions.get_mut(&partition) else { return Vec::new() };
        owned.control_read = true;
        owned.remotes.read();
        self.admit_held(partition, now_ms)
    }

    /// The dedup topic of a partition was read to its end, with what it says; `proven` are the [`Core::doubted`] offsets that it
    /// has an end of.
    pub fn dedup_read(&mut self, partition: u32, index: DedupIndex, proven: &[u64], now_ms: u64) -> Vec<Effect<P>> {
        let Some(owned) = self.partitions.get_mut(&partition) else { return Vec::new() };
        owned.dedup_read = true;
        owned.same = Identities::new(index);
        proven.iter().for_each(|offset| owned.tracker.prove(*offset));
        self.admit_held(partition, now_ms)
    }

    /// The sides of a partition were read to their ends.
    pub fn sides_read(&mut self, partition: u32, now_ms: u64) -> Vec<Effect<P>> {
        let Some(owned) = self.partitions.get_mut(&partition) else { return Vec::new() };
        owned.sides_read = true;
        self.admit_held(partition, now_ms)
    }

    /// Once all was read that its jobs must know of, they may run; if some must be done again, those first, in the order of the lane:
    /// another record of the same job may lie behind one of them.
    fn admit_held(&mut self, partition: u32, now_ms: u64) -> Vec<Effect<P>> {
        let Some(owned) = self.partitions.get_mut(&partition) else { return Vec::new() };
        let mut effects = Vec::new();
        if owned.control_read && owned.dedup_read && owned.sides_read && !owned.rereading {
            let Partition { sides, same, key_holders, tracker, .. } = owned;
            sides.entries().for_each(|entry| same.is_aside(&entry.identity));
            let again = tracker.reopen();
            for (offset, job) in std::mem::take(key_holders) {
                if !tracker.is_done(offset) {
                    same.has_begun(offset, &job, now_ms);
                }
            }
            if again.is_empty() {
                self.admit_all(partition, now_ms, &mut effects);
            } else {
                owned.rereading = true;
                effects.push(Effect::Reread(partition, owned.epoch, again));
            }
        }
        effects.extend(self.go_on(now_ms));
        effects
    }

    /// What [`Effect::Reread`] asked for was delivered, or is gone.
    pub fn reread(&mut self, partition: u32, now_ms: u64) -> Vec<Effect<P>> {
        let Some(owned) = self.partitions.get_mut(&partition).filter(|owned| owned.rereading) else {
            return Vec::new();
        };
        owned.rereading = false;
        if let Some(held) = &mut owned.held {
            held.make_contiguous().sort_by_key(|job| job.place.offset);
        }
        let mut effects = Vec::new();
        self.admit_all(partition, now_ms, &mut effects);
        effects.extend(self.go_on(now_ms));
        effects
    }

    fn admit_all(&mut self, partition: u32, now_ms: u64, effects: &mut Vec<Effect<P>>) {
        let held = self.partitions.get_mut(&partition).and_then(|owned| owned.held.take());
        for job in held.unwrap_or_default() {
            self.admit(job, now_ms, effects);
        }
    }

    /// A record that [`Effect::Reread`] asked for is not there any more.
    pub fn is_gone(&mut self, partition: u32, offset: u64) {
        if let Some(owned) = self.partitions.get_mut(&partition) {
            owned.tracker.is_gone(offset);
        }
    }
}
