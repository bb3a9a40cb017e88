//! Names of the topics.

use crate::job::Priority;

/// Prefix of a lane's job topic.
const JOBS: &str = "media.jobs.";

/// The lane that always exists and takes any task.
pub const DEFAULT_LANE: &str = "default";
/// Events of jobs, but `partial` and `progress`; partition from the job id.
pub const EVENTS: &str = "media.events";
/// `partial` and `progress` events; partitioned as [`EVENTS`].
pub const PARTIALS: &str = "media.partials";
/// Jobs and records that nobody could do, with the reason.
pub const DEAD_LETTERS: &str = "media.dlq";
/// The audit trail.
pub const AUDIT: &str = "media.audit";
/// Facts about the cluster, compacted by key, in one partition: the object store's identity, registrations of the members
/// that commit ([`crate::record::MemberRegistration`]), backends that are drained ([`crate::record::BackendDrain`]).
pub const CLUSTER: &str = "media.cluster";
/// Which coordinator leads ([`crate::record::ElectionRecord`]), in one partition.
pub const ELECTION: &str = "media.election";

/// Jobs of a lane.
pub fn jobs(lane: &str) -> String {
    format!("{JOBS}{lane}")
}

/// Requests to cancel jobs of a lane; as many partitions as [`jobs`].
pub fn control(lane: &str) -> String {
    format!("media.control.{lane}")
}

/// What jobs of a lane ended, for as long as their keys and ids count; as many partitions as [`jobs`].
pub fn dedup(lane: &str) -> String {
    format!("media.dedup.{lane}")
}

/// Delay tiers of a lane: topics [`retry`] 1 to this.
pub const RETRY_TIERS: u32 = 5;

/// Jobs of a lane that no backend can do now, or that are beyond their tenant's or model's share; as many partitions as [`jobs`].
pub fn parked(lane: &str) -> String {
    format!("media.parked.{lane}")
}

/// Jobs of a lane that wait for their time, in the `tier`-th of [`RETRY_TIERS`] tiers, from 1; as many partitions as [`jobs`].
pub fn retry(lane: &str, tier: u32) -> String {
    format!("media.retry.{lane}.{tier}")
}

/// What a lane's name ends in if it is read beside another one, for that one's jobs of this priority.
const PRIORITY_LANES: [(&str, Priority); 2] = [(".interactive", Priority::Interactive), (".batch", Priority::Batch)];

/// The lane in which jobs of `priority` have a topic of their own beside `lane`'s; `lane` itself for those that are normal.
///
/// ```
/// # use relay_protocol::{Priority, topics};
/// assert_eq!(topics::priority_lane("default", Priority::Batch), "default.batch");
/// ```
pub fn priority_lane(lane: &str, priority: Priority) -> String {
    let suffix = PRIORITY_LANES.iter().find(|(_, of)| *of == priority).map_or("", |(suffix, _)| suffix);
    format!("{lane}{suffix}")
}

/// The lane beside which `lane` is read, and the priority of all its jobs; a lane that stands alone leaves that to them.
pub fn base_lane(lane: &str) -> (&str, Option<Priority>) {
    let beside = |(suffix, priority): &(&str, Priority)| Some((lane.strip_suffix(suffix)?, Some(*priority)));
    PRIORITY_LANES.iter().find_map(beside).unwrap_or((lane, None))
}

/// The lane of a job topic.
pub fn lane_of(topic: &str) -> Option<&str> {
    topic.strip_prefix(JOBS)
}
