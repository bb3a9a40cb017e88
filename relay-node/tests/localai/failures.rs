//! What each recorded failure means to the job: fail for good, try elsewhere, wait.

use std::time::Duration;

use relay_node::backend::BackendError;
use relay_node::backend::localai::LocalAiSettings;
use relay_protocol::{ErrorCode, Task};

use crate::recorded::{answer, answer_with, bare};
use crate::replay::Replay;
use crate::{SETTINGS, call, run};

async fn failed(task: Task, recorded: Vec<u8>) -> BackendError {
    let server = Replay::start(recorded, false);
    let (outcome, _) = run(&server.url, call(task, "x"), &SETTINGS).await;
    server.asked();
    outcome.expect_err("a failure")
}

#[tokio::test]
async fn refusals_that_every_backend_would_repeat_are_permanent() {
    let rejected = ErrorCode::BackendRejected;
    for (recording, code) in [
        ("20-err-unknown-model.txt", ErrorCode::UnknownModel),
        ("21-err-garbage.txt", rejected),
        ("22-err-empty-file.txt", rejected),
        ("23-err-no-file.txt", rejected),
        ("24-err-bad-format.txt", rejected),
        ("25-err-garbage-stream.txt", rejected),
        ("31-err-upload-limit-413.txt", ErrorCode::TooLarge),
        ("44-err-speech-empty.txt", rejected),
        ("45-err-speech-unknown.txt", ErrorCode::UnknownModel),
        ("46-err-bad-json.txt", rejected),
        ("53-err-chat-unknown.txt", ErrorCode::UnknownModel),
        ("56-err-image-unimplemented.txt", rejected),
        ("57-err-unimplemented-diarization.txt", rejected),
    ] {
        let error = failed(Task::Transcribe, answer(recording, 0)).await;
        assert!(
            matches!(&error, BackendError::Rejected { code: found, .. } if *found == code),
            "{recording}: {error:?}"
        );
        assert!(!error.is_retryable());
    }
}

#[tokio::test]
async fn a_server_without_room_is_busy_and_says_for_how_long() {
    for (recording, number, seconds) in [
        ("29-err-load-cooldown.txt", 0, 10),
        ("71-overload-503.txt", 2, 1),
        ("79-limits-chat.txt", 1, 3),
        ("71b-overload-sse.txt", 0, 1),
    ] {
        let error = failed(Task::Transcribe, answer(recording, number)).await;
        let wait = Some(Duration::from_secs(seconds));
        assert!(
            matches!(&error, BackendError::Busy { retry_after, .. } if *retry_after == wait),
            "{recording}: {error:?}"
        );
    }
}

#[tokio::test]
async fn dead_workers_failed_loads_and_wrong_keys_are_tried_elsewhere() {
    for (what, recorded) in [
        ("a model that does not load", answer("28-err-load-fails.txt", 0)),
        ("a worker that died", bare("76-backend-killed.txt", "error reading from server: EOF")),
        ("a worker that is dead", bare("78-dead-backend-window.txt", "connection refused")),
        ("a stream whose worker died", answer("81-sse-backend-killed.txt", 0)),
        ("a server that ends", answer("82-sigterm.txt", 0)),
        ("a watchdog's kill", answer("83-watchdog-busy.txt", 0)),
        ("a wrong key", answer("73-auth.txt", 0)),
        ("a bug of the model", answer("54-err-unimplemented-embeddings.txt", 0)),
    ] {
        let error = failed(Task::Transcribe, recorded).await;
        assert!(matches!(error, BackendError::Failed(_)), "{what}: {error:?}");
        assert!(error.is_retryable());
    }
}

#[tokio::test]
async fn a_stream_that_just_stops_is_no_result() {
    let recorded = String::from_utf8(answer("14-transcribe-stream-sse.txt", 0)).expect("text");
    let head = recorded.split("\r\n\r\n").next().expect("a head");
    let first = recorded.split("\r\n\r\n").nth(1).and_then(|body| body.split("\n\n").next()).expect("a message");
    let cut = format!("{head}\r\n\r\n{first}\n\n");
    let server = Replay::start(cut.into_bytes(), false);
    let (outcome, updates) = run(&server.url, call(Task::Transcribe, "x"), &SETTINGS).await;
    assert!(matches!(outcome, Err(BackendError::Failed(_))), "{outcome:?}");
    assert_eq!(updates.len(), 1, "what came before was passed on");
}

#[tokio::test]
async fn answers_of_another_shape_are_failures_not_results() {
    for (task, body) in [
        (Task::Embed, &br#"{"data":[]}"#[..]),
        (Task::Image, br#"{"data":[{"url":"http://x"}]}"#),
        (Task::Vad, br#"{"segments":"none"}"#),
        (Task::Embed, b"<html>"),
        (Task::Speak, b"{}"),
    ] {
        let input = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/audio/speech.wav"));
        let input = if task == Task::Vad { input.expect("the fixture") } else { b"x".to_vec() };
        let server = Replay::start(answer_with("51-chat.txt", body), false);
        let (outcome, _) = run(&server.url, call(task, input), &SETTINGS).await;
        assert!(matches!(outcome, Err(BackendError::Failed(_))), "{task}: {outcome:?}");
    }
}

#[tokio::test]
async fn an_answer_above_the_limit_is_refused() {
    let settings = LocalAiSettings { answer_bytes_max: 1_000, ..SETTINGS };
    let server = Replay::start(answer_with("40-speech-cold.txt", &[0; 2_000]), false);
    let (outcome, _) = run(&server.url, call(Task::Speak, "x"), &settings).await;
    let error = outcome.expect_err("a failure");
    assert!(error.to_string().contains("more than 1000 bytes"), "{error}");
}

#[tokio::test]
async fn silence_and_a_closed_port_are_unreachable() {
    let settings = LocalAiSettings { silence_timeout_ms: 200, ..SETTINGS };
    let silent = Replay::start(Vec::new(), true);
    let (outcome, _) = run(&silent.url, call(Task::Transcribe, "x"), &settings).await;
    assert!(matches!(outcome, Err(BackendError::Unreachable(_))), "{outcome:?}");
    let closed = Replay::start(Vec::new(), false).url;
    // The first connection ends without an answer, and nobody listens for a second one.
    let (outcome, _) = run(&closed, call(Task::Transcribe, "x"), &settings).await;
    assert!(matches!(outcome, Err(BackendError::Failed(_))), "{outcome:?}");
    let (outcome, _) = run(&closed, call(Task::Transcribe, "x"), &settings).await;
    assert!(matches!(outcome, Err(BackendError::Unreachable(_))), "{outcome:?}");
}

#[tokio::test]
async fn text_tasks_take_text_only() {
    let server = Replay::start(Vec::new(), true);
    let (outcome, _) = run(&server.url, call(Task::Chat, vec![0xff, 0xfe]), &SETTINGS).await;
    let error = outcome.expect_err("a failure");
    assert!(matches!(&error, BackendError::Rejected { code: ErrorCode::NotMedia, .. }), "{error:?}");
}
