//! Deletes the records of the lane that are done: those below what is committed.

use actix::fut::{ActorFutureExt as _, wrap_future};
use actix::{AsyncContext as _, Context};
use relay_log::port::TopicPartition;
use relay_protocol::topics;

use super::Lane;

impl Lane {
    /// Begins to delete what has been committed since the last time.
    pub(super) fn delete_done(&mut self, ctx: &mut Context<Self>) {
        let due = self.retention.due();
        if due.is_empty() {
            return;
        }
        let (log, lane) = (self.context.log.clone(), self.settings.lane.clone());
        let deleting = async move {
            let (topic, mut done) = (topics::jobs(&lane), Vec::new());
            for (partition, below) in due {
                let at = TopicPartition::new(topic.as_str(), partition);
                match log.delete_before(&at, below).await {
                    Ok(()) => done.push((partition, below)),
                    Err(error) => {
                        tracing::warn!(%error, %at, below, "records that are done were not deleted, trying again later");
                        metrics::counter!("relay_lane_deletions_failed_total", "lane" => lane.clone()).increment(1);
                    }
                }
            }
            done
        };
        ctx.spawn(wrap_future(deleting).map(|done: Vec<_>, lane: &mut Self, _| {
            let freed = lane.retention.deleted(&done);
            metrics::counter!("relay_lane_records_deleted_total", "lane" => lane.settings.lane.clone())
                .increment(freed);
        }));
    }
}
