//! The log and its model, driven side by side: after each step the two must agree.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use proptest::sample::Index;

use super::super::{Core, Fetched, GroupEvent, MemberId, Write};
use super::disk::Disk;
use super::model::{Guard, Held, Joined, Model};
use super::steps::{Batch, Spoilt, Step};
use crate::port::{
    Assignment, Commit, CommitError, CommitOffset, Committed, JoinSpec, LogError, LogRecord, METADATA_BYTES_MAX,
    NewRecord, RECORD_BYTES_MAX, Retention, Start, Topic, TopicPartition, TopicSpec, TopicState, Watermarks,
};

const SESSION_MS: u64 = 1_000;
const AGE_MS: u64 = 2_000;
/// Records that a reader takes from the store at once; small, so that the borders of batches are met.
const STORED_BATCH: usize = 3;
/// Rounds after which a group that nothing happens to has come to rest.
const ROUNDS_MAX: usize = 60;

pub(super) fn spec(name: &str, partitions: u32, retention: Retention) -> TopicSpec {
    TopicSpec { name: name.into(), partitions, retention }
}

fn late() -> TopicSpec {
    spec("late", 3, Retention::Forever)
}

/// See the head of the file.
pub(in crate::local) struct World {
    pub(super) core: Core,
    pub(super) model: Model,
    pub(in crate::local) disk: Disk,
    /// Each group of writes that became durable, in order.
    pub(in crate::local) flushed: Vec<Vec<Write>>,
    writes: Vec<Write>,
    cache_bytes_max: usize,
    now_ms: u64,
}

impl World {
    pub(in crate::local) fn new(cache_bytes_max: usize) -> Self {
        let core = Core::new(Disk::default().kept(), Duration::from_millis(SESSION_MS), cache_bytes_max);
        let mut world = Self {
            core,
            model: Model::default(),
            disk: Disk::default(),
            flushed: Vec::new(),
            writes: Vec::new(),
            cache_bytes_max,
            now_ms: 1_000_000,
        };
        let age = Retention::Age(Duration::from_millis(AGE_MS));
        for spec in [spec("lane", 4, Retention::Forever), spec("aged", 1, age), spec("kept", 2, Retention::Compact)] {
            world.create(&spec);
        }
        world.flush();
        world
    }

    fn create(&mut self, spec: &TopicSpec) {
        self.core.create_topic(spec, &mut self.writes);
        self.model.now.create(spec);
    }

    pub(in crate::local) fn flush(&mut self) {
        let writes = std::mem::take(&mut self.writes);
        self.disk.apply(&writes);
        self.flushed.push(writes);
        self.core.publish();
        self.model.durable = self.model.now.clone();
    }

    /// The process dies: what was not durable is gone, and the log is built anew from what was.
    pub(super) fn restart(&mut self) {
        self.writes.clear();
        self.core = Core::new(self.disk.kept(), Duration::from_millis(SESSION_MS), self.cache_bytes_max);
        self.model.restart();
    }

    pub(in crate::local) fn step(&mut self, step: Step) {
        match step {
            Step::CreateLateTopic => self.create(&late()),
            Step::Append(batch, spoilt) => self.append(&batch, spoilt),
            Step::Commit { member, seats, batch, metadata, spoilt } => {
                self.commit(member, &seats, &batch, &metadata, spoilt);
            }
            Step::Join { group, transactional_id } => {
                self.join(&format!("group-{group}"), &format!("producer-{transactional_id}"));
            }
            Step::Leave(member) => self.leave(member),
            Step::Poll(member, times) => {
                if let Some(member) = self.pick(member) {
                    // At rest there is nothing more to ask for.
                    let _ = (0..times).all(|_| self.poll(&member));
                }
            }
            Step::Release(guard) => {
                if !self.model.guards.is_empty() {
                    let guard = self.model.guards.remove(guard.index(self.model.guards.len()));
                    self.release(&guard);
                }
            }
            Step::Pause(member, seat, paused) => self.pause(member, seat, paused),
            Step::Fence(id) => self.fence(&format!("producer-{id}")),
            Step::Delete(place, percent) => self.delete(place, percent),
            Step::Pass(ms) => self.pass(ms),
            Step::Flush => self.flush(),
            Step::Restart => {
                self.restart();
                self.check_contents();
            }
        }
        self.check();
    }

