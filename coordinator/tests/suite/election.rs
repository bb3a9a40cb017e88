//! The election's core: never two leaders, whatever is late, lost or frozen; and always one again, soon.

use std::collections::BTreeMap;

use coordinator::election::core::{Election, ElectionRules, Input, Turn};
use proptest::prelude::*;
use relay_protocol::record::ElectionRecord;

const RULES: ElectionRules = ElectionRules { silence_ms: 2_500, confirm_ms: 2_000, beat_ms: 500 };

/// Coordinators, the log between them, and the records that are on their way to it.
struct World {
    now_ms: u64,
    log: Vec<ElectionRecord>,
    elections: Vec<Election>,
    read_to: Vec<usize>,
    under_way: Vec<(usize, ElectionRecord)>,
    /// Who led under which incarnation.
    terms: BTreeMap<u64, usize>,
    lives: usize,
}

impl World {
    fn new(count: usize, rules: ElectionRules) -> Self {
        let mut world = Self {
            now_ms: 10_000,
            log: Vec::new(),
            elections: Vec::new(),
            read_to: Vec::new(),
            under_way: Vec::new(),
            terms: BTreeMap::new(),
            lives: 0,
        };
        for _ in 0..count {
            let election = world.born(rules);
            world.elections.push(election);
            world.read_to.push(0);
        }
        (0..count).for_each(|at| world.give(at, Input::Opened));
        world
    }

    fn born(&mut self, rules: ElectionRules) -> Election {
        self.lives += 1;
        Election::new(rules, format!("c/{}", self.lives), None, self.now_ms)
    }

    fn give(&mut self, at: usize, input: Input) {
        if let Some(record) = self.elections[at].on(self.now_ms, input) {
            self.under_way.push((at, record));
        }
    }

    /// Kills it and starts another life at the end of the log.
    fn restart(&mut self, at: usize) {
        self.elections[at] = self.born(RULES);
        self.read_to[at] = self.log.len().saturating_sub(3);
        self.give(at, Input::Opened);
    }

    fn read(&mut self, at: usize, count: usize) {
        for _ in 0..count {
            let offset = self.read_to[at];
            match self.log.get(offset).cloned() {
                Some(record) => {
                    self.read_to[at] += 1;
                    self.give(at, Input::Read { offset: offset as u64, record: Some(record) });
                }
                None => self.give(at, Input::End { next: offset as u64 }),
            }
        }
    }

    /// The `which`-th record on its way arrives, or never does; its writer hears of it, or not yet.
    fn arrive(&mut self, which: usize, lost: bool, told: bool) {
        if self.under_way.is_empty() {
            return;
        }
        let (at, record) = self.under_way.remove(which % self.under_way.len());
        if !lost {
            self.log.push(record);
        }
        if told || lost {
            self.give(at, Input::AppendEnded);
        }
    }

    fn leaders(&self) -> Vec<(usize, u64)> {
        let leads = |(at, election): (usize, &Election)| {
            let until = election.until_ms().filter(|until| self.now_ms < *until)?;
            assert!(until <= self.now_ms + RULES.confirm_ms);
            Some((at, election.leading()?))
        };
        self.elections.iter().enumerate().filter_map(leads).collect()
    }

    fn check(&mut self) {
        let leaders = self.leaders();
        assert!(leaders.len() <= 1, "two lead at once: {leaders:?}");
        for (at, incarnation) in leaders {
            let highest = self.terms.keys().next_back().copied().unwrap_or_default();
            if !self.terms.contains_key(&incarnation) {
                assert!(self.terms.is_empty() || incarnation > highest, "incarnations rise");
            }
            let first = *self.terms.entry(incarnation).or_insert(at);
            assert_eq!(first, at, "one incarnation, one leader");
            assert!(incarnation >= highest, "a lower one never leads again");
        }
    }

    /// Everything works for so long, but for those in `dead`.
    fn quiet(&mut self, ms: u64, dead: &[usize]) {
        (0..self.elections.len()).for_each(|at| self.give(at, Input::AppendEnded));
        for _ in 0..ms / 20 {
            self.now_ms += 20;
            while !self.under_way.is_empty() {
                self.arrive(0, false, true);
            }
            for at in (0..self.elections.len()).filter(|at| !dead.contains(at)) {
                let behind = self.log.len() - self.read_to[at];
                self.read(at, behind + 1);
                self.give(at, Input::Tick);
            }
            self.check();
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Pass(u64),
    Read(usize, usize),
    Tick(usize),
    Arrive { which: usize, lost: bool, told: bool },
    AppendEnded(usize),
    Restart(usize),
    Resign(usize),
    Quiet(u64),
}

fn step(count: usize) -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1_u64..900).prop_map(Step::Pass),
        8 => (0..count, 1_usize..4).prop_map(|(at, records)| Step::Read(at, records)),
        6 => (0..count).prop_map(Step::Tick),
        8 => (0_usize..8, prop::bool::weighted(0.1), prop::bool::weighted(0.8))
            .prop_map(|(which, lost, told)| Step::Arrive { which, lost, told }),
        2 => (0..count).prop_map(Step::AppendEnded),
        1 => (0..count).prop_map(Step::Restart),
        1 => (0..count).prop_map(Step::Resign),
        1 => (100_u64..4_000).prop_map(Step::Quiet),
    ]
}

