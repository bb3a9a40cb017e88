//! The real binary against a peer that speaks the protocol.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod peer;

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use peer::{Cut, Peer, Plan};
use relay_protocol::event::EventKind;
use relay_protocol::{ErrorCode, JobId};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

const PATIENCE: Duration = Duration::from_secs(30);

fn command(server: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_client-cli"));
    command
        .args(["--server", server])
        .args(args)
        .env_remove("RELAY_URL")
        .env_remove("RELAY_TOKEN")
        .env_remove("RUST_LOG");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn ended(child: Child) -> Output {
    tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("the CLI ends in time").unwrap()
}

async fn run(server: &str, args: &[&str]) -> Output {
    ended(command(server, args).spawn().unwrap()).await
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line:?} is no JSON"))).collect()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("{output:?}"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn file(dir: &Path, name: &str, bytes: &[u8]) -> String {
    let path = dir.join(name);
    std::fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Names and rising seqs of all events.
fn assert_whole(events: &[Value], last: &str) {
    let names: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["accepted", "started", "progress", "progress", "progress", last]);
    let seqs: Vec<u64> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert!(seqs.windows(2).all(|two| two[0] < two[1]), "{seqs:?}");
}

#[tokio::test]
async fn a_submit_prints_the_text() {
    let dir = tempfile::tempdir().unwrap();
    let peer = Peer::start(Plan::default()).await;
    let input = file(dir.path(), "a.wav", b"RIFF");
    let output = run(&peer.url, &["submit", "--param", "language=en", "--model", "m", "--key", "k", &input]).await;
    assert_eq!((code(&output), text(&output.stdout)), (0, "hello world\n".to_owned()), "{output:?}");
    assert!(text(&output.stderr).contains("accepted: job "), "{output:?}");
    let seen = peer.seen.lock().unwrap();
    let (submit, payload) = seen.jobs.values().next().unwrap();
    assert_eq!((submit.task.as_str(), submit.model.as_str(), submit.name.as_str()), ("transcribe", "m", "a.wav"));
    assert_eq!((submit.params.as_str(), submit.idempotency_key.as_deref()), (r#"{"language":"en"}"#, Some("k")));
    assert_eq!(submit.job_id.reply_partition(4_096), 7);
    assert_eq!(&payload[..], b"RIFF");
    assert!(seen.client.starts_with("client-cli/"));
}

#[tokio::test]
async fn json_is_every_event_as_sent() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan::default();
    let peer = Peer::start(plan.clone()).await;
    let output = run(&peer.url, &["submit", "--json", &file(dir.path(), "a.wav", b"RIFF")]).await;
    assert_eq!(code(&output), 0, "{output:?}");
    let job_id = *peer.seen.lock().unwrap().jobs.keys().next().unwrap();
    let expected: Vec<String> =
        peer::events(&plan, job_id).iter().map(|event| text(&peer::event_json(event))).collect();
    assert_eq!(text(&output.stdout).lines().collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn exit_codes_tell_how_a_job_ended() {
    let dir = tempfile::tempdir().unwrap();
    let input = file(dir.path(), "a.wav", b"RIFF");
    for (kind, expected) in
        [(EventKind::Failed, 4), (EventKind::DeadLettered, 4), (EventKind::Cancelled, 6), (EventKind::Expired, 6)]
    {
        let peer = Peer::start(Plan { end: Some(kind), ..Plan::default() }).await;
        let output = run(&peer.url, &["submit", "--json", &input]).await;
        assert_eq!(code(&output), expected, "{kind:?}: {output:?}");
        assert_whole(&lines(&output), kind.name());
    }
}

#[tokio::test]
async fn detach_prints_the_id_or_the_accepted_event() {
    let dir = tempfile::tempdir().unwrap();
    let input = file(dir.path(), "a.wav", b"RIFF");
    let peer = Peer::start(Plan { end: None, ..Plan::default() }).await;
    let output = run(&peer.url, &["submit", "--detach", &input]).await;
    assert_eq!(code(&output), 0, "{output:?}");
    let job_id: JobId = text(&output.stdout).trim().parse().unwrap();
    assert!(peer.seen.lock().unwrap().jobs.contains_key(&job_id));

    let output = run(&peer.url, &["submit", "--detach", "--json", &input]).await;
    let lines = lines(&output);
    assert_eq!((code(&output), lines.len(), &lines[0]["event"]), (0, 1, &json!("accepted")));
}

#[tokio::test]
async fn a_rejected_submit_is_an_error_in_json() {
    let dir = tempfile::tempdir().unwrap();
    let input = file(dir.path(), "a.wav", b"RIFF");
    let peer = Peer::start(Plan { refuse: Some(ErrorCode::UnknownLane), ..Plan::default() }).await;
    let output = run(&peer.url, &["submit", "--json", &input]).await;
    let expected = json!({ "error": { "code": "unknown_lane", "message": "the peer says no", "retryable": false } });
    assert_eq!((code(&output), lines(&output)), (3, vec![expected]));
}

#[tokio::test]
async fn what_is_wrong_here_needs_no_relay() {
    let dir = tempfile::tempdir().unwrap();
    let input = file(dir.path(), "a.wav", b"RIFF");
    let empty = file(dir.path(), "empty.wav", b"");
    let nowhere = "http://127.0.0.1:9";
    for (args, expected, error) in [
        (vec!["submit", "--json", "--task", "dance", &input], 3, "unknown_task"),
        (vec!["submit", "--json", "--param", "tempo=3", &input], 3, "unknown_parameter"),
        (vec!["submit", "--json", "--param", "temperature=hot", &input], 3, "invalid_parameter"),
        (vec!["submit", "--json", &empty], 3, "empty_media"),
        (vec!["submit", "--json", "-"], 3, "empty_media"),
        (vec!["submit", "--json", "/nowhere/a.wav"], 2, ""),
        (vec!["submit", "--deadline", "soon", &input], 2, ""),
        (vec!["dance"], 2, ""),
    ] {
        let output = run(nowhere, &args).await;
        assert_eq!(code(&output), expected, "{args:?}: {output:?}");
        let told: Vec<Value> = lines(&output).iter().map(|line| line["error"]["code"].clone()).collect();
        let wanted: Vec<Value> = (!error.is_empty()).then(|| json!(error)).into_iter().collect();
        assert_eq!(told, wanted, "{args:?}");
    }
}

#[tokio::test]
async fn no_relay_is_no_connection() {
    let dir = tempfile::tempdir().unwrap();
    let input = file(dir.path(), "a.wav", b"RIFF");
    // Bound and closed again: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = format!("http://127.0.0.1:{port}");
    let output = run(&server, &["--connect-timeout", "300ms", "submit", "--json", &input]).await;
    let lines = lines(&output);
    assert_eq!((code(&output), &lines[0]["error"]["code"]), (5, &json!("no_connection")), "{output:?}");
    assert_eq!(lines[0]["error"]["retryable"], json!(true));
    assert_eq!(code(&run(&server, &["--connect-timeout", "300ms", "nodes"]).await), 5);
}

#[tokio::test]
async fn a_wrong_token_is_not_tried_again() {
    let peer = Peer::start(Plan { turn_away: Some(ErrorCode::Unauthenticated), ..Plan::default() }).await;
    let output = run(&peer.url, &["status", "--json", &JobId::from_bytes([7; 16]).to_string()]).await;
    assert_eq!((code(&output), &lines(&output)[0]["error"]["code"]), (3, &json!("unauthenticated")), "{output:?}");
    assert_eq!(peer.seen.lock().unwrap().sessions, 1);
}

#[tokio::test]
async fn a_cut_connection_loses_and_doubles_no_event() {
    let dir = tempfile::tempdir().unwrap();
    let input = file(dir.path(), "a.wav", b"RIFF");
    let cuts = (0..4).map(Cut::AfterEvents).chain([Cut::BeforeTaking, Cut::AfterTaking]);
    for cut in cuts {
        let peer = Peer::start(Plan { cut: Some(cut), ..Plan::default() }).await;
        let output = run(&peer.url, &["submit", "--json", &input]).await;
        assert_eq!(code(&output), 0, "{output:?}");
        assert_whole(&lines(&output), "completed");
        let seen = peer.seen.lock().unwrap();
        assert_eq!((seen.sessions, seen.jobs.len()), (2, 1));
        assert!(seen.submits.iter().all(|job_id| *job_id == seen.submits[0]), "the same job id");
    }
}

#[tokio::test]
async fn a_large_input_is_uploaded_in_chunks() {
    let dir = tempfile::tempdir().unwrap();
    let media: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    let input = file(dir.path(), "long.wav", &media);
    // Of a cut upload only the chunk that was lost comes again; of a stored one nothing.
    let cases = [(None, 1, 4), (Some(Cut::InUpload(3)), 2, 5), (Some(Cut::AtUploadedSubmit), 2, 4)];
    for (cut, sessions, chunks) in cases {
        let peer = Peer::start(Plan { cut, ..Plan::default() }).await;
        let output = run(&peer.url, &["submit", "--json", &input]).await;
        assert_eq!(code(&output), 0, "{output:?}");
        assert_whole(&lines(&output), "completed");
        let seen = peer.seen.lock().unwrap();
        let (_, uploaded) = seen.jobs.values().next().unwrap();
        assert!(uploaded[..] == media[..], "the peer checked the digest of the same bytes");
        assert_eq!((seen.sessions, seen.jobs.len()), (sessions, 1));
        assert_eq!((seen.uploads.len(), seen.upload_chunks), (1, chunks), "one id, and no chunk twice");
    }
}

#[tokio::test]
async fn standard_input_is_an_input() {
    let peer = Peer::start(Plan::default()).await;
    let mut child = command(&peer.url, &["submit", "--task", "chat", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"how are you?").await.unwrap();
    let output = ended(child).await;
    assert_eq!((code(&output), text(&output.stdout)), (0, "hello world\n".to_owned()), "{output:?}");
    assert_eq!(&peer.seen.lock().unwrap().jobs.values().next().unwrap().1[..], b"how are you?");
}

#[tokio::test]
async fn media_is_fetched_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let input = file(dir.path(), "a.txt", b"say this");
    let media: Vec<u8> = (0..350_000_u32).map(|n| (n % 241) as u8).collect();
    let plan = Plan { media: media.clone(), result: json!({ "seconds": 1 }), ..Plan::default() };
    let peer = Peer::start(plan).await;
    let path = dir.path().join("out.wav");
    let output = run(&peer.url, &["submit", "--task", "speak", "--output", path.to_str().unwrap(), &input]).await;
    assert_eq!((code(&output), output.stdout.len()), (0, 0), "{output:?}");
    assert!(std::fs::read(&path).unwrap() == media);

    let output = run(&peer.url, &["submit", "--task", "speak", &input]).await;
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap()["seconds"], json!(1));
    assert!(text(&output.stderr).contains("fetch"), "{output:?}");

    let job_id = *peer.seen.lock().unwrap().jobs.keys().next().unwrap();
    let output = run(&peer.url, &["fetch", &job_id.to_string(), "--output", "-"]).await;
    assert!(code(&output) == 0 && output.stdout == media);
}

#[tokio::test]
async fn a_job_is_watched_asked_for_and_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let input = file(dir.path(), "a.wav", b"RIFF");
    let peer = Peer::start(Plan::default()).await;
    let output = run(&peer.url, &["submit", "--detach", &input]).await;
    let job = text(&output.stdout).trim().to_owned();

    let output = run(&peer.url, &["watch", "--json", &job]).await;
    assert_eq!(code(&output), 0, "{output:?}");
    assert_whole(&lines(&output), "completed");
    let output = run(&peer.url, &["status", "--json", &job]).await;
    assert_eq!((code(&output), &lines(&output)[0]["state"]), (0, &json!("completed")));
    let output = run(&peer.url, &["cancel", "--json", &job]).await;
    assert_eq!((code(&output), &lines(&output)[0]["state"]), (0, &json!("cancel_requested")));

    let unknown = JobId::from_bytes([9; 16]).to_string();
    for command in ["watch", "status"] {
        let output = run(&peer.url, &[command, "--json", &unknown]).await;
        assert_eq!((code(&output), &lines(&output)[0]["error"]["code"]), (3, &json!("unknown_job")), "{output:?}");
    }
}

#[tokio::test]
async fn an_interrupted_wait_says_how_to_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let input = file(dir.path(), "a.wav", b"RIFF");
    let peer = Peer::start(Plan { end: None, ..Plan::default() }).await;
    let mut child = command(&peer.url, &["submit", "--json", &input]).spawn().unwrap();
    let mut events = BufReader::new(child.stdout.take().unwrap()).lines();
    // The second event is printed from within the wait, where Ctrl-C is heard.
    for _ in 0..2 {
        tokio::time::timeout(PATIENCE, events.next_line()).await.unwrap().unwrap().unwrap();
    }
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().await.unwrap().success());
    let output = ended(child).await;
    assert_eq!(code(&output), 130, "{output:?}");
    assert!(text(&output.stderr).contains("client-cli watch "), "{output:?}");
}

