//! Ends what dead members of a group have open, when their partitions go to others.
//!
//! A member that died between sending its offsets and committing them holds up whoever is assigned its partitions, and what
//! it appended hides all later records of those partitions, until the broker times its transaction out. Its transactional
//! id is registered, so the heir makes a producer of that id instead: the transaction ends at once. This runs on a thread of
//! its own for as long as it is needed; the thread that serves the group only starts it.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use relay_protocol::record::MemberRegistration;

use super::query::{Query, open_transaction_max};
use super::registrations::Found;
use super::registry::{Reading, Registry};
use super::{KafkaSettings, lock, transaction};
use crate::port::{JoinSpec, LogError};

/// How long a registered member must be gone before it is fenced: one that was pushed out of the group, and lives, comes back
/// to it sooner.
const GONE_FOR: Duration = Duration::from_millis(300);

/// Pause between two rounds while committed offsets are not answered.
const ROUND_PAUSE: Duration = Duration::from_millis(500);

/// How long one question for the members of the group may take.
const MEMBERS_TIMEOUT: Duration = Duration::from_millis(1_000);

/// Looks for dead members of one group.
pub(super) struct Heir {
    settings: KafkaSettings,
    query: Arc<Query>,
    registry: Arc<Registry>,
    group: String,
    /// The name of the member that inherits.
    client_id: String,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// A thread looks.
    running: bool,
    /// Partitions were assigned since the last round began.
    assigned: bool,
    /// Their committed offsets are not known yet.
    waiting: bool,
    /// The member left.
    ended: bool,
}

impl Heir {
    pub(super) fn new(settings: &KafkaSettings, query: &Arc<Query>, registry: &Arc<Registry>, spec: &JoinSpec) -> Self {
        Self {
            settings: settings.clone(),
            query: Arc::clone(query),
            registry: Arc::clone(registry),
            group: spec.group.clone(),
            client_id: spec.client_id.clone(),
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Partitions were assigned: looks at once, and until [`Self::answered`].
    pub(super) fn assigned(self: &Arc<Self>) {
        let mut state = lock(&self.state);
        (state.assigned, state.waiting) = (true, true);
        self.changed.notify_all();
        if state.running || state.ended {
            return;
        }
        let heir = Arc::clone(self);
        let thread = std::thread::Builder::new().name("kafka-heir".to_owned());
        match thread.spawn(move || heir.run()) {
            Ok(_) => state.running = true,
            Err(error) => tracing::warn!(%error, "no thread to end what dead members have open"),
        }
    }

    /// Their committed offsets are known.
    pub(super) fn answered(&self) {
        lock(&self.state).waiting = false;
        self.changed.notify_all();
    }

    /// The member leaves.
    pub(super) fn end(&self) {
        lock(&self.state).ended = true;
        self.changed.notify_all();
    }

    fn run(&self) {
        let mut until = Instant::now();
        loop {
            if std::mem::take(&mut lock(&self.state).assigned) {
                // Beyond it the broker has ended what a dead member had open.
                until = Instant::now() + open_transaction_max(&self.settings);
            }
            let outcome = self.round();
            if let Err(error) = &outcome {
                tracing::debug!(%error, group = self.group, "looking for dead members");
            }
            let mut state = lock(&self.state);
            let again = state.waiting || (outcome.is_err() && Instant::now() < until);
            if state.ended || !(again || state.assigned) {
                state.running = false;
                return;
            }
            drop(state);
            self.pause(ROUND_PAUSE, |state| state.assigned);
        }
    }

    /// Waits, but no longer than until the member leaves or `enough` is true.
    fn pause(&self, time: Duration, enough: impl Fn(&State) -> bool) {
        let wait = |state: &mut State| !state.ended && !enough(state);
        drop(self.changed.wait_timeout_while(lock(&self.state), time, wait).map_err(PoisonError::into_inner));
    }

    /// Fences those that are dead now and still after a while.
    fn round(&self) -> Result<(), LogError> {
        let mut reading = self.registry.open()?;
        let first = self.look(&mut reading)?;
        self.registry.forget(&first.superseded)?;
        if first.dead.is_empty() {
            return Ok(());
        }
        self.pause(GONE_FOR, |_| false);
        let still = self.look(&mut reading)?.dead;
        drop(reading);
        if lock(&self.state).ended {
            return Ok(());
        }
        let dead: Vec<_> = first.dead.into_iter().filter(|member| still.contains(member)).collect();
        std::thread::scope(|scope| {
            // One whose coordinator does not answer holds up none of the others.
            let fences: Vec<_> = dead.iter().map(|member| scope.spawn(|| self.fence(member))).collect();
            fences.into_iter().try_for_each(|fence| {
                fence.join().unwrap_or_else(|_| Err(LogError::Unavailable("a thread that fences died".to_owned())))
            })
        })
    }

    fn look(&self, reading: &mut Reading<'_>) -> Result<Found, LogError> {
        let found = reading.refresh()?;
        // Asked after the registrations were read: who registers meanwhile is not among them.
        let members: BTreeSet<_> = self.query.members(&self.group, MEMBERS_TIMEOUT)?.into_iter().collect();
        if !members.contains(&self.client_id) {
            // We were assigned partitions: a list without us is not the group's of now.
            return Err(LogError::Unavailable("the list of the group's members lacks this one".to_owned()));
        }
        Ok(found.look(&self.group, &members))
    }

    fn fence(&self, member: &MemberRegistration) -> Result<(), LogError> {
        let MemberRegistration { group, client_id, transactional_id, incarnation } = member;
        let began = Instant::now();
        transaction::fence(&self.settings, transactional_id)?;
        metrics::counter!("relay_members_fenced_total", "group" => group.clone()).increment(1);
        let took = began.elapsed();
        tracing::info!(group, client_id, transactional_id, incarnation, ?took, "a dead member was fenced");
        self.registry.forget(std::slice::from_ref(member))
    }
}
