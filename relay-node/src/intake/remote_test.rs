//! Jobs that run elsewhere, beside a plain model of what the control topic said: nobody is run anew whose newest attempt is
//! reported in time, everybody is whose is not, and of the ends only the newest attempt's first counts.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::remote::{Admitted, Remotes};

const TIMEOUT_MS: u64 = 1_000;
const OFFSETS: u64 = 4;
const ATTEMPTS: u32 = 3;

#[derive(Debug, Clone)]
enum Step {
    /// A node reported so long ago that it runs an attempt.
    Kept(u64, u32, u64),
    /// An attempt ends; every end is another one.
    Ended(u64, u32),
    GivenUp(u64, u32),
    /// All that was written before was read.
    Read,
    /// The job is delivered; the newest attempt that began, whether it is cancelled, and after how long its deadline is.
    Admit(u64, u32, bool, Option<u64>),
    Cancel(u64),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let (offset, attempt) = (0..OFFSETS, 1..=ATTEMPTS);
    prop_oneof![
        6 => (offset.clone(), attempt.clone(), 0..TIMEOUT_MS * 2)
            .prop_map(|(offset, attempt, ago)| Step::Kept(offset, attempt, ago)),
        2 => (offset.clone(), attempt.clone()).prop_map(|(offset, attempt)| Step::Ended(offset, attempt)),
        1 => (offset.clone(), attempt.clone()).prop_map(|(offset, attempt)| Step::GivenUp(offset, attempt)),
        1 => Just(Step::Read),
        4 => (offset.clone(), attempt, prop::bool::weighted(0.2), prop::option::of(0..TIMEOUT_MS * 2))
            .prop_map(|(offset, begun, cancelled, deadline)| Step::Admit(offset, begun, cancelled, deadline)),
        1 => offset.prop_map(Step::Cancel),
        3 => (1..TIMEOUT_MS).prop_map(Step::Wait),
    ]
}

/// All that was said of one job, in its order.
#[derive(Debug, Default, Clone)]
struct Said {
    /// Attempt, when it was last heard of, and how it ended.
    newest: Option<(u32, u64, Option<u32>)>,
    /// It waits here, and since when it must end.
    waits: Option<Option<u64>>,
    admitted: bool,
}

#[derive(Default)]
struct Model {
    jobs: BTreeMap<u64, Said>,
    is_read: bool,
}

impl Model {
    fn kept(&mut self, offset: u64, attempt: u32, ago: u64, now: u64) {
        let said = self.jobs.entry(offset).or_default();
        let heard = if self.is_read { now } else { now - ago.min(TIMEOUT_MS / 2) };
        match said.newest {
            Some((known, before, _)) if known == attempt => said.newest.as_mut().unwrap().1 = before.max(heard),
            // A job that waits here waits for one attempt alone, and one that does not is nobody else's.
            _ if said.admitted => {}
            Some((known, ..)) if known > attempt => {}
            None if self.is_read => {}
            _ => said.newest = Some((attempt, heard, None)),
        }
    }

    fn is_silent(said: &Said, now: u64) -> bool {
        let (_, heard, _) = said.newest.unwrap();
        let must_end = said.waits.unwrap();
        heard + TIMEOUT_MS <= now || must_end.is_some_and(|at| at + TIMEOUT_MS <= now)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    #[test]
    fn as_the_model(steps in prop::collection::vec(step(), 1..80)) {
        let (mut remotes, mut model) = (Remotes::new(TIMEOUT_MS), Model::default());
        let (mut now, mut ends) = (10 * TIMEOUT_MS, 0);
        for step in steps {
            match step {
                Step::Kept(offset, attempt, ago) => {
                    remotes.kept(offset, attempt, now.saturating_sub(ago), now);
                    model.kept(offset, attempt, ago, now);
                }
                Step::Ended(offset, attempt) => {
                    ends += 1;
                    let said = model.jobs.entry(offset).or_default();
                    let counts = said.newest.is_some_and(|(known, ..)| known == attempt);
                    let expected = (counts && said.waits.is_some()).then_some((offset, ends));
                    prop_assert_eq!(remotes.ended(offset, attempt, ends), expected);
                    if expected.is_some() {
                        said.waits = None;
                        said.newest = None;
                    } else if counts {
                        said.newest.as_mut().unwrap().2.get_or_insert(ends);
                    }
                }
                Step::GivenUp(offset, attempt) => {
                    let said = model.jobs.entry(offset).or_default();
                    let counts = said.newest.is_some_and(|(known, _, end)| known == attempt && end.is_none());
                    let expected = (counts && said.waits.is_some()).then_some(offset);
                    prop_assert_eq!(remotes.given_up(offset, attempt), expected);
                    if counts {
                        said.waits = None;
                        said.newest = None;
                    }
                }
                Step::Read => {
                    remotes.read();
                    model.is_read = true;
                }
                Step::Admit(offset, begun, cancelled, deadline) => {
                    let said = model.jobs.entry(offset).or_default();
                    if said.admitted {
                        continue;
                    }
                    said.admitted = true;
                    let deadline = deadline.map(|after| now + after);
                    let admitted = remotes.admit(offset, offset, begun, deadline, cancelled, now);
                    let newest = said.newest.filter(|(attempt, ..)| *attempt >= begun);
                    let must_end = deadline.into_iter().chain(cancelled.then_some(now)).min();
                    match newest {
                        Some((_, _, Some(end))) => prop_assert_eq!(admitted, Admitted::Ended(offset, end)),
                        Some((_, heard, None)) if heard + TIMEOUT_MS > now => {
                            prop_assert_eq!(admitted, Admitted::Elsewhere);
                            said.waits = Some(must_end);
                        }
                        _ => prop_assert_eq!(admitted, Admitted::Here(offset)),
                    }
                    if said.waits.is_none() {
                        said.newest = None;
                    }
                }
                Step::Cancel(offset) => {
                    remotes.hurry(now, |job| *job == offset);
                    if let Some(Some(waits)) = model.jobs.get_mut(&offset).map(|said| said.waits.as_mut()) {
                        *waits = Some(waits.map_or(now, |earlier| earlier.min(now)));
                    }
                }
                Step::Wait(ms) => now += ms,
            }
            let mut silent = Vec::new();
            for (offset, said) in &mut model.jobs {
                if said.waits.is_some() && Model::is_silent(said, now) {
                    silent.push(*offset);
                    said.waits = None;
                    said.newest = None;
                }
            }
            prop_assert_eq!(remotes.take_silent(now), silent);
            let waiting = model.jobs.values().filter(|said| said.waits.is_some()).count();
            prop_assert_eq!(remotes.len(), waiting);
        }
    }
}

#[test]
fn a_partition_that_is_taken_forgets_all() {
    let mut remotes = Remotes::<u64, u32>::new(TIMEOUT_MS);
    remotes.kept(1, 1, 0, 0);
    remotes.kept(2, 1, 0, 0);
    assert_eq!(remotes.admit(1, 1, 1, None, false, 0), Admitted::Elsewhere);
    remotes.clear();
    assert_eq!((remotes.is_empty(), remotes.reported(2)), (true, 0));
    assert_eq!(remotes.ended(1, 1, 1), None);
}
