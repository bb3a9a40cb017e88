//! The job view in one process: what the CLI lists, shows and cancels, whose jobs these are, and what a restart leaves.

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::api::{answer, expect_refusal};
use crate::cluster::{Cluster, PATIENCE};
use crate::processes::{Relay, fixture, run};
use crate::tenants::entry;

/// The answer of `jobs list` with these filters once it is as wanted.
async fn listed(url: &str, filters: &[&str], wanted: impl Fn(&Value) -> bool) -> Value {
    let began = Instant::now();
    loop {
        let ran = run(url, &[&["jobs", "list", "--json"], filters].concat()).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        let page = ran.json().remove(0);
        if wanted(&page) {
            return page;
        }
        assert!(began.elapsed() < PATIENCE, "the list stays {page}");
    }
}

fn count(page: &Value) -> usize {
    page["jobs"].as_array().unwrap().len()
}

#[actix_web::test]
async fn the_cli_lists_and_shows_jobs_also_after_the_view_was_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let relay = Relay::start(&data, &[]).await;
    let speech = fixture("audio/speech.wav");
    for task in ["vad", "probe"] {
        assert_eq!(run(&relay.url, &["submit", "--task", task, "--deadline", "+1h", &speech]).await.code, 0);
    }
    let completed = |page: &Value| {
        let jobs = page["jobs"].as_array().unwrap();
        jobs.len() == 2 && jobs.iter().all(|job| job["state"] == "completed")
    };
    let page = listed(&relay.url, &[], completed).await;
    assert_eq!((&page["jobs"][0]["task"], &page["jobs"][1]["task"]), (&json!("probe"), &json!("vad")));
    assert_eq!(count(&listed(&relay.url, &["--task", "vad", "--status", "completed"], |_| true).await), 1);
    assert_eq!(count(&listed(&relay.url, &["--status", "queued"], |_| true).await), 0);
    let first = listed(&relay.url, &["--limit", "1", "--since", "1h"], |_| true).await;
    let cursor = first["next"].as_str().unwrap();
    let second = listed(&relay.url, &["--limit", "1", "--cursor", cursor], |_| true).await;
    assert_eq!((&second["jobs"][0], &second["next"]), (&page["jobs"][1], &Value::Null));

    let id = page["jobs"][1]["job_id"].as_str().unwrap();
    let shown = run(&relay.url, &["jobs", "show", id, "--json"]).await;
    assert_eq!(shown.json(), [page["jobs"][1].clone()]);
    assert!(page["jobs"][1]["deadline"].is_string() && page["jobs"][1]["backend"].is_string(), "{page}");
    let people = run(&relay.url, &["jobs", "list"]).await;
    assert!(people.stdout.starts_with("JOB ") && people.stdout.contains(id), "{people:?}");
    for (args, code) in [
        (&["jobs", "show", "00000000-0000-7000-8000-000000000000", "--json"][..], "unknown_job"),
        (&["jobs", "list", "--json", "--cursor", "x"], "bad_cursor"),
        (&["jobs", "list", "--json", "--status", "done"], "invalid_field"),
    ] {
        let ran = run(&relay.url, args).await;
        assert_eq!((ran.code, ran.refusal().as_str()), (3, code), "{args:?}");
    }

    relay.stop().await;
    std::fs::remove_dir_all(data.join("view")).expect("the view lies in the data folder");
    let relay = Relay::start(&data, &[]).await;
    let again = listed(&relay.url, &[], completed).await;
    assert_eq!(again["jobs"], page["jobs"], "the view read anew says something else");
    relay.stop().await;
}

#[actix_web::test]
async fn jobs_found_by_filter_are_cancelled_by_their_owner() {
    let (cluster, calls) = Cluster::staged(&[]).await;
    let api = cluster.api();
    let running = api.submit(json!({ "task": "probe" })).await;
    let call = calls.next().await;
    let other = api.submit(json!({ "task": "vad" })).await;
    let both = |page: &Value| count(page) == 2;
    listed(&cluster.url(), &[], both).await;
    let dry = run(&cluster.url(), &["jobs", "cancel", "--task", "probe", "--dry-run", "--json"]).await.json().remove(0);
    assert_eq!((&dry["jobs"], &dry["requested"]), (&json!([running]), &json!(0)));
    assert_eq!(run(&cluster.url(), &["jobs", "cancel"]).await.code, 2, "without a filter");
    let none = api.request(reqwest::Method::POST, "/v1/jobs/cancel").json(&json!({ "filter": { "limit": 5 } }));
    expect_refusal(answer(none).await, 400, "invalid_field");
    let done = run(&cluster.url(), &["jobs", "cancel", "--task", "probe"]).await;
    assert_eq!((done.code, done.stdout.trim()), (0, running.as_str()), "{done:?}");
    call.wait_dropped().await;
    api.wait_state(&running, "cancelled").await;
    let cancelled = listed(&cluster.url(), &["--status", "cancelled"], |page| count(page) == 1).await;
    assert_eq!(cancelled["jobs"][0]["job_id"], json!(running));
    let other_state = api.get(&format!("/v1/jobs/{other}")).await.1["state"].clone();
    assert!(other_state != "cancelled", "the filter did not hold: {other_state}");
    cluster.stop().await;
}

#[actix_web::test]
async fn a_tenant_sees_and_cancels_its_own_jobs_through_a_node() {
    let everything = "jobs:write+jobs:read+jobs:cancel";
    let tokens =
        [entry("ann", "red", everything), entry("bob", "blue", everything), entry("root", "ops", "admin")].join(",");
    let (cluster, calls) = Cluster::staged(&[("RELAY__AUTH__TOKENS", &tokens)]).await;
    let (ann, bob, root) = (cluster.api_of("ann-token"), cluster.api_of("bob-token"), cluster.api_of("root-token"));
    let (red, blue) = (ann.submit(json!({})).await, bob.submit(json!({})).await);
    let began = Instant::now();
    while count(&root.get("/v1/jobs").await.1) < 2 {
        assert!(began.elapsed() < PATIENCE, "the view does not show both");
    }
    let (_, mine) = ann.get("/v1/jobs").await;
    assert_eq!((count(&mine), &mine["jobs"][0]["job_id"]), (1, &json!(red)));
    assert_eq!(count(&root.get("/v1/jobs?tenant=blue").await.1), 1);
    expect_refusal(ann.get("/v1/jobs?tenant=blue").await, 404, "not_found");
    expect_refusal(ann.get(&format!("/v1/jobs/{blue}/view")).await, 404, "unknown_job");
    assert_eq!(root.get(&format!("/v1/jobs/{blue}/view")).await.1["tenant"], "blue");
    let cancel = |body: Value| bob.request(reqwest::Method::POST, "/v1/jobs/cancel").json(&body);
    expect_refusal(answer(cancel(json!({ "filter": { "tenant": "red" } }))).await, 404, "not_found");
    let (_, asked) = answer(cancel(json!({ "filter": { "since": "2020-01-01T00:00:00Z" } }))).await;
    assert_eq!(asked["jobs"], json!([blue]), "{asked}");
    bob.wait_state(&blue, "cancelled").await;
    let audit = cluster.audit(|entries| entries.iter().any(|entry| entry.detail.contains_key("filter"))).await;
    let entry = audit.iter().find(|entry| entry.detail.contains_key("filter")).unwrap();
    assert_eq!(
        (entry.action.as_str(), entry.subject.as_str(), entry.tenant.as_str()),
        ("job.cancel_requested", "bob", "blue")
    );
    drop(calls);
    cluster.stop().await;
}
