//! Redrives that are cut off at every step, refused, or begun by many at once: one job of a letter.

use std::collections::BTreeSet;

use relay_node::dlq::write::{self, mark};
use relay_protocol::EventKind::{Accepted, Completed, Started};
use relay_protocol::JobId;
use relay_protocol::dead_letter::{LetterId, Mark, MarkKind};
use serde_json::json;

use crate::api::{expect_refusal, kinds};
use crate::cluster::{Cluster, open_log};
use crate::cut_log::{Cut, CutLog, Cuts, Fate};
use crate::dead::{ONE_ATTEMPT, act, die, list, marks, redrive, redriven};
use crate::processes::{Relay, run};
use crate::stage::{Calls, Stage};

/// One node on a log with cuts, and one job that died.
async fn cut_cluster(nodes: u32, env: &[(&str, &str)]) -> (Cluster, Calls, Cuts, String) {
    let env: Vec<_> = env.iter().copied().chain([ONE_ATTEMPT]).collect();
    let ((stage, calls), cuts) = (Stage::new(), Cuts::default());
    let change = |options: &mut standalone::Options| {
        options.builtin = Some(stage);
        options.nodes = nodes;
    };
    let cluster = Cluster::start_over(&env, change, |log| CutLog::new(log, &cuts)).await;
    let job = die(&cluster.api(), &calls, json!({ "idempotency_key": "talk-17" })).await;
    (cluster, calls, cuts, job)
}

/// The only job that was made of letters; how often it was written.
async fn only_job(cluster: &Cluster) -> (String, usize) {
    let jobs = redriven(&*cluster.log).await;
    let ids: BTreeSet<String> = jobs.iter().map(|job| job.id.unwrap().to_string()).collect();
    assert_eq!(ids.len(), 1, "not one job: {jobs:#?}");
    (ids.into_iter().next().unwrap(), jobs.len())
}

/// The job runs once and completes; nothing else runs.
async fn runs_once(cluster: &Cluster, calls: &Calls, job: &str) {
    let call = calls.next().await;
    assert_eq!(call.job_id.to_string(), job);
    call.complete();
    let life = cluster.api().life(job).await;
    assert_eq!(kinds(&life), [Accepted, Started, Completed]);
    let place = life[0].place.clone().unwrap();
    assert_eq!(cluster.work_off(calls, &place).await, 0, "a job ran too often");
    let mut ends = cluster.written(job).await;
    ends.retain(|event| event.event.is_terminal());
    assert_eq!(ends.len(), 1);
}

/// A redrive that is cut off there, then a restart, then the redrive again. A job that was submitted before has ended by
/// then.
async fn cut_off_at(cut: Cut, fate: Fate, status: u16) {
    let (cluster, calls, cuts, job) = cut_cluster(1, &[]).await;
    cuts.add(cut, fate);
    let (answered, body) = act(&cluster.api(), "redrive", json!({ "ids": [job] })).await;
    assert_eq!(answered, status, "{body}");
    assert_eq!(*cuts.came.borrow(), 1, "the cut was not reached");
    let submitted = redriven(&*cluster.log).await.first().map(|job| job.id.unwrap().to_string());
    if let Some(submitted) = &submitted {
        runs_once(&cluster, &calls, submitted).await;
    }
    let cluster = cluster.restart().await;
    let api = cluster.api();
    let [letter] = &list(&api, "").await[..] else { panic!("the letter waits for another redrive") };
    assert_eq!(letter["state"], "redriving");
    let new = redrive(&api, &job).await;
    assert_eq!(letter["redriven_as"], json!(new), "the first id is kept");
    let (only, written) = only_job(&cluster).await;
    assert_eq!((&only, written), (&new, 1));
    match submitted {
        Some(_) => assert!(calls.is_empty().await, "the job runs again"),
        None => runs_once(&cluster, &calls, &new).await,
    }
    assert!(list(&api, "").await.is_empty());
    expect_refusal(act(&api, "redrive", json!({ "ids": [job] })).await, 409, "letter_closed");
    cluster.stop().await;
}

#[actix_web::test]
async fn between_the_mark_and_the_submit() {
    cut_off_at(Cut::Job, Fate::Lost, 503).await;
}

#[actix_web::test]
async fn after_a_submit_that_nobody_heard_of() {
    cut_off_at(Cut::Job, Fate::Written, 503).await;
}

#[actix_web::test]
async fn after_the_submit_and_before_its_mark() {
    cut_off_at(Cut::Mark("redriven"), Fate::Lost, 200).await;
}

#[actix_web::test]
async fn after_a_mark_that_nobody_heard_of() {
    cut_off_at(Cut::Mark("redriving"), Fate::Written, 503).await;
}

