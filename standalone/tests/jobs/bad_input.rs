//! What is wrong around jobs: metadata of somebody else, records that are too large, a disk that is full. It is said, nothing is lost,
//! nothing is done twice, and all goes on afterwards.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use relay_log::local::{LocalLog, LocalLogSettings};
use relay_log::port::{Commit, CommitOffset, JoinSpec, MemberEvent, NewRecord, TopicPartition};
use relay_protocol::EventKind::{Accepted, Completed, Started};
use relay_protocol::{JobId, topics};
use reqwest::Method;
use serde_json::json;
use standalone::{Options, Standalone};
use tokio::time::{Instant, sleep, timeout};

use crate::api::{Api, answer, expect_refusal, kinds};
use crate::cluster::{Cluster, PATIENCE, open_log, records, written};
use crate::stage::{Calls, Stage};

const LOOK: std::time::Duration = std::time::Duration::from_millis(20);

/// A cluster on this folder, whose tasks are the test's.
async fn start(data: &Path, log: Option<Arc<LocalLog>>) -> (Standalone, Api, Calls) {
    let (stage, calls) = Stage::new();
    let mut options = Options::new(data);
    options.env.insert("RELAY__BUILTIN__SLOTS".to_owned(), "8".to_owned());
    options.builtin = Some(stage);
    options.log = match log {
        Some(log) => Some(log),
        None => Some(open_log(&data.join("log")).await),
    };
    let relay = timeout(PATIENCE, Standalone::start(options)).await.expect("in time").expect("it starts");
    let api = Api::new(relay.url(), None);
    (relay, api, calls)
}

async fn stop(relay: Standalone) {
    timeout(PATIENCE, relay.stop()).await.expect("it stops in time");
}

/// Sets every offset of the lane's group back to where its partition begins, with metadata that is not the relay's.
async fn set_back(data: &Path) {
    let log = open_log(&data.join("log")).await;
    let spec = JoinSpec {
        group: "media-relay.default".to_owned(),
        topics: vec![topics::jobs("default").into()],
        client_id: "tool".to_owned(),
        transactional_id: "tool".to_owned(),
        read_ahead_records_max: 8,
    };
    let member = log.join(spec).await.unwrap();
    let given = loop {
        if let MemberEvent::Assigned(given) = timeout(PATIENCE, member.next()).await.expect("in time").unwrap() {
            break given;
        }
    };
    let offsets = given.iter().map(|one| CommitOffset {
        at: one.at.clone(),
        epoch: one.epoch,
        next: 0,
        metadata: "b2:set by some tool".to_owned(),
    });
    member.commit(Commit { records: Vec::new(), offsets: offsets.collect() }).await.unwrap();
    member.leave().await;
}

#[actix_web::test]
async fn foreign_metadata_is_ignored_said_and_counted_and_nothing_runs_twice() {
    let folder = tempfile::tempdir().unwrap();
    let (relay, api, calls) = start(folder.path(), None).await;
    let before = api.submit(json!({})).await;
    calls.next().await.complete();
    api.wait_state(&before, "completed").await;
    stop(relay).await;
    set_back(folder.path()).await;
    let (relay, api, calls) = start(folder.path(), None).await;
    let after = api.submit(json!({})).await;
    let call = calls.next().await;
    assert_eq!(call.job_id.to_string(), after, "what had ended does not run again");
    call.complete();
    api.wait_state(&after, "completed").await;
    let metrics = api.request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains(r#"relay_commit_metadata_ignored_total{lane="default"}"#), "{metrics}");
    stop(relay).await;
    let log = open_log(&folder.path().join("log")).await;
    let ends = written(&*log, &before).await.iter().filter(|event| event.event.is_terminal()).count();
    assert_eq!(ends, 1);
}

#[actix_web::test]
async fn a_record_that_could_not_be_written_again_is_a_dead_letter_and_holds_nobody_up() {
    let (cluster, calls) = Cluster::staged(&[]).await;
    let id = JobId::new(1_795_458_600_123, 3, 77);
    let value = json!({ "id": id, "task": "vad", "input": { "text": "x" } }).to_string();
    let at = |partition| TopicPartition::new(topics::jobs("default"), partition);
    // Wrongly placed or not: it would have to be written again as it is.
    let records_of = (0..8).map(|partition| NewRecord {
        to: at(partition),
        key: None,
        value: Some(Bytes::from(value.clone())),
        headers: vec![("x-trace".to_owned(), Bytes::from(vec![b't'; 190_000]))],
        timestamp_ms: 1_795_458_600_123,
    });
    cluster.log.append(records_of.collect()).await.unwrap();
    let api = cluster.api();
    for _ in 0..8 {
        let job = api.submit(json!({})).await;
        calls.next().await.complete();
        api.wait_state(&job, "completed").await;
    }
    let letters = records(&*cluster.log, topics::DEAD_LETTERS).await;
    assert_eq!(letters.len(), 8, "one for each");
    for letter in letters {
        let error = String::from_utf8(letter.header("relay-error").unwrap().to_vec()).unwrap();
        assert!(error.contains("too_large"), "{error}");
        assert_eq!(letter.header("relay-headers-lost").map(|lost| &lost[..]), Some(&b"1"[..]));
    }
    cluster.stop().await;
}

async fn wait_ready(api: &Api, wanted: u16) -> String {
    let began = Instant::now();
    loop {
        let (status, body) = answer(api.request(Method::GET, "/readyz")).await;
        if status == wanted {
            return body.to_string();
        }
        assert!(began.elapsed() < PATIENCE, "/readyz stays {status}: {body}");
        sleep(LOOK).await;
    }
}

#[actix_web::test]
async fn a_full_disk_is_said_what_runs_ends_and_what_waits_goes_on_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let free = Arc::new(AtomicU64::new(u64::MAX));
    let (settings, seen) = (LocalLogSettings::default(), free.clone());
    let probe = Arc::new(move || Some(seen.load(Ordering::SeqCst)));
    let log = Arc::new(LocalLog::open_with(&folder.path().join("log"), &settings, probe).unwrap());
    let (relay, api, calls) = start(folder.path(), Some(log.clone())).await;
    let mut running = Vec::new();
    for _ in 0..8 {
        running.push((api.submit(json!({})).await, calls.next().await));
    }
    let waiting = api.submit(json!({})).await;

    free.store(settings.free_bytes_min - 1, Ordering::SeqCst);
    let refused = expect_refusal(api.post(json!({})).await, 503, "log_unavailable");
    assert!(refused.contains("nearly full") && refused.contains("make room"), "{refused}");
    assert!(wait_ready(&api, 503).await.contains("nearly full"), "/readyz says why");
    // What runs ends, and its end is durable; what waits gets their places and cannot begin, which is no attempt.
    for (job, call) in running {
        call.complete();
        api.wait_state(&job, "completed").await;
    }
    sleep(std::time::Duration::from_millis(1_500)).await;
    assert!(calls.is_empty().await, "it begins though that cannot be registered");

    free.store(u64::MAX, Ordering::SeqCst);
    calls.next().await.complete();
    api.wait_state(&waiting, "completed").await;
    let life = api.life(&waiting).await;
    assert_eq!((kinds(&life).as_slice(), life.last().unwrap().attempt), (&[Accepted, Started, Completed][..], 1));
    wait_ready(&api, 200).await;
    stop(relay).await;
}
