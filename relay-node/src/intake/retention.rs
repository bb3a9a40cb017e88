//! What an owner may delete of its partitions: the records below what is committed. No I/O.

use std::collections::HashMap;

#[derive(Debug, Clone, Copy, Default)]
struct Place {
    /// Nothing below it is needed.
    committed: u64,
    /// Nothing below it is there.
    deleted: u64,
}

/// The partitions of one lane that are this node's.
#[derive(Debug, Default)]
pub struct Retention {
    places: HashMap<u32, Place>,
    deleting: bool,
}

impl Retention {
    /// A partition is this node's, or a commit for it succeeded: `next` is committed.
    pub fn committed(&mut self, partition: u32, next: u64) {
        let place = self.places.entry(partition).or_default();
        place.committed = place.committed.max(next);
    }

    /// A partition is somebody else's.
    pub fn released(&mut self, partition: u32) {
        self.places.remove(&partition);
    }

    /// What to delete now: partitions, and the offset below which. Empty while the last answer's deletion is under way;
    /// [`deleted`](Self::deleted) ends it.
    pub fn due(&mut self) -> Vec<(u32, u64)> {
        if self.deleting {
            return Vec::new();
        }
        let more = self.places.iter().filter(|(_, place)| place.committed > place.deleted);
        let due: Vec<_> = more.map(|(partition, place)| (*partition, place.committed)).collect();
        self.deleting = !due.is_empty();
        due
    }

    /// The deletion has ended, these succeeded; returns how many offsets are newly free.
    pub fn deleted(&mut self, done: &[(u32, u64)]) -> u64 {
        self.deleting = false;
        let mut freed = 0;
        for (partition, below) in done {
            if let Some(place) = self.places.get_mut(partition) {
                // The first deletion after an assignment may find that there is nothing left.
                freed += if place.deleted == 0 { 0 } else { below.saturating_sub(place.deleted) };
                place.deleted = place.deleted.max(*below);
            }
        }
        freed
    }
}
