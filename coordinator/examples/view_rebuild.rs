//! Measures how fast the job view is read anew: `cargo run --release -p coordinator --example view_rebuild [JOBS]`.
//!
//! JOBS (100,000) jobs of three events each lie in the embedded log, in a temporary folder; the view is read from them to
//! the end with the default settings.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use coordinator::Settings;
use coordinator::view::JobView;
use coordinator::view::query::Filters;
use coordinator::view::reader::ViewReader;
use relay_log::local::{LocalLog, LocalLogSettings};
use relay_log::port::{Log, NewRecord, Retention, TopicPartition, TopicSpec};
use relay_protocol::event::{JobCard, Place, TERMINAL_N};
use relay_protocol::record::HEADER_TENANT;
use relay_protocol::{Event, EventKind, JobId, Priority, Task, topics};
use relay_runtime::clock::{Clock, SystemClock};
use relay_runtime::random::SystemRandom;
use tokio_util::sync::CancellationToken;

/// Jobs in one append.
const BATCH: u64 = 2_000;
/// Time between two looks whether all is read.
const LOOK: Duration = Duration::from_millis(5);

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let jobs = std::env::args().nth(1).map_or(Ok(100_000), |text| text.parse::<u64>()).context("JOBS is a number")?;
    let folder = tempfile::tempdir()?;
    let mut settings = Settings::defaults()?;
    settings.view.file = folder.path().join("jobs.sqlite");
    let partitions = settings.topics.event_partitions;
    let log: Arc<dyn Log> = Arc::new(LocalLog::open(&folder.path().join("log"), &LocalLogSettings::default())?);
    let retention = Duration::from_secs(u64::from(settings.topics.event_retention_h) * 3_600);
    log.create_topics(&[TopicSpec { name: topics::EVENTS.into(), partitions, retention: Retention::Age(retention) }])
        .await?;
    let now_ms = SystemClock.now_ms();
    for first in (0..jobs).step_by(BATCH as usize) {
        let some = first..jobs.min(first + BATCH);
        log.append(some.flat_map(|number| life(number, now_ms, partitions)).collect()).await?;
    }

    let began = Instant::now();
    let view = JobView::open(&settings.view, retention, partitions)?;
    let batch = (settings.view.batch_events_max, Duration::from_millis(settings.view.batch_wait_ms));
    let reader = ViewReader::new(view.clone(), log, Arc::new(SystemClock), partitions, batch);
    let stop = CancellationToken::new();
    let reading = tokio::spawn(reader.run(SystemRandom, stop.clone()));
    while !view.is_caught_up() {
        tokio::time::sleep(LOOK).await;
    }
    let took = began.elapsed();
    let asked = Instant::now();
    let page = view.list(Filters::default().read(100)?).await?;
    let answered = asked.elapsed();
    stop.cancel();
    reading.await?;
    anyhow::ensure!(page.jobs.len() as u64 == jobs.min(100), "the view has not all jobs");
    let events = 3 * jobs;
    let bytes = std::fs::metadata(&settings.view.file)?.len();
    println!("{events} events in {:.2} s: {:.0} events/s", took.as_secs_f64(), events as f64 / took.as_secs_f64());
    println!("{bytes} bytes, {:.0} for each job; a page of 100 jobs in {answered:?}", bytes as f64 / jobs as f64);
    Ok(())
}

/// The records of a job that is accepted, runs once and completes.
fn life(number: u64, now_ms: u64, partitions: u32) -> [NewRecord; 3] {
    let id = JobId::new(now_ms + number / 100, (number % 64) as u32, number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let at = now_ms + number / 100;
    let place =
        Place { lane: "default".to_owned(), partition: (number % 8) as u32, offset: number / 8, accepted_at: at };
    let card = JobCard {
        subject: "ann".to_owned(),
        task: Task::Transcribe,
        model: Some("whisper-large".to_owned()),
        priority: Priority::Normal,
        deadline: Some(at + 3_600_000),
        not_before: None,
        redrive_of: None,
    };
    let accepted = Event::accepted(id, place, None).about(card);
    let mut started = Event::new(id, 1, 2, EventKind::Started, at + 5);
    (started.place, started.job) = (accepted.place.clone(), accepted.job.clone());
    (started.backend, started.node) = (Some("http://gpu-1:8080".to_owned()), Some("node-1".to_owned()));
    let mut ended = Event::new(id, 1, TERMINAL_N, EventKind::Completed, at + 500);
    ended.result = Some(serde_json::json!({ "text": "what was said, in some hundred letters. ".repeat(8) }));
    [accepted, started, ended].map(|event| NewRecord {
        to: TopicPartition::new(topics::EVENTS, id.reply_partition(partitions)),
        key: Some(Bytes::from(id.to_string())),
        value: serde_json::to_vec(&event).ok().map(Bytes::from),
        headers: vec![(HEADER_TENANT.to_owned(), Bytes::from_static(b"studio"))],
        timestamp_ms: event.at,
    })
}
