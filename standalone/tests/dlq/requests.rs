//! Who may do what over HTTP, and requests that are not understood.

use bytes::Bytes;
use relay_log::port::{NewRecord, TopicPartition};
use relay_protocol::topics;
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::api::{Api, answer, expect_refusal};
use crate::cluster::Cluster;
use crate::dead::{ONE_ATTEMPT, act, die, list, marks, one_letter, redriven};
use crate::stage::Calls;

pub(crate) fn entry(subject: &str, tenant: &str, scopes: &str) -> String {
    format!("{subject}/{tenant}/{scopes}/{}", hex::encode(Sha256::digest(format!("{subject}-token"))))
}

/// Two tenants with every right of theirs, an admin, and callers of the first with one right each.
async fn tenants() -> (Cluster, Calls) {
    let tokens = [
        entry("ann", "red", "jobs:write+jobs:read+jobs:cancel"),
        entry("bob", "blue", "jobs:write+jobs:read+jobs:cancel"),
        entry("root", "ops", "admin"),
        entry("writer", "red", "jobs:write"),
        entry("reader", "red", "jobs:read"),
        entry("canceller", "red", "jobs:cancel"),
    ];
    Cluster::staged(&[("RELAY__AUTH__TOKENS", &tokens.join(",")), ONE_ATTEMPT]).await
}

/// A record that somebody else put into the topic of dead letters.
async fn foreign(cluster: &Cluster) {
    let to = TopicPartition::new(topics::DEAD_LETTERS, 0);
    let value = Some(Bytes::from_static(b"what is this?"));
    let record = NewRecord { to, key: None, value, headers: Vec::new(), timestamp_ms: 1_795_458_600_123 };
    cluster.log.append(vec![record]).await.unwrap();
}

#[actix_web::test]
async fn a_tenant_does_not_see_the_letters_of_another() {
    let (cluster, calls) = tenants().await;
    foreign(&cluster).await;
    let [ann, bob, root] = ["ann", "bob", "root"].map(|who| cluster.api_of(&format!("{who}-token")));
    let job = die(&ann, &calls, json!({})).await;
    let [letter] = &list(&ann, "state=all").await[..] else { panic!("ann sees hers alone") };
    let id = letter["id"].as_str().unwrap();
    assert!(list(&bob, "state=all").await.is_empty());
    for name in [id, job.as_str()] {
        expect_refusal(bob.get(&format!("/v1/dlq/{name}")).await, 404, "unknown_letter");
        for what in ["redrive", "drop"] {
            expect_refusal(act(&bob, what, json!({ "ids": [name] })).await, 404, "unknown_letter");
            expect_refusal(act(&bob, what, json!({ "ids": [name], "dry_run": true })).await, 404, "unknown_letter");
        }
    }
    for what in ["redrive", "drop"] {
        let (status, nothing) = act(&bob, what, json!({ "everything": true })).await;
        assert_eq!((status, &nothing["letters"]), (200, &json!([])), "{nothing}");
        let red = json!({ "filter": { "tenant": "red" } });
        expect_refusal(act(&bob, what, red).await, 403, "forbidden");
    }
    expect_refusal(bob.get("/v1/dlq?tenant=red").await, 403, "forbidden");
    // The foreign record belongs to nobody: ann cannot name it either.
    let nobodys: Vec<Value> = list(&root, "state=all").await.into_iter().filter(|one| one["id"] != id).collect();
    assert_eq!((nobodys.len(), nobodys[0].get("tenant")), (1, None), "{nobodys:?}");
    let nobodys = nobodys[0]["id"].as_str().unwrap();
    expect_refusal(ann.get(&format!("/v1/dlq/{nobodys}")).await, 404, "unknown_letter");
    assert_eq!(root.get(&format!("/v1/dlq/{nobodys}")).await.1["value_begin"], "what is this?");
    assert_eq!(list(&root, "tenant=red").await.len(), 1);
    assert_eq!(marks(&*cluster.log).await, Vec::<String>::new());
    // An admin redrives for the tenant: the new job is the tenant's.
    let new = crate::dead::redrive(&root, id).await;
    calls.next().await.complete();
    assert_eq!(ann.wait_state(&new, "completed").await["state"], "completed");
    expect_refusal(bob.get(&format!("/v1/jobs/{new}")).await, 404, "unknown_job");
    let (status, dropped) = act(&root, "drop", json!({ "ids": [nobodys] })).await;
    assert_eq!(status, 200, "{dropped}");
    let audit = cluster.audit(|entries| entries.iter().any(|entry| entry.action == "letter.redriven")).await;
    let entry = audit.iter().find(|entry| entry.action == "letter.redriven").unwrap();
    assert_eq!((entry.tenant.as_str(), entry.subject.as_str()), ("red", "root"));
    cluster.stop().await;
}

