//! The waiting room's order and its bookkeeping.

use proptest::prelude::*;
use relay_protocol::{JobId, Priority};

use super::room::{Room, Waiting};
use crate::fair::Weights;

#[derive(Debug, Clone, PartialEq)]
struct Entry {
    id: u64,
    priority: Priority,
    not_before: Option<u64>,
    deadline: Option<u64>,
    partition: u32,
}

impl Waiting for Entry {
    fn job_id(&self) -> JobId {
        JobId::new(0, 0, self.id)
    }
    fn priority(&self) -> Priority {
        self.priority
    }
    fn not_before_ms(&self) -> Option<u64> {
        self.not_before
    }
    fn deadline_ms(&self) -> Option<u64> {
        self.deadline
    }
    fn partition(&self) -> u32 {
        self.partition
    }
}

fn entry(id: u64, priority: Priority) -> Entry {
    Entry { id, priority, not_before: None, deadline: None, partition: 0 }
}

#[test]
fn each_priority_has_its_turn_and_its_jobs_go_as_they_came() {
    let mut room = Room::new(Weights::default());
    for (id, priority) in
        [(1, Priority::Batch), (2, Priority::Normal), (3, Priority::Interactive), (4, Priority::Normal)]
    {
        room.push(0, entry(id, priority));
    }
    let order: Vec<u64> = std::iter::from_fn(|| room.pop(0)).map(|job| job.id).collect();
    assert_eq!(order, [3, 2, 1, 4], "one turn each, then by weight");
}

#[test]
fn a_batch_job_gets_its_turn_though_higher_ones_keep_coming() {
    let weights = Weights { interactive: 4, normal: 2, batch: 1 };
    let mut room = Room::new(weights);
    room.push(0, entry(0, Priority::Batch));
    room.push(0, entry(1, Priority::Batch));
    let mut turns = Vec::new();
    for id in 2..40 {
        room.push(0, entry(2 * id, Priority::Interactive));
        room.push(0, entry(2 * id + 1, Priority::Normal));
        turns.extend(room.pop(0).map(|job| job.priority));
    }
    let batch = turns.iter().rposition(|one| *one == Priority::Batch).expect("the second had its turn");
    assert!(batch <= 2 * weights.turns_max(Priority::Batch) as usize, "{turns:?}");
    assert_eq!(turns.iter().filter(|one| **one == Priority::Batch).count(), 2);
}

#[test]
fn not_before_keeps_a_job_back_until_its_time() {
    let mut room = Room::new(Weights::default());
    room.push(10, Entry { not_before: Some(50), ..entry(1, Priority::Interactive) });
    room.push(10, entry(2, Priority::Batch));
    assert_eq!(room.wake_at_ms(), Some(50));
    assert_eq!(room.pop(49).map(|job| job.id), Some(2));
    assert_eq!(room.pop(49), None);
    assert_eq!(room.pop(50).map(|job| job.id), Some(1));
    assert_eq!(room.wake_at_ms(), None);
}

#[test]
fn expired_jobs_are_taken_out_wherever_they_wait() {
    let mut room = Room::new(Weights::default());
    room.push(0, Entry { deadline: Some(5), ..entry(1, Priority::Normal) });
    room.push(0, Entry { deadline: Some(5), not_before: Some(100), ..entry(2, Priority::Normal) });
    room.push(0, Entry { deadline: Some(6), ..entry(3, Priority::Normal) });
    let mut expired: Vec<u64> = room.take_expired(5).into_iter().map(|job| job.id).collect();
    expired.sort_unstable();
    assert_eq!(expired, [1, 2]);
    assert_eq!(room.len(), 1);
}

proptest! {
    #[test]
    fn every_job_leaves_the_room_exactly_once(jobs in prop::collection::vec((0_u8..3, 0_u64..40, 0_u32..3), 0..60), gone in 0_u32..3, removed in 0_u64..60) {
        let mut room = Room::new(Weights::default());
        for (id, (priority, not_before, partition)) in jobs.iter().enumerate() {
            let priority = Priority::from_wire(*priority).unwrap();
            room.push(10, Entry { id: id as u64, priority, not_before: Some(*not_before), deadline: None, partition: *partition });
        }
        let taken = room.remove(JobId::new(0, 0, removed)).map(|job| job.id);
        room.drop_partition(gone);
        let mut left: Vec<u64> = std::iter::from_fn(|| room.pop(1_000)).map(|job| job.id).collect();
        left.sort_unstable();
        let expected: Vec<u64> = (0..jobs.len() as u64).filter(|id| jobs[*id as usize].2 != gone && Some(*id) != taken).collect();
        prop_assert_eq!(left, expected);
        prop_assert!(room.is_empty() && room.remove(JobId::new(0, 0, 0)).is_none());
    }
}
