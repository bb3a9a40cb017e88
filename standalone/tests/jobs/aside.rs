//! Jobs that are set aside: parked while no backend can take them, in a delay tier until their time; they hold up nobody, are
//! cancelled and expire there, and end once whatever dies.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use relay_log::port::{NewRecord, TopicPartition};
use relay_protocol::EventKind::{Accepted, Cancelled, Completed, Expired, Retrying, Started};
use relay_protocol::record::HEADER_TAKEN;
use relay_protocol::time::format_rfc3339;
use relay_protocol::topics;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use crate::api::{expect_sound, kinds};
use crate::cluster::{Cluster, PATIENCE, open_log, records};
use crate::processes::Relay;
use crate::stage::Stage;

/// A LocalAI server that nobody answers for.
const DEAD: &str = "http://127.0.0.1:9";
/// Within this a job starts behind ten thousand that cannot; a build without optimisation is slower.
const SOON: Duration = if cfg!(debug_assertions) { PATIENCE } else { Duration::from_secs(5) };
/// Jobs that are written with one call.
const AT_ONCE: usize = 500;
/// Wait between two looks at a topic.
const LOOK: Duration = Duration::from_millis(50);

fn in_ms(ms: u64) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64;
    format_rfc3339(now + ms)
}

/// Jobs that lie in a side topic and have not left it.
async fn set_aside(cluster: &Cluster, topic: &str) -> usize {
    let records = records(&*cluster.log, topic).await;
    let left: BTreeSet<_> =
        records.iter().filter_map(|one| Some((one.at.partition, one.header(HEADER_TAKEN)?))).collect();
    let is_job = |offset: u64, partition| !left.contains(&(partition, &Bytes::from(offset.to_string())));
    let jobs = records.iter().filter(|one| one.header(HEADER_TAKEN).is_none());
    jobs.filter(|one| is_job(one.offset, one.at.partition)).count()
}

async fn wait_set_aside(cluster: &Cluster, topic: &str, count: usize) {
    let began = Instant::now();
    while set_aside(cluster, topic).await != count {
        assert!(began.elapsed() < PATIENCE, "not {count} jobs lie in {topic}");
        sleep(LOOK).await;
    }
}

fn dead_job() -> serde_json::Value {
    json!({ "task": "embed", "model": "gone", "input": { "text": "x" } })
}

async fn with_dead_backend(env: &[(&str, &str)]) -> (Cluster, crate::stage::Calls) {
    let (stage, calls) = Stage::new();
    let cluster = Cluster::start(env, |options| {
        options.builtin = Some(stage);
        options.backends = vec![DEAD.to_owned()];
    });
    (cluster.await, calls)
}

/// The job ended as it should, and once.
async fn expect_one_end(cluster: &Cluster, job: &str) {
    let mut written = cluster.written(job).await;
    written.sort_by_key(|event| event.seq);
    expect_sound(&written);
    assert_eq!(written.iter().filter(|event| event.event.is_terminal()).count(), 1, "{written:#?}");
}

#[actix_web::test]
async fn ten_thousand_jobs_of_a_dead_model_hold_up_nobody_behind_them() {
    let (cluster, calls) = with_dead_backend(&[]).await;
    let to = TopicPartition::new(topics::jobs(topics::DEFAULT_LANE), 0);
    let record = |value: serde_json::Value| NewRecord {
        to: to.clone(),
        key: None,
        value: Some(Bytes::from(value.to_string())),
        headers: Vec::new(),
        timestamp_ms: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64,
    };
    let dead = json!({ "tenant": "a", "task": "embed", "model": "gone", "input": { "text": "x" } });
    for _ in 0..10_000 / AT_ONCE {
        cluster.log.append((0..AT_ONCE).map(|_| record(dead.clone())).collect()).await.unwrap();
    }
    let alive = json!({ "tenant": "b", "task": "vad", "input": { "text": "x" } });
    cluster.log.append(vec![record(alive)]).await.unwrap();
    let call = timeout(SOON, calls.next()).await.expect("tenant b's job starts soon");
    call.complete();
    wait_set_aside(&cluster, &topics::parked(topics::DEFAULT_LANE), 10_000).await;
    cluster.stop().await;
}

#[actix_web::test]
async fn a_parked_job_is_cancelled() {
    let (cluster, _calls) = with_dead_backend(&[]).await;
    let (api, parked) = (cluster.api(), topics::parked(topics::DEFAULT_LANE));
    let job = api.submit(dead_job()).await;
    wait_set_aside(&cluster, &parked, 1).await;
    assert_eq!(api.delete(&format!("/v1/jobs/{job}")).await.0, 202);
    let life = api.life(&job).await;
    assert_eq!(kinds(&life), [Accepted, Cancelled], "being parked is no attempt");
    wait_set_aside(&cluster, &parked, 0).await;
    expect_one_end(&cluster, &job).await;
    cluster.stop().await;
}

