//! What is deleted was committed, by the owner, once.

use std::collections::HashMap;

use proptest::prelude::*;

use super::retention::Retention;

#[derive(Debug, Clone)]
enum Step {
    Committed(u32, u64),
    Released(u32),
    Due,
    /// Whether each deletion under way succeeds.
    Deleted(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_u32, 1..50_u64).prop_map(|(partition, next)| Step::Committed(partition, next)),
        1 => (0..3_u32).prop_map(Step::Released),
        3 => Just(Step::Due),
        3 => any::<bool>().prop_map(Step::Deleted),
    ]
}

proptest! {
    #[test]
    fn only_what_is_committed_and_ours_is_deleted_and_all_of_it_in_the_end(
        steps in proptest::collection::vec(step(), 0..60),
    ) {
        let mut retention = Retention::default();
        let mut committed: HashMap<u32, u64> = HashMap::new();
        let mut under_way = Vec::new();
        let mut low: HashMap<u32, u64> = HashMap::new();
        for step in steps {
            match step {
                Step::Committed(partition, next) => {
                    retention.committed(partition, next);
                    let known = committed.entry(partition).or_default();
                    *known = next.max(*known);
                }
                Step::Released(partition) => {
                    retention.released(partition);
                    committed.remove(&partition);
                }
                Step::Due => {
                    let due = retention.due();
                    prop_assert!(under_way.is_empty() || due.is_empty(), "one deletion at a time");
                    for (partition, below) in &due {
                        prop_assert_eq!(committed.get(partition), Some(below));
                    }
                    under_way.extend(due);
                }
                Step::Deleted(succeeds) => {
                    let done: Vec<_> = under_way.drain(..).filter(|_| succeeds).collect();
                    retention.deleted(&done);
                    for (partition, below) in done {
                        let known = low.entry(partition).or_default();
                        *known = below.max(*known);
                    }
                }
            }
        }
        retention.deleted(&under_way);
        let last = retention.due();
        for (partition, below) in under_way.into_iter().chain(last) {
            let known = low.entry(partition).or_default();
            *known = below.max(*known);
        }
        for (partition, next) in committed {
            prop_assert!(low.get(&partition) >= Some(&next), "{} of {}", next, partition);
        }
    }
}

#[test]
fn a_failed_deletion_is_due_again() {
    let mut retention = Retention::default();
    retention.committed(0, 10);
    assert_eq!(retention.due(), [(0, 10)]);
    retention.committed(0, 12);
    assert!(retention.due().is_empty(), "one at a time");
    retention.deleted(&[]);
    assert_eq!(retention.due(), [(0, 12)]);
    retention.deleted(&[(0, 12)]);
    assert!(retention.due().is_empty());
    retention.committed(0, 15);
    retention.due();
    assert_eq!(retention.deleted(&[(0, 15)]), 3);
}