    fn pick(&self, member: Index) -> Option<Joined> {
        (!self.model.members.is_empty()).then(|| member.get(&self.model.members).clone())
    }

    fn places(&self) -> Vec<TopicPartition> {
        self.model.now.partitions.keys().cloned().collect()
    }

    fn records(&self, batch: &Batch, spoilt: Spoilt) -> Vec<NewRecord> {
        let places = self.places();
        let mut records: Vec<NewRecord> = batch
            .records
            .iter()
            .map(|(place, key, age, bytes)| NewRecord {
                to: place.get(&places).clone(),
                key: key.map(|key| Bytes::from(vec![key])),
                value: bytes.map(|bytes| Bytes::from(vec![b'v'; bytes])),
                headers: vec![("age".to_owned(), Bytes::from(age.to_string()))],
                timestamp_ms: self.now_ms.saturating_sub(*age),
            })
            .collect();
        let mut bad = NewRecord {
            to: TopicPartition::new("lane", 0),
            key: None,
            value: None,
            headers: Vec::new(),
            timestamp_ms: self.now_ms,
        };
        match spoilt {
            Spoilt::No | Spoilt::MetadataTooLong => return records,
            Spoilt::RecordTooLarge => bad.value = Some(Bytes::from(vec![0; RECORD_BYTES_MAX + 1])),
            Spoilt::UnknownTopic => bad.to = TopicPartition::new("nowhere", 0),
            Spoilt::UnknownPartition => bad.to = TopicPartition::new("lane", 4),
        }
        // The last one: those before it must not stay behind.
        records.push(bad);
        records
    }

    fn append(&mut self, batch: &Batch, spoilt: Spoilt) {
        let records = self.records(batch, spoilt);
        let before = self.writes.len();
        let result = self.core.append(records.clone(), &mut self.writes);
        match spoilt {
            Spoilt::No | Spoilt::MetadataTooLong => {
                let offsets: Vec<u64> = records.iter().map(|record| self.model.now.append(record)).collect();
                assert_eq!(result, Ok(offsets), "offsets are dense");
            }
            Spoilt::RecordTooLarge => {
                let (bytes, limit) = (RECORD_BYTES_MAX + 1, RECORD_BYTES_MAX);
                assert_eq!(result, Err(LogError::TooLarge { bytes, limit }));
            }
            Spoilt::UnknownTopic | Spoilt::UnknownPartition => {
                assert!(matches!(result, Err(LogError::UnknownTopic(_))), "{result:?}");
            }
        }
        assert!(result.is_ok() || self.writes.len() == before, "a refused append left something");
    }

    fn commit(&mut self, member: Index, seats: &[(bool, Index)], batch: &Batch, metadata: &str, spoilt: Spoilt) {
        let Some(member) = self.pick(member) else { return };
        let mut offsets = self.commit_offsets(&member, seats, metadata);
        if spoilt == Spoilt::MetadataTooLong {
            match offsets.last_mut() {
                Some(last) => last.metadata = "x".repeat(METADATA_BYTES_MAX + 1),
                None => return,
            }
        }
        let records = self.records(batch, spoilt);
        let strange: Vec<TopicPartition> = offsets
            .iter()
            .filter(|offset| {
                let held = self.model.held.get(&(member.group.clone(), offset.at.clone()));
                held.is_none_or(|held| (held.member, held.epoch) != (member.id, offset.epoch))
            })
            .map(|offset| offset.at.clone())
            .collect();
        let before = self.writes.len();
        let commit = Commit { records: records.clone(), offsets: offsets.clone() };
        let result = self.core.commit(&member.group, member.id, commit, &mut self.writes);
        assert!(result.is_ok() || self.writes.len() == before, "a refused commit left something: {result:?}");
        if spoilt != Spoilt::No {
            assert!(matches!(result, Err(CommitError::Invalid(_))), "{result:?}");
        } else if !member.alive || member.fenced {
            assert_eq!(result, Err(CommitError::Fenced), "{member:?}");
            self.member_mut(member.id).fenced = false;
        } else if strange.is_empty() {
            assert_eq!(result, Ok(()), "{member:?} may commit {offsets:?}");
            for record in &records {
                self.model.now.append(record);
            }
            for CommitOffset { at, next, metadata, .. } in offsets {
                self.model.now.offsets.insert((member.group.clone(), at), Committed { next, metadata });
            }
        } else {
            assert_eq!(result, Err(CommitError::NotOwner(strange)));
        }
    }

