//! The real CLI: list, show, filters, dry runs, redrive, drop.

use std::collections::BTreeSet;

use relay_protocol::EventKind::{Accepted, Completed, Started};
use relay_protocol::dead_letter::LetterState;
use serde_json::{Value, json};

use crate::api::kinds;
use crate::cluster::{Cluster, records};
use crate::dead::{ONE_ATTEMPT, die, letters, marks, one_letter, produce, redriven};
use crate::processes::{Ran, run};
use crate::stage::Calls;

/// Letters of two tasks and two lanes, one more of a record that is no job.
struct Varied {
    cluster: Cluster,
    calls: Calls,
    vad: String,
    loudness: String,
    slow: String,
}

async fn varied() -> Varied {
    let lanes = [("RELAY__LANES__NAMES", "default,slow"), ("RELAY__TOPICS__LANES", "default,slow")];
    let env: Vec<_> = lanes.into_iter().chain([ONE_ATTEMPT]).collect();
    let (cluster, calls) = Cluster::staged(&env).await;
    let api = cluster.api();
    let vad = die(&api, &calls, json!({})).await;
    let loudness = die(&api, &calls, json!({ "task": "loudness" })).await;
    let slow = die(&api, &calls, json!({ "lane": "slow" })).await;
    produce(&*cluster.log, "no job", Vec::new()).await;
    let log = cluster.log.clone();
    crate::dead::wait_until("the record is refused", async || letters(&*log).await.len() == 4).await;
    Varied { cluster, calls, vad, loudness, slow }
}

/// The jobs of a list's lines.
fn jobs(ran: &Ran) -> BTreeSet<String> {
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.json().iter().map(|letter| letter["job_id"].as_str().expect("a job id").to_owned()).collect()
}

fn set(jobs: &[&String]) -> BTreeSet<String> {
    jobs.iter().map(|job| (*job).clone()).collect()
}

#[actix_web::test]
async fn filters_say_which_letters_are_listed() {
    let Varied { cluster, vad, loudness, slow, .. } = varied().await;
    let url = cluster.url();
    let listed = async |filters: &[&str]| run(&url, &[&["dlq", "list", "--json"], filters].concat()).await;
    let all = listed(&[]).await;
    assert_eq!(all.json().len(), 4, "{all:?}");
    let refused = listed(&["--code", "not_a_job"]).await;
    assert_eq!(jobs(&refused).len(), 1, "{refused:?}");
    assert!(refused.json()[0].get("tenant").is_none(), "nobody is told to own it: {refused:?}");
    assert_eq!(jobs(&listed(&["--lane", "slow"]).await), set(&[&slow]));
    assert_eq!(jobs(&listed(&["--task", "loudness"]).await), set(&[&loudness]));
    assert_eq!(jobs(&listed(&["--task", "vad", "--lane", "default"]).await), set(&[&vad]));
    assert_eq!(jobs(&listed(&["--code", "attempts_exhausted"]).await), set(&[&vad, &loudness, &slow]));
    assert_eq!(jobs(&listed(&["--code", "backend_failed"]).await), set(&[&vad, &loudness, &slow]), "an attempt's code");
    assert_eq!(jobs(&listed(&["--tenant", "default"]).await), set(&[&vad, &loudness, &slow]));
    assert_eq!(jobs(&listed(&["--tenant", "other"]).await), set(&[]));
    assert_eq!(jobs(&listed(&["--state", "dropped"]).await), set(&[]));
    let times: BTreeSet<String> = all.json().iter().map(|one| one["at"].as_str().unwrap().to_owned()).collect();
    let first = times.first().unwrap().as_str();
    assert_eq!(listed(&["--since", first]).await.json().len(), 4);
    assert_eq!(jobs(&listed(&["--until", first]).await), set(&[]));
    assert_eq!(listed(&["--since", "1h"]).await.json().len(), 4, "a time ago");
    assert_eq!(jobs(&listed(&["--until", "1h"]).await), set(&[]));
    // In pages, each going on where the one before ended.
    let (mut paged, mut cursor) = (Vec::new(), None::<String>);
    for _ in 0..4 {
        let mut page = vec!["--limit", "1"];
        page.extend(cursor.as_deref().into_iter().flat_map(|cursor| ["--cursor", cursor]));
        let ran = listed(&page).await;
        let [letter] = &ran.json()[..] else { panic!("not one letter: {ran:?}") };
        cursor = letter["id"].as_str().map(str::to_owned);
        paged.push(letter.clone());
    }
    assert_eq!(paged, all.json());
    // For people: a line each under a head.
    let table = run(&url, &["dlq", "list"]).await;
    assert_eq!(table.stdout.lines().count(), 5, "{table:?}");
    assert!(table.stdout.starts_with("LETTER") && table.stdout.contains(&vad), "{table:?}");
    cluster.stop().await;
}

