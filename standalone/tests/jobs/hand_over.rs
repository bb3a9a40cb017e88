//! Jobs that run while their partition moves to a node that joins: each runs once and ends once, cancels and failures find
//! their way, and a job is run again only when the node that runs it gives it up or falls silent.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};

use relay_log::port::Log;
use relay_protocol::EventKind::{Accepted, Cancelled, Completed, DeadLettered, Restarted, Retrying, Started};
use relay_protocol::record::{ControlRecord, HEADER_DEAD_ATTEMPTS, HEADER_JOB_ID};
use relay_protocol::{Event, partition, topics};
use serde_json::json;
use tokio::time::{Duration, Instant, sleep};

use crate::api::{Api, expect_sound, kinds};
use crate::cluster::{Cluster, PATIENCE, records};
use crate::doubtful_log::{DoubtfulLog, Script};
use crate::stage::{Calls, Running};

/// Partitions of a lane: one job for each.
const JOBS: u32 = 8;
const LOOK: Duration = Duration::from_millis(50);
/// Long enough for a busy machine: a third of it passes between reports.
const TIMEOUT: (&str, &str) = ("RELAY__LANES__HANDOVER_TIMEOUT_MS", "9000");
/// Reports after which more than the time-out has passed since the first.
const REPORTS: usize = 5;
/// A second attempt follows at once.
const QUICK_RETRY: (&str, &str) = ("RELAY__RETRY__DELAY_MS", "10");

/// A job that runs, and its call.
struct Job {
    id: String,
    call: Running,
}

/// Submits one job for each partition and waits until all of them run; by partition.
async fn one_in_each_partition(api: &Api, calls: &Calls, fields: serde_json::Value) -> BTreeMap<u32, Job> {
    let mut ids = BTreeMap::new();
    for n in 0.. {
        let key = format!("key-{n}");
        let partition = partition::of_key(format!("default/{key}").as_bytes(), JOBS);
        if let Entry::Vacant(place) = ids.entry(partition) {
            let mut fields = fields.clone();
            fields["idempotency_key"] = json!(key);
            place.insert(api.submit(fields).await);
        }
        if ids.len() == JOBS as usize {
            break;
        }
    }
    let mut came = BTreeMap::new();
    for _ in 0..JOBS {
        let call = calls.next().await;
        came.insert(call.job_id.to_string(), call);
    }
    ids.into_iter().map(|(partition, id)| (partition, Job { call: came.remove(&id).expect("it runs"), id })).collect()
}

/// Partitions of which jobs are kept, and how often each was reported.
async fn reports(log: &dyn Log) -> BTreeMap<u32, usize> {
    let mut counts = BTreeMap::new();
    for record in records(log, &topics::control(topics::DEFAULT_LANE)).await {
        if let Ok(ControlRecord::Kept(_)) = serde_json::from_slice(record.value.as_deref().unwrap_or_default()) {
            *counts.entry(record.at.partition).or_default() += 1;
        }
    }
    counts
}

/// Starts a second node and waits until half of the partitions are its own, each reported so often.
async fn join(cluster: &mut Cluster, reported: usize) -> BTreeSet<u32> {
    let log = cluster.log.clone();
    cluster.standalone.add_node(Some(log.clone())).await.expect("the second node starts");
    let began = Instant::now();
    loop {
        let counts = reports(&*log).await;
        if counts.len() == JOBS as usize / 2 && counts.values().all(|count| *count >= reported) {
            return counts.into_keys().collect();
        }
        assert!(
            began.elapsed() < PATIENCE * 2,
            "half of the jobs should be kept and reported {reported} times: {counts:?}"
        );
        sleep(LOOK).await;
    }
}

/// Each attempt's number and node.
fn attempts(life: &[Event]) -> Vec<(u32, &str)> {
    let started = life.iter().filter(|event| event.event == Started);
    started.map(|event| (event.attempt, event.node.as_deref().unwrap_or_default())).collect()
}

/// What was written of a job, once it has ended.
async fn written(cluster: &Cluster, job: &str) -> Vec<Event> {
    let mut written = cluster.written(job).await;
    written.sort_by_key(|event| event.seq);
    expect_sound(&written);
    written
}

#[actix_web::test]
async fn a_node_joins_while_eight_jobs_run_and_each_runs_once() {
    let (mut cluster, calls) = Cluster::staged(&[TIMEOUT]).await;
    let jobs = one_in_each_partition(&cluster.api(), &calls, json!({})).await;
    let moved = join(&mut cluster, REPORTS).await;
    assert!(calls.is_empty().await, "a job ran again while its run was reported");
    let ids: Vec<String> = jobs.values().map(|job| job.id.clone()).collect();
    for job in jobs.into_values() {
        assert!(!job.call.dropped.is_cancelled(), "a running call was dropped");
        job.call.complete();
    }
    for id in &ids {
        cluster.api().life(id).await;
        let written = written(&cluster, id).await;
        assert_eq!(kinds(&written), [Accepted, Started, Completed]);
        assert_eq!(attempts(&written), [(1, "node-1")]);
    }
    assert!(calls.is_empty().await, "a job ran again");
    let count = |entries: &[relay_protocol::record::AuditEntry], action: &str| {
        entries.iter().filter(|entry| entry.action == action).count()
    };
    let ended = |entries: &[_]| count(entries, "job.outcome") == JOBS as usize && count(entries, "job.handed_over") > 0;
    let audit = cluster.audit(ended).await;
    let by_new_owner = audit.iter().filter(|entry| entry.action == "job.outcome" && entry.node == "node-2").count();
    assert_eq!(by_new_owner, moved.len(), "the new owner ends what it owns: {audit:#?}");
    cluster.stop().await;
}