fn run(world: &mut World, steps: Vec<Step>) {
    for step in steps {
        match step {
            Step::Pass(ms) => world.now_ms += ms,
            Step::Read(at, count) => world.read(at, count),
            Step::Tick(at) => world.give(at, Input::Tick),
            Step::Arrive { which, lost, told } => world.arrive(which, lost, told),
            Step::AppendEnded(at) => world.give(at, Input::AppendEnded),
            Step::Restart(at) => world.restart(at),
            Step::Resign(at) => {
                if let Some(record) = world.elections[at].resign() {
                    world.under_way.push((at, record));
                }
            }
            Step::Quiet(ms) => world.quiet(ms, &[]),
        }
        world.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn never_two_leaders_and_soon_one(steps in prop::collection::vec(step(3), 1..150)) {
        let mut world = World::new(3, RULES);
        run(&mut world, steps);
        world.quiet(2 * RULES.silence_ms + 1_000, &[]);
        let leaders = world.leaders();
        prop_assert_eq!(leaders.len(), 1, "one leads when all is well again");
        world.quiet(10_000, &[]);
        prop_assert_eq!(world.leaders(), leaders, "and goes on");
    }

    #[test]
    fn a_killed_leader_is_replaced_soon_after_its_silence(steps in prop::collection::vec(step(3), 1..60)) {
        let mut world = World::new(3, RULES);
        run(&mut world, steps);
        world.quiet(2 * RULES.silence_ms + 1_000, &[]);
        let leader = world.leaders()[0].0;
        world.quiet(RULES.silence_ms + 100, &[leader]);
        let next = world.leaders();
        prop_assert_eq!(next.len(), 1);
        prop_assert_ne!(next[0].0, leader);
    }
}

#[test]
fn where_nobody_ever_led_the_first_leads_at_once() {
    let mut world = World::new(1, RULES);
    world.quiet(60, &[]);
    assert_eq!(world.leaders(), [(0, 0)]);
    assert_eq!(world.elections[0].turns(), [Turn::Won]);
}

#[test]
fn one_that_resigns_is_replaced_at_once() {
    let mut world = World::new(2, RULES);
    world.quiet(1_000, &[]);
    let (leader, incarnation) = world.leaders()[0];
    let last = world.elections[leader].resign().unwrap();
    assert_eq!(world.leaders(), [], "before the others hear of it");
    world.under_way.push((leader, last));
    world.quiet(100, &[leader]);
    let (next, higher) = world.leaders()[0];
    assert!(next != leader && higher > incarnation);
}

#[test]
fn one_that_was_frozen_leads_no_more_before_it_reads_anything() {
    let mut world = World::new(2, RULES);
    world.quiet(1_000, &[]);
    let (leader, _) = world.leaders()[0];
    world.quiet(RULES.silence_ms + 200, &[leader]);
    assert_ne!(world.leaders()[0].0, leader);
    // It wakes: its clock alone says that its term is over.
    world.give(leader, Input::Tick);
    assert_eq!(world.elections[leader].leading(), None);
    assert_eq!(world.elections[leader].turns().last(), Some(&Turn::Unconfirmed));
    world.quiet(3_000, &[]);
    assert_eq!(world.leaders().len(), 1);
    assert_ne!(world.leaders()[0].0, leader, "what it claimed on its old picture does not count");
}

#[test]
fn the_only_one_leads_without_beats() {
    let only = ElectionRules { silence_ms: 0, ..RULES };
    let mut world = World::new(1, only);
    world.read(0, 1);
    world.arrive(0, false, true);
    world.read(0, 1);
    for _ in 0..3 {
        world.now_ms += 60_000;
        world.give(0, Input::Tick);
    }
    assert_eq!(world.elections[0].leading(), Some(0));
    assert_eq!(world.log.len(), 1, "{:?}", world.log);
    // A later life need not wait for the silence of the one before.
    world.elections[0] = Election::new(only, "later".to_owned(), None, world.now_ms);
    world.read_to[0] = 0;
    world.give(0, Input::Opened);
    world.read(0, 2);
    world.arrive(0, false, true);
    world.read(0, 1);
    assert_eq!(world.elections[0].leading(), Some(1));
}