#[actix_web::test]
async fn a_process_that_was_killed_between_the_mark_and_the_submit() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let nobody = "http://127.0.0.1:1/";
    let env = [ONE_ATTEMPT, ("RELAY__INPUTS__URL_ALLOW", nobody), ("RELAY__INPUTS__URL_ALLOW_PRIVATE", "127.0.0.1")];
    let relay = Relay::start(&data, &env).await;
    let job = relay.api().submit(json!({ "input": { "url": nobody } })).await;
    relay.api().wait_state(&job, "dead_lettered").await;
    let [letter] = &list(&relay.api(), "").await[..] else { panic!("one letter") };
    let id: LetterId = letter["id"].as_str().unwrap().parse().unwrap();
    relay.kill_9().await;
    // What a redrive had written when the process died.
    let began = JobId::new(letter_time(letter), 3, 4711);
    let log = open_log(&data.join("log")).await;
    let mark = mark(id, MarkKind::Redriving, "ann", letter_time(letter));
    write::append(&*log, &[(mark.0, Mark { job_id: Some(began), ..mark.1 })]).await.unwrap();
    drop(log);
    let relay = Relay::start(&data, &env).await;
    let ran = run(&relay.url, &["dlq", "redrive", "--json", &job]).await;
    assert_eq!((ran.code, &ran.json()[0]["redriven_as"]), (0, &json!(began)), "{ran:?}");
    let life = relay.api().life(&began.to_string()).await;
    assert_eq!(life.last().unwrap().redrive_of.map(|of| of.to_string()), Some(job));
    relay.stop().await;
    assert_eq!(redriven(&*open_log(&data.join("log")).await).await.len(), 1);
}

/// When a letter died.
fn letter_time(letter: &serde_json::Value) -> u64 {
    relay_protocol::time::parse_rfc3339(letter["at"].as_str().unwrap()).unwrap()
}

#[actix_web::test]
async fn a_refused_submit_opens_the_letter_again() {
    let (cluster, calls, cuts, job) = cut_cluster(1, &[]).await;
    let api = cluster.api();
    cuts.add(Cut::Job, Fate::Refused);
    expect_refusal(act(&api, "redrive", json!({ "ids": [job] })).await, 413, "too_large");
    assert_eq!(marks(&*cluster.log).await, ["redriving", "released"]);
    let [letter] = &list(&api, "").await[..] else { panic!("one letter") };
    assert_eq!((&letter["state"], letter.get("redriven_as")), (&json!("open"), None), "{letter}");
    let new = redrive(&api, &job).await;
    runs_once(&cluster, &calls, &new).await;
    cluster.stop().await;
}

#[actix_web::test]
async fn a_redrive_under_way_keeps_a_letter_from_being_dropped() {
    let (cluster, calls, cuts, job) = cut_cluster(1, &[]).await;
    let api = cluster.api();
    cuts.add(Cut::Job, Fate::Lost);
    expect_refusal(act(&api, "redrive", json!({ "ids": [job] })).await, 503, "log_unavailable");
    let message = expect_refusal(act(&api, "drop", json!({ "ids": [job] })).await, 409, "letter_closed");
    assert!(message.contains("is being redriven as job"), "{message}");
    let new = redrive(&api, &job).await;
    runs_once(&cluster, &calls, &new).await;
    cluster.stop().await;
}

#[actix_web::test]
async fn many_who_redrive_a_letter_at_once_make_one_job_of_it() {
    const CALLERS: usize = 8;
    let (cluster, calls, _, job) = cut_cluster(2, &[("RELAY__DLQ__REQUESTS_MAX", "64")]).await;
    let urls: Vec<String> = cluster.standalone.nodes.iter().map(|node| format!("http://{}", node.addr)).collect();
    let apis: Vec<_> =
        (0..CALLERS).map(|caller| crate::api::Api::new(urls[caller % urls.len()].clone(), None)).collect();
    let asking = apis.iter().map(|api| act(api, "redrive", json!({ "ids": [job] })));
    let answers = futures_util::future::join_all(asking).await;
    let (only, _) = only_job(&cluster).await;
    let mut done = 0;
    for (status, body) in answers {
        match status {
            200 => {
                assert_eq!(body["letters"][0]["redriven_as"], json!(only), "{body}");
                done += 1;
            }
            _ => _ = expect_refusal((status, body), 409, "letter_closed"),
        }
    }
    assert!(done >= 1, "nobody redrove it");
    runs_once(&cluster, &calls, &only).await;
    cluster.stop().await;
}

#[actix_web::test]
async fn a_redrive_of_which_nobody_knows_any_more_can_only_be_dropped() {
    const HOUR_MS: u64 = 3_600_000;
    let (cluster, calls, _, job) = cut_cluster(1, &[]).await;
    let api = cluster.api();
    let [letter] = &list(&api, "").await[..] else { panic!("one letter") };
    let id: LetterId = letter["id"].as_str().unwrap().parse().unwrap();
    let long_ago = letter_time(letter) - 25 * HOUR_MS;
    let began = JobId::new(long_ago, 3, 4711);
    let (id, mark) = mark(id, MarkKind::Redriving, "ann", long_ago);
    write::append(&*cluster.log, &[(id, Mark { job_id: Some(began), ..mark })]).await.unwrap();
    let message = expect_refusal(act(&api, "redrive", json!({ "ids": [job] })).await, 409, "letter_closed");
    assert!(message.contains("nobody knows whether it ran") && message.contains(&began.to_string()), "{message}");
    assert!(redriven(&*cluster.log).await.is_empty());
    let (status, dropped) = act(&api, "drop", json!({ "ids": [job] })).await;
    assert_eq!((status, &dropped["letters"][0]["outcome"]), (200, &json!("dropped")), "{dropped}");
    assert!(list(&api, "").await.is_empty() && calls.is_empty().await);
    cluster.stop().await;
}
