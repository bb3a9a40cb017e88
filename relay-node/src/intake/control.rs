//! Reads a lane's control topic for the partitions that this node owns.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use relay_log::port::{Log, LogError, ReadEvent, Start, TopicPartition};
use relay_protocol::record::ControlRecord;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::dedup::DedupIndex;
use super::side::SideKey;
use super::side_topic::SideSaid;
use crate::events::find::CLOCK_SKEW_MS_MAX;

/// Wait before a reader that failed is asked again.
const READ_RETRY: Duration = Duration::from_millis(200);

/// What the topics beside a lane say of one of its partitions.
#[derive(Debug)]
pub struct Said {
    /// The partition.
    pub partition: u32,
    /// The assignment for which it was read.
    pub epoch: u64,
    /// What.
    pub what: What,
}

/// What they say.
#[derive(Debug)]
pub enum What {
    /// A record of the control topic, and when it was written, in milliseconds since the Unix epoch.
    Control(ControlRecord, u64),
    /// The control topic was read to its end for the first time.
    ControlRead,
    /// The dedup topic was read to its end: the jobs that ended, and which of [`Followed::doubted`] are among them.
    Ended(DedupIndex, Vec<u64>),
    /// A record of the parked topic or a delay tier.
    Side(SideKey, SideSaid),
    /// They were read to their ends for the first time.
    SidesRead,
}

/// A partition to read.
#[derive(Debug, Clone)]
pub struct Followed {
    /// Which.
    pub at: TopicPartition,
    /// The assignment for which it is read.
    pub epoch: u64,
    /// From when the control topic, in milliseconds since the Unix epoch; `None` from its start.
    pub since_ms: Option<u64>,
    /// Offsets of the lane whose ends the dedup topic should have, in order.
    pub doubted: Vec<u64>,
    /// Fires when the partition is not this node's any more.
    pub stop: CancellationToken,
}

impl Followed {
    fn start(&self) -> Start {
        self.since_ms.map_or(Start::Earliest, |ms| Start::Time(ms.saturating_sub(CLOCK_SKEW_MS_MAX)))
    }
}

/// Reads control partitions with one reader until all of them are stopped.
pub async fn follow(log: Arc<dyn Log>, followed: Vec<Followed>, said: mpsc::Sender<Said>) {
    let stopped = futures_util::future::join_all(followed.iter().map(|one| one.stop.cancelled()));
    tokio::select! {
        biased;
        _ = stopped => {}
        () = read(&*log, &followed, &said) => {}
    }
}

async fn read(log: &dyn Log, followed: &[Followed], said: &mpsc::Sender<Said>) {
    let starts: Vec<_> = followed.iter().map(|one| (one.at.clone(), one.start())).collect();
    let mut reader = loop {
        match log.read(starts.clone()).await {
            Ok(reader) => break reader,
            Err(error) => wait(&error).await,
        }
    };
    let mut were_read = HashSet::new();
    loop {
        let (partition, what) = match reader.next().await {
            Ok(ReadEvent::Record(record)) => {
                let partition = record.at.partition;
                // Attempts count until the partition was read; after that they are our own. They have no key.
                let wanted = record.key.is_some() || !were_read.contains(&partition);
                match decode(record.value.as_deref().filter(|_| wanted)) {
                    Some(control) => (partition, What::Control(control, record.timestamp_ms)),
                    None => continue,
                }
            }
            Ok(ReadEvent::End { at, .. }) if were_read.insert(at.partition) => (at.partition, What::ControlRead),
            Ok(ReadEvent::End { .. }) => continue,
            Err(LogError::Closed) => return,
            Err(error) => {
                wait(&error).await;
                continue;
            }
        };
        let lives = followed.iter().find(|one| one.at.partition == partition && !one.stop.is_cancelled());
        if let Some(one) = lives
            && said.send(Said { partition, epoch: one.epoch, what }).await.is_err()
        {
            return;
        }
    }
}

fn decode(value: Option<&[u8]>) -> Option<ControlRecord> {
    match serde_json::from_slice(value?) {
        Ok(record) => Some(record),
        Err(error) => {
            tracing::warn!(%error, "a record of a control topic is none of ours and is passed over");
            None
        }
    }
}

async fn wait(error: &LogError) {
    tracing::warn!(%error, "requests to cancel cannot be read, trying again");
    tokio::time::sleep(READ_RETRY).await;
}
