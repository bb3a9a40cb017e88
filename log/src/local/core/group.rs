//! One group: who owns which partition, and how partitions move. Cooperative: only what moves is taken, and it is given
//! on when its member has settled it.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::port::{Assignment, Committed, JoinSpec, Topic, TopicPartition};

/// Names a member of any group, and one life of it.
pub type MemberId = u64;

/// What happens to a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupEvent {
    /// See [`crate::port::MemberEvent::Assigned`].
    Assigned(Vec<Assignment>),
    /// See [`crate::port::MemberEvent::Revoking`]; with the epoch of each assignment that ends.
    Revoking(Vec<(TopicPartition, u64)>),
    /// See [`crate::port::MemberEvent::Lost`].
    Lost(Vec<TopicPartition>),
}

#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) offsets: HashMap<TopicPartition, Committed>,
    members: BTreeMap<MemberId, Member>,
    partitions: BTreeMap<TopicPartition, Owner>,
}

#[derive(Debug)]
struct Member {
    topics: Vec<Topic>,
    transactional_id: String,
    producer: u64,
    events: VecDeque<GroupEvent>,
    /// Whose turn it was last.
    turn: Option<TopicPartition>,
    /// Fenced: it owns nothing and gets nothing.
    gone: bool,
}

#[derive(Debug, Default)]
struct Owner {
    member: Option<MemberId>,
    epoch: u64,
    /// Where delivery goes on; `None` until the member took its assignment.
    next: Option<u64>,
    paused: bool,
    revoking: Option<Revoking>,
}

#[derive(Debug)]
enum Revoking {
    /// The member was not told yet.
    Queued,
    /// It was told; by this time (milliseconds since the Unix epoch) the partition is taken anyway.
    Told(u64),
}

impl Group {
    pub(super) fn join(
        &mut self,
        id: MemberId,
        spec: &JoinSpec,
        producer: u64,
        partitions: Vec<TopicPartition>,
        epoch: &mut u64,
    ) {
        let member = Member {
            topics: spec.topics.clone(),
            transactional_id: spec.transactional_id.clone(),
            producer,
            events: VecDeque::new(),
            turn: None,
            gone: false,
        };
        self.members.insert(id, member);
        for at in partitions {
            self.partitions.entry(at).or_default();
        }
        self.balance(epoch);
    }

    pub(super) fn topic_created(&mut self, topic: &Topic, partitions: u32, epoch: &mut u64) {
        if self.members.values().any(|member| member.topics.contains(topic)) {
            for partition in 0..partitions {
                self.partitions.entry(TopicPartition::new(topic.clone(), partition)).or_default();
            }
            self.balance(epoch);
        }
    }

    pub(super) fn leave(&mut self, id: MemberId, epoch: &mut u64) {
        if self.members.remove(&id).is_some() {
            self.take_all(id);
            self.balance(epoch);
        }
    }

    /// Takes everything from the holder of a transactional id that somebody else holds now.
    pub(super) fn evict_holder(&mut self, transactional_id: &str, epoch: &mut u64) {
        let holders: Vec<MemberId> = self
            .members
            .iter()
            .filter(|(_, member)| !member.gone && member.transactional_id == transactional_id)
            .map(|(id, _)| *id)
            .collect();
        for id in &holders {
            let lost = self.take_all(*id);
            if let Some(member) = self.members.get_mut(id) {
                member.gone = true;
                member.events.clear();
                if !lost.is_empty() {
                    member.events.push_back(GroupEvent::Lost(lost));
                }
            }
        }
        if !holders.is_empty() {
            self.balance(epoch);
        }
    }

    fn take_all(&mut self, id: MemberId) -> Vec<TopicPartition> {
        let mut taken = Vec::new();
        for (at, owner) in self.partitions.iter_mut().filter(|(_, owner)| owner.member == Some(id)) {
            *owner = Owner::default();
            taken.push(at.clone());
        }
        taken
    }

