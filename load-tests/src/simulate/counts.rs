//! What really happened in a run: faults and crash points, counted.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// A call of a node to the world outside: where a crash can be told from none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Op {
    CheckTopics,
    Watermarks,
    Open,
    Join,
    Committed,
    Read,
    Next,
    AppendJob,
    AppendStart,
    AppendCancel,
    AppendEvent,
    AppendPartial,
    AppendAudit,
    Commit,
    Delete,
    Health,
    Call,
}

impl Op {
    /// Those of a node that runs.
    pub(super) const RUNNING: [Self; 14] = [
        Self::Commit,
        Self::AppendStart,
        Self::Call,
        Self::AppendEvent,
        Self::AppendPartial,
        Self::Read,
        Self::Next,
        Self::AppendJob,
        Self::AppendCancel,
        Self::AppendAudit,
        Self::Delete,
        Self::Health,
        Self::Open,
        Self::Committed,
    ];
    /// Those of a node that starts.
    pub(super) const STARTING: [Self; 7] =
        [Self::CheckTopics, Self::Watermarks, Self::Open, Self::Join, Self::Committed, Self::Next, Self::Read];
}

/// On which side of a call's effect a crash lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Nothing happened.
    Before,
    /// It happened, and the node never hears of it.
    After,
}

/// What goes wrong beside crashes at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    SlowAnswer,
    AppendLost,
    AppendTorn,
    AppendAnswerLost,
    CommitAborted,
    CommitDoubtDone,
    CommitDoubtNot,
    CommitDoubtLate,
    CommitSplit,
    ReadFailed,
    QueryFailed,
    SessionExpired,
    Kill,
    Freeze,
    Zombie,
    Cut,
    LongCut,
    ClockAhead,
    ClockBack,
    Rebalance,
    ForeignFence,
    Kicked,
    CleanRestart,
    BackendDown,
    BackendFails,
    BackendBusy,
    BackendRejects,
    BackendHangs,
    ClientCut,
    Resubmitted,
    DoubledRecord,
    MisplacedRecord,
    ForeignRecord,
    ReusedKey,
    Repeated,
    OffCoordinators,
    CoordinatorKill,
    CoordinatorFreeze,
    CoordinatorStop,
    CoordinatorCut,
    CutOff,
}

impl Fault {
    /// All of them.
    pub(super) const ALL: [Self; 41] = [
        Self::SlowAnswer,
        Self::AppendLost,
        Self::AppendTorn,
        Self::AppendAnswerLost,
        Self::CommitAborted,
        Self::CommitDoubtDone,
        Self::CommitDoubtNot,
        Self::CommitDoubtLate,
        Self::CommitSplit,
        Self::ReadFailed,
        Self::QueryFailed,
        Self::SessionExpired,
        Self::Kill,
        Self::Freeze,
        Self::Zombie,
        Self::Cut,
        Self::LongCut,
        Self::ClockAhead,
        Self::ClockBack,
        Self::Rebalance,
        Self::ForeignFence,
        Self::Kicked,
        Self::CleanRestart,
        Self::BackendDown,
        Self::BackendFails,
        Self::BackendBusy,
        Self::BackendRejects,
        Self::BackendHangs,
        Self::ClientCut,
        Self::Resubmitted,
        Self::DoubledRecord,
        Self::MisplacedRecord,
        Self::ForeignRecord,
        Self::ReusedKey,
        Self::Repeated,
        Self::OffCoordinators,
        Self::CoordinatorKill,
        Self::CoordinatorFreeze,
        Self::CoordinatorStop,
        Self::CoordinatorCut,
        Self::CutOff,
    ];
}

/// Every crash point.
pub(super) fn crash_points() -> impl Iterator<Item = (Op, Phase)> {
    let ops = Op::RUNNING.into_iter().chain([Op::CheckTopics, Op::Watermarks, Op::Join]);
    ops.flat_map(|op| [(op, Phase::Before), (op, Phase::After)])
}

/// How often what happened.
#[derive(Debug, Default)]
pub(super) struct Counts {
    inner: Mutex<Tally>,
}

/// The numbers.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    /// By fault.
    pub(super) faults: BTreeMap<Fault, u64>,
    /// By crash point.
    pub(super) crashes: BTreeMap<(Op, Phase), u64>,
    /// Other figures, by name.
    pub(super) figures: BTreeMap<&'static str, u64>,
}

impl Counts {
    /// A fault happened.
    pub(super) fn fault(&self, fault: Fault) {
        *self.lock().faults.entry(fault).or_default() += 1;
    }

    /// A node crashed at a call.
    pub(super) fn crash(&self, op: Op, phase: Phase) {
        *self.lock().crashes.entry((op, phase)).or_default() += 1;
    }

    /// Adds to a figure.
    pub(super) fn add(&self, name: &'static str, more: u64) {
        *self.lock().figures.entry(name).or_default() += more;
    }

    /// The numbers so far.
    pub(super) fn tally(&self) -> Tally {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tally {
    /// Adds another run's numbers.
    pub fn merge(&mut self, other: &Self) {
        for (fault, count) in &other.faults {
            *self.faults.entry(*fault).or_default() += count;
        }
        for (point, count) in &other.crashes {
            *self.crashes.entry(*point).or_default() += count;
        }
        for (name, count) in &other.figures {
            *self.figures.entry(name).or_default() += count;
        }
    }

    /// What never happened.
    pub fn missing(&self) -> Vec<String> {
        let faults =
            Fault::ALL.iter().filter(|fault| !self.faults.contains_key(fault)).map(|fault| format!("{fault:?}"));
        let points = crash_points().filter(|point| !self.crashes.contains_key(point));
        faults.chain(points.map(|(op, phase)| format!("crash {phase:?} {op:?}"))).collect()
    }
}
