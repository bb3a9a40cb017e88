//! The index of ended jobs against a model that keeps a plain list.

use std::collections::BTreeMap;

use proptest::prelude::*;
use relay_protocol::JobId;
use relay_protocol::record::DedupEntry;

use super::dedup::{Body, DedupIndex, EndedJob, Scope, read};

const ENTRIES_MAX: usize = 5;

#[derive(Debug, Clone)]
enum Step {
    Insert { scope: u8, expires_at_ms: u64 },
    Forget,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..10_u8, 0..100_u64).prop_map(|(scope, expires_at_ms)| Step::Insert { scope, expires_at_ms }),
        1 => Just(Step::Forget),
        3 => (0..20_u64).prop_map(Step::Wait),
    ]
}

fn scope(number: u8) -> Scope {
    Scope::of_key("tenant", &number.to_string())
}

proptest! {
    #[test]
    fn it_knows_the_newest_that_have_not_expired(steps in prop::collection::vec(step(), 1..80)) {
        let (mut index, mut now_ms, mut forgotten) = (DedupIndex::new(ENTRIES_MAX), 0, 0);
        let mut model: Vec<(u8, EndedJob)> = Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Insert { scope: of, expires_at_ms } => {
                    let job_id = JobId::new(1, 0, number as u64);
                    let job = EndedJob { job_id, body: None, ended_at_ms: number as u64, expires_at_ms };
                    index.insert(scope(of), job);
                    model.retain(|(other, _)| *other != of);
                    model.push((of, job));
                    if model.len() > ENTRIES_MAX {
                        let oldest = model.iter().map(|(of, job)| (job.expires_at_ms, scope(*of))).min().unwrap();
                        model.retain(|(of, _)| scope(*of) != oldest.1);
                        forgotten += 1;
                    }
                }
                Step::Forget => {
                    index.forget_expired(now_ms);
                    model.retain(|(_, job)| job.expires_at_ms > now_ms);
                }
                Step::Wait(ms) => now_ms += ms,
            }
            let known: BTreeMap<u8, EndedJob> = model.iter().copied().collect();
            for of in 0..10 {
                let wanted = known.get(&of).filter(|job| job.expires_at_ms > now_ms);
                prop_assert_eq!(index.get(scope(of), now_ms), wanted, "{}", of);
            }
            prop_assert_eq!((index.len(), index.forgotten()), (model.len(), forgotten));
        }
    }
}

#[test]
fn scopes_are_apart() {
    let id = JobId::new(1, 2, 3);
    let all = [
        Scope::of_key("a", "b"),
        Scope::of_key("b", "a"),
        Scope::of_key("a", &id.to_string()),
        Scope::of_id("a", id),
        Scope::of_id("b", id),
    ];
    for (index, one) in all.iter().enumerate() {
        assert_eq!(all.iter().position(|other| other == one), Some(index));
    }
}

#[test]
fn an_entry_says_what_was_indexed() {
    let job_id = JobId::new(1, 2, 3);
    let mut entry: DedupEntry = serde_json::from_value(serde_json::json!({
        "job_id": job_id, "tenant": "acme", "idempotency_key": "one", "body_sha256": "ab".repeat(32),
        "place": { "lane": "default", "partition": 3, "offset": 42, "accepted_at": "1970-01-01T00:00:00.005Z" },
        "outcome": "completed", "seq": 7, "ended_at": "1970-01-01T00:00:00.010Z", "expires_at": "1970-01-01T00:00:00.020Z",
    }))
    .unwrap();
    let job = EndedJob { job_id, body: Some(Body::new(&[0xab; 32])), ended_at_ms: 10, expires_at_ms: 20 };
    assert_eq!(read(&entry), Some((Scope::of_key("acme", "one"), job)));
    entry.body_sha256 = Some("ab".to_owned());
    assert_eq!(read(&entry), None, "a digest that is none");
    (entry.body_sha256, entry.idempotency_key) = (None, None);
    assert_eq!(read(&entry), Some((Scope::of_id("acme", job_id), EndedJob { body: None, ..job })));
}
