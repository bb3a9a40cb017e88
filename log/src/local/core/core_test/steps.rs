//! What can happen to a log, at random.

use proptest::prelude::*;
use proptest::sample::Index;

/// How a commit or an append is spoilt, so that it must be refused as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::local) enum Spoilt {
    No,
    MetadataTooLong,
    RecordTooLarge,
    UnknownTopic,
    UnknownPartition,
}

/// Records of one append.
#[derive(Debug, Clone)]
pub(in crate::local) struct Batch {
    /// Partition of each record among all that exist, its key, its age in milliseconds, the bytes of its value.
    pub(in crate::local) records: Vec<(Index, Option<u8>, u64, Option<usize>)>,
}

/// One step.
#[derive(Debug, Clone)]
pub(in crate::local) enum Step {
    CreateLateTopic,
    Append(Batch, Spoilt),
    Commit {
        member: Index,
        /// Which assignments it names: its own of now (`true`) or any that any member ever had.
        seats: Vec<(bool, Index)>,
        batch: Batch,
        metadata: String,
        spoilt: Spoilt,
    },
    Join {
        group: u8,
        transactional_id: u8,
    },
    Leave(Index),
    /// A member asks this often what happens next.
    Poll(Index, u8),
    Release(Index),
    Pause(Index, Index, bool),
    Fence(u8),
    /// Deletes a share of a partition, in percent of what is readable.
    Delete(Index, u64),
    /// Time passes, in milliseconds.
    Pass(u64),
    /// What was written becomes durable and visible.
    Flush,
    /// The process dies, with what was not durable, and begins again.
    Restart,
}

fn batch(records_max: usize) -> impl Strategy<Value = Batch> {
    let age = prop_oneof![8 => 0..600_u64, 1 => 0..8_000_u64, 1 => Just(u64::MAX)];
    let record = (any::<Index>(), proptest::option::of(0..5_u8), age, proptest::option::weighted(0.9, 0..64_usize));
    // Long runs in one partition fill blocks of the time index.
    let run = (record.clone(), 1..=records_max * 4).prop_map(|(record, count)| vec![record; count]);
    prop_oneof![3 => prop::collection::vec(record, 0..=records_max), 1 => run].prop_map(|records| Batch { records })
}

fn spoilt() -> impl Strategy<Value = Spoilt> {
    prop_oneof![
        12 => Just(Spoilt::No),
        1 => Just(Spoilt::MetadataTooLong),
        1 => Just(Spoilt::RecordTooLarge),
        1 => Just(Spoilt::UnknownTopic),
        1 => Just(Spoilt::UnknownPartition),
    ]
}

/// One step, at random.
pub(in crate::local) fn step() -> impl Strategy<Value = Step> {
    let seats = prop::collection::vec((prop::bool::weighted(0.8), any::<Index>()), 0..4);
    let commit = (any::<Index>(), seats, batch(4), "\\PC{0,12}", spoilt());
    prop_oneof![
        1 => Just(Step::CreateLateTopic),
        6 => (batch(12), spoilt()).prop_map(|(batch, spoilt)| Step::Append(batch, spoilt)),
        8 => commit.prop_map(|(member, seats, batch, metadata, spoilt)| Step::Commit {
            member, seats, batch, metadata, spoilt
        }),
        5 => (0..2_u8, 0..5_u8).prop_map(|(group, transactional_id)| Step::Join { group, transactional_id }),
        2 => any::<Index>().prop_map(Step::Leave),
        16 => (any::<Index>(), 1..6_u8).prop_map(|(member, times)| Step::Poll(member, times)),
        4 => any::<Index>().prop_map(Step::Release),
        2 => (any::<Index>(), any::<Index>(), any::<bool>()).prop_map(|(member, seat, paused)| {
            Step::Pause(member, seat, paused)
        }),
        1 => (0..5_u8).prop_map(Step::Fence),
        2 => (any::<Index>(), 0..=100_u64).prop_map(|(place, percent)| Step::Delete(place, percent)),
        4 => (0..800_u64).prop_map(Step::Pass),
        8 => Just(Step::Flush),
        1 => Just(Step::Restart),
    ]
}
