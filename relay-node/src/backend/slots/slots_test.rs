//! The slots' promises under any order of requests, releases and news: never more than granted, nobody waits beside a free
//! slot that fits, who was begun before, then who comes first goes first among those of its priority, and each priority gets its share.

use std::collections::BTreeMap;

use proptest::prelude::*;
use relay_protocol::{Priority, Task};

use super::super::breaker::{BreakerLimits, Ended};
use super::{BUILTIN, Decided, Known, Need, Refusal, Slots, Ticket};
use crate::fair::{PRIORITIES, Weights};

const BACKENDS: [&str; 3] = ["a", "b", "c"];
const MODELS: [&str; 2] = ["m", "n"];
/// Time stands still here.
const NOW: u64 = 1_000;

#[derive(Debug, Clone)]
enum Step {
    Request {
        task: Task,
        model: Option<usize>,
        priority: Priority,
        is_begun: bool,
        avoid: Vec<String>,
    },
    /// The n-th of those that wait goes away.
    Withdraw(usize),
    /// The n-th of those in flight ends.
    Release(usize),
    Update(Vec<(usize, Known)>),
}

fn known() -> impl Strategy<Value = Known> {
    let models = prop::sample::subsequence(MODELS.map(str::to_owned).to_vec(), 0..=2);
    (models, any::<bool>(), 0..3_u32).prop_map(|(models, healthy, granted)| Known { models, healthy, granted })
}

fn step() -> impl Strategy<Value = Step> {
    let priority = prop::sample::select(vec![Priority::Batch, Priority::Normal, Priority::Interactive]);
    let task = prop::sample::select(vec![Task::Transcribe, Task::Vad, Task::Probe]);
    let avoid = prop::sample::subsequence(BACKENDS.map(str::to_owned).to_vec(), 0..=2);
    let request = (task, prop::option::of(0..MODELS.len()), priority, any::<bool>(), avoid)
        .prop_map(|(task, model, priority, is_begun, avoid)| Step::Request { task, model, priority, is_begun, avoid });
    prop_oneof![
        4 => request,
        1 => any::<usize>().prop_map(Step::Withdraw),
        3 => any::<usize>().prop_map(Step::Release),
        2 => prop::collection::vec((0..BACKENDS.len(), known()), 0..4).prop_map(Step::Update),
    ]
}

/// What is expected, kept in the simplest way.
#[derive(Default)]
struct World {
    slots: Slots,
    known: BTreeMap<String, Known>,
    in_flight: Vec<(String, Ticket)>,
    waiting: Vec<(Ticket, Need)>,
    was_told: bool,
}

impl World {
    fn new(builtin: u32) -> Self {
        let mut world = Self::default();
        world.slots.set_builtin(builtin);
        let known = Known { models: Vec::new(), healthy: true, granted: builtin };
        world.known.insert(BUILTIN.to_owned(), known);
        world
    }

    fn used(&self, name: &str) -> u32 {
        self.in_flight.iter().filter(|(backend, _)| backend == name).count() as u32
    }

    fn fits(&self, name: &str, need: &Need) -> bool {
        let kind = &need.kind;
        let here = kind.task == Task::Probe || (kind.task == Task::Vad && kind.model.is_none());
        let has = |model: &String| self.known[name].models.contains(model);
        if name == BUILTIN { here } else { !here && kind.model.as_ref().is_none_or(has) }
    }

    fn could_take(&self, name: &str, need: &Need) -> bool {
        let known = &self.known[name];
        self.fits(name, need) && known.healthy && self.used(name) < known.granted
    }

    /// Backends that failed the request come last; else the smaller share in use, in millionths, goes first.
    fn is_better(&self, one: &str, other: &str, need: &Need) -> bool {
        let rank = |name: &str| {
            let share = u64::from(self.used(name)) * 1_000_000 / u64::from(self.known[name].granted);
            (need.avoid.iter().any(|avoided| avoided == name), share)
        };
        rank(one) < rank(other)
    }

    /// Why a request must be refused now.
    fn refusal(&self, need: &Need) -> Option<Refusal> {
        if self.fits(BUILTIN, need) || !self.was_told {
            return None;
        }
        let mut listed = self.known.iter().filter(|(name, _)| *name != BUILTIN).map(|(_, known)| known).peekable();
        if listed.peek().is_none() {
            return Some(Refusal::NeedsLocalAi);
        }
        let model = need.kind.model.as_ref()?;
        let nobody = listed.all(|known| !known.models.is_empty() && !known.models.contains(model));
        nobody.then_some(Refusal::UnknownModel)
    }

