//! Simulated clusters keep every promise, the same seed gives the same history, and planted bugs are found.

use load_tests::simulate;

/// Seeds of a test run; `make test-sim` runs more.
const SEEDS: u64 = 300;

#[test]
fn promises_are_kept_whatever_happens() {
    let summary = simulate::many(1, SEEDS, 2).unwrap();
    summary.print();
    summary.verdict().unwrap();
}

#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in 1..=5 {
        let (first, second) = (simulate::one(seed, false).unwrap(), simulate::one(seed, false).unwrap());
        assert_eq!(first.digest, second.digest, "seed {seed}");
    }
}
