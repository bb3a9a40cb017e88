//! The fold of marks against a search through the whole list, and redrives and drops that meet on one letter.

use proptest::prelude::*;
use relay_protocol::JobId;
use relay_protocol::dead_letter::{LetterState, Mark, MarkKind};

use super::marks::{CLAIM_ABANDONED_MS, CLAIM_USE_MS_MAX, Marks};
use crate::events::find::CLOCK_SKEW_MS_MAX;

fn job_id(number: u8) -> JobId {
    JobId::new(1, 0, u64::from(number))
}

fn mark(kind: MarkKind, job: Option<u8>, claim: Option<u64>, at: u64) -> Mark {
    Mark { mark: kind, letter: 0, job_id: job.map(job_id), claim, subject: "ann".to_owned(), at }
}

fn any_mark() -> impl Strategy<Value = Mark> {
    let kind = prop_oneof![
        5 => Just(MarkKind::Redriving),
        2 => Just(MarkKind::Redriven),
        5 => Just(MarkKind::Released),
        1 => Just(MarkKind::Dropped),
    ];
    let at = prop_oneof![0..10_u64, CLAIM_ABANDONED_MS..CLAIM_ABANDONED_MS + 10];
    (kind, prop::option::weighted(0.95, 0..2_u8), prop::option::weighted(0.9, 0..12_u64), at)
        .prop_map(|(kind, job, claim, at)| mark(kind, job, claim, at))
}

/// What a list of marks, each at its index, says: state, job, and the claims that count. Searches for the end of the first
/// claimed stretch, and again behind it if it was taken back whole.
fn judge(marks: &[Mark], from: usize) -> (LetterState, Option<JobId>, Vec<u64>) {
    let decides = |mark: &Mark| match mark.mark {
        MarkKind::Dropped => true,
        MarkKind::Redriving | MarkKind::Redriven => mark.job_id.is_some(),
        MarkKind::Released => false,
    };
    let Some(first) = (from..marks.len()).find(|index| decides(&marks[*index])) else {
        return (LetterState::Open, None, Vec::new());
    };
    let named = marks[first].job_id;
    match marks[first].mark {
        MarkKind::Dropped => return (LetterState::Dropped, None, Vec::new()),
        MarkKind::Redriven => return (LetterState::Redriven, named, Vec::new()),
        _ => {}
    }
    let counting = |until: usize| -> Vec<u64> {
        let ours = |index: &usize| marks[*index].job_id == named;
        let claims = (first..until).filter(ours).filter(|index| marks[*index].mark == MarkKind::Redriving);
        let is_back = |claim: u64| {
            (first..until).filter(ours).any(|index| {
                marks[index].mark == MarkKind::Released && marks[index].claim == Some(claim) && index as u64 > claim
            })
        };
        claims.map(|index| index as u64).filter(|claim| !is_back(*claim)).collect()
    };
    for index in first + 1..marks.len() {
        let old = |claim: &u64| marks[*claim as usize].at + CLAIM_ABANDONED_MS <= marks[index].at;
        match marks[index].mark {
            MarkKind::Redriven if marks[index].job_id == named => return (LetterState::Redriven, named, Vec::new()),
            MarkKind::Released if counting(index + 1).is_empty() => return judge(marks, index + 1),
            MarkKind::Dropped if counting(index).iter().all(old) => return (LetterState::Dropped, None, Vec::new()),
            _ => {}
        }
    }
    (LetterState::Redriving, named, counting(marks.len()))
}

/// Somebody who redrives the letter, and how far.
#[derive(Debug, Clone, Copy)]
enum Redriver {
    Away,
    Planned { job_id: JobId },
    Claimed { job_id: JobId, offset: u64, at: u64 },
    Counted { job_id: JobId, offset: u64, at: u64 },
    Submitted { job_id: JobId },
    Refused { job_id: JobId, offset: u64 },
}

/// What somebody's next step comes to.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Done,
    /// It happened, but they do not know and give up.
    DoneInDoubt,
    /// It did not happen, and they do not know and give up.
    LostInDoubt,
    /// Only of a submit: it did not happen, and they know.
    Refused,
}

#[derive(Debug, Clone)]
enum Step {
    Redrive(usize, Fate),
    Drop,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let fate = prop_oneof![
        6 => Just(Fate::Done),
        1 => Just(Fate::DoneInDoubt),
        1 => Just(Fate::LostInDoubt),
        2 => Just(Fate::Refused),
    ];
    prop_oneof![
        20 => (0..3_usize, fate).prop_map(|(who, fate)| Step::Redrive(who, fate)),
        1 => Just(Step::Drop),
        1 => (0..CLAIM_ABANDONED_MS).prop_map(Step::Wait),
    ]
}

