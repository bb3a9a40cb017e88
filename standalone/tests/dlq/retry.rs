//! Dead-lettered jobs that a filter finds in the job view run anew, each once.

use relay_protocol::EventKind::{Accepted, Completed, Started};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::api::{answer, expect_refusal, kinds};
use crate::cluster::{Cluster, PATIENCE};
use crate::dead::{ONE_ATTEMPT, die, marks, redriven};
use crate::processes::run;
use crate::requests::entry;

async fn wait_listed(cluster: &Cluster, filter: &str, count: usize) {
    let began = Instant::now();
    loop {
        let (_, page) = cluster.api().get(&format!("/v1/jobs?{filter}")).await;
        if page["jobs"].as_array().is_some_and(|jobs| jobs.len() == count) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "the view shows {page}");
        sleep(std::time::Duration::from_millis(20)).await;
    }
}

fn outcomes(answer: &Value) -> Vec<(&str, &str)> {
    let jobs = answer["jobs"].as_array().expect("results");
    jobs.iter().map(|job| (job["job_id"].as_str().unwrap_or("-"), job["outcome"].as_str().unwrap_or("-"))).collect()
}

#[actix_web::test]
async fn the_jobs_of_a_filter_run_anew_once() {
    let (cluster, calls) = Cluster::staged(&[ONE_ATTEMPT]).await;
    let api = cluster.api();
    let vad = die(&api, &calls, json!({})).await;
    let loudness = die(&api, &calls, json!({ "task": "loudness" })).await;
    let failed = api.submit(json!({})).await;
    calls.next().await.reject();
    api.wait_state(&failed, "failed").await;
    wait_listed(&cluster, "status=dead_lettered", 2).await;
    wait_listed(&cluster, "status=failed", 1).await;

    let url = cluster.url();
    let retry = ["jobs", "retry", "--json", "--task", "vad"];
    let dry = run(&url, &[&retry[..], &["--dry-run"]].concat()).await;
    assert_eq!((dry.code, outcomes(&dry.json()[0])), (0, vec![(vad.as_str(), "would_redrive")]), "{dry:?}");
    assert!(
        marks(&*cluster.log).await.is_empty() && redriven(&*cluster.log).await.is_empty(),
        "a dry run writes nothing"
    );

    let ran = run(&url, &retry).await;
    let told = ran.json().remove(0);
    assert_eq!((ran.code, outcomes(&told)), (0, vec![(vad.as_str(), "redriven")]), "{ran:?}");
    let again = told["jobs"][0]["redriven_as"].as_str().unwrap().to_owned();
    calls.next().await.complete();
    api.wait_state(&again, "completed").await;
    let life = api.life(&again).await;
    assert_eq!(kinds(&life), [Accepted, Started, Completed]);
    assert_eq!(life.last().unwrap().redrive_of.map(|job| job.to_string()), Some(vad.clone()));
    // Who asks again gets no other job.
    let twice = run(&url, &retry).await;
    assert_eq!((twice.code, outcomes(&twice.json()[0]).len()), (0, 0), "{twice:?}");
    assert_eq!(redriven(&*cluster.log).await.len(), 1);

    let people = run(&url, &["jobs", "retry", "--status", "dead_lettered"]).await;
    assert!(people.stdout.starts_with(&format!("{loudness} runs anew as ")), "{people:?}");
    let audit = cluster.audit(|entries| entries.iter().filter(|entry| entry.action == "letter.redriven").count() == 2);
    audit.await;
    cluster.stop().await;
}

#[actix_web::test]
async fn what_keeps_no_record_is_refused_and_says_so() {
    let (cluster, _calls) = Cluster::staged(&[ONE_ATTEMPT]).await;
    let url = cluster.url();
    for status in ["failed", "cancelled", "expired", "running", "queued", "completed", "done"] {
        let ran = run(&url, &["jobs", "retry", "--json", "--status", status]).await;
        assert_eq!((ran.code, ran.refusal().as_str()), (3, "invalid_field"), "{status}: {ran:?}");
    }
    assert_eq!(run(&url, &["jobs", "retry"]).await.code, 2, "without a filter");
    let ask = |body: Value| cluster.api().request(Method::POST, "/v1/jobs/retry").json(&body);
    for filter in
        [json!({}), json!({ "limit": 5 }), json!({ "task": "vad", "limit": 0 }), json!({ "task": "vad", "limit": 257 })]
    {
        expect_refusal(answer(ask(json!({ "filter": filter }))).await, 400, "invalid_field");
    }
    expect_refusal(answer(ask(json!({ "filter": { "task": "vad", "cursor": "x" } }))).await, 400, "bad_cursor");
    cluster.stop().await;
}

#[actix_web::test]
async fn a_tenant_retries_its_own_jobs_alone() {
    let scopes = "jobs:write+jobs:read";
    let tokens = [("ann", "red", scopes), ("bob", "blue", scopes), ("eve", "red", "jobs:read")];
    let tokens = tokens.map(|(name, tenant, scopes)| entry(name, tenant, scopes)).join(",");
    let (cluster, calls) = Cluster::staged(&[ONE_ATTEMPT, ("RELAY__AUTH__TOKENS", &tokens)]).await;
    let (ann, bob, eve) = (cluster.api_of("ann-token"), cluster.api_of("bob-token"), cluster.api_of("eve-token"));
    let job = die(&ann, &calls, json!({})).await;
    let began = Instant::now();
    while ann.get("/v1/jobs?status=dead_lettered").await.1["jobs"].as_array().is_none_or(Vec::is_empty) {
        assert!(began.elapsed() < PATIENCE, "the view does not show it");
        sleep(std::time::Duration::from_millis(20)).await;
    }
    let body = json!({ "filter": { "status": "dead_lettered" } });
    let ask = async |api: &crate::api::Api, body: &Value| {
        answer(api.request(Method::POST, "/v1/jobs/retry").json(body)).await
    };
    assert_eq!(outcomes(&ask(&bob, &body).await.1), []);
    let of_red = json!({ "filter": { "tenant": "red" } });
    expect_refusal(ask(&bob, &of_red).await, 404, "not_found");
    expect_refusal(ask(&eve, &body).await, 403, "forbidden");
    assert_eq!(outcomes(&ask(&ann, &body).await.1), [(job.as_str(), "redriven")]);
    calls.next().await.complete();
    cluster.stop().await;
}
