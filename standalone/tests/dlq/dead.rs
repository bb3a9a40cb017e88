//! Dead letters for a test, and what came of them.

use std::time::Duration;

use bytes::Bytes;
use relay_log::port::{Header, Log, LogRecord, NewRecord, TopicPartition};
use relay_protocol::dead_letter::HEADER_MARK;
use relay_protocol::{Job, record, topics};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::api::{Api, answer};
use crate::cluster::{Cluster, PATIENCE, records};
use crate::stage::Calls;

/// One attempt, so that a failure is the end.
pub(crate) const ONE_ATTEMPT: (&str, &str) = ("RELAY__RETRY__ATTEMPTS_MAX", "1");

/// Wait between two looks at something that has no event to wait for.
const LOOK: Duration = Duration::from_millis(20);

/// Submits a job that fails and is dead; its id.
pub(crate) async fn die(api: &Api, calls: &Calls, fields: Value) -> String {
    let job = api.submit(fields).await;
    calls.next().await.fail();
    api.wait_state(&job, "dead_lettered").await;
    job
}

/// Writes a record to a lane as a producer does.
pub(crate) async fn produce(log: &dyn Log, value: &str, headers: Vec<Header>) {
    let to = TopicPartition::new(topics::jobs("default"), 0);
    let value = Some(Bytes::from(value.to_owned()));
    log.append(vec![NewRecord { to, key: None, value, headers, timestamp_ms: 1_795_458_600_123 }]).await.unwrap();
}

/// The letters of the topic, without marks.
pub(crate) async fn letters(log: &dyn Log) -> Vec<LogRecord> {
    let all = records(log, topics::DEAD_LETTERS).await;
    all.into_iter().filter(|record| record.header(HEADER_MARK).is_none()).collect()
}

/// The names of the marks of the topic, in the order of their letters' partitions.
pub(crate) async fn marks(log: &dyn Log) -> Vec<String> {
    let all = records(log, topics::DEAD_LETTERS).await;
    let marks = all.iter().filter_map(|record| record.header(HEADER_MARK));
    marks.map(|name| String::from_utf8(name.to_vec()).unwrap()).collect()
}

/// The jobs of the default lane that repeat a letter's.
pub(crate) async fn redriven(log: &dyn Log) -> Vec<Job> {
    let all = records(log, &topics::jobs("default")).await;
    let jobs = all.iter().filter_map(|record| record::decode_job(record.value.as_ref()?).ok());
    jobs.filter(|job| job.redrive_of.is_some()).collect()
}

/// What the list at this query has.
pub(crate) async fn list(api: &Api, query: &str) -> Vec<Value> {
    let (status, page) = api.get(&format!("/v1/dlq?{query}")).await;
    assert_eq!(status, 200, "{page}");
    page["letters"].as_array().expect("letters").clone()
}

/// Status and JSON of a redrive or a drop.
pub(crate) async fn act(api: &Api, what: &str, body: Value) -> (u16, Value) {
    answer(api.request(Method::POST, &format!("/v1/dlq/{what}")).json(&body)).await
}

/// Redrives one letter, which must succeed; the new job's id.
pub(crate) async fn redrive(api: &Api, letter: &str) -> String {
    let (status, done) = act(api, "redrive", json!({ "ids": [letter] })).await;
    assert_eq!((status, &done["letters"][0]["outcome"]), (200, &json!("redriven")), "{done}");
    done["letters"][0]["redriven_as"].as_str().expect("the new job").to_owned()
}

/// One staged node on which one job died; its id.
pub(crate) async fn one_letter(env: &[(&str, &str)], fields: Value) -> (Cluster, Calls, String) {
    let env: Vec<_> = env.iter().copied().chain([ONE_ATTEMPT]).collect();
    let (cluster, calls) = Cluster::staged(&env).await;
    let job = die(&cluster.api(), &calls, fields).await;
    (cluster, calls, job)
}

/// Waits until `reached` says yes.
pub(crate) async fn wait_until(what: &str, reached: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !reached().await {
        assert!(began.elapsed() < PATIENCE, "waited in vain until {what}");
        sleep(LOOK).await;
    }
}
