//! Rules with a border: limits, the cache, and races that take many steps to meet.

use std::time::Duration;

use bytes::Bytes;

use super::super::{BLOCK_OFFSETS, Core, Fetched, GroupEvent, MemberId, Write};
use super::disk::Disk;
use super::world::spec;
use crate::port::{
    Assignment, Commit, CommitError, CommitOffset, Committed, JoinSpec, LogError, METADATA_BYTES_MAX, NewRecord,
    RECORD_BYTES_MAX, Retention, Start, TopicPartition,
};

const SESSION_MS: u64 = 1_000;
/// What the cache counts for a record beside its value.
const RECORD_COST: usize = 128;

/// A log with the topic "lane" (4 partitions) and the compacted topic "kept" (1 partition).
struct Rig {
    core: Core,
    disk: Disk,
    writes: Vec<Write>,
}

impl Rig {
    fn new(cache_bytes_max: usize) -> Self {
        let mut rig = Self { core: core(&Disk::default(), cache_bytes_max), disk: Disk::default(), writes: Vec::new() };
        rig.core.create_topic(&spec("lane", 4, Retention::Forever), &mut rig.writes);
        rig.core.create_topic(&spec("kept", 1, Retention::Compact), &mut rig.writes);
        rig.flush();
        rig
    }

    fn flush(&mut self) {
        self.disk.apply(&std::mem::take(&mut self.writes));
        self.core.publish();
    }

    fn restarted(mut self) -> Self {
        self.core = core(&self.disk, 0);
        self.writes.clear();
        self
    }

    fn append(&mut self, records: Vec<NewRecord>) -> Result<Vec<u64>, LogError> {
        self.core.append(records, &mut self.writes)
    }

    fn join(&mut self, transactional_id: &str) -> MemberId {
        self.core.join(&JoinSpec {
            group: "group".to_owned(),
            topics: vec!["lane".into()],
            client_id: String::new(),
            transactional_id: transactional_id.to_owned(),
            read_ahead_records_max: 8,
        })
    }

    fn event(&mut self, member: MemberId, now_ms: u64) -> Option<GroupEvent> {
        self.core.next_event("group", member, now_ms)
    }

    fn assigned(&mut self, member: MemberId) -> Vec<Assignment> {
        match self.event(member, 0) {
            Some(GroupEvent::Assigned(given)) => given,
            other => panic!("expected an assignment, got {other:?}"),
        }
    }

    fn revoked(&mut self, member: MemberId, now_ms: u64) -> Vec<(TopicPartition, u64)> {
        match self.event(member, now_ms) {
            Some(GroupEvent::Revoking(partitions)) => partitions,
            other => panic!("expected a revocation, got {other:?}"),
        }
    }

    fn commit(&mut self, member: MemberId, records: Vec<NewRecord>, offset: CommitOffset) -> Result<(), CommitError> {
        let commit = Commit { records, offsets: vec![offset] };
        self.core.commit("group", member, commit, &mut self.writes)
    }
}

fn core(disk: &Disk, cache_bytes_max: usize) -> Core {
    Core::new(disk.kept(), Duration::from_millis(SESSION_MS), cache_bytes_max)
}

fn lane() -> TopicPartition {
    TopicPartition::new("lane", 0)
}

fn kept() -> TopicPartition {
    TopicPartition::new("kept", 0)
}

fn record(to: TopicPartition, key: &'static str, bytes: usize, timestamp_ms: u64) -> NewRecord {
    let key = (!key.is_empty()).then(|| Bytes::from_static(key.as_bytes()));
    NewRecord { to, key, value: Some(Bytes::from(vec![7; bytes])), headers: Vec::new(), timestamp_ms }
}

fn offset(owned: &Assignment, metadata: String) -> CommitOffset {
    CommitOffset { at: owned.at.clone(), epoch: owned.epoch, next: 1, metadata }
}

