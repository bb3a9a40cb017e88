//! Records that a producer wrote to another partition than the key's, or wrote twice.

use bytes::Bytes;
use relay_log::port::{NewRecord, TopicPartition};
use relay_protocol::EventKind::{Accepted, Completed, Failed, Started};
use relay_protocol::{JobId, partition, record, topics};
use serde_json::{Value, json};

use crate::api::{job, kinds};
use crate::cluster::{Cluster, PATIENCE, records};
use crate::stage::Calls;

const PARTITIONS: u32 = 8;
const MADE_AT_MS: u64 = 1_795_458_600_123;

/// A producer that puts a job wherever it likes; returns the id that the job's place gives it.
async fn produce(cluster: &Cluster, partition: u32, job: &Value) -> JobId {
    let to = TopicPartition::new(topics::jobs("default"), partition);
    let value = Some(Bytes::from(job.to_string()));
    let headers = vec![("colour".to_owned(), Bytes::from_static(b"red"))];
    let record = NewRecord { to: to.clone(), key: None, value, headers, timestamp_ms: MADE_AT_MS };
    let offset = cluster.log.append(vec![record]).await.unwrap()[0];
    JobId::of_record(&to.topic, partition, offset, MADE_AT_MS)
}

/// Completes the next call; whose it was.
async fn complete_next(calls: &Calls) -> JobId {
    let call = calls.next().await;
    let id = call.job_id;
    call.complete();
    id
}

fn home(key: &str) -> u32 {
    partition::of_key(format!("default/{key}").as_bytes(), PARTITIONS)
}

#[actix_web::test]
async fn a_misplaced_job_is_moved_and_keeps_what_it_is() {
    let (cluster, calls) = Cluster::staged(&[]).await;
    let api = cluster.api();
    let right = home("talk-17");
    let wrong = (right + 1) % PARTITIONS;
    let id = produce(&cluster, wrong, &job(json!({ "idempotency_key": "talk-17" }))).await;
    assert_eq!(complete_next(&calls).await, id, "its id is that of its first place");
    api.wait_state(&id.to_string(), "completed").await;
    let life = api.life(&id.to_string()).await;
    assert_eq!(kinds(&life), [Accepted, Started, Completed]);
    let place = life[0].place.clone().unwrap();
    assert_eq!((place.partition, place.accepted_at), (right, MADE_AT_MS));
    let receipts = cluster.written(&id.to_string()).await;
    assert_eq!(receipts.iter().filter(|event| event.event == Accepted).count(), 1, "one receipt, with the right place");
    let written = records(&*cluster.log, &topics::jobs("default")).await;
    let [moved] = &written.iter().filter(|record| record.at.partition == right).collect::<Vec<_>>()[..] else {
        panic!("moved once: {written:#?}")
    };
    assert_eq!((moved.timestamp_ms, moved.key.as_deref()), (MADE_AT_MS, Some(&b"default/talk-17"[..])));
    assert_eq!(moved.header("colour").map(AsRef::as_ref), Some(&b"red"[..]));
    let origin = format!("media.jobs.default/{wrong}/0");
    assert_eq!(moved.header(record::HEADER_MOVED).map(AsRef::as_ref), Some(origin.as_bytes()));
    assert_eq!(written.len(), 2, "and not to and fro: {written:#?}");
    cluster.stop().await;
}

#[actix_web::test]
async fn records_of_one_job_in_all_partitions_run_once() {
    let (cluster, calls) = Cluster::staged(&[]).await;
    let id = JobId::new(MADE_AT_MS, 3, 17);
    for partition in 0..PARTITIONS {
        produce(&cluster, partition, &job(json!({ "id": id }))).await;
    }
    assert_eq!(complete_next(&calls).await, id);
    cluster.api().wait_state(&id.to_string(), "completed").await;
    settle_all(&cluster).await;
    assert!(calls.is_empty().await, "it ran again");
    assert_eq!(kinds(&cluster.written(&id.to_string()).await), [Accepted, Started, Completed]);
    cluster.stop().await;
}

#[actix_web::test]
async fn a_key_of_producers_and_of_the_api_is_one_run() {
    let (cluster, calls) = Cluster::staged(&[]).await;
    let api = cluster.api();
    let keyed = json!({ "idempotency_key": "one" });
    let first = api.submit(keyed.clone()).await;
    assert_eq!(complete_next(&calls).await.to_string(), first);
    let mut ids = Vec::new();
    for partition in 0..PARTITIONS {
        ids.push(produce(&cluster, partition, &job(keyed.clone())).await.to_string());
    }
    for id in &ids {
        let last = api.wait_state(id, "completed").await["last"].clone();
        assert_eq!(last["duplicate_of"].as_str(), Some(first.as_str()), "{last}");
    }
    // Another body with the key ends as a failure, and nothing else does.
    let other = produce(&cluster, 0, &job(json!({ "idempotency_key": "one", "task": "loudness" }))).await.to_string();
    let last = api.wait_state(&other, "failed").await["last"].clone();
    assert_eq!(last["error"]["code"], "idempotency_key_reused", "{last}");
    assert_eq!(kinds(&api.life(&other).await), [Accepted, Failed]);
    assert!(calls.is_empty().await, "it ran again");
    cluster.stop().await;
}

#[actix_web::test]
async fn a_job_with_neither_id_nor_key_stays_where_it_is() {
    let (cluster, calls) = Cluster::staged(&[]).await;
    let mut ids = Vec::new();
    for partition in 0..PARTITIONS {
        ids.push(produce(&cluster, partition, &job(json!({}))).await);
    }
    for _ in &ids {
        assert!(ids.contains(&complete_next(&calls).await));
    }
    settle_all(&cluster).await;
    assert_eq!(records(&*cluster.log, &topics::jobs("default")).await.len(), ids.len());
    cluster.stop().await;
}

/// Waits until every record of the lane is finished.
async fn settle_all(cluster: &Cluster) {
    let began = tokio::time::Instant::now();
    // Twice: what is moved may come to a partition that was settled already.
    for partition in (0..PARTITIONS).chain(0..PARTITIONS) {
        let at = TopicPartition::new(topics::jobs("default"), partition);
        loop {
            let end = cluster.log.watermarks(&at).await.unwrap().stable;
            let committed = cluster.log.committed("media-relay.default", &at).await.unwrap();
            if end == 0 || committed.is_some_and(|committed| committed.next >= end) {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "{at} is not settled");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}
