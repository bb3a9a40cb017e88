//! The end of a job that ran at a node whose partition is another's now: how that node tells it, and what its owner makes of
//! it. The owner commits what the node would have committed.

use relay_protocol::EventKind;
use relay_protocol::hand_over::KeptEnd;

use super::aside::{Aside, SIDES};
use super::delivered::Delivered;
use super::duplicate;
use super::outcome::{self, Ended};
use super::run::{Finish, Leaving};
use crate::events::write::EventRecords;

/// What this life of a node (name, incarnation) tells of the end of `attempt`; `None` if it cannot be told: the job must be run
/// anew.
pub fn end_of(job: &Delivered, attempt: u32, finish: &Finish, life: (&str, u64)) -> Option<KeptEnd> {
    let (event, failures, tier, last_partial_seq) = match finish {
        Finish::Ended(ended) => (outcome::terminal(job, ended), ended.failures.clone(), None, None),
        Finish::SetAside(Leaving { side, aside, told }) => {
            let event = serde_json::from_slice(told.as_ref()?.value.as_deref()?).ok()?;
            let tier = u32::try_from(*side).ok().filter(|tier| *tier > 0)?;
            (event, aside.failures.clone(), Some(tier), aside.last_partial_seq)
        }
    };
    let (node, incarnation, offset) = (life.0.to_owned(), life.1, job.place.offset);
    Some(KeptEnd { node, incarnation, offset, attempt, event, failures, tier, last_partial_seq })
}

/// What the owner of `job` makes of its end elsewhere; `None` if it says too little: the job must be run anew.
pub fn finish_of(job: &Delivered, end: KeptEnd, events: &EventRecords) -> Option<Finish> {
    let KeptEnd { attempt, event, failures, tier, last_partial_seq, .. } = end;
    if event.job_id != job.job_id || event.attempt != attempt {
        return None;
    }
    if event.event == EventKind::Retrying {
        let side = tier.and_then(|tier| usize::try_from(tier).ok()).filter(|side| (1..SIDES).contains(side))?;
        let untouched = Aside::untouched(job, event.retry_at?);
        let aside = Aside { attempts: attempt, failures, last_partial_seq, ..untouched };
        let told = Some(events.record(&job.job.tenant, &event));
        return Some(Finish::SetAside(Leaving { side, aside, told }));
    }
    let (at_ms, hops) = (event.at, event.hops.clone());
    let (last_partial_seq, duplicate_of) = (event.last_partial_seq, event.duplicate_of);
    let outcome = duplicate::outcome(event)?;
    let told_here = false;
    Some(Finish::Ended(Ended { outcome, attempt, failures, last_partial_seq, hops, duplicate_of, told_here, at_ms }))
}
