//! Simulated clusters keep every promise, the same seed gives the same history, and planted bugs are found.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use load_tests::simulate;
use relay_log::planted::Bug;

/// Seeds of a test run; `make test-sim` runs more.
const SEEDS: u64 = simulate::SEEDS_TO_SEE_ALL;

#[test]
fn promises_are_kept_whatever_happens() {
    let summary = simulate::many(1, SEEDS, 2).unwrap();
    summary.print();
    summary.verdict().unwrap();
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let mut digests = BTreeSet::new();
    for seed in 1..=5 {
        let (first, second) = (simulate::one(seed, false).unwrap(), simulate::one(seed, false).unwrap());
        assert_eq!(first.digest, second.digest, "seed {seed}");
        digests.insert(first.digest);
    }
    assert_eq!(digests.len(), 5, "each seed has a history of its own");
}

/// Seeds in which a planted bug must show.
const BUG_SEEDS: u64 = 1_000;

#[test]
fn planted_bugs_are_found() {
    let (next, missed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(bug) = Bug::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match found(*bug) {
                        Some((seed, finding)) => println!("{bug:?}: seed {seed}: {finding}"),
                        None => missed.lock().unwrap().push(*bug),
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "not found within {BUG_SEEDS} seeds: {missed:?}");
}

/// The first seed that shows the bug, and how.
fn found(bug: Bug) -> Option<(u64, String)> {
    (1..=BUG_SEEDS).find_map(|seed| {
        let outcome = simulate::one_with(bug, seed).unwrap().expect("built with planted bugs");
        outcome.findings.named.first().map(|finding| (seed, finding.clone()))
    })
}
