//! The view of the coordinator's binary on a real Kafka broker (environment `KAFKA_BOOTSTRAP`), killed while it reads.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use relay_log::kafka::{KafkaLog, KafkaSettings};
use relay_log::port::Log;
use relay_protocol::{EventKind, topics};
use reqwest::Method;
use serde_json::Value;
use tokio::process::Child;

use crate::binary::{coordinator, ready};
use crate::support::{call, until};
use crate::view_world::{accepted, ended, record, started};

/// Jobs of three events each.
const JOBS: u64 = 5_000;
/// Partitions of the events' topic, as every coordinator of the tests' broker makes it.
const PARTITIONS: u32 = 8;

async fn start(folder: &Path, brokers: &str) -> anyhow::Result<(Child, String)> {
    let mut command = coordinator();
    command
        .env("RELAY__LISTEN", "127.0.0.1:0")
        .env("RELAY__KAFKA__BROKERS", brokers)
        .env("RELAY__KAFKA__REPLICATION_FACTOR", "1")
        .env("RELAY__KAFKA__MIN_IN_SYNC_REPLICAS", "1")
        // Other tests of the same broker lead: it does not take their place.
        .env("RELAY__ELECTION__SILENCE_MS", "3600000")
        .env("RELAY__VIEW__FILE", folder.join("jobs.sqlite"))
        // Many small transactions, so that the kill falls among them; pages that hold everything.
        .env("RELAY__VIEW__BATCH_EVENTS_MAX", "50")
        .env("RELAY__VIEW__PAGE_MAX", "10000");
    let mut child = command.spawn().context("starting the coordinator")?;
    let url = ready(&mut child).await;
    Ok((child, url))
}

async fn list(url: &str, tenant: &str) -> Value {
    let path = format!("{url}/v1/jobs?tenant={tenant}&limit=10000");
    call(Method::GET, path, None, None::<&()>).await.1
}

fn count(page: &Value) -> u64 {
    page["jobs"].as_array().map_or(0, |jobs| jobs.len() as u64)
}

#[actix_web::test]
async fn a_kill_while_the_view_reads_loses_and_doubles_nothing() -> anyhow::Result<()> {
    let brokers = std::env::var("KAFKA_BOOTSTRAP").context("KAFKA_BOOTSTRAP must name a Kafka broker")?;
    let folder = tempfile::tempdir()?;
    let log = KafkaLog::connect(KafkaSettings::single_broker(&brokers))?;
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64;
    let tenant = format!("view-{}-{now_ms}", std::process::id());
    // A first life makes the topics.
    let (mut first, url) = start(folder.path(), &brokers).await?;
    let ready = || async { call(Method::GET, format!("{url}/readyz"), None, None::<&()>).await.0 };
    until("the topics", ready, |status| *status == 200).await;

    let lives =
        (0..JOBS).flat_map(|number| [accepted(number), started(number, 1), ended(number, 1, EventKind::Completed)]);
    let records: Vec<_> = lives
        .map(|mut event| {
            // Retention goes by the clock: these are of now.
            event.at = now_ms;
            let mut record = record(&tenant, &event);
            record.to.partition = event.job_id.reply_partition(PARTITIONS);
            assert_eq!(&*record.to.topic, topics::EVENTS);
            record
        })
        .collect();
    for some in records.chunks(1_000) {
        log.append(some.to_vec()).await?;
    }
    // In the middle of it.
    let some = until("some jobs", || list(&url, &tenant), |page| count(page) > 0).await;
    first.kill().await?;
    println!("killed with {} of {JOBS} jobs in the view", count(&some));

    let (mut second, url) = start(folder.path(), &brokers).await?;
    let done = |page: &Value| page["caught_up"] == true && count(page) == JOBS;
    let page = until("all jobs", || list(&url, &tenant), done).await;
    let jobs = page["jobs"].as_array().context("a list")?;
    let mut ids: Vec<_> = jobs.iter().map(|job| job["job_id"].as_str().unwrap_or_default()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len() as u64, JOBS, "a job is there twice");
    for job in jobs {
        let seen = (job["state"].as_str(), job["task"].is_string(), job["backend"].as_str());
        assert_eq!(seen, (Some("completed"), true, Some("backend-1")), "{job}");
    }
    second.kill().await?;
    Ok(())
}
