//! Which backends DNS names lead to. Pure: time comes in as milliseconds of a monotonic clock.
//!
//! Every address of a name is one backend. An address that a name no longer leads to is gone at once; but an answer that
//! may be a fault of the servers (none at all, or no address) does not take anything away until it has been so for long.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use relay_protocol::cluster::BackendNameInfo;

use crate::backends::entry::{BackendEntry, DnsEntry, Place, SLOTS_TOTAL_MAX};
use crate::backends::roster::{BACKENDS_MAX, Found};

/// What a look-up of a name's addresses of one family came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// These.
    Found(BTreeSet<IpAddr>),
    /// The servers say that there is none.
    Nothing,
    /// No usable answer.
    Failed(String),
}

/// A name's addresses of one family.
#[derive(Debug, Default)]
struct Addresses {
    known: BTreeSet<IpAddr>,
    /// When an answer was believed last.
    believed_ms: u64,
}

impl Addresses {
    /// Takes an answer; `is_known` says whether the name leads anywhere.
    fn answered(&mut self, now_ms: u64, answer: &Answer, is_known: bool, keep_ms: u64) {
        match answer {
            Answer::Found(found) => (self.known, self.believed_ms) = (found.clone(), now_ms),
            Answer::Nothing if is_known => (self.known, self.believed_ms) = (BTreeSet::new(), now_ms),
            Answer::Nothing | Answer::Failed(_) if now_ms.saturating_sub(self.believed_ms) >= keep_ms => {
                self.known.clear();
            }
            Answer::Nothing | Answer::Failed(_) => {}
        }
    }
}

/// An answer without the addresses that are no host's: sinkholes give such ones.
fn hosts_of(answer: Answer) -> Answer {
    let Answer::Found(mut found) = answer else { return answer };
    found.retain(|address| !address.is_unspecified() && !address.is_multicast());
    if found.is_empty() { Answer::Nothing } else { Answer::Found(found) }
}

#[derive(Debug)]
struct Name {
    entry: DnsEntry,
    v4: Addresses,
    v6: Addresses,
    problem: Option<String>,
}

/// The names and what is known of them.
#[derive(Debug)]
pub struct Discovery {
    names: Vec<Name>,
    /// Where the backends of the settings listen, and their names.
    taken: BTreeMap<Place, String>,
    slots_left: u32,
    backends_left: usize,
    keep_ms: u64,
}

impl Discovery {
    /// Nothing is known of `entries` yet; `statics` come before them. What was known is kept for `keep_ms` without an answer.
    pub fn new(entries: Vec<DnsEntry>, statics: &[BackendEntry], keep_ms: u64) -> Self {
        let name = |entry| Name { entry, v4: Addresses::default(), v6: Addresses::default(), problem: None };
        let slots: u32 = statics.iter().map(|entry| entry.slots).sum();
        Self {
            names: entries.into_iter().map(name).collect(),
            taken: statics.iter().filter_map(|entry| Some((entry.place()?, entry.url.to_string()))).collect(),
            slots_left: SLOTS_TOTAL_MAX.saturating_sub(slots),
            backends_left: BACKENDS_MAX.saturating_sub(statics.len()),
            keep_ms,
        }
    }

    /// The names, in the settings' order.
    pub fn entries(&self) -> impl Iterator<Item = &DnsEntry> {
        self.names.iter().map(|name| &name.entry)
    }

    /// Takes the answers about the `at`-th name. A family that is not asked for has [`Answer::Nothing`].
    pub fn answered(&mut self, now_ms: u64, at: usize, (v4, v6): (Answer, Answer)) {
        let (v4, v6, keep_ms) = (hosts_of(v4), hosts_of(v6), self.keep_ms);
        let Some(name) = self.names.get_mut(at) else { return };
        let is_known = matches!(v4, Answer::Found(_)) || matches!(v6, Answer::Found(_));
        name.v4.answered(now_ms, &v4, is_known, keep_ms);
        name.v6.answered(now_ms, &v6, is_known, keep_ms);
        let failure = [("A", &v4), ("AAAA", &v6)].into_iter().find_map(|(what, answer)| match answer {
            Answer::Failed(reason) => Some(format!("looking up its {what} records failed ({reason})")),
            _ => None,
        });
        let problem = failure.or_else(|| (!is_known).then(|| "it has no address".to_owned()));
        let is_kept = [(&name.v4, &v4), (&name.v6, &v6)]
            .iter()
            .any(|(addresses, answer)| !matches!(answer, Answer::Found(_)) && !addresses.known.is_empty());
        name.problem = match problem {
            Some(problem) if is_kept => Some(format!("{problem}; what it led to is kept for {keep_ms} ms")),
            other => other,
        };
    }

    /// What all names lead to. An address that is listed before counts there; what is beyond the limits is left out.
    pub fn found(&self) -> Found {
        let mut taken = self.taken.clone();
        let (mut slots_left, mut backends_left) = (self.slots_left, self.backends_left);
        let mut found = Found::default();
        for name in &self.names {
            let (mut count, mut left_out, mut twice) = (0, 0, Vec::new());
            for address in name.v4.known.union(&name.v6.known) {
                let (entry, place) = name.entry.at(address.to_canonical());
                if let Some(winner) = taken.get(&place) {
                    twice.push(format!("{} counts as {winner}'s", entry.url));
                } else if backends_left == 0 || slots_left < entry.slots {
                    left_out += 1;
                } else {
                    taken.insert(place, name.entry.url.to_string());
                    (backends_left, slots_left, count) = (backends_left - 1, slots_left - entry.slots, count + 1);
                    found.backends.push(entry);
                }
            }
            found.names.push(name.info(count, left_out, &twice));
        }
        found
    }
}

impl Name {
    fn info(&self, backends: u32, left_out: u32, twice: &[String]) -> BackendNameInfo {
        let more = twice.len().saturating_sub(1);
        let twice = twice.first().map(|first| match more {
            0 => format!("{first}, which is listed before"),
            more => format!("{first}, which is listed before, and {more} more"),
        });
        let left_out = (left_out > 0).then(|| {
            format!(
                "{left_out} addresses are left out: at most {BACKENDS_MAX} backends and {SLOTS_TOTAL_MAX} slots in all"
            )
        });
        let problems: Vec<String> = [self.problem.clone(), twice, left_out].into_iter().flatten().collect();
        let problem = (!problems.is_empty()).then(|| problems.join("; "));
        BackendNameInfo { url: self.entry.url.to_string(), backends, problem }
    }
}

#[cfg(test)]
#[path = "core_test.rs"]
mod tests;
