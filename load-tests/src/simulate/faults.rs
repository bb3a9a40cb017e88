//! What is done to the cluster while jobs are under way, by the seed.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use relay_runtime::random::{Random, SeededRandom};
use tokio::time::Instant;

use super::cluster::Cluster;
use super::coordinators::{LEASE_MS, URLS};
use super::counts::{Fault, Op, Phase};
use super::gate::Life;
use super::log::SESSION;
use super::node::Node;

/// A crash point that is not reached in this time is given up, and the node killed where it stands.
const REACHED: Duration = Duration::from_secs(4);

/// Does it.
pub(super) struct Injector {
    cluster: Rc<Cluster>,
    random: SeededRandom,
}

impl Injector {
    /// An injector for a cluster.
    pub(super) fn new(cluster: Rc<Cluster>, seed: u64) -> Rc<Self> {
        Rc::new(Self { cluster, random: SeededRandom::new(seed) })
    }

    fn ms(&self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.random.below(to - from))
    }

    fn pick<T: Copy>(&self, of: &[T]) -> Option<T> {
        of.get(self.random.below(of.len() as u64) as usize).copied()
    }

    fn count(&self, fault: Fault) {
        self.cluster.counts().fault(fault);
    }

    /// Keeps every node in some life until faults are over: one that died begins anew.
    pub(super) async fn keep_alive(self: Rc<Self>, index: usize) {
        loop {
            let gate = self.cluster.new_gate();
            let faulty = self.cluster.engine().faulty.load(Ordering::Relaxed);
            if faulty && self.random.below(4) == 0 {
                let phase = if self.random.below(2) == 0 { Phase::Before } else { Phase::After };
                if let Some(op) = self.pick(&Op::STARTING) {
                    gate.arm(op, phase);
                }
            }
            self.cluster.start(index, gate.clone()).await;
            while gate.life() != Life::Dead {
                gate.changed(gate.life()).await;
            }
            tokio::time::sleep(self.ms(50, 4_000)).await;
        }
    }

    /// Keeps a coordinator in some life until faults are over.
    pub(super) async fn keep_coordinator(self: Rc<Self>, index: usize) {
        loop {
            let gate = self.cluster.new_gate();
            self.cluster.around.coordinators.start(index, &gate);
            while gate.life() != Life::Dead {
                gate.changed(gate.life()).await;
            }
            tokio::time::sleep(self.ms(50, 3_000)).await;
        }
    }

    /// One fault after the other until `until`.
    pub(super) async fn run(self: Rc<Self>, until: Instant) {
        while Instant::now() < until {
            tokio::time::sleep(self.ms(100, 1_800)).await;
            let nodes = self.cluster.places.borrow().len() as u64;
            let index = self.random.below(nodes) as usize;
            let Some(node) = self.cluster.node(index) else { continue };
            tokio::task::spawn_local(self.clone().one(index, node));
        }
    }

    async fn one(self: Rc<Self>, index: usize, node: Rc<Node>) {
        match self.random.below(32) {
            0..8 => self.crash(&node).await,
            8 => {
                self.count(Fault::Kill);
                node.gate.set(Life::Dead);
            }
            9 => self.freeze(&node, Fault::Freeze, self.ms(100, 2_000)).await,
            10 | 11 => self.freeze(&node, Fault::Zombie, SESSION + self.ms(500, 6_000)).await,
            12 => self.cut(&node, Fault::Cut, self.ms(100, 2_000)).await,
            13 => self.cut(&node, Fault::LongCut, SESSION + self.ms(500, 6_000)).await,
            14 => self.jump(index, Fault::ClockAhead, self.ms(100, 90_000).as_millis() as i64),
            15 => self.jump(index, Fault::ClockBack, -(self.ms(100, 90_000).as_millis() as i64)),
            16 | 17 => self.rebalance().await,
            18 | 19 => {
                if self.cluster.engine().fence_life(node.gate.number) {
                    self.count(Fault::ForeignFence);
                }
            }
            20 => {
                if self.cluster.engine().kick(node.gate.number) {
                    self.count(Fault::Kicked);
                }
            }
            21 => {
                self.count(Fault::CleanRestart);
                node.stop(Duration::from_secs(2)).await;
            }
            22 | 23 => self.backend_down().await,
            24..28 => self.off_coordinators(&node).await,
            _ => self.coordinator().await,
        }
    }

    async fn crash(&self, node: &Node) {
        let phase = if self.random.below(2) == 0 { Phase::Before } else { Phase::After };
        // What is rare has to be waited for more often.
        let rare = self.random.below(3) == 0;
        let ops: &[Op] = if rare { &[Op::AppendCancel, Op::Commit, Op::AppendStart] } else { &Op::RUNNING };
        let Some(op) = self.pick(ops) else { return };
        node.gate.arm(op, phase);
        let reached = tokio::time::timeout(REACHED, node.gate.changed(Life::Open)).await;
        if reached.is_err() && node.gate.life() == Life::Open {
            self.count(Fault::Kill);
            node.gate.set(Life::Dead);
        }
    }

    async fn freeze(&self, node: &Node, fault: Fault, time: Duration) {
        if node.gate.life() == Life::Open {
            self.count(fault);
            node.gate.set(Life::Frozen);
            tokio::time::sleep(time).await;
            node.gate.set(Life::Open);
        }
    }

    async fn cut(&self, node: &Node, fault: Fault, time: Duration) {
        self.count(fault);
        node.gate.cut(true);
        tokio::time::sleep(time).await;
        node.gate.cut(false);
    }

    /// The node reaches no coordinator, for less or more than a lease.
    async fn off_coordinators(&self, node: &Node) {
        self.count(Fault::OffCoordinators);
        node.gate.cut_coordinators(true);
        tokio::time::sleep(self.ms(200, 3 * LEASE_MS)).await;
        node.gate.cut_coordinators(false);
    }

    /// Something happens to a coordinator, more often to the one that leads.
    async fn coordinator(&self) {
        let index = self.random.below(2) as usize;
        let coordinators = &self.cluster.around.coordinators;
        let life = if self.random.below(3) > 0 { coordinators.leader_or(index) } else { coordinators.at(URLS[index]) };
        let Some(life) = life.filter(|life| life.gate.life() == Life::Open) else { return };
        match self.random.below(5) {
            0 => {
                self.count(Fault::CoordinatorKill);
                life.gate.set(Life::Dead);
            }
            1 | 2 => {
                self.count(Fault::CoordinatorFreeze);
                life.gate.set(Life::Frozen);
                tokio::time::sleep(self.ms(100, 2 * LEASE_MS)).await;
                life.gate.set(Life::Open);
            }
            3 => {
                self.count(Fault::CoordinatorStop);
                life.stop();
                tokio::time::sleep(self.ms(20, 1_500)).await;
                life.gate.set(Life::Dead);
            }
            _ => {
                self.count(Fault::CoordinatorCut);
                life.gate.cut(true);
                tokio::time::sleep(self.ms(200, 2 * LEASE_MS)).await;
                life.gate.cut(false);
            }
        }
    }

    fn jump(&self, index: usize, fault: Fault, by_ms: i64) {
        self.count(fault);
        if let Some(place) = self.cluster.places.borrow().get(index) {
            place.clock.jump(by_ms);
        }
    }

    /// A member joins that does nothing, and leaves.
    async fn rebalance(&self) {
        self.count(Fault::Rebalance);
        let (group, name) = ("media-relay.default", format!("ghost-{}", self.random.next_u64()));
        let id = self.cluster.engine().ghost_joins(group, "media.jobs.default", &name);
        let until = Instant::now() + self.ms(100, 3_000);
        while Instant::now() < until {
            self.cluster.engine().ghost_takes(group, id);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.cluster.engine().ghost_leaves(group, id);
    }

    /// One backend does not answer its probes for a while.
    async fn backend_down(&self) {
        self.count(Fault::BackendDown);
        let down = self.random.below(3);
        let coordinators = &self.cluster.around.coordinators;
        coordinators.set_healthy(&[down == 1, down == 0]);
        tokio::time::sleep(self.ms(300, 5_000)).await;
        coordinators.set_healthy(&[true, true]);
    }

    /// No faults from now on.
    pub(super) fn heal(&self) {
        self.cluster.engine().faulty.store(false, Ordering::Relaxed);
        // Waits until a time of the clock would be as long as the clock is off.
        self.cluster.places.borrow().iter().for_each(|place| place.clock.set_right());
        let nodes = self.cluster.places.borrow().len();
        for node in (0..nodes).filter_map(|index| self.cluster.node(index)) {
            node.gate.cut(false);
            node.gate.cut_coordinators(false);
            node.gate.set(Life::Open);
        }
        let coordinators = &self.cluster.around.coordinators;
        for life in coordinators.all() {
            life.gate.cut(false);
            life.gate.set(Life::Open);
        }
        coordinators.set_healthy(&[true, true]);
    }
}
