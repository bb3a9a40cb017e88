//! Backends that come to the table and go from it while nodes hold slots. Pure.

use std::sync::Arc;

use super::holder::{Held, Holder};
use super::{BackendSlots, LeaseTable, Offering};

impl BackendSlots {
    /// One of which nothing is known, that `holders` may use for all we know.
    pub(super) fn new(name: Arc<str>, slots: u32, holders: usize) -> Self {
        Self { name, slots, offering: Offering::Unknown, closed: false, taken: 0, used: 0, silent: holders }
    }

    /// A holder's part counts.
    pub(super) fn count(&mut self, held: &Held) {
        self.taken += u64::from(held.ceiling.slots());
        self.used += u64::from(held.in_use);
        self.silent += usize::from(!held.told);
    }

    /// A holder's part, as it was when it was counted, counts no more.
    pub(super) fn discount(&mut self, held: &Held) {
        self.taken -= u64::from(held.ceiling.slots());
        self.used -= u64::from(held.in_use);
        self.silent -= usize::from(!held.told);
    }
}

impl LeaseTable {
    /// Puts a backend with so many slots in the table, or changes the number of its slots.
    pub fn list(&mut self, backend: &Arc<str>, slots: u32) {
        match self.place_of(backend) {
            Ok(at) => self.backends[at].slots = slots,
            Err(at) => {
                self.backends.insert(at, BackendSlots::new(backend.clone(), slots, self.holders.len()));
                for holder in self.holders.values_mut() {
                    holder.held.insert(at, Held::default());
                    holder.sum_up();
                }
            }
        }
    }

    /// Asks all slots of a backend back (`true`), or lets it have requests again.
    pub fn close(&mut self, backend: &str, closed: bool) {
        if let Ok(at) = self.place_of(backend) {
            self.backends[at].closed = closed;
        }
    }

    /// Whether it is certain that nobody has a slot of the backend.
    pub fn is_idle(&self, backend: &str) -> bool {
        let Ok(at) = self.place_of(backend) else { return true };
        let known = &self.backends[at];
        self.accrued_ms >= self.grants_from_ms && known.silent == 0 && known.taken == 0 && known.used == 0
    }

    /// Takes a backend from the table, if it is idle; whether it is gone.
    pub fn remove(&mut self, backend: &str) -> bool {
        let Ok(at) = self.place_of(backend) else { return true };
        if !self.is_idle(backend) {
            return false;
        }
        self.backends.remove(at);
        for holder in self.holders.values_mut() {
            holder.held.remove(at);
            holder.sum_up();
        }
        true
    }

    /// Where the backend is, or where it would be.
    pub(super) fn place_of(&self, backend: &str) -> Result<usize, usize> {
        self.backends.binary_search_by(|known| (*known.name).cmp(backend))
    }
}

/// What `holder` has of each backend counts, or counts no more.
pub(super) fn each(backends: &mut [BackendSlots], holder: &Holder, count: fn(&mut BackendSlots, &Held)) {
    backends.iter_mut().zip(&holder.held).for_each(|(backend, held)| count(backend, held));
}