#[actix_web::test]
async fn each_request_needs_its_scope() {
    let (cluster, calls) = tenants().await;
    let job = die(&cluster.api_of("ann-token"), &calls, json!({})).await;
    for (who, has) in [("writer", "jobs:write"), ("reader", "jobs:read"), ("canceller", "jobs:cancel")] {
        let api = cluster.api_of(&format!("{who}-token"));
        let body = json!({ "ids": [job], "dry_run": true });
        for (needs, answer) in [
            ("jobs:read", api.get("/v1/dlq").await),
            ("jobs:read", api.get(&format!("/v1/dlq/{job}")).await),
            ("jobs:write", act(&api, "redrive", body.clone()).await),
            ("jobs:cancel", act(&api, "drop", body.clone()).await),
        ] {
            if needs == has {
                assert_eq!(answer.0, 200, "{who}: {}", answer.1);
            } else {
                let message = expect_refusal(answer, 403, "forbidden");
                assert!(message.contains(needs), "{message}");
            }
        }
    }
    for api in [cluster.api(), cluster.api_of("wrong")] {
        expect_refusal(api.get("/v1/dlq").await, 401, "unauthenticated");
        expect_refusal(act(&api, "redrive", json!({ "everything": true })).await, 401, "unauthenticated");
    }
    cluster.stop().await;
}

/// The answer to a body that need not be JSON.
async fn raw(api: &Api, what: &str, body: &'static str) -> (u16, Value) {
    let request = api.request(Method::POST, &format!("/v1/dlq/{what}"));
    answer(request.header("content-type", "application/json").body(body)).await
}

#[actix_web::test]
async fn what_is_not_understood_is_refused_and_nothing_is_done() {
    let (cluster, _calls, job) = one_letter(&[], json!({})).await;
    let api = cluster.api();
    for bad in ["talk-17", "1", "1-", "-1-2", "1-02", "1-+2", "1-2-3", "4294967296-1", "1-18446744073709551616"] {
        let message = expect_refusal(api.get(&format!("/v1/dlq/{bad}")).await, 400, "invalid_field");
        assert!(message.contains("PARTITION-OFFSET"), "{message}");
        for what in ["redrive", "drop"] {
            expect_refusal(act(&api, what, json!({ "ids": [job, bad] })).await, 400, "invalid_field");
        }
        expect_refusal(api.get(&format!("/v1/dlq?cursor={bad}")).await, 400, "invalid_field");
    }
    for (query, code) in [
        ("since=yesterday", "invalid_field"),
        ("until=2026-11-23", "invalid_field"),
        ("limit=0", "invalid_field"),
        ("limit=-1", "invalid_field"),
        ("limit=many", "invalid_field"),
        ("state=dead", "invalid_field"),
        ("task=sing", "unknown_task"),
        ("colour=red", "bad_request"),
    ] {
        expect_refusal(api.get(&format!("/v1/dlq?{query}")).await, 400, code);
    }
    for what in ["redrive", "drop"] {
        for bad in [
            json!({}),
            json!({ "filter": {} }),
            json!({ "dry_run": true }),
            json!({ "ids": [] }),
            json!({ "ids": [job], "everything": true }),
            json!({ "ids": [job], "filter": { "lane": "default" } }),
            json!({ "ids": [job], "limit": 1 }),
            json!({ "filter": { "lane": "default" }, "everything": true }),
            json!({ "filter": { "colour": "red" } }),
            json!({ "filter": { "task": "sing" } }),
            json!({ "filter": { "since": "yesterday" } }),
            json!({ "everything": "yes" }),
            json!({ "everything": true, "colour": "red" }),
            json!({ "everything": true, "cursor": "talk-17" }),
        ] {
            expect_refusal(act(&api, what, bad).await, 400, "bad_request");
        }
        expect_refusal(act(&api, what, json!({ "everything": true, "limit": 0 })).await, 400, "invalid_field");
        for bad in ["", "[", "null", "[]"] {
            expect_refusal(raw(&api, what, bad).await, 400, "bad_request");
        }
        expect_refusal(api.get(&format!("/v1/dlq/{what}")).await, 405, "method_not_allowed");
    }
    // Several at once: each name has its own answer.
    let (status, mixed) = act(&api, "redrive", json!({ "ids": [job, "0-4711"], "dry_run": true })).await;
    assert_eq!(status, 200, "{mixed}");
    let outcomes: Vec<_> =
        mixed["letters"].as_array().unwrap().iter().map(|one| one["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["refused", "would_redrive"], "{mixed}");
    assert_eq!(marks(&*cluster.log).await, Vec::<String>::new());
    assert!(redriven(&*cluster.log).await.is_empty());
    cluster.stop().await;
}