#[actix_web::test]
async fn show_tells_all_by_letter_and_by_job() {
    let (cluster, _calls, job) = one_letter(&[], json!({ "params": {}, "idempotency_key": "talk-17" })).await;
    let url = cluster.url();
    let by_job = run(&url, &["dlq", "show", "--json", &job]).await;
    let [letter] = &by_job.json()[..] else { panic!("not one line: {by_job:?}") };
    assert_eq!((letter["job_id"].as_str(), letter["state"].as_str()), (Some(job.as_str()), Some("open")), "{letter}");
    assert_eq!(letter["error"]["code"], "attempts_exhausted");
    let attempt = &letter["attempts"][0];
    assert_eq!((&attempt["attempt"], &attempt["backend"]), (&json!(1), &json!("builtin")), "{letter}");
    assert_eq!(attempt["error"]["code"], "backend_failed");
    assert!(attempt["at"].is_string(), "{letter}");
    assert_eq!(letter["job"]["idempotency_key"], "talk-17");
    assert_eq!(letter["job"]["input"]["inline"]["bytes"], 5, "{letter}");
    let id = letter["id"].as_str().unwrap();
    let by_id = run(&url, &["dlq", "show", "--json", id]).await;
    assert_eq!(by_id.json(), by_job.json());
    let people = run(&url, &["dlq", "show", id]).await;
    assert_eq!(serde_json::from_str::<Value>(&people.stdout).unwrap(), *letter, "indented JSON");
    for nobody in ["0-4711", "7-0", "99-0", "01a209ac-0cbb-70fb-8123-456789abcdef"] {
        let ran = run(&url, &["dlq", "show", "--json", nobody]).await;
        assert_eq!((ran.code, ran.refusal().as_str()), (3, "unknown_letter"), "{nobody}");
    }
    for bad in ["talk-17", "-1-2", "1-+2", "1-02", "1"] {
        assert_eq!(run(&url, &["dlq", "show", "--", bad]).await.code, 2, "{bad}");
    }
    cluster.stop().await;
}

#[actix_web::test]
async fn a_redrive_is_a_new_job_that_says_which_it_repeats() {
    let (cluster, calls, job) = one_letter(&[], json!({ "idempotency_key": "talk-17" })).await;
    let (url, api) = (cluster.url(), cluster.api());
    let dry = run(&url, &["dlq", "redrive", "--dry-run", "--json", &job]).await;
    assert_eq!((dry.code, &dry.json()[0]["outcome"]), (0, &json!("would_redrive")), "{dry:?}");
    assert_eq!(marks(&*cluster.log).await, Vec::<String>::new(), "a dry run writes nothing");
    assert!(redriven(&*cluster.log).await.is_empty());
    let ran = run(&url, &["dlq", "redrive", "--json", &job]).await;
    assert_eq!((ran.code, &ran.json()[0]["outcome"]), (0, &json!("redriven")), "{ran:?}");
    let new = ran.json()[0]["redriven_as"].as_str().unwrap().to_owned();
    assert_ne!(new, job);
    let call = calls.next().await;
    assert_eq!(call.job_id.to_string(), new);
    call.complete();
    let life = api.life(&new).await;
    assert_eq!(kinds(&life), [Accepted, Started, Completed], "the old key does not stop it");
    assert_eq!(life[2].redrive_of.map(|of| of.to_string()), Some(job.clone()));
    let [repeat] = &redriven(&*cluster.log).await[..] else { panic!("not one job") };
    assert_eq!(repeat.idempotency_key.as_deref(), Some("talk-17"));
    assert_eq!(marks(&*cluster.log).await, ["redriving", "redriven"]);
    // Once.
    let again = run(&url, &["dlq", "redrive", "--json", &job]).await;
    assert_eq!((again.code, again.refusal().as_str()), (3, "letter_closed"), "{again:?}");
    assert!(again.stdout.contains(&new), "it says which job: {again:?}");
    assert_eq!(redriven(&*cluster.log).await.len(), 1);
    assert!(run(&url, &["dlq", "list", "--json"]).await.json().is_empty());
    let closed = run(&url, &["dlq", "list", "--json", "--state", "redriven"]).await;
    assert_eq!(closed.json()[0]["redriven_as"], json!(new));
    // Whoever comes with the key again gets what the redrive made.
    let late = api.submit(json!({ "idempotency_key": "talk-17" })).await;
    let life = api.life(&late).await;
    assert_eq!((life[1].event, life[1].duplicate_of.map(|of| of.to_string())), (Completed, Some(new.clone())));
    let audit = cluster.audit(|entries| entries.iter().any(|entry| entry.action == "letter.redriven")).await;
    let entry = audit.iter().find(|entry| entry.action == "letter.redriven").unwrap();
    assert_eq!(entry.job_id.map(|id| id.to_string()), Some(job.clone()));
    assert_eq!((&entry.detail["redriven_as"], entry.subject.as_str()), (&json!(new), "anonymous"));
    let accepted = audit.iter().find(|entry| entry.action == "job.accepted" && entry.detail["way_in"] == "redrive");
    assert_eq!(accepted.expect("the new job is in the trail").detail["redrive_of"], json!(job));
    cluster.stop().await;
}

