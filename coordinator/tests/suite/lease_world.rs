//! No slot is ever believed to be held twice: a small world of nodes, a lossy network, a coordinator that stalls and restarts.

use std::sync::Arc;

use coordinator::leases::{LATE_HEARTBEAT_MS, LeaseRules, LeaseTable, Offering, Report};
use proptest::prelude::*;
use relay_protocol::cluster::{SlotDemand, SlotGrant};
use relay_runtime::random::{Random, SeededRandom};

const STEP_MS: u64 = 50;
const STEPS: u64 = 1_200;
const TTL_MS: u64 = 5_000;
/// A node gives up on a heartbeat after this.
const PATIENCE_MS: u64 = 500;

struct Life {
    node: usize,
    incarnation: u64,
    /// By backend: what the last answer gave, and what runs.
    believed: Vec<u32>,
    running: Vec<u32>,
    /// When it must stop: sending of the last answered heartbeat plus the lease's time.
    until_ms: u64,
    demand: Vec<SlotDemand>,
    draining: bool,
    next_beat_ms: u64,
    /// Number and sending time of the heartbeat that it waits for.
    waits_for: Option<(u64, u64)>,
}

struct Beat {
    at_ms: u64,
    number: u64,
    node: usize,
    incarnation: u64,
    demand: Vec<SlotDemand>,
    draining: bool,
    holds: Vec<SlotGrant>,
}

struct Answer {
    at_ms: u64,
    number: u64,
    sent_ms: u64,
    slots: Vec<SlotGrant>,
}

struct World {
    random: SeededRandom,
    now_ms: u64,
    slots: Vec<u32>,
    table: LeaseTable,
    newest: Vec<u64>,
    lives: Vec<Life>,
    beats: Vec<Beat>,
    answers: Vec<Answer>,
    sent: Vec<(u64, u64)>,
    stalled_until_ms: u64,
    number: u64,
    granted_ever: u64,
}

fn backend(at: usize) -> Arc<str> {
    format!("http://backend-{at}").into()
}

fn rules() -> LeaseRules {
    LeaseRules { lease_ttl_ms: TTL_MS, restart_wait_ms: TTL_MS, turn_ms: 1_000 }
}

impl World {
    fn new(seed: u64, nodes: usize, slots: Vec<u32>) -> Self {
        let mut world = Self {
            random: SeededRandom::new(seed),
            now_ms: 0,
            table: LeaseTable::new(rules(), 0, []),
            slots,
            newest: vec![0; nodes],
            lives: Vec::new(),
            beats: Vec::new(),
            answers: Vec::new(),
            sent: Vec::new(),
            stalled_until_ms: 0,
            number: 0,
            granted_ever: 0,
        };
        world.restart_coordinator();
        (0..nodes).for_each(|node| world.birth(node));
        world
    }

    fn chance(&self, one_in: u64) -> bool {
        self.random.below(one_in) == 0
    }

    fn restart_coordinator(&mut self) {
        let backends = self.slots.iter().enumerate().map(|(at, &slots)| (backend(at), slots));
        self.table = LeaseTable::new(rules(), self.now_ms, backends);
        self.beats.clear();
    }

    fn birth(&mut self, node: usize) {
        self.newest[node] += 1;
        self.lives.push(Life {
            node,
            incarnation: self.newest[node],
            believed: vec![0; self.slots.len()],
            running: vec![0; self.slots.len()],
            until_ms: 0,
            demand: Vec::new(),
            draining: false,
            next_beat_ms: self.now_ms,
            waits_for: None,
        });
    }

    fn run(&mut self) {
        for _ in 0..STEPS {
            self.now_ms += STEP_MS;
            self.misfortune();
            self.work();
            self.send();
            self.arrive();
            self.answer();
            self.check();
        }
    }

    fn misfortune(&mut self) {
        if self.chance(400) {
            self.restart_coordinator();
        }
        // What a stall held back arrives before the next one: heartbeats overtake each other by less than the late time.
        if self.now_ms >= self.stalled_until_ms + 2 * LATE_HEARTBEAT_MS && self.chance(100) {
            self.stalled_until_ms = self.now_ms + self.random.below(3_000);
        }
        for at in 0..self.slots.len() {
            if self.chance(60) {
                let up = Offering::Usable(vec!["a".to_owned(), format!("only-{at}")]);
                self.table.offer(&backend(at), if self.chance(4) { Offering::Down } else { up });
            }
        }
        for node in 0..self.newest.len() {
            if self.chance(300) {
                if self.chance(2) {
                    self.lives.retain(|life| life.node != node); // killed: its requests die with it
                }
                self.birth(node); // else the old life goes on beside the new one, unheard
            }
        }
    }