    pub(super) fn producer(&self, id: MemberId) -> Option<(String, u64)> {
        let member = self.members.get(&id).filter(|member| !member.gone)?;
        Some((member.transactional_id.clone(), member.producer))
    }

    pub(super) fn set_producer(&mut self, id: MemberId, producer: u64) {
        if let Some(member) = self.members.get_mut(&id) {
            member.producer = producer;
        }
    }

    pub(super) fn owns(&self, id: MemberId, at: &TopicPartition, epoch: u64) -> bool {
        self.partitions.get(at).is_some_and(|owner| owner.member == Some(id) && owner.epoch == epoch)
    }

    pub(super) fn released(&mut self, id: MemberId, partitions: &[(TopicPartition, u64)], epoch: &mut u64) {
        for (at, of) in partitions {
            match self.partitions.get_mut(at) {
                // An assignment that ended long ago is released late: the one of now is not meant.
                Some(owner) if owner.member == Some(id) && owner.epoch == *of && owner.revoking.is_some() => {
                    *owner = Owner::default();
                }
                _ => {}
            }
        }
        self.balance(epoch);
    }

    pub(super) fn next_event(
        &mut self,
        id: MemberId,
        deadline_ms: u64,
        low: impl Fn(&TopicPartition) -> Option<u64>,
    ) -> Option<GroupEvent> {
        let mut event = self.members.get_mut(&id)?.events.pop_front()?;
        match &mut event {
            GroupEvent::Assigned(assignments) => {
                // Taken as late as possible: it must hold what the earlier owner committed last.
                for assignment in assignments.iter_mut() {
                    let committed = self.offsets.get(&assignment.at).cloned();
                    let low = low(&assignment.at).unwrap_or_default();
                    assignment.next = committed.as_ref().map_or(low, |committed| committed.next.max(low));
                    assignment.committed = committed;
                }
                assignments.retain(|assignment| match self.partitions.get_mut(&assignment.at) {
                    Some(owner) if owner.member == Some(id) && owner.epoch == assignment.epoch => {
                        owner.next = Some(assignment.next);
                        true
                    }
                    _ => false,
                });
            }
            GroupEvent::Revoking(partitions) => {
                for (at, _) in partitions {
                    if let Some(owner) = self.partitions.get_mut(at).filter(|owner| owner.member == Some(id)) {
                        owner.revoking = Some(Revoking::Told(deadline_ms));
                    }
                }
            }
            GroupEvent::Lost(_) => {}
        }
        Some(event)
    }

    pub(super) fn next_place(
        &mut self,
        id: MemberId,
        has_more: impl Fn(&TopicPartition, u64) -> bool,
    ) -> Option<(TopicPartition, u64, u64)> {
        let member = self.members.get_mut(&id)?;
        let ready = |(at, owner): (&TopicPartition, &Owner)| {
            let next = owner.next.filter(|_| owner.member == Some(id) && !owner.paused && owner.revoking.is_none())?;
            has_more(at, next).then(|| (at.clone(), next, owner.epoch))
        };
        let after = member.turn.as_ref().and_then(|turn| {
            self.partitions.range((std::ops::Bound::Excluded(turn), std::ops::Bound::Unbounded)).find_map(ready)
        });
        let place = after.or_else(|| self.partitions.iter().find_map(ready))?;
        member.turn = Some(place.0.clone());
        Some(place)
    }

    pub(super) fn delivered(&mut self, at: &TopicPartition, epoch: u64, next: u64) {
        if let Some(owner) = self.partitions.get_mut(at).filter(|owner| owner.epoch == epoch) {
            owner.next = Some(next);
        }
    }

    pub(super) fn pause(&mut self, id: MemberId, at: &TopicPartition, paused: bool) {
        if let Some(owner) = self.partitions.get_mut(at).filter(|owner| owner.member == Some(id)) {
            owner.paused = paused;
        }
    }

