//! What happened, in figures.

use std::collections::BTreeMap;

use anyhow::ensure;
use serde::Serialize;

use super::crowding::Crowding;
use super::faults::{Fault, Injector};
use super::fleet::SLOTS;
use super::history::{Findings, History, TakeOver};

/// Take-overs that are named, the slowest.
const SLOWEST: usize = 5;

/// The figures of one run.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    seed: u64,
    /// Jobs that were acknowledged.
    accepted: usize,
    /// Submissions that were never acknowledged.
    unanswered: usize,
    /// Jobs whose clients waited for their events.
    heard: usize,
    faults: BTreeMap<&'static str, usize>,
    /// Jobs that a killed node was running and another one took over.
    take_overs: usize,
    take_over_p50_ms: Option<u64>,
    take_over_p99_ms: Option<u64>,
    slowest: Vec<TakeOver>,
    /// Requests at the backends at a time.
    crowding: Crowding,
    /// Time until another coordinator led after the leader was killed or frozen, rising.
    leaders_replaced_ms: Vec<u64>,
    /// Processes that ended though nobody killed them.
    ended_alone: Vec<String>,
    findings: Findings,
}

impl Report {
    pub(super) fn new(seed: u64, injector: &Injector, history: &History, crowding: Crowding) -> Self {
        let mut times = history.take_overs();
        let at = |percent: usize| (times.len() * percent / 100).min(times.len().max(1) - 1);
        let percentile = |percent| times.get(at(percent)).map(|one| one.took_ms);
        let mut leaders_replaced_ms = injector.replaced_ms.clone();
        leaders_replaced_ms.sort_unstable();
        let (p50, p99, take_overs) = (percentile(50), percentile(99), times.len());
        Self {
            seed,
            accepted: history.accepted.len(),
            unanswered: history.unanswered.len(),
            heard: history.heard.len(),
            faults: Fault::ALL
                .iter()
                .map(|fault| (fault.name(), injector.counts.get(fault).copied().unwrap_or_default()))
                .collect(),
            take_overs,
            take_over_p50_ms: p50,
            take_over_p99_ms: p99,
            slowest: times.split_off(take_overs.saturating_sub(SLOWEST)),
            crowding,
            leaders_replaced_ms,
            ended_alone: injector.ended_alone.clone(),
            findings: history.check(),
        }
    }

    pub(super) fn print(&self) {
        println!("chaos, seed {}", self.seed);
        for (what, count) in &self.faults {
            println!("  {count:>6} × {what}");
        }
        println!("  {:>6} jobs accepted, {} submissions never answered", self.accepted, self.unanswered);
        println!("  {:>6} jobs watched by their client", self.heard);
        println!(
            "  {:>6} jobs taken over from killed nodes: p50 {} ms, p99 {} ms",
            self.take_overs,
            self.take_over_p50_ms.unwrap_or_default(),
            self.take_over_p99_ms.unwrap_or_default()
        );
        for one in self.slowest.iter().rev() {
            println!("         {} of {}, killed at {}: {} ms", one.job, one.node, one.killed, one.took_ms);
        }
        println!("  {:>6} leaders replaced, after {:?} ms", self.leaders_replaced_ms.len(), self.leaders_replaced_ms);
        let Crowding { most, looks, over } = self.crowding;
        println!(
            "  {most:>6} requests at a backend of {SLOTS} slots at most; more than slots in {over} of {looks} looks"
        );
        let found = &self.findings;
        println!("  {:>6} lost, {} doubled, {} keys ran twice", found.lost, found.doubled, found.ran_twice);
        println!(
            "  {:>6} not completed, {} heard out of order, {} never heard of",
            found.not_completed, found.out_of_order, found.unheard
        );
        for line in &found.named {
            println!("         {line}");
        }
        if !self.ended_alone.is_empty() {
            println!("         ended by themselves: {}", self.ended_alone.join(", "));
        }
    }

    /// # Errors
    /// A promise that was not kept, or a run that shows nothing.
    pub(super) fn verdict(&self) -> anyhow::Result<()> {
        ensure!(self.findings.is_clean(), "promises were not kept");
        ensure!(self.ended_alone.is_empty(), "processes ended by themselves: {:?}", self.ended_alone);
        ensure!(self.unanswered == 0, "{} submissions were never answered", self.unanswered);
        // A frozen node's requests go on, and its slots may be another's meanwhile; no two stand still at a time.
        ensure!(self.crowding.most <= 2 * SLOTS, "a backend had {} requests", self.crowding.most);
        ensure!(self.crowding.looks > 0, "nobody looked at the backends");
        ensure!(self.faults.values().all(|count| *count > 0), "a kind of fault never happened");
        ensure!(self.accepted > 0 && self.heard > 0 && self.take_overs > 0, "nothing was put to the test");
        Ok(())
    }
}
