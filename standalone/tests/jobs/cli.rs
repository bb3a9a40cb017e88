//! The real CLI against the real relay: what a person and a program get.

use std::path::Path;

use relay_protocol::EventKind::{Accepted, Completed};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::api::expect_sound;
use crate::processes::{Ran, Relay, cli, ended, fixture, run, wav};

/// A relay on a fresh folder.
async fn relay(folder: &Path) -> Relay {
    let data = folder.join("data");
    std::fs::create_dir(&data).unwrap();
    Relay::start(&data, &[]).await
}

/// The result of the run's completed job.
fn result_of(ran: &Ran) -> Value {
    assert_eq!(ran.code, 0, "{ran:?}");
    let mut events = ran.events();
    expect_sound(&events);
    let last = events.pop().unwrap();
    assert_eq!(last.event, Completed, "{ran:?}");
    last.result.unwrap()
}

#[actix_web::test]
async fn submit_prints_every_event_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let relay = relay(folder.path()).await;
    let speech = fixture("audio/speech.wav");
    let ran = run(&relay.url, &["submit", "--task", "vad", "--json", &speech]).await;
    let segments = result_of(&ran)["segments"].as_array().expect("segments").clone();
    assert!(!segments.is_empty());
    for segment in &segments {
        let (start, end) = (segment["start"].as_f64().unwrap(), segment["end"].as_f64().unwrap());
        assert!(0.0 <= start && start < end, "{segments:?}");
    }
    assert_eq!(ran.stderr, "", "with --json a program's stderr stays quiet");
    let events = ran.events();
    let job = events[0].job_id.to_string();
    let life = relay.api().life(&job).await;
    let durable = |event: &&relay_protocol::Event| event.fraction.is_none();
    assert_eq!(events.iter().filter(durable).collect::<Vec<_>>(), life.iter().filter(durable).collect::<Vec<_>>());
    // The same job from its first event on, later.
    let watched = run(&relay.url, &["watch", "--json", &job]).await;
    assert_eq!((watched.code, watched.events()), (0, life));
    relay.stop().await;
}

#[actix_web::test]
async fn a_large_file_is_uploaded() {
    let folder = tempfile::tempdir().unwrap();
    let relay = relay(folder.path()).await;
    let path = folder.path().join("long.wav");
    std::fs::write(&path, wav(60)).unwrap();
    let ran = run(&relay.url, &["submit", "--task", "probe", "--json", path.to_str().unwrap()]).await;
    let result = result_of(&ran);
    assert!(result.to_string().contains("16000"), "{result}");
    let stored = std::fs::read_dir(folder.path().join("data/objects/uploads")).unwrap().count();
    assert_eq!(stored, 1, "the input was not uploaded");
    relay.stop().await;
}

#[actix_web::test]
async fn standard_input_and_a_result_for_people() {
    let folder = tempfile::tempdir().unwrap();
    let relay = relay(folder.path()).await;
    let mut command = cli(&relay.url, &["submit", "--task", "loudness", "-"]);
    command.stdin(std::fs::File::open(fixture("audio/speech.flac")).unwrap());
    let ran = ended(command.spawn().unwrap()).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let result: Value = serde_json::from_str(&ran.stdout).expect("indented JSON");
    assert!(result.is_object() && ran.stdout.lines().count() > 1, "{ran:?}");
    assert!(ran.stderr.contains("accepted"), "{ran:?}");
    relay.stop().await;
}

#[actix_web::test]
async fn detach_status_watch_and_cancel() {
    let folder = tempfile::tempdir().unwrap();
    let relay = relay(folder.path()).await;
    let (url, speech) = (relay.url.as_str(), fixture("audio/speech.wav"));
    let ran = run(url, &["submit", "--task", "vad", "--detach", "--not-before", "+1h", &speech]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let job = ran.stdout.trim_end();
    assert!(job.parse::<relay_protocol::JobId>().is_ok(), "{ran:?}");
    let status = run(url, &["status", job]).await;
    assert_eq!(status.code, 0, "{status:?}");
    assert!(status.stdout.contains(job) && status.stdout.contains("queued"), "{status:?}");
    let status = run(url, &["status", "--json", job]).await;
    assert_eq!((status.code, &status.json()[0]["state"]), (0, &json!("queued")));
    let watch = cli(url, &["watch", "--json", job]).spawn().unwrap();
    let cancel = run(url, &["cancel", "--json", job]).await;
    assert_eq!(cancel.code, 0, "{cancel:?}");
    assert_eq!(cancel.json(), [json!({ "job_id": job, "state": "cancel_requested" })]);
    let watched = ended(watch).await;
    assert_eq!(watched.code, 6, "{watched:?}");
    expect_sound(&watched.events());
    let again = run(url, &["cancel", "--json", job]).await;
    assert_eq!((again.code, again.refusal().as_str()), (3, "already_ended"));
    let ran = run(url, &["submit", "--task", "vad", "--detach", "--json", &speech]).await;
    let [accepted] = &ran.events()[..] else { panic!("not one line: {ran:?}") };
    assert_eq!((ran.code, accepted.event), (0, Accepted));
    let watched = run(url, &["watch", "--json", &accepted.job_id.to_string()]).await;
    result_of(&watched);
    relay.stop().await;
}

#[actix_web::test]
async fn media_is_fetched_whole() {
    let folder = tempfile::tempdir().unwrap();
    let relay = relay(folder.path()).await;
    let (one, two) = (folder.path().join("one.jpg"), folder.path().join("two.jpg"));
    let (one, two) = (one.to_str().unwrap(), two.to_str().unwrap());
    let picture = fixture("images/picture.png");
    let ran = run(&relay.url, &["submit", "--task", "thumbnail", "--json", "--output", one, &picture]).await;
    let media = &result_of(&ran)["media"];
    let bytes = std::fs::read(one).unwrap();
    assert_eq!(media["bytes"], json!(bytes.len()));
    assert_eq!(media["sha256"], json!(hex::encode(Sha256::digest(&bytes))));
    assert!(!Path::new(&format!("{one}.part")).exists());
    let job = ran.events()[0].job_id.to_string();
    let fetched = run(&relay.url, &["fetch", &job, "--output", two]).await;
    assert_eq!((fetched.code, fetched.stdout.as_str()), (0, ""), "{fetched:?}");
    assert_eq!(std::fs::read(two).unwrap(), bytes);
    let output = cli(&relay.url, &["fetch", &job, "--output", "-"]).output().await.unwrap();
    assert!(output.status.success() && output.stdout == bytes, "the media on standard output is not the media");
    // A result without media goes into the file as text.
    let speech = fixture("audio/speech.wav");
    let ran = run(&relay.url, &["submit", "--task", "vad", "--output", one, &speech]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""), "{ran:?}");
    let result: Value = serde_json::from_slice(&std::fs::read(one).unwrap()).unwrap();
    assert!(result["segments"].is_array(), "{result}");
    relay.stop().await;
}