    fn granted(&mut self, name: String, ticket: Ticket, need: &Need) {
        assert!(
            self.could_take(&name, need),
            "{name} for {need:?}: {:?}, {} in use",
            self.known[&name],
            self.used(&name)
        );
        let better = self.known.keys().find(|other| self.could_take(other, need) && self.is_better(other, &name, need));
        assert_eq!(better, None, "better than {name} for {need:?}");
        self.in_flight.push((name, ticket));
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Request { task, model, priority, is_begun, avoid } => {
                let model = model.map(|index| MODELS[index].to_owned());
                let need = Need { priority, is_begun, avoid, ..Need::of(task, model.as_deref()) };
                let refusal = self.refusal(&need);
                match self.slots.request(need.clone(), NOW) {
                    Ok((ticket, decided)) => {
                        assert_eq!(refusal, None, "it should have been refused");
                        self.waiting.push((ticket, need));
                        self.decided(decided);
                    }
                    Err(why) => assert_eq!(Some(why), refusal),
                }
            }
            Step::Withdraw(index) => {
                if let Some(index) = index.checked_rem(self.waiting.len()) {
                    let (ticket, _) = self.waiting.remove(index);
                    assert!(self.slots.withdraw(ticket));
                    assert!(!self.slots.withdraw(ticket), "it is forgotten");
                }
            }
            Step::Release(index) => {
                if let Some(index) = index.checked_rem(self.in_flight.len()) {
                    let (name, ticket) = self.in_flight.swap_remove(index);
                    let (decided, _) = self.slots.release(&name, ticket, Ended::Unknown, NOW);
                    self.decided(decided);
                }
            }
            Step::Update(listed) => {
                let listed: BTreeMap<_, _> =
                    listed.into_iter().map(|(index, known)| (BACKENDS[index].to_owned(), known)).collect();
                self.was_told = true;
                self.known.retain(|name, _| name == BUILTIN);
                self.known.extend(listed.clone());
                let decided = self.slots.update(listed, NOW);
                self.decided(decided);
            }
        }
    }

    /// Of those of one priority that a backend could take, the one begun before or else the first goes first.
    fn decided(&mut self, decided: Vec<Decided>) {
        for Decided { ticket, answer } in decided {
            let index = self.waiting.iter().position(|(waiting, _)| *waiting == ticket).expect("it waited");
            let (_, need) = self.waiting.remove(index);
            match answer {
                Ok(name) => {
                    let rank = |need: &Need, ticket| (!need.is_begun, ticket);
                    let before = |(other, other_need): &(Ticket, Need)| {
                        other_need.priority == need.priority && rank(other_need, *other) < rank(&need, ticket)
                    };
                    let passed_over =
                        self.waiting.iter().find(|other| before(other) && self.could_take(&name, &other.1));
                    assert!(passed_over.is_none(), "{passed_over:?} was first at {name}");
                    self.granted(name, ticket, &need);
                }
                Err(why) => assert_eq!(Some(why), self.refusal(&need)),
            }
        }
    }

    /// Nobody waits who could go on or must be refused; the counts agree.
    fn check(&self) {
        for (_, need) in &self.waiting {
            let free = self.known.keys().find(|name| self.could_take(name, need));
            assert_eq!(free, None, "{need:?} waits beside a free slot");
            assert_eq!(self.refusal(need), None, "{need:?} waits for ever");
        }
        for (name, in_use, granted) in self.slots.in_use() {
            assert_eq!(in_use, self.used(name), "in use at {name}");
            assert_eq!(granted, self.known.get(name).map_or(0, |known| known.granted), "granted at {name}");
        }
        let counted: u32 = self.slots.waiting_by_model().values().sum();
        let waiting = self.waiting.iter().filter(|(_, need)| !self.fits(BUILTIN, need)).count();
        assert_eq!(counted as usize, waiting, "demand");
    }
}

proptest! {
    #[test]
    fn slots_are_never_exceeded_and_never_idle_beside_a_waiter(
        builtin in 0..3_u32,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new(builtin);
        for step in steps {
            world.apply(step);
            world.check();
        }
    }
}

fn need(avoid: &[&str]) -> Need {
    let avoid = avoid.iter().map(|name| (*name).to_owned()).collect();
    Need { avoid, ..Need::of(Task::Transcribe, None) }
}

