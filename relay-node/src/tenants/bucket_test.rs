//! No more than the burst and the rate together, no less, and the wait that is told is the right one.

use proptest::prelude::*;

use super::{Bucket, Rate};

const SECOND_NS: u64 = 1_000_000_000;

#[test]
fn a_burst_then_the_rate() {
    let rate = Rate::new(2.0, 3).unwrap();
    let mut bucket = Bucket::default();
    let taken = |bucket: &mut Bucket, now_ns| (0..10).filter(|_| bucket.take(&rate, now_ns).is_ok()).count();
    assert_eq!(taken(&mut bucket, 5), 3);
    assert_eq!(bucket.take(&rate, 5), Err(SECOND_NS / 2));
    assert_eq!(taken(&mut bucket, 5 + SECOND_NS), 2, "two came back in a second");
    assert_eq!(taken(&mut bucket, 5 + 100 * SECOND_NS), 3, "no more than the burst is saved up");
    assert!(!bucket.is_full(5 + 101 * SECOND_NS) && bucket.is_full(6 + 102 * SECOND_NS));
}

#[test]
fn no_rate_is_any_number() {
    assert_eq!(Rate::new(0.0, 5), None);
}

proptest! {
    #[test]
    fn within_any_time_no_more_come_than_burst_and_rate(
        per_s in 0.1..1_000.0_f64,
        burst in 1..10_u32,
        steps in prop::collection::vec(prop_oneof![0..1_000_000_u64, 0..2_000_000_000_u64], 1..200),
    ) {
        let rate = Rate::new(per_s, burst).unwrap();
        let (mut bucket, mut now_ns, mut taken) = (Bucket::default(), 0, Vec::new());
        for step in steps {
            now_ns += step;
            match bucket.take(&rate, now_ns) {
                Ok(()) => taken.push(now_ns),
                Err(wait_ns) => {
                    let mut early = bucket;
                    prop_assert!(early.take(&rate, now_ns + wait_ns - 1).is_err(), "it could have come sooner");
                    let mut in_time = bucket;
                    prop_assert!(in_time.take(&rate, now_ns + wait_ns).is_ok(), "it was told to come then");
                }
            }
        }
        for (first, from) in taken.iter().enumerate() {
            for (last, to) in taken.iter().enumerate().skip(first) {
                let most = f64::from(burst) + (to - from) as f64 / 1e9 * per_s * (1.0 + 1e-6);
                prop_assert!((last - first + 1) as f64 <= most + 1e-6, "{} in {} ns", last - first + 1, to - from);
            }
        }
    }
}