#[actix_web::test]
async fn a_kept_job_is_cancelled_at_any_node() {
    let (mut cluster, calls) = Cluster::staged(&[]).await;
    let mut jobs = one_in_each_partition(&cluster.api(), &calls, json!({})).await;
    let moved = join(&mut cluster, 1).await;
    for (partition, node) in moved.iter().zip([0, 1]) {
        let job = jobs.remove(partition).unwrap();
        let api = Api::new(format!("http://{}", cluster.standalone.nodes[node].addr), None);
        let (status, body) = api.delete(&format!("/v1/jobs/{}", job.id)).await;
        assert_eq!((status, &body["state"]), (202, &json!("cancel_requested")), "{body}");
        job.call.wait_dropped().await;
        assert_eq!(kinds(&api.life(&job.id).await), [Accepted, Started, Cancelled]);
        assert_eq!(attempts(&written(&cluster, &job.id).await), [(1, "node-1")]);
    }
    assert!(calls.is_empty().await, "a cancelled job ran again");
    for job in jobs.into_values() {
        job.call.complete();
        cluster.api().life(&job.id).await;
    }
    cluster.stop().await;
}

#[actix_web::test]
async fn a_kept_attempt_that_fails_is_followed_by_one_at_the_new_owner() {
    let (mut cluster, calls) = Cluster::staged(&[QUICK_RETRY]).await;
    let mut jobs = one_in_each_partition(&cluster.api(), &calls, json!({ "attempts_max": 2 })).await;
    let moved = join(&mut cluster, 1).await;
    let job = jobs.remove(moved.first().unwrap()).unwrap();
    job.call.partial("one").await;
    job.call.fail();
    let second = calls.next().await;
    assert_eq!(second.job_id.to_string(), job.id);
    second.fail();
    assert_eq!(
        kinds(&cluster.api().life(&job.id).await)
            .into_iter()
            .filter(|kind| *kind != relay_protocol::EventKind::Partial)
            .collect::<Vec<_>>(),
        [Accepted, Started, Retrying, Restarted, Started, DeadLettered]
    );
    assert_eq!(attempts(&written(&cluster, &job.id).await), [(1, "node-1"), (2, "node-2")]);
    let letters = records(&*cluster.log, topics::DEAD_LETTERS).await;
    let letter = letters.iter().find(|letter| letter.header(HEADER_JOB_ID).is_some_and(|id| *id == job.id));
    let told = letter.expect("a dead letter").header(HEADER_DEAD_ATTEMPTS).expect("its attempts").clone();
    let told: Vec<relay_protocol::record::AttemptFailure> = serde_json::from_slice(&told).unwrap();
    assert_eq!(told.iter().map(|failure| failure.attempt).collect::<Vec<_>>(), [1, 2]);
    for job in jobs.into_values() {
        job.call.complete();
        assert_eq!(kinds(&cluster.api().life(&job.id).await), [Accepted, Started, Completed]);
    }
    cluster.stop().await;
}

#[actix_web::test]
async fn what_a_node_keeps_when_it_stops_is_run_again_at_once() {
    // As long as the test: nobody waits for it.
    let timeout = ("RELAY__LANES__HANDOVER_TIMEOUT_MS", "600000");
    let (mut cluster, calls) = Cluster::staged(&[timeout, ("RELAY__NODE__DRAIN_TIMEOUT_MS", "300")]).await;
    let jobs = one_in_each_partition(&cluster.api(), &calls, json!({})).await;
    join(&mut cluster, 1).await;
    cluster.standalone.nodes.remove(0).stop().await;
    for _ in 0..JOBS {
        calls.next().await.complete();
    }
    for job in jobs.values() {
        assert_eq!(kinds(&cluster.api().life(&job.id).await), [Accepted, Started, Restarted, Started, Completed]);
        assert_eq!(attempts(&written(&cluster, &job.id).await), [(1, "node-1"), (2, "node-2")]);
    }
    cluster.stop().await;
}

#[actix_web::test]
async fn a_node_that_cannot_report_drops_what_it_keeps_and_the_owner_runs_it_again() {
    let script = Script::new();
    script.let_follow.cancel();
    let (stage, calls) = crate::stage::Stage::new();
    let over = script.clone();
    let timeout = ("RELAY__LANES__HANDOVER_TIMEOUT_MS", "2000");
    let mut cluster = Cluster::start_over(
        &[timeout],
        |options| options.builtin = Some(stage),
        move |log| DoubtfulLog::new(log, &over),
    )
    .await;
    let mut jobs = one_in_each_partition(&cluster.api(), &calls, json!({})).await;
    let moved = join(&mut cluster, 1).await;
    script.mutes_control.store(true, std::sync::atomic::Ordering::SeqCst);
    for partition in &moved {
        let job = jobs.remove(partition).unwrap();
        job.call.wait_dropped().await;
    }
    for _ in &moved {
        let call = calls.next().await;
        let job = call.job_id.to_string();
        call.complete();
        assert_eq!(kinds(&cluster.api().life(&job).await), [Accepted, Started, Restarted, Started, Completed]);
        assert_eq!(attempts(&written(&cluster, &job).await), [(1, "node-1"), (2, "node-2")]);
    }
    for job in jobs.into_values() {
        job.call.complete();
        assert_eq!(kinds(&cluster.api().life(&job.id).await), [Accepted, Started, Completed]);
    }
    cluster.stop().await;
}