    /// Offsets for assignments of now and of the past, each partition once.
    fn commit_offsets(&self, member: &Joined, seats: &[(bool, Index)], metadata: &str) -> Vec<CommitOffset> {
        let own: Vec<(TopicPartition, u64)> =
            self.model.seats_of(member.id).into_iter().map(|(at, held)| (at, held.epoch)).collect();
        let any: Vec<(TopicPartition, u64)> =
            self.model.handed.iter().map(|((_, at), _, epoch)| (at.clone(), *epoch)).collect();
        let mut offsets: Vec<CommitOffset> = Vec::new();
        for (of_now, index) in seats {
            let from = if *of_now && !own.is_empty() { &own } else { &any };
            if from.is_empty() {
                continue;
            }
            let (at, epoch) = index.get(from).clone();
            if offsets.iter().any(|offset| offset.at == at) {
                continue;
            }
            let next =
                self.model.now.partitions.get(&at).map_or(0, |data| index.index(data.high() as usize + 1)) as u64;
            offsets.push(CommitOffset { at, epoch, next, metadata: metadata.to_owned() });
        }
        offsets
    }

    fn member_mut(&mut self, id: MemberId) -> &mut Joined {
        self.model.members.iter_mut().find(|one| one.id == id).expect("it joined")
    }

    pub(super) fn join(&mut self, group: &str, transactional_id: &str) -> Joined {
        let spec = JoinSpec {
            group: group.to_owned(),
            topics: vec!["lane".into(), "late".into()],
            client_id: String::new(),
            transactional_id: transactional_id.to_owned(),
            read_ahead_records_max: 8,
        };
        let id = self.core.join(&spec);
        assert!(self.model.members.iter().all(|one| one.id < id), "a member's name is its own");
        for earlier in self.model.members.iter_mut().filter(|one| one.transactional_id == transactional_id) {
            earlier.alive = false;
            self.model.held.retain(|_, held| held.member != earlier.id);
        }
        let (group, transactional_id) = (group.to_owned(), transactional_id.to_owned());
        let joined = Joined { id, group, transactional_id, alive: true, fenced: false };
        self.model.members.push(joined.clone());
        joined
    }

    fn leave(&mut self, member: Index) {
        let Some(Joined { id, group, .. }) = self.pick(member) else { return };
        self.core.leave(&group, id);
        self.member_mut(id).alive = false;
        self.model.drop_seats(|_, held| held.member == id);
    }

    fn fence(&mut self, transactional_id: &str) {
        self.core.fence(transactional_id);
        for one in self.model.members.iter_mut().filter(|one| one.alive && one.transactional_id == transactional_id) {
            one.fenced = true;
        }
    }

    pub(super) fn release(&mut self, guard: &Guard) {
        self.core.released(&guard.group, guard.member, &guard.partitions);
        self.model.drop_seats(|(group, at), held| {
            let given = guard.partitions.iter().any(|(given, epoch)| given == at && *epoch == held.epoch);
            given && *group == guard.group && held.member == guard.member
        });
    }

    fn pause(&mut self, member: Index, seat: Index, paused: bool) {
        let Some(Joined { id, group, .. }) = self.pick(member) else { return };
        let seats = self.model.seats_of(id);
        if seats.is_empty() {
            return;
        }
        let (at, _) = seat.get(&seats).clone();
        self.core.pause(&group, id, &at, paused);
        if let Some(held) = self.model.held.get_mut(&(group, at)) {
            held.paused = paused;
        }
    }

    fn delete(&mut self, place: Index, percent: u64) {
        let at = place.get(&self.places()).clone();
        let high = self.model.durable.partitions.get(&at).map_or(0, super::model::Records::high);
        let low = self.model.now.partitions[&at].low;
        let beyond = self.core.delete_before(&at, high + 1, &mut self.writes);
        assert_eq!(beyond, Err(LogError::OffsetOutOfRange { at: at.clone(), offset: high + 1, low, high }));
        let offset = high * percent / 100;
        assert_eq!(self.core.delete_before(&at, offset, &mut self.writes), Ok(()));
        self.model.now.partitions.get_mut(&at).expect("it exists").delete_before(offset);
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        let now = self.now_ms;
        self.core.tick(now, &mut self.writes);
        self.model.now.expire(now, &self.model.durable);
        self.model.drop_seats(|_, held| held.told.is_some_and(|deadline| deadline <= now));
    }

