//! Through which all calls of one life of a node go: it crashes, freezes and is cut off here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::counts::{Counts, Op, Phase};

/// In this time after a stand-still a process has looked at its clock.
const WAKING: std::time::Duration = std::time::Duration::from_millis(5);

/// How it is with a life of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// It runs.
    Open,
    /// It stands still.
    Frozen,
    /// It is over: no call ever returns.
    Dead,
}

#[derive(Debug)]
struct State {
    life: Life,
    cut: bool,
    /// No coordinator can be reached.
    off_coordinators: bool,
    /// When it went on after it had stood still.
    woke: Option<Instant>,
    armed: Option<(Op, Phase)>,
}

/// The gate of one life.
#[derive(Debug)]
pub(super) struct Gate {
    /// Number of the life, of all lives of all nodes.
    pub(super) number: u64,
    state: Mutex<State>,
    changed: Notify,
    counts: Arc<Counts>,
}

impl Gate {
    /// An open gate.
    pub(super) fn new(number: u64, counts: Arc<Counts>) -> Arc<Self> {
        let state =
            Mutex::new(State { life: Life::Open, cut: false, off_coordinators: false, woke: None, armed: None });
        Arc::new(Self { number, state, changed: Notify::new(), counts })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a call pass; never, once the life is over.
    pub(super) async fn pass(&self, op: Op, phase: Phase) {
        loop {
            let changed = self.changed.notified();
            {
                let mut state = self.lock();
                if state.life == Life::Open && state.armed == Some((op, phase)) {
                    state.life = Life::Dead;
                    self.counts.crash(op, phase);
                    drop(state);
                    self.changed.notify_waiters();
                    continue;
                }
                if state.life == Life::Open {
                    return;
                }
            }
            // Once it is dead nothing changes any more.
            changed.await;
        }
    }

    /// The next such call is the last.
    pub(super) fn arm(&self, op: Op, phase: Phase) {
        self.lock().armed = Some((op, phase));
    }

    /// How it is.
    pub(super) fn life(&self) -> Life {
        self.lock().life
    }

    /// Whether the log can be reached.
    pub(super) fn is_cut(&self) -> bool {
        self.lock().cut
    }

    /// Whether the log hears of it.
    pub(super) fn is_well(&self) -> bool {
        let state = self.lock();
        state.life == Life::Open && !state.cut
    }

    /// Sets the life, unless it is over.
    pub(super) fn set(&self, life: Life) {
        let mut state = self.lock();
        if (state.life, life) == (Life::Frozen, Life::Open) {
            state.woke = Some(Instant::now());
        }
        if state.life != Life::Dead {
            state.life = life;
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Whether it runs, and has done so for long enough to have noticed what happened while it stood still.
    pub(super) fn is_awake(&self) -> bool {
        let state = self.lock();
        state.life == Life::Open && state.woke.is_none_or(|woke| woke.elapsed() >= WAKING)
    }

    /// Whether coordinators cannot be reached.
    pub(super) fn is_off_coordinators(&self) -> bool {
        self.lock().off_coordinators
    }

    /// Cuts the coordinators off, or not.
    pub(super) fn cut_coordinators(&self, off: bool) {
        self.lock().off_coordinators = off;
    }

    /// Cuts the log off, or not.
    pub(super) fn cut(&self, cut: bool) {
        self.lock().cut = cut;
    }

    /// Returns when the life differs from `from`.
    pub(super) async fn changed(&self, from: Life) {
        loop {
            let changed = self.changed.notified();
            if self.life() != from {
                return;
            }
            changed.await;
        }
    }
}
