//! Reads of jobs' pasts, shared and bounded: at most so many scans at a time on this node, each for all who wait for about the same
//! stretch of a partition. [`queue`] and [`gather`] decide, this reads.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use relay_log::port::{Log, LogError, LogReader, ReadEvent, Start, TopicPartition, Watermarks};
use relay_runtime::clock::Clock;
use serde::Deserialize;

use self::gather::{Found, From, Gather, Outcome, Want};
use self::queue::{Line, Queue, Reach};
use super::find::CLOCK_SKEW_MS_MAX;
use super::write::EventRecords;

pub mod gather;
pub mod queue;

/// When one who finds no room should come again.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Section `[events]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/relay-node.toml is their documentation")]
pub struct EventSettings {
    pub catch_up_readers_max: usize,
    pub catch_up_waiting_max: usize,
    pub catch_up_bytes_max: usize,
}

/// Why there is no past.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatchUpError {
    /// As many wait as may.
    #[error("too many watches wait for the past of their jobs")]
    Full,
    /// The log cannot be read now.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// What is done with a past. It must not block: it runs within the scan.
pub type Done = Box<dyn FnOnce(Result<Found, LogError>) + Send>;

struct Ticket {
    want: Want,
    done: Done,
}

/// The node's catch-up reads. Cheap to clone.
#[derive(Clone)]
pub struct CatchUps(Arc<Inner>);

struct Inner {
    log: Arc<dyn Log>,
    records: EventRecords,
    clock: Arc<dyn Clock>,
    bytes_max: usize,
    queue: Mutex<Queue<Ticket>>,
}

impl CatchUps {
    /// Reads of `log`.
    pub fn new(log: Arc<dyn Log>, records: EventRecords, clock: Arc<dyn Clock>, settings: &EventSettings) -> Self {
        let queue = Mutex::new(Queue::new(settings.catch_up_readers_max, settings.catch_up_waiting_max));
        Self(Arc::new(Inner { log, records, clock, bytes_max: settings.catch_up_bytes_max, queue }))
    }

    /// Reads a past for a client, unless too many wait; `end` is about the next offset of the job's partition. One that was let in
    /// before comes `again`, and is not refused.
    ///
    /// # Errors
    /// [`CatchUpError::Full`]; then `done` is not called.
    pub fn ask(&self, want: Want, end: u64, again: bool, done: Done) -> Result<(), CatchUpError> {
        let line = self.line(&want, end);
        {
            let mut queue = self.queue();
            if !again && !queue.has_room() {
                metrics::counter!("relay_catch_up_refused_total").increment(1);
                return Err(CatchUpError::Full);
            }
            queue.push(line, Ticket { want, done });
        }
        self.go_on();
        Ok(())
    }

    /// Reads a past for the node itself, whose jobs are bounded elsewhere.
    ///
    /// # Errors
    /// The log cannot be read now.
    pub async fn read(&self, want: Want) -> Result<Found, LogError> {
        let (sender, found) = tokio::sync::oneshot::channel();
        // Whoever asked may have gone.
        let done: Done = Box::new(move |outcome| drop(sender.send(outcome)));
        let line = self.line(&want, 0);
        self.queue().push(line, Ticket { want, done });
        self.go_on();
        found.await.unwrap_or(Err(LogError::Closed))
    }

