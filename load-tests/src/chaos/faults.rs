//! What goes wrong, in which order, and how it is made good again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::ensure;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};

use super::brokers::{self, Brokers};
use super::fleet::{Fleet, NODES};
use super::history::History;
use super::producers::now_ms;

/// How long a frozen node is frozen: longer than its session in the group.
const FROZEN_NODE: Duration = Duration::from_secs(9);

/// How long other processes are frozen.
const FROZEN: Duration = Duration::from_secs(4);

/// How long a killed process stays away, at least and at most.
const AWAY_MS: std::ops::Range<u64> = 500..3_000;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    KillNode,
    /// And it is not started again before its partitions have gone to others.
    KillNodeForLong,
    FreezeNode,
    KillLeader,
    KillLeaderAndNode,
    FreezeLeader,
    KillBroker,
    FreezeBroker,
    /// All brokers, one after the other.
    RollBrokers,
    CutClients,
    KillBackend,
}

impl Fault {
    pub(super) const ALL: [Self; 11] = [
        Self::KillNode,
        Self::KillNodeForLong,
        Self::FreezeNode,
        Self::KillLeader,
        Self::KillLeaderAndNode,
        Self::FreezeLeader,
        Self::KillBroker,
        Self::FreezeBroker,
        Self::RollBrokers,
        Self::CutClients,
        Self::KillBackend,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::KillNode => "node killed",
            Self::KillNodeForLong => "node killed, away for longer than its session",
            Self::FreezeNode => "node frozen for longer than its session",
            Self::KillLeader => "leader killed",
            Self::KillLeaderAndNode => "leader killed together with a node",
            Self::FreezeLeader => "leader frozen for longer than its term",
            Self::KillBroker => "broker killed",
            Self::FreezeBroker => "broker frozen",
            Self::RollBrokers => "every broker killed and started, one after the other",
            Self::CutClients => "all clients' connections cut",
            Self::KillBackend => "backend killed",
        }
    }
}

/// Does it all.
pub(super) struct Injector {
    random: StdRng,
    pub(super) brokers: Brokers,
    pub(super) fleet: Fleet,
    history: Arc<Mutex<History>>,
    /// How often each kind happened.
    pub(super) counts: BTreeMap<Fault, usize>,
    /// How long it took until another coordinator led, in milliseconds.
    pub(super) replaced_ms: Vec<u64>,
    /// Processes that had ended though nobody killed them.
    pub(super) ended_alone: Vec<String>,
}

impl Injector {
    pub(super) fn new(seed: u64, brokers: Brokers, fleet: Fleet, history: Arc<Mutex<History>>) -> Self {
        let (random, counts) = (StdRng::seed_from_u64(seed), BTreeMap::new());
        Self { random, brokers, fleet, history, counts, replaced_ms: Vec::new(), ended_alone: Vec::new() }
    }

    /// Faults one after the other for so long, and until each kind happened once.
    ///
    /// # Errors
    /// A process that cannot be signalled or started, or does not recover.
    pub(super) async fn run(&mut self, time: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        while began.elapsed() < time || self.counts.len() < Fault::ALL.len() {
            let mut round = Fault::ALL;
            round.shuffle(&mut self.random);
            for fault in round {
                if began.elapsed() > time && self.counts.contains_key(&fault) {
                    continue;
                }
                eprintln!("{:>4} s: {}", began.elapsed().as_secs(), fault.name());
                self.inject(fault).await?;
                *self.counts.entry(fault).or_default() += 1;
                self.note_ended()?;
                self.pause(500..2_500).await;
            }
        }
        Ok(())
    }

    /// Starts and thaws everything, and waits until it is whole.
    ///
    /// # Errors
    /// Something does not recover.
    pub(super) async fn heal(&mut self) -> anyhow::Result<()> {
        self.brokers.wait_until_whole().await?;
        self.note_ended()?;
        self.fleet.wait_until_ready().await
    }

