//! Backends that come to the table and go from it while nodes hold slots. Pure.

use std::sync::Arc;

use super::holder::Held;
use super::{BackendSlots, LeaseTable, Offering};

impl BackendSlots {
    /// Whether its slots are in the fair plan.
    pub(super) fn is_usable(&self) -> bool {
        !self.closed && matches!(self.offering, Offering::Usable(_))
    }
}

impl LeaseTable {
    /// Puts a backend with so many slots in the table, or changes the number of its slots.
    pub fn list(&mut self, backend: &Arc<str>, slots: u32) {
        match self.place_of(backend) {
            Ok(at) => self.backends[at].slots = slots,
            Err(at) => {
                let name = backend.clone();
                self.backends.insert(at, BackendSlots { name, slots, offering: Offering::Unknown, closed: false });
                for holder in self.holders.values_mut() {
                    holder.held.insert(at, Held::default());
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
        let is_free = |held: &Held| held.told && held.ceiling.slots() == 0 && held.in_use == 0;
        self.accrued_ms >= self.grants_from_ms && self.holders.values().all(|holder| is_free(&holder.held[at]))
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
        }
        true
    }

    /// Where the backend is, or where it would be.
    fn place_of(&self, backend: &str) -> Result<usize, usize> {
        self.backends.binary_search_by(|known| (*known.name).cmp(backend))
    }
}
