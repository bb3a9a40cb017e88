//! Carries the election's records to the log and back: one reader, one append at a time, a clock.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use relay_log::port::{Log, LogError, LogReader, NewRecord, ReadEvent, Start, TopicPartition};
use relay_protocol::record::{ELECTION_KEY, ElectionRecord};
use relay_protocol::topics;
use relay_runtime::backoff::retry_delay;
use relay_runtime::clock::Clock;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::core::{Election, Input, Turn};
use super::{ElectionSettings, Office, Term};
use crate::audit::AuditTrail;
use crate::metrics;

/// Newest records that are read first: enough to hear of the leader, whatever lies before.
const TAIL_RECORDS: u64 = 16;
/// Ticks of the election's clock in the time between two beats.
const TICKS_PER_BEAT: u64 = 5;
/// Pauses between two tries to read the topic, which may not be there yet.
const OPEN_RETRY_MIN: Duration = Duration::from_millis(2);
const OPEN_RETRY_MAX: Duration = Duration::from_millis(200);
/// Pause after a failed read.
const READ_RETRY: Duration = Duration::from_millis(50);
/// How long the last word of a leader that goes may take.
const RESIGN_TIMEOUT: Duration = Duration::from_secs(1);

/// One coordinator in the election.
pub struct Candidate {
    log: Arc<dyn Log>,
    at: TopicPartition,
    election: Election,
    tick: Duration,
    office: watch::Sender<Office>,
    trail: AuditTrail,
    clock: Arc<dyn Clock>,
    born: Instant,
}

type Appending = Pin<Box<dyn Future<Output = Result<Vec<u64>, LogError>> + Send>>;

/// Why reading ended.
enum End {
    Stopped,
    Reopen,
}

impl Candidate {
    /// A standby, called `candidate`, which no other life of a coordinator ever is; `url` is where nodes reach it. What it is
    /// from moment to moment goes to `office`.
    pub fn new(
        settings: &ElectionSettings,
        (candidate, url): (String, Option<String>),
        log: Arc<dyn Log>,
        (trail, clock): (AuditTrail, Arc<dyn Clock>),
        office: watch::Sender<Office>,
    ) -> Self {
        let election = Election::new(settings.rules(), candidate, url, 0);
        let tick = Duration::from_millis((settings.beat_ms / TICKS_PER_BEAT).max(1));
        let at = TopicPartition::new(topics::ELECTION, 0);
        Self { log, at, election, tick, office, trail, clock, born: Instant::now() }
    }

    /// Takes part until `stop`, then gives leadership up.
    pub async fn run(mut self, stop: CancellationToken) {
        metrics::leads(false);
        let mut appending = None;
        loop {
            let reader = tokio::select! {
                () = stop.cancelled() => break,
                reader = self.open() => reader,
            };
            self.take(Input::Opened, &mut appending);
            if let End::Stopped = self.follow(reader, &mut appending, &stop).await {
                break;
            }
        }
        let last = self.election.resign();
        self.show();
        let farewell = async {
            // A beat that came after it would count as a sign of life.
            if let Some(append) = appending {
                drop(append.await);
            }
            if let Some(record) = last {
                drop(self.append(&record).await);
            }
        };
        if timeout(RESIGN_TIMEOUT, farewell).await.is_err() {
            tracing::warn!("the others were not told that this leader goes: they wait for its silence");
        }
    }

    /// A reader of the topic's end; tries until there is one.
    async fn open(&self) -> Box<dyn LogReader> {
        for attempt in 1_u32.. {
            let opened = async {
                let borders = self.log.watermarks(&self.at).await?;
                let start = borders.stable.saturating_sub(TAIL_RECORDS).max(borders.low);
                self.log.read(vec![(self.at.clone(), Start::Offset(start))]).await
            };
            match opened.await {
                Ok(reader) => return reader,
                Err(error) => tracing::debug!(%error, "the election waits for its topic"),
            }
            sleep(retry_delay(attempt, OPEN_RETRY_MIN, OPEN_RETRY_MAX)).await;
        }
        pending().await
    }

    async fn follow(
        &mut self,
        mut reader: Box<dyn LogReader>,
        appending: &mut Option<Appending>,
        stop: &CancellationToken,
    ) -> End {
        let mut ticks = interval(self.tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let input = tokio::select! {
                biased;
                () = stop.cancelled() => return End::Stopped,
                outcome = ended(appending) => {
                    if let Err(error) = outcome {
                        tracing::debug!(%error, "a record of the election was not acknowledged");
                    }
                    *appending = None;
                    Input::AppendEnded
                }
                event = reader.next() => match event {
                    Ok(ReadEvent::Record(record)) => {
                        Input::Read { offset: record.offset, record: decode(record.value.as_deref()) }
                    }
                    Ok(ReadEvent::End { next, .. }) => Input::End { next },
                    Err(LogError::OffsetOutOfRange { .. } | LogError::UnknownTopic(_)) => return End::Reopen,
                    Err(error) => {
                        tracing::debug!(%error, "the election cannot be read");
                        sleep(READ_RETRY).await;
                        Input::Tick
                    }
                },
                _ = ticks.tick() => Input::Tick,
            };
            self.take(input, appending);
        }
    }

    fn take(&mut self, input: Input, appending: &mut Option<Appending>) {
        let record = self.election.on(self.now_ms(), input);
        self.show();
        if let Some(record) = record {
            *appending = Some(self.append(&record));
        }
    }

    fn append(&self, record: &ElectionRecord) -> Appending {
        let value = match serde_json::to_vec(record) {
            Ok(value) => value,
            Err(error) => return Box::pin(async move { Err(LogError::Unavailable(error.to_string())) }),
        };
        let record = NewRecord {
            to: self.at.clone(),
            key: Some(ELECTION_KEY.into()),
            value: Some(value.into()),
            headers: Vec::new(),
            timestamp_ms: self.clock.now_ms(),
        };
        let log = self.log.clone();
        Box::pin(async move { log.append(vec![record]).await })
    }

    /// Shows what the election decided, before anything else is done.
    fn show(&mut self) {
        let leader = self.election.leader();
        let term = self.election.leading().map(|incarnation| Term {
            incarnation,
            until: self.election.until_ms().and_then(|until| self.born.checked_add(Duration::from_millis(until))),
        });
        let office = Office {
            term,
            leader: leader.map(|leader| leader.incarnation),
            leader_url: leader.and_then(|leader| leader.url.clone()),
        };
        let known = office.leader;
        self.office.send_if_modified(|before| {
            let is_new = *before != office;
            *before = office;
            is_new
        });
        for turn in self.election.turns() {
            let (outcome, incarnation) = (name(turn), known.unwrap_or_default());
            metrics::election(outcome);
            metrics::leads(term.is_some());
            if turn != Turn::Beaten {
                tracing::info!(outcome, incarnation, "leadership");
                self.trail.leadership(outcome, incarnation);
            }
        }
        metrics::leader(known);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

async fn ended(appending: &mut Option<Appending>) -> Result<Vec<u64>, LogError> {
    match appending {
        Some(append) => append.await,
        None => pending().await,
    }
}

fn decode(value: Option<&[u8]>) -> Option<ElectionRecord> {
    let decoded = serde_json::from_slice(value?);
    decoded.inspect_err(|error| tracing::warn!(%error, "a record of the election topic is not readable")).ok()
}

fn name(turn: Turn) -> &'static str {
    match turn {
        Turn::Won => "won",
        Turn::Beaten => "beaten",
        Turn::Displaced => "displaced",
        Turn::Unconfirmed => "unconfirmed",
        Turn::Resigned => "resigned",
    }
}
