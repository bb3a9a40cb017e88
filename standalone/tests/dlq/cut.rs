//! Redrives that are cut off at every step, refused, or begun by many at once: one job of a letter.

use std::collections::BTreeSet;

use relay_protocol::EventKind::{Accepted, Completed, Started};
use serde_json::json;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::api::{expect_refusal, kinds};
use crate::cluster::{Cluster, PATIENCE};
use crate::cut_log::{Cut, CutLog, Cuts, Fate};
use crate::dead::{ONE_ATTEMPT, act, die, list, marks, redrive, redriven};
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
async fn a_caller_that_hangs_up_does_not_stop_a_redrive() {
    let (cluster, calls, cuts, job) = cut_cluster(1, &[]).await;
    let go_on = CancellationToken::new();
    cuts.add(Cut::Job, Fate::Held(go_on.clone()));
    let api = cluster.api();
    {
        let asking = act(&api, "redrive", json!({ "ids": [job] }));
        let mut came = cuts.came.subscribe();
        tokio::select! {
            answer = asking => panic!("answered too early: {answer:?}"),
            came = timeout(PATIENCE, came.wait_for(|came| *came == 1)) => drop(came.unwrap().unwrap()),
        }
    }
    go_on.cancel();
    let log = cluster.log.clone();
    crate::dead::wait_until("the redrive ends", async || marks(&*log).await == ["redriving", "redriven"]).await;
    let (only, written) = only_job(&cluster).await;
    assert_eq!(written, 1);
    runs_once(&cluster, &calls, &only).await;
    cluster.stop().await;
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
