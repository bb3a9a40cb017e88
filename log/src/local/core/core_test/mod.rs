//! Random histories of the log against a plain model of it, and single rules that random histories seldom meet.

pub(in crate::local) mod disk;
mod model;
mod rules;
pub(in crate::local) mod steps;
pub(in crate::local) mod world;

use proptest::prelude::*;

use steps::step;
use world::World;

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    /// Offsets are dense; a partition has one owner; only the owner of now commits; a refused commit leaves nothing; what
    /// was committed reads back; what was acknowledged outlasts a restart. At any size of the cache.
    #[test]
    fn the_log_does_what_its_model_does(
        cache_bytes_max in prop_oneof![Just(0), 100..4_000_usize, Just(1 << 20)],
        steps in prop::collection::vec(step(), 1..160),
    ) {
        let mut world = World::new(cache_bytes_max);
        for (n, step) in steps.into_iter().enumerate() {
            world.step(step);
            if n % 16 == 0 {
                world.check_contents();
            }
        }
        world.check_rest();
        world.restart();
        world.check_contents();
    }
}
