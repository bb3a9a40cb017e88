//! Shows what open transactions hide: the distance between the end of a partition and what readers of committed records can
//! reach. It is short and passes with each commit; one that stays is a transaction that hangs, and holds up everything behind it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use relay_log::port::TopicPartition;
use relay_protocol::topics;
use tokio_util::sync::CancellationToken;

use crate::state::Online;

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(5);

/// Shows it until `stop`, for the partitions of lanes that are this node's, and for the events that it follows.
pub async fn keep_shown(online: Arc<Online>, stop: CancellationToken) {
    let mut shown = BTreeSet::new();
    while stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
        let watched = watched(&online).await;
        for at in shown.difference(&watched) {
            show(at, 0);
        }
        for at in &watched {
            match online.log.watermarks(at).await {
                Ok(borders) => show(at, borders.high.saturating_sub(borders.stable)),
                Err(error) => tracing::debug!(%error, %at, "what is hidden cannot be told"),
            }
        }
        shown = watched;
    }
}

async fn watched(online: &Online) -> BTreeSet<TopicPartition> {
    let events = online.hub.followed().await.into_iter();
    let mut watched: BTreeSet<_> = events.map(|partition| TopicPartition::new(topics::EVENTS, partition)).collect();
    for (name, lane) in online.served.get().into_iter().flatten() {
        let owned = lane.state().await.map(|state| state.partitions).unwrap_or_default();
        for topic in [topics::jobs(name), topics::dedup(name)] {
            watched.extend(owned.iter().map(|partition| TopicPartition::new(topic.as_str(), *partition)));
        }
    }
    watched
}

fn show(at: &TopicPartition, records: u64) {
    let (topic, partition) = (at.topic.to_string(), at.partition.to_string());
    metrics::gauge!("relay_log_hidden_records", "topic" => topic, "partition" => partition).set(records as f64);
}
