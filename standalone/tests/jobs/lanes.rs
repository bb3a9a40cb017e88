//! Lanes of priorities: a backlog of one holds up no other, and none starves.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use relay_log::port::{NewRecord, TopicPartition};
use relay_protocol::{JobId, topics};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::api::Api;
use crate::cluster::{Cluster, PATIENCE};

/// One job runs at a time, so that the order of the calls is the order of the turns.
const ONE_SLOT: &[(&str, &str)] = &[("RELAY__BUILTIN__SLOTS", "1")];
/// More jobs than a node reads ahead.
const BACKLOG: usize = 3_000;
/// Wait between two looks at the lanes.
const LOOK: Duration = Duration::from_millis(20);
/// Of so many turns a batch job has one, whatever else waits: the sum of the weights.
const TURNS: usize = 21;

fn record(lane: &str, job: &Value) -> NewRecord {
    let now_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64;
    NewRecord {
        to: TopicPartition::new(topics::jobs(lane), 0),
        key: None,
        value: Some(Bytes::from(job.to_string())),
        headers: Vec::new(),
        timestamp_ms: now_ms,
    }
}

fn of_priority(priority: &str) -> Value {
    json!({ "priority": priority })
}

async fn submit_all(api: &Api, priority: &str, count: usize) -> BTreeSet<JobId> {
    let mut jobs = BTreeSet::new();
    for _ in 0..count {
        jobs.insert(api.submit(of_priority(priority)).await.parse().unwrap());
    }
    jobs
}

async fn wait_for_demand(cluster: &Cluster, jobs: usize) {
    let began = Instant::now();
    loop {
        let mut seen = 0;
        let online = cluster.standalone.nodes[0].state.online.get().unwrap();
        for lane in online.served.get().unwrap().values() {
            seen += lane.state().await.map_or(0, |state| state.running + state.waiting);
        }
        if seen >= jobs {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{seen} of {jobs} jobs were read");
        sleep(LOOK).await;
    }
}

#[actix_web::test]
async fn an_interactive_job_does_not_wait_behind_a_backlog_of_batch_jobs() {
    let (cluster, calls) = Cluster::staged(ONE_SLOT).await;
    let backlog = json!({ "task": "vad", "input": { "text": "x" } });
    let records = (0..BACKLOG).map(|_| record("default.batch", &backlog)).collect();
    cluster.log.append(records).await.unwrap();
    let first = calls.next().await;
    wait_for_demand(&cluster, 1_024).await;
    let urgent: JobId = cluster.api().submit(of_priority("interactive")).await.parse().unwrap();
    wait_for_demand(&cluster, 1_025).await;
    let (mut running, mut went_before) = (first, 0);
    while running.job_id != urgent {
        running.complete();
        running = calls.next().await;
        went_before += 1;
        assert!(went_before <= TURNS, "{went_before} batch jobs went before it");
    }
    running.complete();
    let accepted = &cluster.api().life(&urgent.to_string()).await[0];
    assert_eq!(accepted.place.as_ref().unwrap().lane, "default.interactive");
    cluster.stop().await;
}

#[actix_web::test]
async fn batch_jobs_have_their_turn_while_interactive_ones_wait() {
    let (cluster, calls) = Cluster::staged(ONE_SLOT).await;
    let api = cluster.api();
    let holder = submit_all(&api, "normal", 1).await;
    let held = calls.next().await;
    assert!(holder.contains(&held.job_id));
    let batch = submit_all(&api, "batch", 3).await;
    let interactive = submit_all(&api, "interactive", 3 * TURNS).await;
    wait_for_demand(&cluster, 1 + batch.len() + interactive.len()).await;
    held.complete();
    let mut turns = Vec::new();
    for _ in 0..3 * TURNS {
        let call = calls.next().await;
        turns.push(batch.contains(&call.job_id));
        call.complete();
    }
    let of_batch: Vec<usize> = (0..turns.len()).filter(|turn| turns[*turn]).collect();
    assert_eq!(of_batch.len(), batch.len(), "each batch job ran: {of_batch:?}");
    let mut before = 0;
    for turn in of_batch {
        assert!(turn - before <= TURNS, "{} turns passed between two batch jobs", turn - before);
        before = turn;
    }
    cluster.stop().await;
}

/// What a producer writes to a priority's topic has that priority, whatever the record says.
#[actix_web::test]
async fn the_topic_is_the_priority() {
    let (cluster, calls) = Cluster::staged(&[]).await;
    let ids = [JobId::new(0, 0, 1), JobId::new(0, 0, 2)];
    let [plain, wrong] = ids.map(|id| json!({ "id": id, "task": "vad", "input": { "text": "x" } }));
    let mut wrong = wrong;
    wrong["priority"] = json!("batch");
    cluster
        .log
        .append(vec![record("default.interactive", &plain), record("default.interactive", &wrong)])
        .await
        .unwrap();
    for _ in ids {
        calls.next().await.complete();
    }
    for id in ids {
        let life = cluster.api().life(&id.to_string()).await;
        let accepted = serde_json::to_value(&life[0]).unwrap();
        assert_eq!(accepted["job"]["priority"], "interactive", "{accepted}");
    }
    cluster.stop().await;
}
