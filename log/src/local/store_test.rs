//! The store against maps: it must begin again with exactly what was written to it.

use proptest::prelude::*;

use super::core::Kept;
use super::core::core_test::disk::Disk;
use super::core::core_test::steps::step;
use super::core::core_test::world::World;
use super::store::Store;
use crate::port::TopicPartition;

/// What a log begins with, as it can be compared.
fn disk(kept: Kept, store: &Store) -> Result<Disk, crate::port::LogError> {
    let mut disk = Disk::default();
    for (number, spec) in &kept.topics {
        for partition in 0..spec.partitions {
            let at = TopicPartition::new(spec.name.clone(), partition);
            let records = store.read(*number, &at, 0..u64::MAX, usize::MAX)?;
            disk.records.extend(records.into_iter().map(|record| ((*number, partition, record.offset), record)));
        }
    }
    disk.topics = kept.topics;
    disk.borders = kept.borders;
    disk.times = kept.block_times;
    disk.offsets = kept.offsets.into_iter().map(|(group, at, committed)| ((group, at), committed)).collect();
    Ok(disk)
}

proptest! {
    // Each group costs an fsync.
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_keeps_what_maps_would(
        steps in prop::collection::vec(step(), 1..80),
        reopen_at in any::<prop::sample::Index>(),
    ) {
        let mut world = World::new(0);
        steps.into_iter().for_each(|step| world.step(step));
        world.flush();

        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("log");
        let open = || Store::open(&file, 1 << 20).expect("it opens");
        let (mut store, _) = open();
        let reopen_at = reopen_at.index(world.flushed.len());
        for (n, writes) in world.flushed.iter().enumerate() {
            if n == reopen_at {
                drop(store);
                store = open().0;
            }
            store.write(writes).expect("it writes");
        }
        drop(store);
        let (store, kept) = open();
        let mut keys = kept.keys.clone();
        keys.retain(|_, keys| !keys.is_empty());
        prop_assert_eq!(keys, world.disk.keys());
        prop_assert_eq!(disk(kept, &store).expect("it reads"), world.disk);
    }
}
