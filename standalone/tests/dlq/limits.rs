//! What one request may take, and what one letter.

use relay_protocol::dead_letter::LetterId;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::api::{Api, expect_refusal};
use crate::cluster::{Cluster, PATIENCE};
use crate::cut_log::{Cut, CutLog, Cuts, Fate};
use crate::dead::{ONE_ATTEMPT, act, die, list, marks};
use crate::stage::{Calls, Stage};

async fn cluster_with(env: &[(&str, &str)]) -> (Cluster, Calls, Cuts) {
    let env: Vec<_> = env.iter().copied().chain([ONE_ATTEMPT]).collect();
    let ((stage, calls), cuts) = (Stage::new(), Cuts::default());
    let change = |options: &mut standalone::Options| options.builtin = Some(stage);
    let cluster = Cluster::start_over(&env, change, |log| CutLog::new(log, &cuts)).await;
    (cluster, calls, cuts)
}

/// Every letter, page by page, and how many each page had.
async fn paged(api: &Api, limit: usize) -> (Vec<LetterId>, Vec<usize>) {
    let (mut letters, mut pages, mut cursor) = (Vec::<LetterId>::new(), Vec::new(), String::new());
    loop {
        let (status, page) = api.get(&format!("/v1/dlq?limit={limit}{cursor}")).await;
        assert_eq!(status, 200, "{page}");
        let here = page["letters"].as_array().unwrap();
        letters.extend(here.iter().map(|letter| letter["id"].as_str().unwrap().parse::<LetterId>().unwrap()));
        pages.push(here.len());
        assert!(pages.len() < 50, "the pages do not end: {pages:?}");
        match page["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return (letters, pages),
        }
    }
}

#[actix_web::test]
async fn pages_have_as_many_letters_as_they_may() {
    const LETTERS: usize = 7;
    let (cluster, calls, _) = cluster_with(&[("RELAY__DLQ__PAGE_RECORDS_MAX", "3")]).await;
    let api = cluster.api();
    for _ in 0..LETTERS {
        die(&api, &calls, json!({})).await;
    }
    let whole = paged(&api, 1_000).await;
    assert!(whole.1.iter().all(|count| *count <= 3), "{whole:?}");
    assert_eq!(whole.0.len(), LETTERS);
    assert!(whole.0.is_sorted(), "{whole:?}");
    let (ones, _) = paged(&api, 1).await;
    assert_eq!(ones, whole.0);
    let ids: Vec<String> = whole.0.iter().map(ToString::to_string).collect();
    expect_refusal(act(&api, "drop", json!({ "ids": ids })).await, 413, "too_large");
    let (status, some) = act(&api, "drop", json!({ "everything": true })).await;
    assert_eq!((status, some["letters"].as_array().map(Vec::len)), (200, Some(3)), "{some}");
    assert_eq!(list(&api, "limit=3").await.len(), 0, "the first page's letters are dropped");
    let (status, rest) = act(&api, "drop", json!({ "everything": true, "cursor": some["cursor"] })).await;
    assert_eq!((status, rest["letters"].as_array().map(Vec::len)), (200, Some(3)), "{rest}");
    assert_eq!(paged(&api, 3).await.0.len(), LETTERS - 6);
    cluster.stop().await;
}

#[actix_web::test]
async fn a_page_of_large_letters_is_short() {
    let (cluster, calls, _) = cluster_with(&[("RELAY__DLQ__PAGE_BYTES_MAX", "1")]).await;
    let api = cluster.api();
    let mut jobs = Vec::new();
    for _ in 0..3 {
        jobs.push(die(&api, &calls, json!({})).await);
    }
    let (letters, pages) = paged(&api, 100).await;
    assert_eq!(letters.len(), 3);
    assert!(pages.iter().all(|count| *count <= 1), "{pages:?}");
    let message = expect_refusal(act(&api, "drop", json!({ "ids": jobs })).await, 413, "too_large");
    assert!(message.contains("fewer at a time"), "{message}");
    let (status, one) = act(&api, "drop", json!({ "ids": [jobs[0]] })).await;
    assert_eq!(status, 200, "{one}");
    cluster.stop().await;
}

#[actix_web::test]
async fn a_letter_takes_so_many_marks() {
    let (cluster, calls, cuts) = cluster_with(&[("RELAY__DLQ__MARKS_MAX", "4")]).await;
    let api = cluster.api();
    let job = die(&api, &calls, json!({})).await;
    for _ in 0..2 {
        cuts.add(Cut::Job, Fate::Refused);
        expect_refusal(act(&api, "redrive", json!({ "ids": [job] })).await, 413, "too_large");
    }
    for what in ["redrive", "drop"] {
        let message = expect_refusal(act(&api, what, json!({ "ids": [job] })).await, 507, "too_many_marks");
        assert!(message.contains("has 4 marks"), "{message}");
    }
    assert_eq!(marks(&*cluster.log).await.len(), 4);
    assert_eq!(list(&api, "").await.len(), 1, "it is shown all the same");
    cluster.stop().await;
}

#[actix_web::test]
async fn requests_beyond_the_limit_are_refused() {
    let (cluster, calls, cuts) = cluster_with(&[("RELAY__DLQ__REQUESTS_MAX", "1")]).await;
    let api = cluster.api();
    let job = die(&api, &calls, json!({})).await;
    let go_on = CancellationToken::new();
    cuts.add(Cut::Job, Fate::Held(go_on.clone()));
    let first = act(&api, "redrive", json!({ "ids": [job] }));
    let second = async {
        let mut came = cuts.came.subscribe();
        tokio::time::timeout(PATIENCE, came.wait_for(|came| *came == 1)).await.unwrap().unwrap();
        expect_refusal(api.get("/v1/dlq").await, 429, "too_many_requests");
        expect_refusal(api.get(&format!("/v1/dlq/{job}")).await, 429, "too_many_requests");
        expect_refusal(act(&api, "drop", json!({ "ids": [job] })).await, 429, "too_many_requests");
        go_on.cancel();
    };
    let ((status, body), ()) = tokio::join!(first, second);
    assert_eq!(status, 200, "{body}");
    assert_eq!(list(&api, "state=all").await.len(), 1, "there is room again");
    calls.next().await.complete();
    cluster.stop().await;
}

#[actix_web::test]
async fn reading_that_takes_too_long_is_given_up() {
    let (cluster, calls, cuts) = cluster_with(&[("RELAY__DLQ__READ_TIMEOUT_MS", "300")]).await;
    let api = cluster.api();
    let job = die(&api, &calls, json!({})).await;
    let go_on = CancellationToken::new();
    *cuts.hold_reads.lock().unwrap() = Some(go_on.clone());
    let message = expect_refusal(api.get("/v1/dlq").await, 503, "log_unavailable");
    assert!(message.contains("300 ms"), "{message}");
    expect_refusal(act(&api, "redrive", json!({ "ids": [job] })).await, 503, "log_unavailable");
    go_on.cancel();
    let letters: Vec<Value> = list(&api, "").await;
    assert_eq!((letters.len(), &letters[0]["state"]), (1, &json!("open")));
    cluster.stop().await;
}
