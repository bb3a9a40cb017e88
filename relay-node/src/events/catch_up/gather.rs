//! Takes the events of wanted jobs out of one scan of their partition, and says of each whether what its watcher lacks is all
//! there. Pure.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use relay_log::port::LogRecord;
use relay_protocol::event::seq;
use relay_protocol::{EventKind, JobId};

use super::super::route::{self, RoutedEvent};

/// Revocable events kept of one job's past; the newest win.
const PAST_PARTIALS_MAX: usize = 4_096;
/// Seq of the receipt. A gateway writes it beside the owner's events, so that it says nothing about where they lie.
const ACCEPTED_SEQ: u64 = 1;

/// Whose past is wanted, and which part.
#[derive(Debug, Clone)]
pub struct Want {
    /// Which job.
    pub job_id: JobId,
    /// Whose; others' events are passed over.
    pub tenant: Arc<str>,
    /// The last event that the watcher has; 0 if none.
    pub after_seq: u64,
    /// Whether `partial` and `progress` are wanted too.
    pub partials: bool,
    /// Where it begins.
    pub from: From,
}

/// Where a past begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// At the time in the job's id.
    Made,
    /// At this time, in milliseconds since the Unix epoch: what is wanted was written then or later.
    Time(u64),
    /// At this offset of the durable events: what is missing begins there.
    Offset(u64),
    /// At these offsets of the durable and of the revocable events, if it shows there that nothing is missing.
    Hint(u64, u64),
}

/// The past of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Its events that are left, sorted by seq; with those that the watcher has already.
    pub events: Vec<RoutedEvent>,
    /// Events that the watcher lacks may have been deleted.
    pub may_lack: bool,
}

impl Found {
    /// The terminal event.
    pub fn end(&self) -> Option<&RoutedEvent> {
        self.events.iter().find(|event| event.kind.is_terminal())
    }
}

/// What a scan is to one who wanted it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The past.
    Found(Found),
    /// There was no room for it: scan again.
    Again,
    /// The hint was of no use: scan from the job's beginning.
    Widen,
}

/// The wants of one scan.
#[derive(Debug)]
pub struct Gather {
    by_job: HashMap<JobId, Vec<usize>>,
    slots: Vec<Slot>,
    /// Without a terminal event so far.
    open: usize,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Slot {
    want: Want,
    durable: Vec<RoutedEvent>,
    revocable: VecDeque<RoutedEvent>,
    bytes: usize,
    ended: bool,
    put_back: bool,
}

impl Gather {
    /// Of all these, as far as their events fit `bytes_max`; one of them at least is served.
    pub fn new(wants: Vec<Want>, bytes_max: usize) -> Self {
        let mut by_job: HashMap<JobId, Vec<usize>> = HashMap::new();
        for (index, want) in wants.iter().enumerate() {
            by_job.entry(want.job_id).or_default().push(index);
        }
        let slot = |want| Slot {
            want,
            durable: Vec::new(),
            revocable: VecDeque::new(),
            bytes: 0,
            ended: false,
            put_back: false,
        };
        let slots: Vec<_> = wants.into_iter().map(slot).collect();
        Self { by_job, open: slots.len(), slots, bytes: 0, bytes_max }
    }

    /// Whether every job has its terminal event: no durable event follows.
    pub fn have_all_ended(&self) -> bool {
        self.open == 0
    }

    /// Takes a record of the scan.
    pub fn on(&mut self, record: &LogRecord) {
        let Some(job_id) = route::job_of(record) else { return };
        let Some(wanted) = self.by_job.get(&job_id) else { return };
        let Some(event) = route::routed(record, job_id) else { return };
        for index in wanted {
            let Some(slot) = self.slots.get_mut(*index) else { continue };
            if slot.put_back || !route::belongs_to(record, &slot.want.tenant) {
                continue;
            }
            let before = slot.bytes;
            if slot.take(event.clone()) {
                self.open -= 1;
            }
            self.bytes = self.bytes + slot.bytes - before;
        }
        while self.bytes > self.bytes_max && self.put_back_one() {}
    }

    /// Drops what the last of several has; false if only one is left.
    fn put_back_one(&mut self) -> bool {
        let mut holders = self.slots.iter_mut().filter(|slot| slot.bytes > 0);
        let (Some(_), Some(last)) = (holders.next(), holders.next_back()) else { return false };
        self.bytes -= last.bytes;
        if !last.ended {
            self.open -= 1;
        }
        (last.bytes, last.put_back) = (0, true);
        (last.durable, last.revocable) = Default::default();
        true
    }

    /// Whether [`Gather::finish`] needs to know what was deleted.
    pub fn is_in_doubt(&self) -> bool {
        self.slots.iter().any(Slot::is_in_doubt)
    }

    /// What the scan is to each, in the order of the wants. `deleted` says whether a job may have begun before the partition's
    /// first record.
    pub fn finish(self, deleted: impl Fn(&Want) -> bool) -> Vec<Outcome> {
        self.slots.into_iter().map(|slot| slot.outcome(&deleted)).collect()
    }
}

impl Slot {
    /// Whether the job has ended by this event.
    fn take(&mut self, event: RoutedEvent) -> bool {
        let bytes = event.json.len();
        if event.is_revocable() {
            if !self.want.partials || event.seq <= self.want.after_seq {
                return false;
            }
            self.bytes += bytes;
            self.revocable.push_back(event);
            if self.revocable.len() > PAST_PARTIALS_MAX
                && let Some(oldest) = self.revocable.pop_front()
            {
                self.bytes -= oldest.json.len();
            }
            return false;
        }
        let ends = event.kind.is_terminal() && !self.ended;
        self.ended |= ends;
        self.bytes += bytes;
        self.durable.push(event);
        ends
    }

    /// Whether nothing that comes after `after_seq` can lie before these events, which are the end of the job's. An owner writes them
    /// by rising seq, so one that the watcher has shows that everything behind it is here, and so does the one that nothing but
    /// the receipt comes before.
    fn shows_all(&self) -> bool {
        let owners = self.durable.iter().filter(|event| event.seq > ACCEPTED_SEQ);
        owners.min_by_key(|event| event.seq).is_some_and(|first| {
            let is_first = (first.kind == EventKind::Started && first.seq == seq(1, 1)) || first.attempt() == 0;
            is_first || first.seq <= self.want.after_seq
        })
    }

    /// Whether it counts what was deleted before the partition's first record.
    fn is_in_doubt(&self) -> bool {
        match self.want.from {
            // What is missing begins at that offset, and the scan did too.
            From::Offset(_) | From::Hint(..) => false,
            _ => !self.put_back && !self.shows_all(),
        }
    }

    fn outcome(self, deleted: &impl Fn(&Want) -> bool) -> Outcome {
        if self.put_back {
            return Outcome::Again;
        }
        if matches!(self.want.from, From::Hint(..)) && !self.shows_all() {
            return Outcome::Widen;
        }
        let may_lack = self.is_in_doubt() && deleted(&self.want);
        let mut events = self.durable;
        events.extend(self.revocable);
        // A node that was taken for dead may have told of a later attempt than the one that ended the job.
        events.sort_by_key(|event| (event.kind.is_terminal(), event.seq));
        Outcome::Found(Found { events, may_lack })
    }
}

#[cfg(test)]
#[path = "gather_test.rs"]
mod tests;
