//! Records that were committed as finished though their ends are not in the log: they are read and done again.

use std::collections::{BTreeSet, HashMap};

use actix::{AsyncContext, Context, Handler, Message};
use relay_log::port::{Log, LogError, LogRecord, ReadEvent, Start, TopicPartition};
use relay_protocol::topics;

use super::{COMMIT_RETRY, Lane, tell};
use crate::intake::decided::decided;
use crate::intake::side_topic;
use crate::job::aside::{self, Aside, SIDES};

/// What there is at offsets that are in doubt; `None` where there is nothing more to be done.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Reread {
    partition: u32,
    epoch: u64,
    found: Vec<(u64, Option<LogRecord>)>,
}

impl Lane {
    /// Reads `offsets` of the lane once more, but for those that were set aside.
    pub(super) fn reread(&self, partition: u32, epoch: u64, offsets: Vec<u64>, ctx: &Context<Self>) {
        let (log, addr, lane) = (self.context.log.clone(), ctx.address(), self.settings.lane.clone());
        let starts = self.core.side_starts(partition);
        actix::spawn(async move {
            let found = loop {
                match look(&*log, &lane, partition, &offsets, &starts).await {
                    Ok(found) => break found,
                    Err(LogError::Closed) => return,
                    Err(error) => tracing::warn!(%error, "jobs in doubt cannot be read, trying again"),
                }
                tokio::time::sleep(COMMIT_RETRY).await;
            };
            tell(&addr, Reread { partition, epoch, found }).await;
        });
    }
}

async fn look(
    log: &dyn Log,
    lane: &str,
    partition: u32,
    offsets: &[u64],
    starts: &[u64; SIDES],
) -> Result<Vec<(u64, Option<LogRecord>)>, LogError> {
    let set_aside = set_aside(log, lane, partition, starts).await?;
    let at = TopicPartition::new(topics::jobs(lane), partition);
    // What the last owner deleted, it knew to be done.
    let low = log.watermarks(&at).await?.low;
    let is_left = |offset: &u64| *offset >= low && !set_aside.contains(offset);
    let left: Vec<u64> = offsets.iter().copied().filter(is_left).collect();
    let records = side_topic::fetch(log, at, &left).await?;
    let mut records: HashMap<u64, LogRecord> = records.into_iter().map(|record| (record.offset, record)).collect();
    Ok(offsets.iter().map(|offset| (*offset, records.remove(offset))).collect())
}

/// From where in the lane the jobs came that are set aside since `starts`.
async fn set_aside(
    log: &dyn Log,
    lane: &str,
    partition: u32,
    starts: &[u64; SIDES],
) -> Result<BTreeSet<u64>, LogError> {
    let mut from = BTreeSet::new();
    for (side, start) in starts.iter().enumerate() {
        let at = TopicPartition::new(aside::topic(lane, side), partition);
        let borders = decided(log, &at).await?;
        let mut reader = log.read(vec![(at, Start::Offset((*start).max(borders.low)))]).await?;
        loop {
            match reader.next().await? {
                ReadEvent::Record(record) => from.extend(Aside::read(&record.headers).and_then(|aside| aside.from)),
                ReadEvent::End { next, .. } if next >= borders.stable => break,
                ReadEvent::End { .. } => {}
            }
        }
    }
    Ok(from)
}

impl Handler<Reread> for Lane {
    type Result = ();

    fn handle(&mut self, Reread { partition, epoch, found }: Reread, ctx: &mut Self::Context) {
        if self.core.epoch(partition) != Some(epoch) {
            return;
        }
        let lane = self.settings.lane.clone();
        for (offset, record) in found {
            match record {
                Some(record) => {
                    tracing::warn!(
                        lane,
                        partition,
                        offset,
                        "a job counts as done, but its end is not in the log: it is done again"
                    );
                    metrics::counter!("relay_jobs_reopened_total", "lane" => lane.clone()).increment(1);
                    self.delivered(record, epoch, ctx);
                }
                None => self.core.is_gone(partition, offset),
            }
        }
        let effects = self.core.reread(partition, self.now_ms());
        self.carry_out(effects, ctx);
    }
}
