//! How a rate follows.

use std::time::Duration;

use super::Rate;

#[test]
fn a_steady_rise_is_seen_for_what_it_is_and_one_peak_is_not_the_whole_truth() {
    let mut rate = Rate::default();
    assert_eq!(rate.at(Duration::ZERO, 7.0), 0.0, "nothing is known yet");
    let mut seen = 0.0;
    for second in 1..=20_u64 {
        seen = rate.at(Duration::from_secs(second), 7.0 + 50.0 * second as f64);
    }
    assert!((49.0..=50.0).contains(&seen), "{seen}");
    assert_eq!(rate.at(Duration::from_millis(20_050), 9e9), seen, "too soon to tell");
    let peak = rate.at(Duration::from_secs(21), 7.0 + 50.0 * 20.0 + 1_000.0);
    assert!((300.0..700.0).contains(&peak), "{peak}");
    let mut after = peak;
    for second in 22..=40 {
        after = rate.at(Duration::from_secs(second), 2_007.0);
    }
    assert!(after < 1.0, "{after}");
    assert!(rate.at(Duration::from_secs(41), 0.0) >= 0.0, "a total that fell is none");
}