    async fn inject(&mut self, fault: Fault) -> anyhow::Result<()> {
        let node = self.random.random_range(0..NODES);
        match fault {
            Fault::KillNode => {
                self.kill_node(node)?;
                self.pause(AWAY_MS).await;
                self.fleet.nodes[node].launch()
            }
            Fault::KillNodeForLong => {
                self.kill_node(node)?;
                tokio::time::sleep(FROZEN_NODE).await;
                self.fleet.nodes[node].launch()
            }
            Fault::FreezeNode => {
                self.fleet.nodes[node].freeze()?;
                tokio::time::sleep(FROZEN_NODE).await;
                self.fleet.nodes[node].thaw()
            }
            Fault::KillLeader | Fault::KillLeaderAndNode | Fault::FreezeLeader => self.inject_leader(fault, node).await,
            Fault::CutClients => {
                self.fleet.proxies.iter().for_each(super::client_proxy::Proxy::cut);
                Ok(())
            }
            Fault::KillBackend => {
                let victim = self.random.random_range(0..self.fleet.simulators.len());
                self.fleet.simulators[victim].kill()?;
                self.pause(AWAY_MS).await;
                self.fleet.simulators[victim].launch()
            }
            Fault::KillBroker | Fault::FreezeBroker | Fault::RollBrokers => self.inject_broker(fault).await,
        }
    }

    /// Takes the leader away, and a node with it, until another coordinator leads and the node's session is over.
    async fn inject_leader(&mut self, fault: Fault, node: usize) -> anyhow::Result<()> {
        let leader = self.fleet.leader().await?;
        if fault == Fault::KillLeaderAndNode {
            self.kill_node(node)?;
        }
        match fault {
            Fault::FreezeLeader => self.fleet.coordinators[leader].freeze()?,
            _ => self.fleet.coordinators[leader].kill()?,
        }
        let gone = Instant::now();
        self.fleet.leader().await?;
        self.replaced_ms.push(gone.elapsed().as_millis() as u64);
        match fault {
            Fault::FreezeLeader => self.fleet.coordinators[leader].thaw(),
            Fault::KillLeaderAndNode => {
                tokio::time::sleep(FROZEN_NODE.saturating_sub(gone.elapsed())).await;
                self.fleet.nodes[node].launch()?;
                self.fleet.coordinators[leader].launch()
            }
            _ => {
                self.pause(AWAY_MS).await;
                self.fleet.coordinators[leader].launch()
            }
        }
    }

    /// With all copies before and after: two of three brokers away is more than is promised to be survived.
    async fn inject_broker(&mut self, fault: Fault) -> anyhow::Result<()> {
        self.brokers.wait_until_whole().await?;
        let first = self.random.random_range(0..brokers::COUNT);
        if fault == Fault::FreezeBroker {
            self.brokers.freeze(first)?;
            tokio::time::sleep(FROZEN).await;
            self.brokers.thaw(first)?;
            return self.brokers.wait_until_whole().await;
        }
        let count = if fault == Fault::RollBrokers { brokers::COUNT } else { 1 };
        for at in 0..count {
            let victim = (first + at) % brokers::COUNT;
            self.brokers.kill(victim)?;
            self.pause(AWAY_MS).await;
            self.brokers.launch(victim)?;
            self.brokers.wait_until_whole().await?;
        }
        Ok(())
    }

    fn kill_node(&mut self, at: usize) -> anyhow::Result<()> {
        let node = &mut self.fleet.nodes[at];
        node.kill()?;
        let killed = (node.name().to_owned(), now_ms());
        self.history.lock().unwrap_or_else(PoisonError::into_inner).kills.push(killed);
        Ok(())
    }

    /// Starts what ended by itself, and remembers it.
    fn note_ended(&mut self) -> anyhow::Result<()> {
        let ended_alone = &mut self.ended_alone;
        for process in self.fleet.all() {
            if let Some(how) = process.revive()? {
                ended_alone.push(format!("{} ({how})", process.name()));
            }
        }
        ensure!(ended_alone.len() < 100, "processes end all the time: {ended_alone:?}");
        Ok(())
    }

    async fn pause(&mut self, ms: std::ops::Range<u64>) {
        tokio::time::sleep(Duration::from_millis(self.random.random_range(ms))).await;
    }
}
