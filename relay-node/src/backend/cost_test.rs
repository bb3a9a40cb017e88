//! What is learnt of a backend's speed, and how long it is waited for.

use super::*;

fn kind(model: &str) -> Kind {
    Kind { task: Task::Transcribe, model: Some(model.to_owned()) }
}

#[test]
fn the_rate_follows_what_the_backend_does_now_and_is_of_one_kind_of_work() {
    let mut costs = Costs::default();
    assert_eq!(costs.ms_per_unit(&kind("m")), None);
    costs.learn(&kind("m"), 10.0, 1_000);
    assert_eq!((costs.ms_per_unit(&kind("m")), costs.ms_per_unit(&kind("n"))), (Some(100.0), None));
    for _ in 0..60 {
        costs.learn(&kind("m"), 10.0, 200);
    }
    let rate = costs.ms_per_unit(&kind("m")).unwrap();
    assert!((20.0..25.0).contains(&rate), "{rate}");
}

#[test]
fn patience_grows_with_the_size_with_the_slowest_seen_and_with_what_was_given_up() {
    let mut costs = Costs::default();
    assert_eq!(costs.patience_ms(&kind("m"), 1.0), None, "nothing is known");
    costs.learn(&kind("m"), 1.0, 100);
    assert_eq!([1.0, 100.0].map(|units| costs.patience_ms(&kind("m"), units)), [Some(10_000), Some(100_000)]);
    costs.gave_up(&kind("m"), 10_000);
    assert_eq!(costs.patience_ms(&kind("m"), 1.0), Some(20_000), "not three times as long: that is a dead server");
    costs.learn(&kind("m"), 1.0, 60_000);
    assert_eq!(costs.patience_ms(&kind("m"), 0.1), Some(180_000), "it had to load its model");
    costs.gave_up(&kind("never"), 10_000);
    assert_eq!(costs.patience_ms(&kind("never"), 1.0), None);
}

#[test]
fn kinds_are_bounded() {
    let mut costs = Costs::default();
    for number in 0..=KINDS_MAX {
        costs.learn(&kind(&number.to_string()), 1.0, 1);
    }
    assert_eq!(costs.ms_per_unit(&kind(&KINDS_MAX.to_string())), None);
    assert!(costs.ms_per_unit(&kind("0")).is_some());
}
