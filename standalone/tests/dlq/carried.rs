//! What a letter carries: the original record, every attempt, and the claim on its media.

use bytes::Bytes;
use relay_protocol::record::{HEADER_DEAD_HEADERS_LOST, HEADER_GATEWAY};
use serde_json::json;

use crate::api::{expect_refusal, job};
use crate::cluster::Cluster;
use crate::dead::{ONE_ATTEMPT, act, letters, list, marks, produce, wait_until};
use crate::processes::{run, wav};

#[actix_web::test]
async fn the_original_record_with_its_headers() {
    let (cluster, calls) = Cluster::staged(&[ONE_ATTEMPT]).await;
    let job = job(json!({ "id": "01a209ac-0cbb-70fb-8123-456789abcdef" })).to_string();
    let large = Bytes::from(vec![b'x'; 65_536]);
    let headers = vec![
        ("colour".to_owned(), Bytes::from_static(b"red")),
        ("relay-mark".to_owned(), Bytes::from_static(b"dropped")),
        ("relay-tenant".to_owned(), Bytes::from_static(b"other")),
        ("large".to_owned(), large),
        ("bytes".to_owned(), Bytes::from_static(b"\xff\x00")),
    ];
    produce(&*cluster.log, &job, headers).await;
    calls.next().await.fail();
    let api = cluster.api();
    api.wait_state("01a209ac-0cbb-70fb-8123-456789abcdef", "dead_lettered").await;
    let [letter] = &letters(&*cluster.log).await[..] else {
        panic!("one letter: what a producer calls a mark is none")
    };
    assert_eq!(letter.value.as_deref(), Some(job.as_bytes()), "the value is the original's, byte for byte");
    assert_eq!(letter.header("colour").map(AsRef::as_ref), Some(&b"red"[..]));
    assert_eq!(letter.header("bytes").map(AsRef::as_ref), None, "what comes behind the limit does not fit");
    assert_eq!(letter.header(HEADER_DEAD_HEADERS_LOST).map(AsRef::as_ref), Some(&b"2"[..]));
    assert_eq!(letter.header("relay-tenant").map(AsRef::as_ref), Some(&b"default"[..]), "not the producer's word");
    assert!(letter.header(HEADER_GATEWAY).is_none());
    let (status, shown) = api.get("/v1/dlq/01a209ac-0cbb-70fb-8123-456789abcdef").await;
    assert_eq!((status, &shown["headers"]), (200, &json!({ "colour": "red" })), "{shown}");
    assert!(shown["origin"].as_str().unwrap().starts_with("media.jobs.default/"), "{shown}");
    cluster.stop().await;
}

#[actix_web::test]
async fn every_attempt_also_that_of_a_node_that_went_down() {
    let env = [
        ("RELAY__RETRY__ATTEMPTS_MAX", "3"),
        ("RELAY__RETRY__DELAY_MS", "20"),
        ("RELAY__NODE__DRAIN_TIMEOUT_MS", "100"),
    ];
    let (cluster, calls) = Cluster::staged(&env).await;
    let job = cluster.api().submit(json!({})).await;
    calls.next().await.fail();
    let second = calls.next().await;
    // The node stops and does not wait for the second attempt.
    let cluster = cluster.restart().await;
    second.wait_dropped().await;
    calls.next().await.fail();
    let api = cluster.api();
    api.wait_state(&job, "dead_lettered").await;
    let (_, letter) = api.get(&format!("/v1/dlq/{job}")).await;
    let attempts = letter["attempts"].as_array().unwrap();
    let told: Vec<_> = attempts.iter().map(|one| (one["attempt"].as_u64().unwrap(), &one["error"]["code"])).collect();
    let codes = ["backend_failed", "attempt_lost", "backend_failed"].map(|code| json!(code));
    assert_eq!(told, [(1, &codes[0]), (2, &codes[1]), (3, &codes[2])], "{letter}");
    assert!(attempts.iter().all(|one| one["backend"] == "builtin" && one["at"].is_string()), "{letter}");
    assert_eq!(letter["attempts_made"], 3);
    cluster.stop().await;
}

#[actix_web::test]
async fn media_in_the_store_is_there_for_a_redrive_or_missed_clearly() {
    let (cluster, calls) = Cluster::staged(&[ONE_ATTEMPT]).await;
    let (api, url) = (cluster.api(), cluster.url());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long.wav");
    std::fs::write(&path, wav(60)).unwrap();
    let submit = run(&url, &["submit", "--task", "vad", "--detach", path.to_str().unwrap()]).await;
    assert_eq!(submit.code, 0, "{submit:?}");
    calls.next().await.fail();
    api.wait_state(submit.stdout.trim_end(), "dead_lettered").await;
    // It is there: the new job has it.
    let new = crate::dead::redrive(&api, submit.stdout.trim_end()).await;
    calls.next().await.fail();
    api.wait_state(&new, "dead_lettered").await;
    // It is gone.
    let (_, letter) = api.get(&format!("/v1/dlq/{new}")).await;
    let object = letter["job"]["input"]["object"]["path"].as_str().expect("an object").to_owned();
    let claims = cluster.standalone.nodes[0].state.online().unwrap().claims.clone();
    let stored: relay_protocol::StoredObject =
        serde_json::from_value(letter["job"]["input"]["object"].clone()).unwrap();
    assert!(claims.read(&stored, 0).await.is_ok(), "{object} is there");
    std::fs::remove_file(cluster.store_folder().join(&object)).unwrap();
    for dry_run in [true, false] {
        let answer = act(&api, "redrive", json!({ "ids": [new], "dry_run": dry_run })).await;
        assert_eq!(answer.1["error"]["retryable"], false, "{answer:?}");
        let message = expect_refusal(answer, 500, "input_unavailable");
        assert!(message.contains("media of the letter is gone"), "{message}");
    }
    assert_eq!(list(&api, "state=open").await.len(), 1, "it can be dropped still");
    let log = cluster.log.clone();
    wait_until("the marks of the first", async || marks(&*log).await.len() == 2).await;
    assert!(calls.is_empty().await);
    cluster.stop().await;
}

#[actix_web::test]
async fn times_that_have_passed_do_not_keep_a_letter_from_being_redriven() {
    let (cluster, calls) = Cluster::staged(&[ONE_ATTEMPT]).await;
    let api = cluster.api();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    let deadline = now + 2_000;
    let fields = json!({ "deadline": relay_protocol::time::format_rfc3339(deadline) });
    let dead = crate::dead::die(&api, &calls, fields).await;
    wait_until("the deadline has passed", async || {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64 > deadline
    })
    .await;
    let new = crate::dead::redrive(&api, &dead).await;
    calls.next().await.complete();
    api.wait_state(&new, "completed").await;
    cluster.stop().await;
}
