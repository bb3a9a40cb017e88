//! Reads the parked topic and the delay tiers of the partitions that this node owns.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use relay_log::port::{Log, LogError, LogRecord, ReadEvent, Start, TopicPartition};
use relay_protocol::record::HEADER_TAKEN;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::control::{Said, What};
use super::side::Entry;
use crate::job::aside::{Aside, SIDES, Side, topic};
use crate::job::delivered::Delivered;

/// Wait before a reader that failed is asked again.
const READ_RETRY: Duration = Duration::from_millis(200);

/// A partition whose sides are read.
#[derive(Debug, Clone)]
pub struct FollowedSides {
    /// Number of the partition.
    pub partition: u32,
    /// The assignment for which it is read.
    pub epoch: u64,
    /// Where each side is read from.
    pub starts: [u64; SIDES],
    /// Fires when the partition is not this node's any more.
    pub stop: CancellationToken,
}

/// What a record of a side says.
#[derive(Debug)]
pub enum SideSaid {
    /// A job is set aside here.
    Put(Box<Entry>),
    /// The job at this offset has left.
    Taken(u64),
    /// Nothing that concerns us.
    Nothing,
}

/// Reads the sides of `lane` with one reader until all partitions are stopped.
pub async fn follow(log: Arc<dyn Log>, lane: String, followed: Vec<FollowedSides>, said: mpsc::Sender<Said>) {
    if followed.is_empty() {
        return;
    }
    let stopped = futures_util::future::join_all(followed.iter().map(|one| one.stop.cancelled()));
    tokio::select! {
        biased;
        _ = stopped => {}
        () = read(&*log, &lane, &followed, &said) => {}
    }
}

async fn read(log: &dyn Log, lane: &str, followed: &[FollowedSides], said: &mpsc::Sender<Said>) {
    let sides: HashMap<String, Side> = (0..SIDES).map(|side| (topic(lane, side), side)).collect();
    let start = |one: &FollowedSides, side: Side| match one.starts[side] {
        0 => Start::Earliest,
        next => Start::Offset(next),
    };
    let of_one = |one: &FollowedSides| {
        let at = |side| (TopicPartition::new(topic(lane, side), one.partition), start(one, side));
        (0..SIDES).map(at).collect::<Vec<_>>()
    };
    let starts: Vec<_> = followed.iter().flat_map(of_one).collect();
    let mut reader = loop {
        match log.read(starts.clone()).await {
            Ok(reader) => break reader,
            Err(LogError::Closed) => return,
            Err(error) => wait(&error).await,
        }
    };
    let mut ends: HashMap<u32, HashSet<Side>> = HashMap::new();
    loop {
        let (partition, what) = match reader.next().await {
            Ok(ReadEvent::Record(record)) => {
                let Some(side) = sides.get(&*record.at.topic).copied() else { continue };
                (record.at.partition, What::Side((side, record.offset), decode(lane, side, record)))
            }
            Ok(ReadEvent::End { at, .. }) => {
                let Some(side) = sides.get(&*at.topic).copied() else { continue };
                let ended = ends.entry(at.partition).or_default();
                if !ended.insert(side) || ended.len() < SIDES {
                    continue;
                }
                (at.partition, What::SidesRead)
            }
            Err(LogError::Closed) => return,
            Err(error) => {
                wait(&error).await;
                continue;
            }
        };
        let lives = followed.iter().find(|one| one.partition == partition && !one.stop.is_cancelled());
        if let Some(one) = lives
            && said.send(Said { partition, epoch: one.epoch, what }).await.is_err()
        {
            return;
        }
    }
}

fn decode(lane: &str, side: Side, record: LogRecord) -> SideSaid {
    if let Some(offset) = record.header(HEADER_TAKEN) {
        let offset = std::str::from_utf8(offset).ok().and_then(|text| text.parse().ok());
        return offset.map_or(SideSaid::Nothing, SideSaid::Taken);
    }
    if Aside::read(&record.headers).is_none() {
        return SideSaid::Nothing;
    }
    match Delivered::read(lane, record, 0) {
        Ok(job) => SideSaid::Put(Box::new(Entry::new(&job, side))),
        Err(refused) => {
            tracing::warn!(error = %refused.error, at = %refused.at, "a record that is set aside is no job and is passed over");
            SideSaid::Nothing
        }
    }
}

/// The records at `offsets`, which rise, of one side of a partition; those that are gone are missing.
///
/// # Errors
/// The log cannot be read.
pub async fn fetch(log: &dyn Log, at: TopicPartition, offsets: &[u64]) -> Result<Vec<LogRecord>, LogError> {
    let (Some(first), Some(last)) = (offsets.first(), offsets.last()) else { return Ok(Vec::new()) };
    let mut reader = log.read(vec![(at, Start::Offset(*first))]).await?;
    let mut found = Vec::with_capacity(offsets.len());
    loop {
        match reader.next().await? {
            ReadEvent::Record(record) => {
                let is_last = record.offset >= *last;
                if offsets.binary_search(&record.offset).is_ok() {
                    found.push(record);
                }
                if is_last {
                    return Ok(found);
                }
            }
            ReadEvent::End { .. } => return Ok(found),
        }
    }
}

async fn wait(error: &LogError) {
    tracing::warn!(%error, "jobs that are set aside cannot be read, trying again");
    tokio::time::sleep(READ_RETRY).await;
}
