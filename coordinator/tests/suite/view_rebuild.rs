//! A view that was thrown away says the same again.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coordinator::view::projection::JobRow;
use coordinator::view::query::{Filters, Query};
use coordinator::view::reader::ViewReader;
use coordinator::view::{JobView, ViewSettings};
use relay_log::port::Log;
use relay_runtime::clock::SystemClock;
use relay_runtime::random::SystemRandom;
use tokio_util::sync::CancellationToken;

use crate::support::until;
use crate::view_world::{PARTITIONS, log, record, settings_in, whole_life};

/// Jobs of three events each, and one event more.
const JOBS: u64 = 33_333;
const EVENTS: u64 = 100_000;

/// A view of `settings` that is read to the end; everything in it, and how long that took.
async fn read_all(settings: &ViewSettings, log: &Arc<dyn Log>) -> (Vec<JobRow>, Duration) {
    let began = Instant::now();
    let view = JobView::open(settings, Duration::from_secs(100 * 365 * 86_400), PARTITIONS).unwrap();
    let batch = (settings.batch_events_max, Duration::from_millis(settings.batch_wait_ms));
    let reader = ViewReader::new(view.clone(), log.clone(), Arc::new(SystemClock), PARTITIONS, batch);
    let stop = CancellationToken::new();
    let reading = actix_web::rt::spawn(reader.run(SystemRandom, stop.clone()));
    until("all events", || async { view.is_caught_up() }, |caught_up| *caught_up).await;
    let took = began.elapsed();
    let query = Query { limit: 1_000_000, ..Filters::default().read(1).unwrap() };
    let jobs = view.list(query).await.unwrap().jobs;
    stop.cancel();
    reading.await.unwrap();
    (jobs, took)
}

async fn written(folder: &Path) -> Arc<dyn Log> {
    let log = log(folder).await;
    let mut events: Vec<_> = (0..JOBS).flat_map(whole_life).collect();
    events.push(crate::view_world::accepted(JOBS));
    assert_eq!(events.len() as u64, EVENTS);
    for some in events.chunks(5_000) {
        log.append(some.iter().map(|event| record("red", event)).collect()).await.unwrap();
    }
    log
}

#[actix_web::test]
async fn a_deleted_file_is_read_anew_with_the_same_answers() {
    let folder = tempfile::tempdir().unwrap();
    let log = written(folder.path()).await;
    let settings = settings_in(folder.path()).view;
    let (first, _) = read_all(&settings, &log).await;
    assert_eq!(first.len() as u64, JOBS + 1);
    let (kept, on) = read_all(&settings, &log).await;
    assert_eq!(first, kept, "a sound file goes on");
    std::fs::remove_dir_all(settings.file.parent().unwrap()).unwrap();
    let (anew, took) = read_all(&settings, &log).await;
    assert_eq!(first, anew);
    let rate = EVENTS as f64 / took.as_secs_f64();
    println!("rebuilt from {EVENTS} events in {took:?} ({rate:.0} events/s); an opened file goes on after {on:?}");
}

#[actix_web::test]
async fn offsets_that_the_topic_never_had_are_thrown_away() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings_in(folder.path()).view;
    let (before, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let old = log(before.path()).await;
    old.append((0..50).map(|n| record("red", &crate::view_world::accepted(n))).collect()).await.unwrap();
    assert_eq!(read_all(&settings, &old).await.0.len(), 50);
    // Another cluster, with fewer events.
    let new = log(after.path()).await;
    new.append(vec![record("red", &crate::view_world::accepted(99))]).await.unwrap();
    let jobs = read_all(&settings, &new).await.0;
    assert_eq!(jobs.len(), 1, "jobs of the other cluster stayed");
}
