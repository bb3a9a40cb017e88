//! Back-off, clock, randomness, traceparent.

use std::time::Duration;

use proptest::prelude::*;
use relay_runtime::backoff::{full_jitter, retry_delay};
use relay_runtime::clock::{Clock, SystemClock, TestClock};
use relay_runtime::random::{Random, SeededRandom, SystemRandom};
use relay_runtime::traceparent::{Traceparent, TraceparentError};

const MS: Duration = Duration::from_millis(1);

#[test]
fn delays_double_from_the_base_to_the_cap() {
    let delays: Vec<_> = (0..8).map(|attempt| retry_delay(attempt, 100 * MS, 2_000 * MS).as_millis()).collect();
    assert_eq!(delays, [100, 100, 200, 400, 800, 1_600, 2_000, 2_000]);
    assert_eq!(retry_delay(u32::MAX, Duration::MAX, Duration::MAX), Duration::MAX);
    assert_eq!(retry_delay(5, Duration::ZERO, 9 * MS), Duration::ZERO);
    assert_eq!(retry_delay(1, 10 * MS, MS), MS, "the cap wins over the base");
}

#[test]
fn jitter_reaches_both_ends() {
    assert_eq!(full_jitter(7 * MS, 0), Duration::ZERO);
    assert_eq!(full_jitter(7 * MS, u64::MAX), 7 * MS);
    assert_eq!(full_jitter(Duration::ZERO, u64::MAX), Duration::ZERO);
    assert_eq!(full_jitter(Duration::MAX, u64::MAX), Duration::from_nanos(u64::MAX));
}

#[test]
fn jitter_is_spread_evenly() {
    let random = SeededRandom::new(7);
    let mut quarters = [0_u32; 4];
    for _ in 0..4_000 {
        let drawn = full_jitter(Duration::from_secs(4), random.next_u64());
        quarters[(drawn.as_secs() as usize).min(3)] += 1;
    }
    assert!(quarters.iter().all(|&n| (850..1_150).contains(&n)), "{quarters:?}");
}

proptest! {
    #[test]
    fn delays_never_shrink_and_stay_within_the_cap(attempt in 0_u32..200, base in 0_u64..10_000, cap in 0_u64..100_000) {
        let (base, cap) = (base * u32::try_from(MS.as_millis()).map_or(1, u64::from), Duration::from_millis(cap));
        let base = Duration::from_millis(base);
        let (now, next) = (retry_delay(attempt, base, cap), retry_delay(attempt + 1, base, cap));
        prop_assert!(now <= next && next <= cap);
    }

    #[test]
    fn jitter_stays_within_the_delay(nanos in any::<u64>(), random in any::<u64>()) {
        let delay = Duration::from_nanos(nanos);
        prop_assert!(full_jitter(delay, random) <= delay);
    }

    #[test]
    fn what_a_traceparent_writes_it_reads(trace in 1_u128.., span in 1_u64.., flags in any::<u8>()) {
        let here = Traceparent::from_parts(trace, span, flags).unwrap();
        let text = here.to_string();
        prop_assert_eq!(text.len(), 55);
        prop_assert_eq!(Traceparent::parse(&text), Ok(here));
        prop_assert_eq!(text.parse(), Ok(here));
    }

    #[test]
    fn no_text_makes_the_parser_panic_or_read_two_ways(text in "\\PC{0,60}|[0-9a-fA-F-]{55}") {
        if let Ok(here) = Traceparent::parse(&text) {
            prop_assert_eq!(here.to_string(), text);
        }
    }

    #[test]
    fn below_stays_below(seed in any::<u64>(), bound in 1_u64..) {
        prop_assert!(SeededRandom::new(seed).below(bound) < bound);
    }
}

const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[test]
fn the_example_of_the_standard_is_read() {
    let here = Traceparent::parse(GOOD).unwrap();
    assert_eq!(here.trace_id(), 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
    assert_eq!(here.span_id(), 0x00f0_67aa_0ba9_02b7);
    assert!(here.is_sampled());
    assert!(!Traceparent::parse(&GOOD.replace("-01", "-00")).unwrap().is_sampled());
}

#[test]
fn a_wrong_traceparent_is_refused_for_its_reason() {
    let parse = |text: &str| Traceparent::parse(text).unwrap_err();
    assert_eq!(parse(""), TraceparentError::Length(0));
    assert_eq!(parse(&format!("{GOOD}-extra")), TraceparentError::Length(61));
    assert_eq!(parse(&GOOD.to_uppercase()), TraceparentError::Shape);
    assert_eq!(parse(&GOOD.replace('-', "_")), TraceparentError::Shape);
    assert_eq!(parse(&format!(" {}", &GOOD[..54])), TraceparentError::Shape);
    assert_eq!(parse(&GOOD.replacen("4b", "+b", 1)), TraceparentError::Shape);
    assert_eq!(parse(&GOOD.replacen("00", "01", 1)), TraceparentError::Version);
    assert_eq!(parse(&GOOD.replacen("00", "ff", 1)), TraceparentError::Version);
    assert_eq!(parse("00-00000000000000000000000000000000-00f067aa0ba902b7-01"), TraceparentError::Zero);
    assert_eq!(parse("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"), TraceparentError::Zero);
    // 55 bytes, but not 55 characters: cutting by bytes must not panic.
    assert_eq!(parse(&"é".repeat(27).replacen('é', "éa", 1)), TraceparentError::Shape);
}

#[test]
fn a_child_stays_in_the_trace_and_gets_its_own_span() {
    let random = SeededRandom::new(1);
    let parent = Traceparent::random(&random);
    let child = parent.child(&random);
    assert_eq!((child.trace_id(), child.flags()), (parent.trace_id(), parent.flags()));
    assert_ne!(child.span_id(), parent.span_id());
    assert_ne!(Traceparent::random(&random).trace_id(), parent.trace_id());
}

#[test]
fn the_seed_decides_the_whole_sequence() {
    let draw = |seed| {
        let random = SeededRandom::new(seed);
        [random.next_u64(), random.next_u64(), random.next_u64()]
    };
    // The first three outputs of the reference implementation of SplitMix64 for seed 1234567.
    assert_eq!(draw(1_234_567), [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    assert_ne!(draw(1), draw(2));
}

#[test]
fn fill_fills_every_byte_and_below_zero_is_zero() {
    let mut bytes = [0_u8; 13];
    SeededRandom::new(3).fill(&mut bytes);
    let (a, b) = bytes.split_at(8);
    let source = SeededRandom::new(3);
    assert_eq!(a, source.next_u64().to_le_bytes());
    assert_eq!(b, &source.next_u64().to_le_bytes()[..5]);
    assert_eq!(source.below(0), 0);
}

#[test]
fn the_system_source_does_not_repeat() {
    let drawn: std::collections::HashSet<u64> = (0..1_000).map(|_| SystemRandom.next_u64()).collect();
    assert_eq!(drawn.len(), 1_000);
}

#[test]
fn the_clocks_show_what_they_should() {
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    assert!(SystemClock.now_ms().abs_diff(wall) < 60_000);

    let clock = TestClock::at(1_000);
    clock.advance(Duration::from_micros(2_999));
    assert_eq!(clock.now_ms(), 1_002, "whole milliseconds");
    clock.set(5);
    assert_eq!(clock.now_ms(), 5);
}
