//! A member of a group, which may be declared dead, and comes back to a group that has gone on without it.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use relay_log::local::core::{Fetched, GroupEvent, MemberId};
use relay_log::port::{Commit, CommitError, JoinSpec, LogError, Member, MemberEvent, Release, TopicPartition};
use relay_runtime::clock::Clock as _;
use relay_runtime::random::Random as _;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Engine, READ_TIMEOUT, SESSION, TIMEOUT, lock, unavailable};
use crate::simulate::counts::{Fault, Op, Phase};
use crate::simulate::gate::{Gate, Life};
use crate::simulate::history::CommitSeen;

pub(super) struct MemberShared {
    pub(super) spec: JoinSpec,
    pub(super) gate: Arc<Gate>,
    pub(super) notify: Notify,
    state: Mutex<State>,
}

struct State {
    id: MemberId,
    owned: BTreeMap<TopicPartition, u64>,
    expired: bool,
    left: bool,
    unwell_since: Option<Instant>,
}

impl MemberShared {
    /// Whether its session ran out just now.
    pub(super) fn beat(&self, engine: &Engine) -> bool {
        let mut state = lock(&self.state);
        if state.left || state.expired {
            return false;
        }
        if self.gate.is_well() {
            state.unwell_since = None;
            return false;
        }
        let since = *state.unwell_since.get_or_insert_with(Instant::now);
        drop(state);
        let over = since.elapsed() >= SESSION;
        if over {
            self.expire(engine);
        }
        over
    }

    pub(super) fn expire(&self, engine: &Engine) {
        let mut state = lock(&self.state);
        if !state.left && !state.expired {
            state.expired = true;
            state.unwell_since = None;
            lock(&engine.core).leave(&self.spec.group, state.id);
        }
    }
}

pub(super) struct SimMember {
    engine: Arc<Engine>,
    number: u64,
    shared: Arc<MemberShared>,
    turn: tokio::sync::Mutex<()>,
}

/// Gives partitions on when it is dropped by a life that is not over.
struct Released {
    engine: Arc<Engine>,
    shared: Arc<MemberShared>,
    id: MemberId,
    partitions: Vec<(TopicPartition, u64)>,
}

impl Drop for Released {
    fn drop(&mut self) {
        if self.shared.gate.life() == Life::Dead {
            return;
        }
        let mut state = lock(&self.shared.state);
        for (at, epoch) in &self.partitions {
            if state.owned.get(at) == Some(epoch) {
                state.owned.remove(at);
            }
        }
        drop(state);
        lock(&self.engine.core).released(&self.shared.spec.group, self.id, &self.partitions);
        self.engine.wake_members();
    }
}

impl SimMember {
    pub(super) fn new(engine: Arc<Engine>, gate: Arc<Gate>, spec: JoinSpec, id: MemberId) -> Self {
        let state = State { id, owned: BTreeMap::new(), expired: false, left: false, unwell_since: None };
        let shared = Arc::new(MemberShared { spec, gate, notify: Notify::new(), state: Mutex::new(state) });
        let number = engine.number();
        lock(&engine.members).insert(number, shared.clone());
        Self { engine, number, shared, turn: tokio::sync::Mutex::new(()) }
    }

    /// Joins again after its session ran out; what it lost, if anything.
    fn come_back(&self) -> Option<MemberEvent> {
        let mut state = lock(&self.shared.state);
        state.expired = false;
        state.id = lock(&self.engine.core).join(&self.shared.spec);
        let lost: Vec<_> = std::mem::take(&mut state.owned).into_keys().collect();
        drop(state);
        self.engine.wake_members();
        (!lost.is_empty()).then_some(MemberEvent::Lost(lost))
    }

    fn look(&self) -> Option<MemberEvent> {
        let (mut state, mut core) = (lock(&self.shared.state), lock(&self.engine.core));
        let (group, id) = (&self.shared.spec.group, state.id);
        if let Some(event) = core.next_event(group, id, self.engine.clock.now_ms()) {
            return Some(self.event(event, &mut state));
        }
        loop {
            let (at, next, epoch) = core.next_place(group, id)?;
            match core.fetch(&at, next) {
                Fetched::Record(record) => {
                    core.delivered(group, &at, epoch, record.offset + 1);
                    return Some(MemberEvent::Record { record, epoch });
                }
                Fetched::Gone { low: to, .. } | Fetched::Stored(_, to) => core.delivered(group, &at, epoch, to),
                Fetched::End => return None,
            }
        }
    }

    fn event(&self, event: GroupEvent, state: &mut State) -> MemberEvent {
        match event {
            GroupEvent::Assigned(assignments) => {
                let mut journal = lock(&self.engine.journal);
                for assignment in &assignments {
                    state.owned.insert(assignment.at.clone(), assignment.epoch);
                    let newest = journal.epochs.entry(assignment.at.clone()).or_default();
                    if assignment.epoch >= *newest {
                        *newest = assignment.epoch;
                        journal.owners.insert(assignment.at.clone(), self.shared.gate.number);
                    }
                }
                MemberEvent::Assigned(assignments)
            }
            GroupEvent::Lost(partitions) => {
                state.owned.retain(|at, _| !partitions.contains(at));
                MemberEvent::Lost(partitions)
            }
            GroupEvent::Revoking(partitions) => {
                let taken = partitions.iter().map(|(at, _)| at.clone()).collect();
                let (engine, shared) = (self.engine.clone(), self.shared.clone());
                let guard = Released { engine, shared, id: state.id, partitions };
                MemberEvent::Revoking { partitions: taken, release: Release::guarded(guard) }
            }
        }
    }