/// The log with the letter's marks, and the jobs that were submitted.
#[derive(Debug, Default)]
struct World {
    marks: Vec<Mark>,
    lane: Vec<JobId>,
    now_ms: u64,
    fresh: u8,
}

impl World {
    fn fold(&self) -> Marks {
        let mut marks = Marks::default();
        for (offset, mark) in self.marks.iter().enumerate() {
            marks.on(offset as u64, mark);
        }
        marks
    }

    /// The clock of `who`; they differ as far as clocks may.
    fn clock(&self, who: usize) -> u64 {
        CLOCK_SKEW_MS_MAX + self.now_ms - [0, CLOCK_SKEW_MS_MAX / 2, CLOCK_SKEW_MS_MAX][who]
    }

    fn write(&mut self, who: usize, kind: MarkKind, job_id: JobId, claim: Option<u64>) -> u64 {
        let at = self.clock(who);
        self.marks.push(Mark { job_id: Some(job_id), claim, ..mark(kind, None, None, at) });
        self.marks.len() as u64 - 1
    }

    fn redrive(&mut self, who: usize, redriver: Redriver, fate: Fate) -> Redriver {
        let happens = !matches!(fate, Fate::LostInDoubt);
        let goes_on = matches!(fate, Fate::Done | Fate::Refused);
        let now = self.now_ms;
        let next = match redriver {
            Redriver::Away => {
                self.fresh += 1;
                match self.fold().job_to_claim(job_id(self.fresh)) {
                    None => Redriver::Away,
                    // It is there already: only the mark is missing.
                    Some(job_id) if self.lane.contains(&job_id) => Redriver::Submitted { job_id },
                    Some(job_id) => Redriver::Planned { job_id },
                }
            }
            Redriver::Planned { job_id } => {
                let offset = if happens { self.write(who, MarkKind::Redriving, job_id, None) } else { 0 };
                Redriver::Claimed { job_id, offset, at: now }
            }
            Redriver::Claimed { job_id, offset, at } if self.fold().is_claimed(offset, job_id) => {
                Redriver::Counted { job_id, offset, at }
            }
            Redriver::Counted { at, .. } if now - at > CLAIM_USE_MS_MAX => Redriver::Away,
            Redriver::Counted { job_id, offset, .. } if matches!(fate, Fate::Refused) => {
                Redriver::Refused { job_id, offset }
            }
            Redriver::Counted { job_id, .. } => {
                if happens {
                    self.lane.push(job_id);
                }
                Redriver::Submitted { job_id }
            }
            Redriver::Submitted { job_id } if happens => {
                self.write(who, MarkKind::Redriven, job_id, None);
                Redriver::Away
            }
            Redriver::Refused { job_id, offset } if happens => {
                self.write(who, MarkKind::Released, job_id, Some(offset));
                Redriver::Away
            }
            _ => Redriver::Away,
        };
        if goes_on { next } else { Redriver::Away }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_fold_says_what_the_list_says(list in prop::collection::vec(any_mark(), 0..12)) {
        let mut marks = Marks::default();
        for (offset, mark) in list.iter().enumerate() {
            marks.on(offset as u64, mark);
            let (state, job, claims) = judge(&list[..=offset], 0);
            prop_assert_eq!((marks.state(), marks.redriven_as()), (state, job), "{:#?}", &list[..=offset]);
            for claim in 0..list.len() as u64 {
                let counts = job.is_some_and(|job| marks.is_claimed(claim, job));
                prop_assert_eq!(counts, claims.contains(&claim), "claim {} in {:#?}", claim, &list[..=offset]);
            }
        }
        prop_assert_eq!(marks.count(), list.len());
    }

    #[test]
    fn one_letter_becomes_one_job_at_most(steps in prop::collection::vec(step(), 0..80)) {
        let (mut world, mut redrivers) = (World::default(), [Redriver::Away; 3]);
        for step in steps {
            let (before, jobs) = (world.fold(), world.lane.len());
            match step {
                Step::Wait(ms) => world.now_ms += ms,
                Step::Drop if before.can_be_dropped(world.clock(0)) => {
                    let at = world.clock(0);
                    world.marks.push(mark(MarkKind::Dropped, None, None, at));
                }
                Step::Drop => {}
                Step::Redrive(who, fate) => redrivers[who] = world.redrive(who, redrivers[who], fate),
            }
            let mut ids = world.lane.clone();
            ids.dedup();
            prop_assert!(ids.len() <= 1, "two jobs of one letter: {:?}\n{:#?}", world.lane, world.marks);
            if before.state() == LetterState::Dropped {
                prop_assert_eq!(world.lane.len(), jobs, "a dropped letter was submitted: {:#?}", world.marks);
            }
            if matches!(before.state(), LetterState::Dropped | LetterState::Redriven) {
                prop_assert_eq!(world.fold().state(), before.state());
            }
        }
    }
}