    pub(super) fn tick(&mut self, now_ms: u64, epoch: &mut u64) {
        let mut lost: BTreeMap<MemberId, Vec<TopicPartition>> = BTreeMap::new();
        for (at, owner) in &mut self.partitions {
            if matches!(owner.revoking, Some(Revoking::Told(deadline)) if deadline <= now_ms)
                && let Some(id) = owner.member
            {
                lost.entry(id).or_default().push(at.clone());
                *owner = Owner::default();
            }
        }
        if lost.is_empty() {
            return;
        }
        for (id, partitions) in lost {
            if let Some(member) = self.members.get_mut(&id) {
                member.events.push_back(GroupEvent::Lost(partitions));
            }
        }
        self.balance(epoch);
    }

    /// Gives free partitions to those who have least, and takes from those who have too many.
    fn balance(&mut self, epoch: &mut u64) {
        let members: Vec<MemberId> = self.members.iter().filter(|(_, one)| !one.gone).map(|(id, _)| *id).collect();
        if members.is_empty() {
            return;
        }
        let mut held: BTreeMap<MemberId, Vec<TopicPartition>> = members.iter().map(|id| (*id, Vec::new())).collect();
        for (at, owner) in &self.partitions {
            if let (Some(id), None) = (owner.member, &owner.revoking) {
                held.entry(id).or_default().push(at.clone());
            }
        }
        let quotas = self.quotas(&held);
        self.give(&quotas, &mut held, epoch);
        self.take(&quotas, &held);
    }

    /// How many each member should have: those who have most keep the odd ones.
    fn quotas(&self, held: &BTreeMap<MemberId, Vec<TopicPartition>>) -> HashMap<MemberId, usize> {
        let (each, odd) = (self.partitions.len() / held.len(), self.partitions.len() % held.len());
        let mut order: Vec<_> =
            held.iter().map(|(id, partitions)| (std::cmp::Reverse(partitions.len()), *id)).collect();
        order.sort_unstable();
        order.into_iter().enumerate().map(|(rank, (_, id))| (id, each + usize::from(rank < odd))).collect()
    }

    fn give(
        &mut self,
        quotas: &HashMap<MemberId, usize>,
        held: &mut BTreeMap<MemberId, Vec<TopicPartition>>,
        epoch: &mut u64,
    ) {
        let mut given: BTreeMap<MemberId, Vec<Assignment>> = BTreeMap::new();
        for (at, owner) in self.partitions.iter_mut().filter(|(_, owner)| owner.member.is_none()) {
            let has_room =
                |(id, has): &(&MemberId, &Vec<TopicPartition>)| has.len() < quotas.get(id).copied().unwrap_or(0);
            let Some(id) = held.iter().filter(has_room).min_by_key(|(_, has)| has.len()).map(|(id, _)| *id) else {
                continue;
            };
            *epoch += 1;
            *owner = Owner { member: Some(id), epoch: *epoch, ..Owner::default() };
            held.entry(id).or_default().push(at.clone());
            let assignment = Assignment { at: at.clone(), epoch: *epoch, committed: None, next: 0 };
            given.entry(id).or_default().push(assignment);
        }
        for (id, assignments) in given {
            if let Some(member) = self.members.get_mut(&id) {
                member.events.push_back(GroupEvent::Assigned(assignments));
            }
        }
    }

    fn take(&mut self, quotas: &HashMap<MemberId, usize>, held: &BTreeMap<MemberId, Vec<TopicPartition>>) {
        for (id, partitions) in held {
            let quota = quotas.get(id).copied().unwrap_or(0);
            let surplus: Vec<TopicPartition> = partitions.iter().skip(quota).cloned().collect();
            if surplus.is_empty() {
                continue;
            }
            let mut taken = Vec::with_capacity(surplus.len());
            for at in surplus {
                if let Some(owner) = self.partitions.get_mut(&at) {
                    owner.revoking = Some(Revoking::Queued);
                    taken.push((at, owner.epoch));
                }
            }
            if let Some(member) = self.members.get_mut(id) {
                member.events.push_back(GroupEvent::Revoking(taken));
            }
        }
    }
}
