//! The CLI's exit codes, each by a run against the real relay.

use std::path::Path;

use crate::processes::{Relay, cli, ended, fixture, run, signal};

/// An id that no job has.
const UNKNOWN: &str = "01a209ac-0cbb-70fb-8123-456789abcdef";

async fn relay(folder: &Path) -> Relay {
    let data = folder.join("data");
    std::fs::create_dir(&data).unwrap();
    Relay::start(&data, &[]).await
}

#[actix_web::test]
async fn one_and_two_are_outputs_inputs_and_usage() {
    let folder = tempfile::tempdir().unwrap();
    let relay = relay(folder.path()).await;
    let speech = fixture("audio/speech.wav");
    let nowhere = folder.path().join("no/such/folder/result.json");
    let ran = run(&relay.url, &["submit", "--task", "vad", "--output", nowhere.to_str().unwrap(), &speech]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("result.json"), "{ran:?}");
    let missing = folder.path().join("missing.wav");
    for args in [
        &["submit", "--json", missing.to_str().unwrap()][..],
        &["submit", "--json", folder.path().to_str().unwrap()],
        &["submit"],
        &["submit", "--no-such-option", &speech],
        &["submit", "--deadline", "soon", &speech],
        &["status", "not-an-id"],
        &["no-such-command"],
    ] {
        let ran = run(&relay.url, args).await;
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{args:?}: {ran:?}");
        assert!(!ran.stderr.is_empty(), "{args:?}");
    }
    let ran = run("no-url", &["status", UNKNOWN]).await;
    assert_eq!(ran.code, 2, "{ran:?}");
    relay.stop().await;
}

#[actix_web::test]
async fn three_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let relay = relay(folder.path()).await;
    let speech = fixture("audio/speech.wav");
    let empty = folder.path().join("empty.wav");
    std::fs::write(&empty, b"").unwrap();
    let empty = empty.to_str().unwrap();
    for (code, args) in [
        ("unknown_task", &["submit", "--json", "--task", "sing", &speech][..]),
        ("unknown_parameter", &["submit", "--json", "--task", "vad", "--param", "colour=red", &speech]),
        ("unknown_lane", &["submit", "--json", "--task", "vad", "--lane", "no-such", &speech]),
        ("needs_localai", &["submit", "--json", "--task", "transcribe", &speech]),
        ("url_not_allowed", &["submit", "--json", "--task", "vad", "https://media.example.org/a.wav"]),
        ("empty_media", &["submit", "--json", "--task", "vad", empty]),
        ("deadline_exceeded", &["submit", "--json", "--task", "vad", "--deadline", "2020-01-01T00:00:00Z", &speech]),
        ("unknown_job", &["status", "--json", UNKNOWN]),
        ("unknown_job", &["watch", "--json", UNKNOWN]),
        ("unknown_job", &["cancel", "--json", UNKNOWN]),
    ] {
        let ran = run(&relay.url, args).await;
        assert_eq!((ran.code, ran.refusal().as_str()), (3, code), "{args:?}: {ran:?}");
    }
    let output = folder.path().join("none");
    let ran = run(&relay.url, &["fetch", UNKNOWN, "--output", output.to_str().unwrap()]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (3, ""), "{ran:?}");
    assert!(!output.exists());
    relay.stop().await;
}

#[actix_web::test]
async fn four_is_failed() {
    let folder = tempfile::tempdir().unwrap();
    let relay = relay(folder.path()).await;
    let picture = fixture("images/picture.png");
    let ran = run(&relay.url, &["submit", "--json", "--task", "vad", &picture]).await;
    assert_eq!(ran.code, 4, "{ran:?}");
    let events = ran.events();
    crate::api::expect_sound(&events);
    assert_eq!(events.last().unwrap().event, relay_protocol::EventKind::Failed);
    let ran = run(&relay.url, &["watch", &events[0].job_id.to_string()]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (4, ""), "{ran:?}");
    relay.stop().await;
}

#[actix_web::test]
async fn five_is_no_connection() {
    // Nothing listens on a port that was given back.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = format!("http://{free}");
    let speech = fixture("audio/speech.wav");
    for args in [&["submit", "--json", &speech][..], &["status", "--json", UNKNOWN], &["watch", "--json", UNKNOWN]] {
        let args = [&["--connect-timeout", "300ms"], args].concat();
        let ran = run(&server, &args).await;
        assert_eq!((ran.code, ran.refusal().as_str()), (5, "no_connection"), "{args:?}: {ran:?}");
    }
}

#[actix_web::test]
async fn six_is_cancelled_or_expired() {
    let folder = tempfile::tempdir().unwrap();
    let relay = relay(folder.path()).await;
    let speech = fixture("audio/speech.wav");
    let late = ["submit", "--json", "--task", "vad", "--not-before", "+1h", "--deadline", "+1s", &speech];
    let ran = run(&relay.url, &late).await;
    assert_eq!(ran.code, 6, "{ran:?}");
    assert_eq!(ran.events().last().unwrap().event, relay_protocol::EventKind::Expired);
    let waits = run(&relay.url, &["submit", "--detach", "--task", "vad", "--not-before", "+1h", &speech]).await;
    let job = waits.stdout.trim_end();
    assert_eq!(run(&relay.url, &["cancel", job]).await.code, 0);
    let ran = run(&relay.url, &["watch", job]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (6, ""), "{ran:?}");
    relay.stop().await;
}

#[actix_web::test]
async fn interrupted_is_130_and_the_job_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let relay = relay(folder.path()).await;
    let speech = fixture("audio/speech.wav");
    let waits = run(&relay.url, &["submit", "--detach", "--task", "vad", "--not-before", "+1h", &speech]).await;
    let job = waits.stdout.trim_end().to_owned();
    let mut command = cli(&relay.url, &["watch", "--json", &job]);
    let mut watch = command.spawn().unwrap();
    // Its first line says that it waits now.
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(watch.stdout.take().unwrap()));
    let first = tokio::time::timeout(crate::cluster::PATIENCE, lines.next_line()).await.expect("a line in time");
    assert!(first.unwrap().unwrap().contains("accepted"));
    signal(watch.id().unwrap(), "INT").await;
    let ran = ended(watch).await;
    assert_eq!(ran.code, 130, "{ran:?}");
    assert!(ran.stderr.contains(&job), "{ran:?}");
    relay.api().wait_state(&job, "queued").await;
    relay.stop().await;
}