    fn work(&mut self) {
        for life in &mut self.lives {
            let random = &self.random;
            if self.now_ms >= life.until_ms {
                life.believed.fill(0);
                life.running.fill(0);
            }
            for at in 0..life.running.len() {
                if life.running[at] > 0 && random.below(20) == 0 {
                    life.running[at] -= 1;
                }
                if life.running[at] < life.believed[at] && random.below(3) == 0 {
                    life.running[at] += 1;
                }
            }
            if random.below(30) == 0 {
                let model = [None, Some("a".to_owned()), Some("only-0".to_owned())][random.below(3) as usize].clone();
                life.demand = vec![SlotDemand { model, jobs: random.below(6) as u32 }];
                life.draining = random.below(10) == 0;
            }
        }
    }

    fn send(&mut self) {
        for life in &mut self.lives {
            let random = &self.random;
            if life.waits_for.is_some_and(|(_, sent)| self.now_ms >= sent + PATIENCE_MS) {
                life.waits_for = None;
                life.next_beat_ms = self.now_ms;
            }
            if life.waits_for.is_some() || self.now_ms < life.next_beat_ms {
                continue;
            }
            self.number += 1;
            life.waits_for = Some((self.number, self.now_ms));
            self.sent.push((self.number, self.now_ms));
            if random.below(10) == 0 {
                continue; // lost
            }
            let held = life.believed.iter().zip(&life.running).enumerate();
            let holds =
                held.map(|(at, (&slots, &in_use))| SlotGrant { backend: backend(at).to_string(), slots, in_use });
            self.beats.push(Beat {
                at_ms: self.now_ms + random.below(3) * STEP_MS,
                number: self.number,
                node: life.node,
                incarnation: life.incarnation,
                demand: life.demand.clone(),
                draining: life.draining,
                holds: holds.filter(|hold| hold.slots > 0 || hold.in_use > 0).collect(),
            });
        }
    }

    /// While it is stalled heartbeats pile up; then it takes the heap in any order, within less than the late time.
    fn arrive(&mut self) {
        if self.now_ms < self.stalled_until_ms {
            let late = |random: &SeededRandom| random.below(LATE_HEARTBEAT_MS / STEP_MS) * STEP_MS;
            for beat in self.beats.iter_mut().filter(|beat| beat.at_ms <= self.now_ms) {
                beat.at_ms = self.stalled_until_ms.next_multiple_of(STEP_MS) + late(&self.random);
            }
            return;
        }
        let (mut due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.beats).into_iter().partition(|beat| beat.at_ms <= self.now_ms);
        self.beats = later;
        while !due.is_empty() {
            let beat = due.swap_remove(self.random.below(due.len() as u64) as usize);
            if beat.incarnation < self.newest[beat.node] {
                continue; // the registry refuses it
            }
            let node = format!("node-{}", beat.node);
            let report = Report {
                node: &node,
                incarnation: beat.incarnation,
                draining: beat.draining,
                ready: true,
                demand: &beat.demand,
                holds: &beat.holds,
            };
            let grants = self.table.heartbeat(self.now_ms, report);
            if self.chance(10) {
                continue; // the answer is lost
            }
            let sent_ms = self.sent.iter().find(|(number, _)| *number == beat.number).map_or(0, |(_, sent)| *sent);
            let at_ms = self.now_ms + self.random.below(3) * STEP_MS;
            self.answers.push(Answer { at_ms, number: beat.number, sent_ms, slots: grants.slots });
        }
    }

    fn answer(&mut self) {
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.answers).into_iter().partition(|answer| answer.at_ms <= self.now_ms);
        self.answers = later;
        for answer in due {
            let waits = |life: &&mut Life| life.waits_for.is_some_and(|(number, _)| number == answer.number);
            let Some(life) = self.lives.iter_mut().find(waits) else { continue };
            life.waits_for = None;
            life.next_beat_ms = self.now_ms + [100, 300, 500, 1_000][self.random.below(4) as usize];
            life.until_ms = answer.sent_ms + TTL_MS;
            life.believed.fill(0);
            for grant in &answer.slots {
                let at = (0..self.slots.len()).find(|&at| *backend(at) == *grant.backend).unwrap();
                life.believed[at] = grant.slots;
                self.granted_ever += u64::from(grant.slots);
            }
        }
    }

    fn check(&self) {
        for (at, &slots) in self.slots.iter().enumerate() {
            let alive = self.lives.iter().filter(|life| self.now_ms < life.until_ms);
            let held: u32 = alive.map(|life| life.believed[at].max(life.running[at])).sum();
            assert!(held <= slots, "{held} of {slots} slots of backend {at} are held at {} ms", self.now_ms);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nodes_never_hold_more_than_there_is(
        seed in any::<u64>(),
        nodes in 1_usize..6,
        slots in prop::collection::vec(1_u32..4, 1..4),
    ) {
        let mut world = World::new(seed, nodes, slots);
        world.run();
        prop_assert!(world.granted_ever > 0, "nothing was ever granted: the world proves nothing");
    }
}
