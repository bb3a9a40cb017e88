//! The behaviour that every log has, whatever carries it. `conformance!` makes one test of each case for one adapter.

use std::sync::Arc;

use async_trait::async_trait;
use relay_log::port::Log;

pub(crate) mod commits;
pub(crate) mod groups;
pub(crate) mod records;

/// One adapter under test.
#[async_trait]
pub(crate) trait Harness: Send + Sync {
    /// A log of this test's own, or one that it shares under names of its own.
    async fn log(&self) -> anyhow::Result<Arc<dyn Log>>;

    /// The same data again after everything that holds it was dropped: a fresh instance or connection.
    async fn reopen(&self) -> anyhow::Result<Arc<dyn Log>>;
}

/// One `#[tokio::test]` for each case, on a harness made by `$make`.
macro_rules! conformance {
    ($make:expr) => {
        crate::conformance::conformance! { $make;
            records: order_within_a_partition, headers_keys_and_tombstones_are_kept, readers_begin_where_they_are_told,
                below_the_low_watermark_is_out_of_range, one_mebibyte_goes_through_and_more_than_the_limit_does_not,
                an_unknown_topic_is_named, topics_are_created_once_and_checked, many_writers_lose_and_double_nothing,
                records_outlast_a_restart;
            groups: partitions_are_shared_out_and_given_back, a_partition_is_not_given_on_before_its_release,
                a_paused_partition_is_silent, a_full_read_ahead_does_not_hold_up_a_rebalance, a_group_goes_on_after_a_restart;
            commits: records_and_offsets_come_together, metadata_comes_back_and_has_a_limit, a_stale_epoch_commits_nothing,
                a_zombie_commits_nothing, a_fenced_holder_commits_nothing, an_invalid_commit_does_nothing;
        }
    };
    ($make:expr; $($module:ident: $($case:ident),*;)*) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() -> anyhow::Result<()> {
                crate::conformance::$module::$case(&$make?).await
            }
        )*)*
    };
}
pub(crate) use conformance;