    /// A member asks what happens next; `false`: nothing.
    pub(super) fn poll(&mut self, member: &Joined) -> bool {
        let Some(event) = self.core.next_event(&member.group, member.id, self.now_ms) else {
            return self.deliver(member);
        };
        match event {
            GroupEvent::Assigned(given) => given.into_iter().for_each(|one| self.assigned(member, one)),
            GroupEvent::Revoking(partitions) => self.revoking(member, partitions),
            GroupEvent::Lost(partitions) => {
                for at in partitions {
                    let held = self.model.held.get(&(member.group.clone(), at));
                    assert!(held.is_none_or(|held| held.member != member.id), "told as lost but still held: {held:?}");
                }
            }
        }
        true
    }

    fn assigned(&mut self, member: &Joined, one: Assignment) {
        let seat = (member.group.clone(), one.at.clone());
        assert!(member.alive, "{member:?} is gone and was given {}", one.at);
        let held = self.model.held.get(&seat);
        assert!(held.is_none(), "{} was given to {member:?} while held: {held:?}", one.at);
        let newest = self.model.handed.iter().filter(|(at, ..)| *at == seat).map(|(.., epoch)| *epoch).max();
        assert!(newest < Some(one.epoch), "epochs rise: {newest:?}, {one:?}");
        let committed = self.model.now.offsets.get(&seat).cloned();
        let low = self.model.now.partitions[&one.at].low;
        assert_eq!(one.next, committed.as_ref().map_or(low, |committed| committed.next.max(low)), "{one:?}");
        assert_eq!(one.committed, committed);
        self.model.handed.push((seat.clone(), member.id, one.epoch));
        let held = Held { member: member.id, epoch: one.epoch, next: one.next, paused: false, told: None };
        self.model.held.insert(seat, held);
    }

    fn revoking(&mut self, member: &Joined, partitions: Vec<(TopicPartition, u64)>) {
        for (at, epoch) in &partitions {
            let held =
                self.model.held.get_mut(&(member.group.clone(), at.clone())).expect("only what is held is taken");
            assert_eq!((held.member, held.epoch, held.told), (member.id, *epoch, None));
            held.told = Some(self.now_ms + SESSION_MS);
        }
        self.model.guards.push(Guard { member: member.id, group: member.group.clone(), partitions });
    }

    /// Gives a member its next record, as the log's handle does; `false`: there is none.
    fn deliver(&mut self, member: &Joined) -> bool {
        while let Some((at, next, epoch)) = self.core.next_place(&member.group, member.id) {
            let seat = (member.group.clone(), at.clone());
            let expected = Held { member: member.id, epoch, next, paused: false, told: None };
            assert_eq!(self.model.held.get(&seat), Some(&expected), "{at} is not to be delivered from");
            let (record, go_on) = match self.core.fetch(&at, next) {
                Fetched::Record(record) => (Some(record), next),
                Fetched::Stored(from, to) => {
                    let number = self.core.topic_number(&at.topic).expect("it exists");
                    (self.disk.read(number, at.partition, from..to, 1).pop(), to)
                }
                Fetched::Gone { low, .. } => (None, low),
                Fetched::End => panic!("{at} has more from {next} on, and has not"),
            };
            let go_on = record.as_ref().map_or(go_on, |record| record.offset + 1);
            let visible = self.model.visible(&at).into_iter().find(|record| record.offset >= next).cloned();
            assert_eq!(record, visible.filter(|visible| record.is_some() || visible.offset < go_on), "from {next}");
            self.core.delivered(&member.group, &at, epoch, go_on);
            self.model.held.get_mut(&seat).expect("it is held").next = go_on;
            if record.is_some() {
                return true;
            }
        }
        for (at, held) in self.model.seats_of(member.id) {
            let readable = self.model.visible(&at).iter().any(|record| record.offset >= held.next);
            assert!(!readable || held.paused || held.told.is_some(), "{at} has a record for {member:?}: {held:?}");
        }
        false
    }