#[actix_web::test]
async fn a_parked_job_expires_at_its_deadline() {
    let (cluster, _calls) = with_dead_backend(&[]).await;
    let mut fields = dead_job();
    let deadline = in_ms(3_000);
    fields["deadline"] = json!(deadline);
    let job = cluster.api().submit(fields).await;
    wait_set_aside(&cluster, &topics::parked(topics::DEFAULT_LANE), 1).await;
    let life = cluster.api().life(&job).await;
    assert_eq!(kinds(&life), [Accepted, Expired]);
    assert!(format_rfc3339(life[1].at) >= deadline, "it expired too early");
    expect_one_end(&cluster, &job).await;
    cluster.stop().await;
}

#[actix_web::test]
async fn a_parked_job_is_known_after_a_restart_and_the_same_id_is_no_new_job() {
    let (cluster, calls) = with_dead_backend(&[]).await;
    let parked = topics::parked(topics::DEFAULT_LANE);
    let mut fields = dead_job();
    fields["idempotency_key"] = json!("once");
    let job = cluster.api().submit(fields.clone()).await;
    wait_set_aside(&cluster, &parked, 1).await;
    let cluster = cluster.restart().await;
    let again = cluster.api().submit(fields).await;
    assert_eq!(set_aside(&cluster, &parked).await, 1, "a duplicate follows and is not parked itself");
    assert_eq!(cluster.api().delete(&format!("/v1/jobs/{job}")).await.0, 202);
    for one in [&job, &again] {
        assert_eq!(cluster.api().life(one).await.last().unwrap().event, Cancelled);
        expect_one_end(&cluster, one).await;
    }
    assert!(calls.is_empty().await);
    cluster.stop().await;
}

#[actix_web::test]
async fn a_failed_attempt_waits_in_a_tier_and_is_made_again() {
    let env = [("RELAY__RETRY__TIERS_MS", "300,600,900,1200,1500"), ("RELAY__RETRY__DELAY_MS", "300")];
    let (cluster, calls) = Cluster::staged(&env).await;
    let api = cluster.api();
    let job = api.submit(json!({})).await;
    for attempt in 1..3 {
        let call = calls.next().await;
        assert_eq!(call.job_id.to_string(), job, "attempt {attempt}");
        call.fail();
    }
    calls.next().await.complete();
    let life = api.life(&job).await;
    assert_eq!(kinds(&life), [Accepted, Started, Retrying, Started, Retrying, Started, Completed]);
    assert_eq!(life.iter().map(|event| event.attempt).collect::<Vec<_>>(), [0, 1, 1, 2, 2, 3, 3]);
    for (tier, wait_ms, retrying) in [(1, 300, 2), (2, 600, 4)] {
        let passed = records(&*cluster.log, &topics::retry(topics::DEFAULT_LANE, tier)).await;
        assert_eq!(passed.len(), 2, "a job and the mark that it left tier {tier}");
        let waited = life[retrying + 1].at - life[retrying].at;
        assert!(waited >= wait_ms, "{waited} ms in tier {tier}");
    }
    expect_one_end(&cluster, &job).await;
    cluster.stop().await;
}

#[actix_web::test]
async fn a_relay_that_is_killed_while_jobs_move_ends_each_of_them_once() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let env = [("RELAY__RETRY__TIERS_MS", "200,400,600,800,1000"), ("RELAY__LANES__TENANT_SHARE_MAX", "0.01")];
    let relay = Relay::start(&data, &env).await;
    let fields = |not_before: String| json!({ "task": "waveform", "not_before": not_before });
    let mut jobs = Vec::new();
    // Some are in a tier, some on their way there or back when it dies.
    for number in 0..40_u64 {
        jobs.push(relay.api().submit(fields(in_ms(number * 50))).await);
    }
    relay.kill_9().await;
    let relay = Relay::start(&data, &env).await;
    for _ in 0..20 {
        jobs.push(relay.api().submit(fields(in_ms(1_000))).await);
    }
    relay.kill_9().await;
    let relay = Relay::start(&data, &env).await;
    let api = relay.api();
    for job in &jobs {
        // What the input is does not matter: a job that cannot be done ends, too.
        assert!(api.life(job).await.last().unwrap().event.is_terminal());
    }
    relay.stop().await;
    let log = open_log(&data.join("log")).await;
    for job in &jobs {
        let written = crate::cluster::written(&*log, job).await;
        let seqs: BTreeSet<u64> = written.iter().map(|event| event.seq).collect();
        assert_eq!(seqs.len(), written.len(), "{written:#?}");
        assert_eq!(written.iter().filter(|event| event.event.is_terminal()).count(), 1, "{written:#?}");
    }
    assert!(!records(&*log, &topics::retry(topics::DEFAULT_LANE, 1)).await.is_empty(), "no job was in a tier");
}