    fn go(&self) {
        let mut state = lock(&self.shared.state);
        if self.shared.gate.life() == Life::Dead || state.left {
            // The dead say no goodbye: their session runs out.
            return;
        }
        state.left = true;
        lock(&self.engine.core).leave(&self.shared.spec.group, state.id);
        drop(state);
        self.engine.wake_members();
    }
}

impl Engine {
    /// Carries out a commit for whoever the member is now.
    fn commit_now(&self, shared: &MemberShared, commit: &Commit) -> Result<(), CommitError> {
        let (id, expired) = {
            let state = lock(&shared.state);
            (state.id, state.expired)
        };
        let mut writes = Vec::new();
        let result = lock(&self.core).commit(&shared.spec.group, id, commit.clone(), &mut writes);
        if let (Err(CommitError::Fenced), true) = (&result, expired) {
            return Err(CommitError::NotOwner(commit.offsets.iter().map(|offset| offset.at.clone()).collect()));
        }
        result?;
        let mut journal = lock(&self.journal);
        let stale = commit
            .offsets
            .iter()
            .find(|offset| journal.epochs.get(&offset.at).is_some_and(|newest| *newest > offset.epoch));
        let seen = CommitSeen {
            life: shared.gate.number,
            is_fenced: expired || stale.is_some(),
            places: writes
                .iter()
                .filter_map(|write| match write {
                    relay_log::local::core::Write::Record(_, record) => Some((record.at.clone(), record.offset)),
                    _ => None,
                })
                .collect(),
        };
        journal.commits.push(seen);
        drop(journal);
        self.publish(&writes);
        Ok(())
    }
}

#[async_trait]
impl Member for SimMember {
    async fn next(&self) -> Result<MemberEvent, LogError> {
        let shared = &self.shared;
        loop {
            shared.gate.pass(Op::Next, Phase::Before).await;
            if lock(&shared.state).left {
                return Err(LogError::Closed);
            }
            if shared.gate.is_cut() {
                tokio::time::sleep(READ_TIMEOUT).await;
                return Err(unavailable("cut off"));
            }
            let expired = lock(&shared.state).expired;
            let event = if expired { self.come_back() } else { self.look() };
            if let Some(event) = event {
                shared.gate.pass(Op::Next, Phase::After).await;
                return Ok(event);
            }
            if !expired {
                shared.notify.notified().await;
            }
        }
    }

    async fn commit(&self, commit: Commit) -> Result<(), CommitError> {
        let (engine, shared) = (&self.engine, &self.shared);
        let _turn = self.turn.lock().await;
        shared.gate.pass(Op::Commit, Phase::Before).await;
        engine.latency().await;
        if shared.gate.is_cut() {
            tokio::time::sleep(TIMEOUT).await;
            return Err(CommitError::Aborted("simulated: cut off".to_owned()));
        }
        if engine.rolls(Fault::CommitAborted, 15) {
            return Err(CommitError::Aborted("simulated: aborted".to_owned()));
        }
        if engine.rolls(Fault::CommitDoubtNot, 15) {
            tokio::time::sleep(TIMEOUT).await;
            return Err(CommitError::InDoubt("simulated: it did not happen".to_owned()));
        }
        if engine.rolls(Fault::CommitDoubtLate, 15) {
            engine.late.fetch_add(1, Ordering::Relaxed);
            let (engine, shared) = (engine.clone(), shared.clone());
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(engine.random.below(3_000))).await;
                drop(engine.commit_now(&shared, &commit));
                engine.late.fetch_sub(1, Ordering::Relaxed);
            });
            return Err(CommitError::InDoubt("simulated: it may happen later".to_owned()));
        }
        if engine.rolls(Fault::CommitSplit, 10) {
            engine.commit_now(shared, &Commit { records: Vec::new(), ..commit })?;
            shared.gate.pass(Op::Commit, Phase::After).await;
            tokio::time::sleep(TIMEOUT).await;
            return Err(CommitError::InDoubt("simulated: only its offsets were kept".to_owned()));
        }
        engine.commit_now(shared, &commit)?;
        if engine.rolls(Fault::CommitDoubtDone, 20) {
            tokio::time::sleep(TIMEOUT).await;
            return Err(CommitError::InDoubt("simulated: it happened".to_owned()));
        }
        engine.latency().await;
        shared.gate.pass(Op::Commit, Phase::After).await;
        Ok(())
    }

    fn pause(&self, at: &TopicPartition, paused: bool) {
        if self.shared.gate.life() == Life::Open {
            let id = lock(&self.shared.state).id;
            lock(&self.engine.core).pause(&self.shared.spec.group, id, at, paused);
            self.shared.notify.notify_one();
        }
    }

    async fn leave(&self) {
        self.go();
    }
}

impl Drop for SimMember {
    fn drop(&mut self) {
        self.go();
        if self.shared.gate.life() != Life::Dead {
            lock(&self.engine.members).remove(&self.number);
        }
    }
}