    /// What can be compared after every step.
    fn check(&self) {
        for ((group, at), member, epoch) in &self.model.handed {
            let holds = self.model.held.get(&(group.clone(), at.clone()));
            let holds = holds.is_some_and(|held| (held.member, held.epoch) == (*member, *epoch));
            assert_eq!(
                self.core.groups[group].owns(*member, at, *epoch),
                holds,
                "{at}, member {member}, epoch {epoch}"
            );
        }
        for (at, data) in &self.model.now.partitions {
            let high = self.model.durable.partitions.get(at).map_or(0, super::model::Records::high);
            assert_eq!(self.core.watermarks(at), Ok(Watermarks { low: data.low, stable: high, high }), "{at}");
            for group in ["group-0", "group-1"] {
                let expected = self.model.now.offsets.get(&(group.to_owned(), at.clone()));
                assert_eq!(self.core.committed(group, at).as_ref(), expected, "{group}, {at}");
            }
        }
    }

    /// Everything there is to read.
    pub(super) fn check_contents(&self) {
        for at in self.places() {
            let expected: Vec<LogRecord> = self.model.visible(&at).into_iter().cloned().collect();
            let start = self.core.start(&at, Start::Earliest).expect("it exists");
            assert_eq!(self.read(&at, start), expected, "{at}");
            for ms in [0, 1, self.now_ms - 2 * AGE_MS, self.now_ms - 300, self.now_ms, u64::MAX] {
                let start = self.core.start(&at, Start::Time(ms)).expect("it exists");
                let found = self.read(&at, start).into_iter().find(|record| record.timestamp_ms >= ms);
                let first = expected.iter().find(|record| record.timestamp_ms >= ms);
                assert_eq!(found.as_ref(), first, "{at} from the time {ms} on");
            }
        }
        for spec in &self.model.now.topics {
            assert_eq!(self.core.topic_state(spec), TopicState::Ready);
        }
    }

    /// Reads as the log's reader does: from memory where it can, else from the store, to the end.
    fn read(&self, at: &TopicPartition, start: u64) -> Vec<LogRecord> {
        let number = self.core.topic_number(&at.topic).expect("it exists");
        let (mut records, mut next) = (Vec::new(), start);
        loop {
            match self.core.fetch(at, next) {
                Fetched::Record(record) => {
                    assert!(self.disk.records.get(&(number, at.partition, record.offset)) == Some(&record));
                    next = record.offset + 1;
                    records.push(record);
                }
                Fetched::Stored(from, to) => {
                    let found = self.disk.read(number, at.partition, from..to, STORED_BATCH);
                    next = match found.last() {
                        Some(last) if found.len() == STORED_BATCH => last.offset + 1,
                        _ => to,
                    };
                    records.extend(found);
                }
                Fetched::End => return records,
                Fetched::Gone { low, high } => panic!("{at} begins at {low} (to {high}), but {next} was asked for"),
            }
        }
    }

    /// When nothing more happens, each group with members has shared out all its partitions fairly, and all is read.
    pub(super) fn check_rest(&mut self) {
        self.flush();
        self.check_contents();
        for seat in self.model.held.keys().cloned().collect::<Vec<_>>() {
            let held = self.model.held.get_mut(&seat).expect("it is held");
            held.paused = false;
            self.core.pause(&seat.0, held.member, &seat.1, false);
        }
        let rest = (0..ROUNDS_MAX).any(|_| {
            let mut busy = false;
            for member in self.model.members.clone() {
                while self.poll(&member) {
                    busy = true;
                }
            }
            for guard in std::mem::take(&mut self.model.guards) {
                busy = true;
                self.release(&guard);
            }
            self.check();
            !busy
        });
        assert!(rest, "the groups never come to rest");
        let topics: BTreeSet<Topic> = ["lane".into(), "late".into()].into();
        let all = self.model.now.partitions.keys().filter(|at| topics.contains(&at.topic)).count();
        for group in ["group-0", "group-1"] {
            let alive = self.model.alive(group);
            if alive.is_empty() {
                continue;
            }
            let seats = |id: &MemberId| self.model.seats_of(*id).len();
            let held: usize = alive.iter().map(seats).sum();
            assert_eq!(held, all, "each partition of {group} has an owner");
            let (least, most) = (alive.iter().map(seats).min(), alive.iter().map(seats).max());
            assert!(most.unwrap_or(0) - least.unwrap_or(0) <= 1, "{group} is shared unfairly: {least:?}..{most:?}");
        }
    }
}
