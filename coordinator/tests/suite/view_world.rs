//! What the tests of the job view need: lives of jobs as events and as records, a log, a view that is fed.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coordinator::Settings;
use coordinator::view::projection::JobRow;
use coordinator::view::store::{Batch, Limits, Store};
use relay_log::local::{LocalLog, LocalLogSettings};
use relay_log::port::{Log, LogRecord, NewRecord, Retention, TopicPartition, TopicSpec};
use relay_protocol::event::{JobCard, Place, TERMINAL_N};
use relay_protocol::record::HEADER_TENANT;
use relay_protocol::{Event, EventKind, JobError, JobId, Priority, Task, topics};

/// Partitions of the events' topic.
pub(crate) const PARTITIONS: u32 = 4;
/// When the first job of a test is submitted.
pub(crate) const BEGAN_MS: u64 = 1_800_000_000_000;

pub(crate) fn job_id(number: u64) -> JobId {
    JobId::new(BEGAN_MS + number, (number % 7) as u32, number)
}

pub(crate) fn place(number: u64) -> Place {
    Place { lane: "default".to_owned(), partition: (number % 3) as u32, offset: number, accepted_at: BEGAN_MS + number }
}

pub(crate) fn card(task: Task) -> JobCard {
    JobCard {
        subject: "ann".to_owned(),
        task,
        model: None,
        priority: Priority::Normal,
        deadline: Some(BEGAN_MS + 3_600_000),
        not_before: None,
        redrive_of: None,
    }
}

pub(crate) fn accepted(number: u64) -> Event {
    let task = if number.is_multiple_of(2) { Task::Probe } else { Task::Vad };
    Event::accepted(job_id(number), place(number), None).about(card(task))
}

pub(crate) fn started(number: u64, attempt: u32) -> Event {
    let mut event = Event::new(job_id(number), attempt, 2, EventKind::Started, BEGAN_MS + number + u64::from(attempt));
    event.place = Some(place(number));
    event.job = accepted(number).job;
    event.backend = Some(format!("backend-{attempt}"));
    event.node = Some("node-1".to_owned());
    event
}

pub(crate) fn retrying(number: u64, attempt: u32) -> Event {
    let at = BEGAN_MS + number + u64::from(attempt);
    let error = Some(JobError::new(relay_protocol::ErrorCode::BackendFailed, "it fell over"));
    Event { error, retry_at: Some(at + 9), ..Event::new(job_id(number), attempt, 9, EventKind::Retrying, at) }
}

pub(crate) fn ended(number: u64, attempt: u32, kind: EventKind) -> Event {
    Event::new(job_id(number), attempt, TERMINAL_N, kind, BEGAN_MS + number + u64::from(attempt) + 1)
}

/// The events of a job that is accepted, runs once and completes.
pub(crate) fn whole_life(number: u64) -> [Event; 3] {
    [accepted(number), started(number, 1), ended(number, 1, EventKind::Completed)]
}

pub(crate) fn record(tenant: &str, event: &Event) -> NewRecord {
    NewRecord {
        to: TopicPartition::new(topics::EVENTS, event.job_id.reply_partition(PARTITIONS)),
        key: Some(Bytes::from(event.job_id.to_string())),
        value: Some(Bytes::from(serde_json::to_vec(event).unwrap())),
        headers: vec![(HEADER_TENANT.to_owned(), Bytes::copy_from_slice(tenant.as_bytes()))],
        timestamp_ms: event.at,
    }
}

/// The same as it is read.
pub(crate) fn read(tenant: &str, event: &Event) -> LogRecord {
    let NewRecord { to, key, value, headers, timestamp_ms } = record(tenant, event);
    LogRecord { at: to, offset: 0, key, value, headers, timestamp_ms }
}

pub(crate) fn limits() -> Limits {
    Limits { rows_max: 1_000_000, retention_ms: 168 * 3_600_000, partitions: PARTITIONS }
}

pub(crate) fn store(folder: &Path, limits: Limits) -> Store {
    Store::open(folder.join("jobs.sqlite"), limits).unwrap()
}

/// Takes in events of tenant `red` in one transaction, as of the time of the first job.
pub(crate) fn take(store: &Store, events: &[Event]) {
    let records = events.iter().map(|event| read("red", event)).collect();
    store.apply(&Batch { records, ..Batch::default() }, BEGAN_MS).unwrap();
}

/// Everything in the store, newest first.
pub(crate) fn all(store: &Store) -> Vec<JobRow> {
    let query = coordinator::view::query::Filters::default().read(1_000).unwrap();
    let query = coordinator::view::query::Query { limit: 10_000_000, ..query };
    store.list(&query).unwrap().jobs
}

/// A log in `folder` with the topics that a coordinator makes.
pub(crate) async fn log(folder: &Path) -> Arc<dyn Log> {
    let log: Arc<dyn Log> = Arc::new(LocalLog::open(&folder.join("log"), &LocalLogSettings::default()).unwrap());
    let kept = Retention::Age(Duration::from_secs(3_600));
    let of = |name: &str, partitions| TopicSpec { name: name.into(), partitions, retention: kept };
    log.create_topics(&[of(topics::EVENTS, PARTITIONS), of("media.control.default", 3)]).await.unwrap();
    log
}

/// A coordinator's settings whose view lies in `folder`.
pub(crate) fn settings_in(folder: &Path) -> Settings {
    let mut settings = crate::support::settings();
    settings.topics.event_partitions = PARTITIONS;
    settings.topics.lane_partitions = 3;
    // The events of the tests are of one fixed day.
    settings.topics.event_retention_h = 24 * 365 * 100;
    settings.view.file = folder.join("view/jobs.sqlite");
    settings
}