/// The number of a request, and where it may go at once.
fn ask(slots: &mut Slots, need: Need) -> (Ticket, Option<String>) {
    let (ticket, decided) = slots.request(need, NOW).unwrap();
    let own = decided.into_iter().find(|one| one.ticket == ticket);
    (ticket, own.map(|one| one.answer.unwrap()))
}

fn two_backends(one: u32, other: u32) -> Slots {
    let known = |granted| Known { models: vec!["m".to_owned()], healthy: true, granted };
    let mut slots = Slots::default();
    slots.update(BTreeMap::from([("a".to_owned(), known(one)), ("b".to_owned(), known(other))]), NOW);
    slots
}

#[test]
fn a_backend_that_failed_the_request_is_taken_last() {
    let mut slots = two_backends(1, 1);
    assert_eq!(ask(&mut slots, need(&["a"])).1.as_deref(), Some("b"));
    assert_eq!(ask(&mut slots, need(&["a"])).1.as_deref(), Some("a"), "better than to wait");
}

#[test]
fn a_request_that_must_go_elsewhere_waits_rather_than_go_back() {
    let mut slots = two_backends(1, 1);
    let elsewhere = || Need { is_strict: true, ..need(&["a"]) };
    let (first, at) = ask(&mut slots, elsewhere());
    assert_eq!(at.as_deref(), Some("b"));
    let (ticket, at) = ask(&mut slots, elsewhere());
    assert_eq!(at, None, "a slot of a is free, and not for it");
    let (decided, _) = slots.release("b", first, Ended::Unknown, NOW);
    assert_eq!(decided, [Decided { ticket, answer: Ok("b".to_owned()) }]);
}

#[test]
fn the_smallest_share_in_use_goes_first() {
    let mut slots = two_backends(4, 2);
    let taken: Vec<_> = (0..6).filter_map(|_| ask(&mut slots, need(&[])).1).collect();
    let of = |name: &str, taken: &[String]| taken.iter().filter(|one| *one == name).count();
    assert_eq!((of("a", &taken), of("b", &taken), of("b", &taken[..3])), (4, 2, 1));
}

#[test]
fn before_the_coordinator_spoke_requests_wait_instead_of_failing() {
    let mut slots = Slots::default();
    let (ticket, at) = ask(&mut slots, need(&[]));
    assert_eq!(at, None);
    let refused = Decided { ticket, answer: Err(Refusal::NeedsLocalAi) };
    assert_eq!(slots.update(BTreeMap::new(), NOW), [refused], "there is none");
}

#[test]
fn where_a_name_leads_nowhere_yet_nothing_is_refused() {
    let mut slots = Slots::default();
    let (ticket, _) = ask(&mut slots, need(&[]));
    slots.expect_backends(true);
    assert_eq!(slots.update(BTreeMap::new(), NOW), [], "it waits");
    let unknown = Need::of(Task::Transcribe, Some("of nobody"));
    assert_eq!((slots.refusal(&unknown), slots.is_stuck(&unknown, NOW)), (None, true), "it can be parked");
    slots.expect_backends(false);
    assert_eq!(slots.update(BTreeMap::new(), NOW), [Decided { ticket, answer: Err(Refusal::NeedsLocalAi) }]);
}

#[test]
fn a_listed_backend_that_is_down_is_waited_for() {
    let mut slots = Slots::default();
    slots.update(BTreeMap::from([("a".to_owned(), Known::default())]), NOW);
    assert_eq!(ask(&mut slots, need(&[])).1, None);
}

#[test]
fn a_backend_that_is_always_busy_serves_each_priority_by_its_weight() {
    let mut slots = Slots::new(Weights { interactive: 3, normal: 2, batch: 1 }, BreakerLimits::default());
    slots.set_builtin(1);
    let need = |priority| Need { priority, ..Need::of(Task::Probe, None) };
    let (mut running, at) = ask(&mut slots, need(Priority::Normal));
    assert_eq!(at.as_deref(), Some(BUILTIN));
    let mut waiting = BTreeMap::new();
    for priority in PRIORITIES.repeat(120) {
        let (ticket, at) = ask(&mut slots, need(priority));
        assert_eq!(at, None, "the slot is taken");
        waiting.insert(ticket, priority);
    }
    let served: Vec<_> = (0..120)
        .map(|_| {
            let (decided, _) = slots.release(BUILTIN, running, Ended::Unknown, NOW);
            running = decided[0].ticket;
            waiting[&running]
        })
        .collect();
    let of = |one: Priority| served.iter().filter(|other| **other == one).count();
    assert_eq!(PRIORITIES.map(of), [60, 40, 20]);
}