#[test]
fn a_record_may_have_the_limit_and_not_a_byte_more() {
    let mut rig = Rig::new(1 << 24);
    assert_eq!(rig.append(vec![record(lane(), "", RECORD_BYTES_MAX, 1)]), Ok(vec![0]));
    let (bytes, limit) = (RECORD_BYTES_MAX + 1, RECORD_BYTES_MAX);
    let both = vec![record(lane(), "", 1, 1), record(lane(), "", bytes, 1)];
    assert_eq!(rig.append(both), Err(LogError::TooLarge { bytes, limit }));
    assert_eq!(rig.append(vec![record(lane(), "", 1, 1)]), Ok(vec![1]), "the refused batch took no offset");
}

#[test]
fn metadata_may_have_the_limit_in_bytes_and_not_one_more() {
    let mut rig = Rig::new(0);
    let member = rig.join("a");
    let owned = rig.assigned(member).remove(0);
    // Two bytes each: it is bytes that count.
    let longest = "é".repeat(METADATA_BYTES_MAX / 2);
    assert_eq!(rig.commit(member, Vec::new(), offset(&owned, longest.clone())), Ok(()));
    let refused = rig.commit(member, vec![record(lane(), "", 1, 1)], offset(&owned, format!("{longest}x")));
    assert!(matches!(refused, Err(CommitError::Invalid(ref why)) if why.contains("4097")), "{refused:?}");
    rig.flush();
    let rig = rig.restarted();
    assert_eq!(rig.core.committed("group", &owned.at), Some(Committed { next: 1, metadata: longest }));
    assert_eq!(rig.core.watermarks(&lane()).map(|marks| marks.high), Ok(0), "the refused commit left no record");
}

#[test]
fn the_cache_keeps_what_is_not_durable_and_drops_the_oldest_of_what_is() {
    let size = RECORD_COST + 100;
    let mut rig = Rig::new(3 * size);
    let ten = (0..10).map(|n| record(lane(), "", 100, n)).collect();
    assert!(rig.append(ten).is_ok());
    assert_eq!(rig.core.cache_bytes, 10 * size, "nobody else has it yet");
    assert_eq!(rig.core.fetch(&lane(), 0), Fetched::End);
    rig.flush();
    assert_eq!(rig.core.cache_bytes, 3 * size);
    assert_eq!(rig.core.fetch(&lane(), 0), Fetched::Stored(0, 7));
    assert_eq!(rig.core.fetch(&lane(), 6), Fetched::Stored(6, 7));
    for at in 7..10 {
        assert!(matches!(rig.core.fetch(&lane(), at), Fetched::Record(found) if found.offset == at));
    }
    assert_eq!(rig.core.fetch(&lane(), 10), Fetched::End);
    assert!(rig.append(vec![record(lane(), "", 100, 10)]).is_ok());
    assert_eq!(rig.core.fetch(&lane(), 7), Fetched::Stored(7, 8), "the oldest makes room at once");
    assert_eq!(rig.core.fetch(&lane(), 10), Fetched::End, "the newest is not durable");
}

#[test]
fn a_log_of_an_earlier_life_is_read_from_the_store() {
    let mut rig = Rig::new(1 << 20);
    assert!(rig.append((0..5).map(|n| record(lane(), "", 1, n)).collect()).is_ok());
    rig.flush();
    let mut rig = rig.restarted();
    assert_eq!(rig.core.fetch(&lane(), 2), Fetched::Stored(2, 5));
    assert_eq!(rig.append(vec![record(lane(), "", 1, 5)]), Ok(vec![5]));
    assert_eq!(rig.core.fetch(&lane(), 5), Fetched::End, "it is neither published nor in the store");
}

#[test]
fn a_key_has_a_record_at_every_moment() {
    let mut rig = Rig::new(1 << 20);
    assert_eq!(rig.append(vec![record(kept(), "k", 1, 1)]), Ok(vec![0]));
    rig.flush();
    assert_eq!(rig.append(vec![record(kept(), "k", 2, 2)]), Ok(vec![1]));
    let found = |rig: &Rig| match rig.core.fetch(&kept(), 0) {
        Fetched::Record(found) => found.offset,
        other => panic!("the key has no record: {other:?}"),
    };
    assert_eq!(found(&rig), 0, "the newer is not durable");
    rig.flush();
    assert_eq!(found(&rig), 1);
    let mut rig = rig.restarted();
    assert_eq!(rig.append(vec![record(kept(), "k", 3, 3)]), Ok(vec![2]));
    rig.flush();
    assert_eq!(rig.disk.records.len(), 1, "the newest replaces one of an earlier life");
}

