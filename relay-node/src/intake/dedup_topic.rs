//! Reads a lane's dedup topic for the partitions that this node was assigned, to its end and no further: what ends from
//! then on, this node ends.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use relay_log::port::{Log, LogError, ReadEvent, Start, TopicPartition};
use relay_protocol::record::DedupEntry;
use relay_runtime::clock::Clock;
use tokio::sync::mpsc;

use super::control::{Followed, Said, What};
use super::decided::decided;
use super::dedup::{self, DedupIndex, EndedJob, Scope};

/// Wait before a read that failed is begun again.
const READ_RETRY: Duration = Duration::from_millis(200);

/// How much is read.
#[derive(Clone)]
pub struct Reading {
    /// The log.
    pub log: Arc<dyn Log>,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Ended jobs kept of one partition; the newest win.
    pub entries_max: usize,
}

/// Reads the partitions with one reader and tells of each when it has been read; ends with the last, or when all are
/// stopped.
pub async fn read(reading: Reading, mut partitions: Vec<Followed>, said: mpsc::Sender<Said>) {
    let stops: Vec<_> = partitions.iter().map(|one| one.stop.clone()).collect();
    let stopped = futures_util::future::join_all(stops.iter().map(|stop| stop.cancelled()));
    tokio::select! {
        biased;
        _ = stopped => {}
        () = reading.all(&mut partitions, &said) => {}
    }
}

impl Reading {
    async fn all(&self, partitions: &mut Vec<Followed>, said: &mpsc::Sender<Said>) {
        loop {
            partitions.retain(|one| !one.stop.is_cancelled());
            if partitions.is_empty() {
                return;
            }
            match self.some(partitions, said).await {
                Ok(()) => {}
                Err(LogError::Closed) => return,
                Err(error) => {
                    tracing::warn!(%error, "ended jobs cannot be read, trying again");
                    tokio::time::sleep(READ_RETRY).await;
                }
            }
        }
    }

    /// Reads until all are done or one fails; those that are done are taken out.
    async fn some(&self, partitions: &mut Vec<Followed>, said: &mpsc::Sender<Said>) -> Result<(), LogError> {
        let began = self.clock.now_ms();
        let mut starts = Vec::with_capacity(partitions.len());
        for one in &*partitions {
            if !one.doubted.is_empty() {
                // What the last owner's last commit wrote may be hidden yet.
                decided(&*self.log, &one.at).await?;
            }
            starts.push((one.at.clone(), self.start(&one.at).await?));
        }
        let mut reader = self.log.read(starts).await?;
        let mut indexes: HashMap<u32, DedupIndex> = HashMap::new();
        let mut proven: HashMap<u32, Vec<u64>> = HashMap::new();
        let doubted: HashMap<u32, Vec<u64>> =
            partitions.iter().map(|one| (one.at.partition, one.doubted.clone())).collect();
        while !partitions.is_empty() {
            match reader.next().await? {
                ReadEvent::Record(record) => match entry(record.value.as_deref()) {
                    Some((scope, job, offset)) => {
                        let partition = record.at.partition;
                        if doubted.get(&partition).is_some_and(|doubted| doubted.binary_search(&offset).is_ok()) {
                            proven.entry(partition).or_default().push(offset);
                        }
                        if job.expires_at_ms > began {
                            self.index_of(&mut indexes, partition).insert(scope, job);
                        }
                    }
                    None => tracing::warn!(at = %record.at, offset = record.offset, "a dedup record is none of ours"),
                },
                ReadEvent::End { at, .. } => {
                    let Some(found) = partitions.iter().position(|one| one.at == at) else { continue };
                    let done = partitions.swap_remove(found);
                    let index = indexes.remove(&at.partition).unwrap_or_else(|| DedupIndex::new(self.entries_max));
                    let took = Duration::from_millis(self.clock.now_ms().saturating_sub(began));
                    metrics::histogram!("relay_dedup_read_seconds").record(took.as_secs_f64());
                    tracing::info!(%at, jobs = index.len(), ?took, "ended jobs were read");
                    let what = What::Ended(index, proven.remove(&at.partition).unwrap_or_default());
                    let read = Said { partition: at.partition, epoch: done.epoch, what };
                    said.send(read).await.map_err(|_| LogError::Closed)?;
                }
            }
        }
        Ok(())
    }

    fn index_of<'a>(&self, indexes: &'a mut HashMap<u32, DedupIndex>, partition: u32) -> &'a mut DedupIndex {
        indexes.entry(partition).or_insert_with(|| DedupIndex::new(self.entries_max))
    }

    /// Where the newest `entries_max` entries begin: a transaction that writes one leaves at most one offset without.
    async fn start(&self, at: &TopicPartition) -> Result<Start, LogError> {
        let borders = self.log.watermarks(at).await?;
        Ok(Start::Offset(borders.high.saturating_sub(2 * self.entries_max as u64).max(borders.low)))
    }
}

/// The job that ended, and where it lay in its lane.
fn entry(value: Option<&[u8]>) -> Option<(Scope, EndedJob, u64)> {
    let entry: DedupEntry = serde_json::from_slice(value?).ok()?;
    let (scope, job) = dedup::read(&entry)?;
    Some((scope, job, entry.place.offset))
}