#[tokio::test]
async fn nodes_and_backends_are_tables() {
    let node = json!({
        "node": "node-a", "incarnation": 1, "version": "0.1.0", "state": "ready", "heartbeat_age_ms": 12, "grants": [],
        "load": { "sessions": 3, "jobs_running": 1, "jobs_waiting": 0, "bytes_per_s": 0, "cpu": 0.5 },
    });
    let backend = json!({
        "url": "http://localai:8080", "healthy": false, "reason": "refused", "models": ["whisper", "tts"],
        "slots": 4, "slots_granted": 2, "slots_in_use": 1,
    });
    let http = vec![("/v1/nodes", json!([node])), ("/v1/backends", json!({ "backends": [backend] }))];
    let peer = Peer::start(Plan { http, ..Plan::default() }).await;
    let output = run(&peer.url, &["nodes"]).await;
    let table = text(&output.stdout);
    let rows: Vec<&str> = table.lines().collect();
    assert_eq!((code(&output), rows.len()), (0, 2), "{output:?}");
    assert_eq!(rows[0].find("STATE"), rows[1].find("ready"), "columns are aligned: {table}");
    let output = run(&peer.url, &["backends"]).await;
    assert!(text(&output.stdout).contains("refused  1/2/4"), "{output:?}");
    let output = run(&peer.url, &["backends", "--json"]).await;
    assert_eq!((code(&output), &lines(&output)[0][0]["slots"]), (0, &json!(4)));
    let output = run(&peer.url, &["backends", "list"]).await;
    assert!(text(&output.stdout).contains("refused  1/2/4"), "{output:?}");

    let output = run(&Peer::start(Plan::default()).await.url, &["nodes", "--json"]).await;
    assert_eq!((code(&output), &lines(&output)[0]["error"]["code"]), (3, &json!("not_found")), "{output:?}");
}

#[tokio::test]
async fn the_node_that_the_server_names_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let input = file(dir.path(), "a.wav", b"RIFF");
    let node = Peer::start(Plan::default()).await;
    let placement = json!({ "node": "other", "url": node.url });
    let server = Peer::start(Plan { http: vec![("/v1/placement", placement)], ..Plan::default() }).await;
    assert_eq!(code(&run(&server.url, &["submit", &input]).await), 0);
    assert_eq!((server.seen.lock().unwrap().sessions, node.seen.lock().unwrap().sessions), (0, 1));

    let unreachable = json!({ "node": "gone", "url": "http://127.0.0.1:9" });
    let server = Peer::start(Plan { http: vec![("/v1/placement", unreachable)], ..Plan::default() }).await;
    assert_eq!(code(&run(&server.url, &["submit", &input]).await), 0);
    assert_eq!(server.seen.lock().unwrap().sessions, 1);
}