#[actix_web::test]
async fn a_redrive_that_dies_leaves_a_letter_of_its_own() {
    let (cluster, calls, job) = one_letter(&[], json!({ "idempotency_key": "talk-17" })).await;
    let api = cluster.api();
    let second = crate::dead::redrive(&api, &job).await;
    calls.next().await.fail();
    api.wait_state(&second, "dead_lettered").await;
    let third = crate::dead::redrive(&api, &second).await;
    calls.next().await.complete();
    let life = api.life(&third).await;
    assert_eq!(life[2].redrive_of.map(|of| of.to_string()), Some(second), "{life:#?}");
    cluster.stop().await;
}

#[actix_web::test]
async fn a_dropped_letter_is_off_the_list_and_stays_where_it_is() {
    let (cluster, calls, job) = one_letter(&[], json!({})).await;
    let url = cluster.url();
    let dry = run(&url, &["dlq", "drop", "--dry-run", "--json", &job]).await;
    assert_eq!((dry.code, &dry.json()[0]["outcome"]), (0, &json!("would_drop")), "{dry:?}");
    assert_eq!(run(&url, &["dlq", "list", "--json"]).await.json().len(), 1);
    let ran = run(&url, &["dlq", "drop", &job]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.ends_with(" dropped\n") && ran.stderr.contains("1 letters, 0 refused"), "{ran:?}");
    assert!(run(&url, &["dlq", "list", "--json"]).await.json().is_empty());
    assert_eq!(run(&url, &["dlq", "list", "--json", "--state", "all"]).await.json().len(), 1);
    for command in ["drop", "redrive"] {
        let ran = run(&url, &["dlq", command, "--json", &job]).await;
        assert_eq!((ran.code, ran.refusal().as_str()), (3, "letter_closed"), "{ran:?}");
    }
    assert!(calls.is_empty().await);
    assert_eq!(letters(&*cluster.log).await.len(), 1, "the record stays for its retention");
    let audit = cluster.audit(|entries| entries.iter().any(|entry| entry.action == "letter.dropped")).await;
    let dropped: Vec<_> = audit.iter().filter(|entry| entry.action == "letter.dropped").collect();
    assert_eq!((dropped.len(), dropped[0].job_id.map(|id| id.to_string())), (1, Some(job)), "{dropped:?}");
    cluster.stop().await;
}

#[actix_web::test]
async fn many_letters_are_redriven_by_filter_page_by_page() {
    let Varied { cluster, calls, vad, loudness, slow } = varied().await;
    let url = cluster.url();
    let nothing = run(&url, &["dlq", "redrive"]).await;
    assert_eq!(nothing.code, 2, "an empty filter must be meant: {nothing:?}");
    let both = run(&url, &["dlq", "drop", "--everything", &vad]).await;
    assert_eq!(both.code, 2, "{both:?}");
    let ran = run(&url, &["dlq", "redrive", "--json", "--code", "backend_failed", "--task", "vad"]).await;
    assert_eq!(jobs(&ran), set(&[&vad, &slow]), "{ran:?}");
    for _ in 0..2 {
        calls.next().await.complete();
    }
    // What is left: one letter, and a record that is no job.
    let ran = run(&url, &["dlq", "redrive", "--everything", "--json"]).await;
    assert_eq!(ran.code, 3, "{ran:?}");
    let (refused, done): (Vec<_>, Vec<_>) = ran.json().into_iter().partition(|one| one["outcome"] == "refused");
    assert_eq!((done.len(), &done[0]["job_id"]), (1, &json!(loudness)), "{ran:?}");
    assert_eq!((refused.len(), &refused[0]["error"]["code"]), (1, &json!("not_a_job")), "{ran:?}");
    calls.next().await.complete();
    let ran = run(&url, &["dlq", "drop", "--everything", "--json"]).await;
    assert_eq!((ran.code, ran.json().len()), (0, 1), "{ran:?}");
    assert_eq!(run(&url, &["dlq", "list", "--json"]).await.json().len(), 0);
    let all = run(&url, &["dlq", "list", "--json", "--state", "all"]).await;
    let states: Vec<_> = all.json().iter().map(|one| one["state"].as_str().unwrap().to_owned()).collect();
    let count = |state: LetterState| states.iter().filter(|one| *one == state.name()).count();
    assert_eq!((count(LetterState::Redriven), count(LetterState::Dropped)), (3, 1), "{states:?}");
    let slow_lane = records(&*cluster.log, "media.jobs.slow").await;
    assert_eq!(slow_lane.len(), 2, "a redriven job goes where the first one was");
    cluster.stop().await;
}
