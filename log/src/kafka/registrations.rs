//! Which members are registered, and which of them are dead: what the records of the cluster topic say. No I/O.

use std::collections::{BTreeSet, HashMap};

use relay_protocol::record::MemberRegistration;

/// Members that are fenced at a time; further ones wait for the next look.
pub(super) const FENCED_AT_A_TIME_MAX: usize = 16;

/// The newest record of each key, in the order of the topic.
#[derive(Debug, Default)]
pub(super) struct Registrations {
    lives: HashMap<String, (u64, MemberRegistration)>,
}

/// What a look at one group found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// The newest life of each id whose holder is no member of the group, the latest registered first; at most
    /// [`FENCED_AT_A_TIME_MAX`].
    pub(super) dead: Vec<MemberRegistration>,
    /// Lives whose id has passed to a later one: these have nothing open.
    pub(super) superseded: Vec<MemberRegistration>,
}

impl Registrations {
    /// Takes the record at `offset`; records of others in the topic, and those that say nothing readable, change nothing.
    pub(super) fn take(&mut self, offset: u64, key: Option<&[u8]>, value: Option<&[u8]>) {
        let Some(key) = key.filter(|key| MemberRegistration::is_key(key)) else { return };
        let Ok(key) = std::str::from_utf8(key) else { return };
        match value.map(serde_json::from_slice::<MemberRegistration>) {
            None => drop(self.lives.remove(key)),
            Some(Ok(member)) if member.key() == key => drop(self.lives.insert(key.to_owned(), (offset, member))),
            Some(_) => tracing::warn!(key, offset, "a registration cannot be read and is ignored"),
        }
    }

    /// Looks at `group`, whose members have the names `live`.
    pub(super) fn look(&self, group: &str, live: &BTreeSet<String>) -> Found {
        let mut newest: HashMap<&str, (u64, &MemberRegistration)> = HashMap::new();
        let mut found = Found::default();
        for (offset, member) in self.lives.values().filter(|(_, member)| member.group == group) {
            let held = newest.entry(&member.transactional_id).or_insert((*offset, member));
            if held.0 < *offset {
                found.superseded.push(held.1.clone());
                *held = (*offset, member);
            } else if held.0 > *offset {
                found.superseded.push(member.clone());
            }
        }
        let mut dead: Vec<_> = newest.into_values().filter(|(_, member)| !live.contains(&member.client_id)).collect();
        dead.sort_unstable_by_key(|(offset, _)| std::cmp::Reverse(*offset));
        found.dead = dead.into_iter().take(FENCED_AT_A_TIME_MAX).map(|(_, member)| member.clone()).collect();
        found
    }
}

#[cfg(test)]
#[path = "registrations_test.rs"]
mod tests;
