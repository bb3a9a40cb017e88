//! Jobs that are set aside, against a list of them: what is due, what may come back, and from where a new owner must read.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;
use relay_log::port::{LogRecord, TopicPartition};
use relay_protocol::{JobId, topics};

use super::side::{Entry, IN_HAND_MAX, SideKey, Sides};
use crate::job::aside::{Aside, PARKED, SIDES, topic};
use crate::job::delivered::Delivered;

const MODELS: [&str; 2] = ["alive", "dead"];

fn delivered(side: usize, offset: u64, due_ms: u64, deadline_ms: Option<u64>) -> Delivered {
    let model = MODELS[offset as usize % 2];
    let value = serde_json::json!({ "id": JobId::new(1, 0, (side as u64) << 32 | offset), "task": "embed", "model": model, "input": { "text": "x" } });
    let record = LogRecord {
        at: TopicPartition::new(topic(topics::DEFAULT_LANE, side), 0),
        offset,
        key: None,
        value: Some(Bytes::from(value.to_string())),
        headers: Vec::new(),
        timestamp_ms: 1_000 + offset,
    };
    let mut job = Delivered::read(topics::DEFAULT_LANE, record, 1).expect("a job");
    job.job.deadline = deadline_ms;
    job.aside = Some(Box::new(Aside { due_ms, ..Aside::untouched(&job, due_ms) }));
    job
}

#[derive(Debug, Clone)]
enum Step {
    Put {
        side: usize,
        due_ms: u64,
        deadline_ms: Option<u64>,
    },
    /// What is due at this time, with so many places for the model that lives.
    Due(u64, usize),
    PutBack(usize),
    /// A commit that says that it has left, and whether it succeeds.
    Leave(usize, bool),
    Hurry(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let put = (0..SIDES, 0..100_u64, proptest::option::of(0..100_u64));
    prop_oneof![
        6 => put.prop_map(|(side, due_ms, deadline_ms)| Step::Put { side, due_ms, deadline_ms }),
        3 => (0..120_u64, 0..4_usize).prop_map(|(now, places)| Step::Due(now, places)),
        1 => any::<usize>().prop_map(Step::PutBack),
        4 => (any::<usize>(), any::<bool>()).prop_map(|(which, succeeds)| Step::Leave(which, succeeds)),
        1 => any::<usize>().prop_map(Step::Hurry),
    ]
}

#[derive(Debug, Clone, Copy)]
struct Waits {
    wake_ms: Option<u64>,
    in_hand: bool,
}

fn nth<'a>(keys: impl Iterator<Item = (&'a SideKey, &'a Waits)> + Clone, n: usize) -> Option<SideKey> {
    let n = n.checked_rem(keys.clone().count())?;
    keys.map(|(key, _)| *key).nth(n)
}

proptest! {
    #[test]
    fn jobs_come_back_when_they_may_and_only_then(steps in prop::collection::vec(step(), 1..120)) {
        let (mut sides, mut model): (Sides, BTreeMap<SideKey, Waits>) = (Sides::default(), BTreeMap::new());
        let mut next = [0_u64; SIDES];
        for step in steps {
            match step {
                Step::Put { side, due_ms, deadline_ms } => {
                    let key = (side, next[side]);
                    next[side] += 2; // a transaction leaves a gap
                    sides.put(key, Entry::new(&delivered(side, key.1, due_ms, deadline_ms), side));
                    let wake_ms = Some(due_ms).filter(|_| side != PARKED).into_iter().chain(deadline_ms).min();
                    model.insert(key, Waits { wake_ms, in_hand: false });
                }
                Step::Due(now, places) => {
                    let due = sides.due(now, |class| if class.model.as_deref() == Some("alive") { places } else { 0 });
                    let told: BTreeSet<SideKey> = due.iter().copied().collect();
                    prop_assert_eq!(told.len(), due.len(), "each once");
                    let held = model.values().filter(|one| one.in_hand).count();
                    let is_woken = |one: &Waits| !one.in_hand && one.wake_ms.is_some_and(|at| at <= now);
                    let woken: BTreeSet<SideKey> = model.iter().filter(|(_, one)| is_woken(one)).map(|(key, _)| *key).collect();
                    prop_assert!(held + due.len() <= IN_HAND_MAX);
                    if held + woken.len() <= IN_HAND_MAX {
                        prop_assert!(told.is_superset(&woken), "{:?} of {:?}", told, woken);
                    }
                    let called: Vec<SideKey> = told.difference(&woken).copied().collect();
                    prop_assert!(called.iter().all(|key| key.0 == PARKED), "only parked ones come before their time");
                    prop_assert!(called.iter().all(|key| MODELS[key.1 as usize % 2] == "alive"));
                    prop_assert!(called.len() <= places);
                    for key in due {
                        let one = model.get_mut(&key).expect("it is set aside");
                        prop_assert!(!std::mem::replace(&mut one.in_hand, true), "it was in hand already");
                    }
                }
                Step::PutBack(n) => {
                    if let Some(key) = nth(model.iter().filter(|(_, one)| one.in_hand), n) {
                        sides.put_back(key);
                        model.get_mut(&key).expect("it is there").in_hand = false;
                    }
                }
                Step::Leave(n, succeeds) => {
                    let key = nth(model.iter().filter(|(_, one)| one.in_hand), n);
                    if let Some(key) = key.filter(|_| succeeds) {
                        prop_assert!(sides.taken(key).is_some());
                        model.remove(&key);
                    }
                }
                Step::Hurry(n) => {
                    if let Some(key) = nth(model.iter(), n) {
                        let by_id = sides.get(key).expect("it is there").identity.by_id;
                        sides.hurry(by_id);
                        let one = model.get_mut(&key).expect("it is there");
                        one.wake_ms = if one.in_hand { one.wake_ms } else { Some(0) };
                    }
                }
            }
            prop_assert_eq!(sides.len(), model.len());
            prop_assert_eq!(sides.in_hand(), model.values().filter(|one| one.in_hand).count());
            for (side, next) in next.iter().enumerate() {
                let open = model.keys().find(|(of, _)| *of == side).map(|(_, offset)| *offset);
                let read_to = next.saturating_sub(1);
                prop_assert_eq!(sides.nexts()[side], open.unwrap_or(read_to), "a new owner misses nothing of side {}", side);
            }
            let oldest = model.keys().map(|(_, offset)| 1_000 + offset).min();
            prop_assert_eq!(sides.oldest_ms(), oldest);
        }
    }
}

#[test]
fn no_more_are_in_hand_than_the_limit_however_many_are_due() {
    let mut sides = Sides::default();
    for offset in 0..10_000 {
        sides.put((1, offset), Entry::new(&delivered(1, offset, 0, None), 1));
    }
    assert_eq!(sides.due(1, |_| usize::MAX).len(), IN_HAND_MAX);
    assert_eq!(sides.due(1, |_| usize::MAX), [], "those must come back first");
}
