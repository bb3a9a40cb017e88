//! The waiting room's order and its bookkeeping.

use proptest::prelude::*;
use relay_protocol::{JobId, Priority};

use super::room::{Room, Shares, Waiting};
use crate::fair::Weights;

#[derive(Debug, Clone, PartialEq)]
struct Entry {
    id: u64,
    priority: Priority,
    not_before: Option<u64>,
    deadline: Option<u64>,
    partition: u32,
    tenant: u8,
    model: Option<u8>,
}

const NAMES: [&str; 3] = ["a", "b", "c"];

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
    fn tenant(&self) -> &str {
        NAMES[usize::from(self.tenant)]
    }
    fn model(&self) -> Option<&str> {
        self.model.map(|model| NAMES[usize::from(model)])
    }
}

fn entry(id: u64, priority: Priority) -> Entry {
    Entry { id, priority, not_before: None, deadline: None, partition: 0, tenant: 0, model: None }
}

#[test]
fn each_priority_has_its_turn_and_its_jobs_go_as_they_came() {
    let mut room = Room::new(Weights::default());
    for (id, priority) in
        [(1, Priority::Batch), (2, Priority::Normal), (3, Priority::Interactive), (4, Priority::Normal)]
    {
        room.push(0, entry(id, priority));
    }
    let order: Vec<u64> = std::iter::from_fn(|| room.pop(0, |_| 1)).map(|job| job.id).collect();
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
        turns.extend(room.pop(0, |_| 1).map(|job| job.priority));
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
    assert_eq!(room.pop(49, |_| 1).map(|job| job.id), Some(2));
    assert_eq!(room.pop(49, |_| 1), None);
    assert_eq!(room.pop(50, |_| 1).map(|job| job.id), Some(1));
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
            room.push(10, Entry { id: id as u64, priority, not_before: Some(*not_before), deadline: None, partition: *partition, tenant: 0, model: None });
        }
        let taken = room.remove(JobId::new(0, 0, removed)).map(|job| job.id);
        room.drop_partition(gone);
        let mut left: Vec<u64> = std::iter::from_fn(|| room.pop(1_000, |_| 1)).map(|job| job.id).collect();
        left.sort_unstable();
        let expected: Vec<u64> = (0..jobs.len() as u64).filter(|id| jobs[*id as usize].2 != gone && Some(*id) != taken).collect();
        prop_assert_eq!(left, expected);
        prop_assert!(room.is_empty() && room.remove(JobId::new(0, 0, 0)).is_none());
    }
}

#[derive(Debug, Clone)]
enum Step {
    Push { tenant: u8, model: Option<u8>, later: bool },
    Pop,
    Remove(usize),
    Expire,
    DropPartition(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let push = (0..3_u8, proptest::option::of(0..3_u8), any::<bool>());
    prop_oneof![
        6 => push.prop_map(|(tenant, model, later)| Step::Push { tenant, model, later }),
        3 => Just(Step::Pop),
        2 => any::<usize>().prop_map(Step::Remove),
        1 => Just(Step::Expire),
        1 => (0..2_u32).prop_map(Step::DropPartition),
    ]
}

proptest! {
    /// Against a list that is counted anew each time.
    #[test]
    fn a_tenant_or_model_has_a_place_as_long_as_it_is_within_its_share(
        steps in prop::collection::vec(step(), 1..80), tenant_max in 1..6_usize, model_max in 1..6_usize,
    ) {
        let shares = Shares { tenant_jobs_max: tenant_max, model_jobs_max: model_max };
        let (mut room, mut model): (Room<Entry>, Vec<Entry>) = (Room::new(Weights::default()), Vec::new());
        for (id, step) in steps.into_iter().enumerate() {
            match step {
                Step::Push { tenant, model: of, later } => {
                    let made = Entry {
                        tenant,
                        model: of,
                        not_before: later.then_some(50),
                        deadline: (id % 3 == 0).then_some(20),
                        partition: id as u32 % 2,
                        ..entry(id as u64, Priority::Normal)
                    };
                    if room.has_place(made.tenant(), made.model(), 1, &shares) {
                        room.push(10, made.clone());
                        model.push(made);
                    }
                }
                Step::Pop => {
                    let popped = room.pop(10, |_| 1);
                    model.retain(|one| popped.as_ref().is_none_or(|popped| popped.id != one.id));
                }
                Step::Remove(n) if !model.is_empty() => {
                    let gone = model.swap_remove(n % model.len());
                    prop_assert_eq!(room.remove(gone.job_id()), Some(gone));
                }
                Step::Remove(_) => {}
                Step::Expire => {
                    let expired = room.take_expired(20);
                    model.retain(|one| !expired.contains(one));
                }
                Step::DropPartition(partition) => {
                    room.drop_partition(partition);
                    model.retain(|one| one.partition != partition);
                }
            }
            prop_assert_eq!(room.len(), model.len());
            for tenant in 0..3_u8 {
                let of_tenant = model.iter().filter(|one| one.tenant == tenant).count();
                prop_assert!(of_tenant <= tenant_max);
                prop_assert_eq!(room.has_place(NAMES[usize::from(tenant)], None, 1, &shares), of_tenant < tenant_max);
                for one in 0..3_u8 {
                    let of_model = model.iter().filter(|entry| entry.model == Some(one)).count();
                    prop_assert!(of_model <= model_max);
                    let has_place = of_tenant < tenant_max && of_model < model_max;
                    let name = NAMES[usize::from(one)];
                    prop_assert_eq!(room.has_place(NAMES[usize::from(tenant)], Some(name), 1, &shares), has_place);
                }
            }
        }
    }
}

#[test]
fn a_share_is_a_fraction_of_the_room_and_at_least_one_job() {
    assert_eq!(Shares::of(1_000, 0.5, 1.0), Shares { tenant_jobs_max: 500, model_jobs_max: 1_000 });
    assert_eq!(Shares::of(3, 0.1, 0.1), Shares { tenant_jobs_max: 1, model_jobs_max: 1 });
}