    fn queue(&self) -> MutexGuard<'_, Queue<Ticket>> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self, want: &Want, end: u64) -> Line {
        let reach = match want.from {
            From::Offset(offset) | From::Hint(offset, _) => Reach::behind(end.saturating_sub(offset)),
            from => begin_ms(want, from).map_or(Reach::All, |ms| Reach::ago(self.0.clock.now_ms().saturating_sub(ms))),
        };
        Line { partition: want.job_id.reply_partition(self.0.records.partitions()), reach }
    }

    /// Begins the scans that may begin.
    fn go_on(&self) {
        let mut queue = self.queue();
        while let Some((line, tickets)) = queue.next_scan() {
            let this = self.clone();
            tokio::spawn(async move { this.serve(line, tickets).await });
        }
        metrics::gauge!("relay_catch_up_readers").set(queue.reading() as f64);
        metrics::gauge!("relay_catch_up_waiting").set(queue.waiting() as f64);
    }

    async fn serve(&self, line: Line, tickets: Vec<Ticket>) {
        metrics::counter!("relay_catch_up_scans_total").increment(1);
        let wants: Vec<Want> = tickets.iter().map(|ticket| ticket.want.clone()).collect();
        match self.scan(line, wants).await {
            Ok(outcomes) => {
                for (ticket, outcome) in tickets.into_iter().zip(outcomes) {
                    self.settle(line, ticket, outcome);
                }
            }
            Err(error) => tickets.into_iter().for_each(|ticket| (ticket.done)(Err(error.clone()))),
        }
        self.queue().ended(line);
        self.go_on();
    }

    fn settle(&self, mut line: Line, mut ticket: Ticket, outcome: Outcome) {
        match outcome {
            Outcome::Found(found) => {
                metrics::counter!("relay_catch_up_served_total").increment(1);
                return (ticket.done)(Ok(found));
            }
            Outcome::Again => {}
            Outcome::Widen => {
                ticket.want.from = From::Made;
                line = self.line(&ticket.want, 0);
            }
        }
        // It was let in before.
        self.queue().push(line, ticket);
    }

    /// One read of the partition for all of `wants`, to the end that it has now.
    async fn scan(&self, line: Line, wants: Vec<Want>) -> Result<Vec<Outcome>, LogError> {
        let [durable, partials] = self.0.records.places(line.partition);
        let borders = self.0.log.watermarks(&durable).await?;
        // Not from here, if retention was faster: from what is left.
        let is_gone = |want: &Want| matches!(want.from, From::Offset(at) | From::Hint(at, _) if at < borders.low);
        let gone: Vec<bool> = wants.iter().map(is_gone).collect();
        let served: Vec<Want> =
            wants.into_iter().zip(&gone).filter(|(_, gone)| !**gone).map(|(want, _)| want).collect();
        let mut outcomes = if served.is_empty() {
            Vec::new()
        } else {
            let mut starts = vec![(durable.clone(), start(&served, Topic::Durable, borders))];
            if served.iter().any(|want| want.partials) {
                let borders = self.0.log.watermarks(&partials).await?;
                starts.push((partials, start(&served, Topic::Revocable, borders)));
            }
            let gather = self.gather(starts, Gather::new(served, self.0.bytes_max)).await?;
            let first_ms = if gather.is_in_doubt() { self.first_ms(&durable, borders).await? } else { None };
            gather.finish(|want| may_have_begun_before(want, first_ms))
        }
        .into_iter();
        Ok(gone
            .into_iter()
            .map(|gone| if gone { Outcome::Widen } else { outcomes.next().unwrap_or(Outcome::Again) })
            .collect())
    }

    async fn gather(&self, starts: Vec<(TopicPartition, Start)>, mut gather: Gather) -> Result<Gather, LogError> {
        let durable = starts.first().map(|(at, _)| at.clone());
        let mut open: Vec<_> = starts.iter().map(|(at, _)| at.clone()).collect();
        let mut reader: Box<dyn LogReader> = self.0.log.read(starts).await?;
        while !open.is_empty() {
            match reader.next().await? {
                ReadEvent::End { at, .. } => open.retain(|still| *still != at),
                ReadEvent::Record(record) => {
                    gather.on(&record);
                    if gather.have_all_ended() {
                        open.retain(|still| Some(still) != durable.as_ref());
                    }
                }
            }
        }
        Ok(gather)
    }

    /// When the partition's first record was written; `None` if none was ever deleted, the end of time if none is left.
    async fn first_ms(&self, at: &TopicPartition, borders: Watermarks) -> Result<Option<u64>, LogError> {
        if borders.low == 0 {
            return Ok(None);
        }
        let mut reader = self.0.log.read(vec![(at.clone(), Start::Earliest)]).await?;
        Ok(Some(match reader.next().await? {
            ReadEvent::Record(record) => record.timestamp_ms,
            ReadEvent::End { .. } => u64::MAX,
        }))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Topic {
    Durable,
    Revocable,
}

/// The first place that any of `wants` needs. All are of one line: they name offsets, or times.
fn start(wants: &[Want], topic: Topic, borders: Watermarks) -> Start {
    let wants = || wants.iter().filter(|want| topic == Topic::Durable || want.partials);
    let offsets = wants().filter_map(|want| match (want.from, topic) {
        (From::Offset(at) | From::Hint(at, _), Topic::Durable) | (From::Hint(_, at), Topic::Revocable) => Some(at),
        _ => None,
    });
    if let Some(offset) = offsets.min() {
        return Start::Offset(offset.clamp(borders.low, borders.stable.max(borders.low)));
    }
    let times: Option<Vec<u64>> = wants().map(|want| begin_ms(want, want.from)).collect();
    times.and_then(|times| times.into_iter().min()).map_or(Start::Earliest, Start::Time)
}

/// When the first event that is wanted may have been written, in milliseconds since the Unix epoch; `None`: nobody knows.
fn begin_ms(want: &Want, from: From) -> Option<u64> {
    match from {
        From::Time(ms) => Some(ms),
        _ => want.job_id.made_at_ms().map(|made| made.saturating_sub(CLOCK_SKEW_MS_MAX)),
    }
}

fn may_have_begun_before(want: &Want, first_ms: Option<u64>) -> bool {
    first_ms.is_some_and(|first| begin_ms(want, From::Made).is_none_or(|begin| begin < first))
}
