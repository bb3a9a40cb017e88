//! What load tests rest on.

use std::time::{Duration, Instant};

use load_tests::localai_sim::settings::SimulatorSettings;
use load_tests::localai_sim::{Simulator, words_of};
use reqwest::Client;
use serde_json::Value;

use crate::recorded::messages;
use crate::{fast, form, speech, start};

/// Longest wait for anything that should happen.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn wait_until(mut happened: impl FnMut() -> bool) {
    let began = Instant::now();
    while !happened() {
        assert!(began.elapsed() < PATIENCE, "it did not happen");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn transcribe(simulator: &Simulator, file: Vec<u8>) -> Value {
    let answer = Client::new()
        .post(format!("{}/v1/audio/transcriptions", simulator.url))
        .multipart(form(file, "whisper-1"))
        .send()
        .await
        .expect("an answer");
    answer.json().await.expect("JSON")
}

#[actix_rt::test]
async fn answers_follow_from_the_input() {
    let simulator = start(fast());
    let whole = transcribe(&simulator, speech()).await;
    assert_eq!(whole["segments"][0]["text"], words_of(&speech(), 0, 6));
    assert_eq!(transcribe(&simulator, speech()).await, whole, "the same file gives the same answer");
    let mut cut = speech();
    cut.truncate(cut.len() / 2);
    let half = transcribe(&simulator, cut).await;
    assert_ne!(half["segments"][0]["text"], whole["segments"][0]["text"]);
    let seconds = |answer: &Value| answer["duration"].as_f64().expect("a duration");
    assert!((seconds(&half) - seconds(&whole) / 2.0).abs() < 0.01, "{half} {whole}");
    simulator.stop().await;
}

#[actix_rt::test]
async fn a_cold_model_is_loaded_once_and_works_on_one_request_at_a_time() {
    let mut settings = SimulatorSettings::transcriber(Duration::from_millis(50));
    settings.models[0].load = Duration::from_millis(200);
    let simulator = start(settings);
    let began = Instant::now();
    let all = futures_util::future::join_all((0..4).map(|_| transcribe(&simulator, speech()))).await;
    assert!(all.iter().all(|answer| answer["text"].is_string()), "{all:?}");
    assert!(began.elapsed() >= Duration::from_millis(200 + 4 * 50), "{:?}", began.elapsed());
    let counters = simulator.counters().models["whisper-1"].clone();
    assert_eq!((counters.loads, counters.completed, counters.in_flight, counters.in_flight_max), (1, 4, 0, 4));
    assert_eq!(counters.busy_ms, 4 * 50);
    simulator.stop().await;
}

#[actix_rt::test]
async fn a_killed_worker_fails_what_runs_and_what_comes_until_the_window_ends() {
    let mut settings = SimulatorSettings::transcriber(Duration::from_millis(1_000));
    settings.dead_window = Duration::from_millis(400);
    let simulator = start(settings);
    let victim = {
        let url = format!("{}/v1/audio/transcriptions", simulator.url);
        let request = Client::new().post(url).multipart(form(speech(), "whisper-1").text("stream", "true")).send();
        actix_rt::spawn(async move { request.await?.text().await })
    };
    // The worker works on it: it was loaded and the stream's status was sent.
    wait_until(|| simulator.counters().models["whisper-1"].loads == 1).await;
    assert!(simulator.kill("whisper-1"));
    let killed = Instant::now();
    let stream = messages(&victim.await.expect("no panic").expect("a body"));
    let last = stream.last().expect("a message");
    assert_eq!(last["type"], "error");
    assert!(last["error"]["message"].as_str().is_some_and(|words| words.contains("code = Unavailable")), "{last}");
    let after = transcribe(&simulator, speech()).await;
    assert!(killed.elapsed() < Duration::from_millis(400), "the failure is instant");
    assert_eq!(after["error"]["code"], 500);
    assert!(after["error"]["message"].as_str().is_some_and(|words| words.contains("connection refused")), "{after}");
    let ready = Client::new().get(format!("{}/readyz", simulator.url)).send().await.expect("an answer");
    assert_eq!(ready.status(), 200, "it calls itself ready all the while");
    wait_until(|| killed.elapsed() > Duration::from_millis(420)).await;
    assert!(transcribe(&simulator, speech()).await["text"].is_string());
    assert_eq!(simulator.counters().models["whisper-1"].loads, 2);
    simulator.stop().await;
}

#[actix_rt::test]
async fn a_client_that_goes_away_frees_the_worker() {
    let simulator = start(SimulatorSettings::transcriber(Duration::from_secs(60)));
    for stream in ["true", "false"] {
        let url = format!("{}/v1/audio/transcriptions", simulator.url);
        let request = form(speech(), "whisper-1").text("stream", stream);
        let request = Client::new().post(url).multipart(request).send();
        let gone = actix_rt::spawn(async move { request.await?.text().await });
        wait_until(|| simulator.counters().models["whisper-1"].in_flight == 1).await;
        gone.abort();
        wait_until(|| simulator.counters().models["whisper-1"].in_flight == 0).await;
    }
    assert_eq!(simulator.counters().models["whisper-1"].cancelled, 2);
    simulator.stop().await;
}

#[actix_rt::test]
async fn the_seed_decides_the_service_times() {
    let mut busy = Vec::new();
    for seed in [7, 7, 8] {
        let mut settings = SimulatorSettings::transcriber(Duration::from_millis(4));
        settings.models[0].spread = 0.8;
        settings.seed = seed;
        let simulator = start(settings);
        for _ in 0..5 {
            transcribe(&simulator, speech()).await;
        }
        busy.push(simulator.counters().models["whisper-1"].busy_ms);
        simulator.stop().await;
    }
    assert_eq!(busy[0], busy[1], "the same seed, the same times");
    assert_ne!(busy[0], busy[2], "another seed, other times");
}

#[actix_rt::test]
async fn sigterm_fails_what_runs() {
    let simulator = start(SimulatorSettings::transcriber(Duration::from_secs(60)));
    let url = format!("{}/v1/audio/transcriptions", simulator.url);
    let request = Client::new().post(url).multipart(form(speech(), "whisper-1")).send();
    let running = actix_rt::spawn(async move { request.await?.json::<Value>().await });
    wait_until(|| simulator.counters().models["whisper-1"].in_flight == 1).await;
    simulator.stop().await;
    let answer = running.await.expect("no panic").expect("an answer");
    assert_eq!(answer["error"]["message"], "rpc error: code = Unavailable desc = Cancelling all calls");
}