#[test]
fn a_time_of_zero_is_found_after_a_restart() {
    let mut rig = Rig::new(0);
    assert!(rig.append((0..=BLOCK_OFFSETS).map(|_| record(lane(), "", 1, 0)).collect()).is_ok());
    rig.flush();
    assert_eq!(rig.core.start(&lane(), Start::Time(0)), Ok(0));
    assert_eq!(rig.restarted().core.start(&lane(), Start::Time(0)), Ok(0));
}

#[test]
fn who_does_not_settle_loses_it_when_the_session_ends() {
    let mut rig = Rig::new(0);
    let first = rig.join("a");
    let owned = rig.assigned(first);
    let second = rig.join("b");
    let taken = rig.revoked(first, 500);
    let at = taken[0].0.clone();
    let theirs = owned.iter().find(|one| one.at == at).expect("it was theirs");
    rig.core.tick(499 + SESSION_MS, &mut rig.writes);
    assert_eq!(rig.event(second, 0), None);
    assert_eq!(rig.commit(first, Vec::new(), offset(theirs, "last".to_owned())), Ok(()), "it is still theirs");
    rig.core.tick(500 + SESSION_MS, &mut rig.writes);
    let lost = taken.iter().map(|(at, _)| at.clone()).collect();
    assert_eq!(rig.event(first, 0), Some(GroupEvent::Lost(lost)));
    let refused = rig.commit(first, Vec::new(), offset(theirs, "too late".to_owned()));
    assert_eq!(refused, Err(CommitError::NotOwner(vec![at.clone()])));
    let given = rig.assigned(second).into_iter().find(|one| one.at == at).expect("the other has it now");
    assert_eq!(given.committed, Some(Committed { next: 1, metadata: "last".to_owned() }));
    assert!(given.epoch > theirs.epoch);
}

#[test]
fn a_late_release_does_not_give_a_later_assignment_away() {
    let mut rig = Rig::new(0);
    let first = rig.join("a");
    rig.assigned(first);
    rig.join("b");
    let earlier = rig.revoked(first, 0);
    rig.core.tick(SESSION_MS, &mut rig.writes);
    assert!(matches!(rig.event(first, SESSION_MS), Some(GroupEvent::Lost(_))));
    // The other is replaced: for a moment the first has all again, and is asked again.
    let third = rig.join("b");
    let again = rig.assigned(first);
    let asked = rig.revoked(first, SESSION_MS);
    rig.core.released("group", first, &earlier);
    assert_eq!(rig.event(third, SESSION_MS), None, "the first has not settled what it has now");
    let theirs = again.iter().find(|one| one.at == asked[0].0).expect("it was given anew");
    assert_eq!(rig.commit(first, Vec::new(), offset(theirs, String::new())), Ok(()));
    rig.core.released("group", first, &asked);
    assert_eq!(rig.assigned(third).len(), 2);
}

#[test]
fn an_offset_behind_the_end_waits_for_the_end() {
    let mut rig = Rig::new(0);
    let first = rig.join("a");
    let owned = rig.assigned(first).into_iter().find(|one| one.at == lane()).expect("it has all");
    let ahead = CommitOffset { next: 5, ..offset(&owned, String::new()) };
    assert_eq!(rig.commit(first, vec![record(lane(), "", 1, 1)], ahead), Ok(()));
    rig.flush();
    let mut rig = rig.restarted();
    let member = rig.join("a");
    assert_eq!(rig.assigned(member)[0].next, 5);
    assert_eq!(rig.core.next_place("group", member), None);
    assert!(rig.append((1..6).map(|n| record(lane(), "", 1, n)).collect()).is_ok());
    assert_eq!(rig.core.next_place("group", member), None, "the sixth record is not durable");
    rig.flush();
    assert!(matches!(rig.core.next_place("group", member), Some((at, 5, _)) if at == lane()));
}
