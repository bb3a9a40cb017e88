//! A lane whose group has lost its offsets: going on would do again what was done, or leave out what was not.

use relay_log::port::{Log, LogError, TopicPartition};
use relay_protocol::topics;

/// A lane's consumer group has no place in partitions whose first records were done and deleted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "group {group} has no committed offset for partitions {partitions:?} of {topic}, whose first records are deleted: its offsets \
     were lost. To go on with every record still there (what ended within dedup.window_h is not done again), run\n  {command}\n\
     and start again; with --to-latest in it the waiting jobs are left out"
)]
pub struct LostGroup {
    group: String,
    topic: String,
    partitions: Vec<u32>,
    /// The command of Kafka's own tools that gives the group a place on purpose.
    command: String,
}

impl LostGroup {
    fn new(brokers: &str, group: &str, topic: String, partitions: Vec<u32>) -> Self {
        let numbers: Vec<_> = partitions.iter().map(u32::to_string).collect();
        let command = format!(
            "kafka-consumer-groups.sh --bootstrap-server {brokers} --group {group} --topic {topic}:{} --reset-offsets \
             --to-earliest --execute",
            numbers.join(",")
        );
        Self { group: group.to_owned(), topic, partitions, command }
    }
}

/// Why a lane cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    /// For good: somebody must decide.
    #[error(transparent)]
    LostGroup(#[from] LostGroup),
    /// For now.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Checks that `group` has a place in each partition of `lane` whose first records are gone.
///
/// # Errors
/// [`LaneError::LostGroup`] if not; [`LaneError::Log`] while the log cannot be asked.
pub async fn check(log: &dyn Log, brokers: &str, group: &str, lane: &str, partitions: u32) -> Result<(), LaneError> {
    let topic = topics::jobs(lane);
    let mut lost = Vec::new();
    for partition in 0..partitions {
        let at = TopicPartition::new(topic.as_str(), partition);
        if log.watermarks(&at).await?.low > 0 && log.committed(group, &at).await?.is_none() {
            lost.push(partition);
        }
    }
    if lost.is_empty() {
        return Ok(());
    }
    Err(LostGroup::new(brokers, group, topic, lost).into())
}
