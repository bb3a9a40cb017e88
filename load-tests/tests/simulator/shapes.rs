//! Status, headers and shape of each answer, next to the recorded one.

use load_tests::localai_sim::settings::SimulatorSettings;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};

use crate::recorded::{Recorded, messages, shape};
use crate::{fast, form, speech, start};

/// Headers that callers look at.
const HEADERS: [&str; 3] = ["content-type", "retry-after", "allow"];

async fn same(request: RequestBuilder, recording: &str) -> String {
    let recorded = Recorded::read(recording);
    let answer = request.send().await.expect("an answer");
    assert_eq!(answer.status().as_u16(), recorded.status, "{recording}");
    for name in HEADERS {
        let found = answer.headers().get(name).map(|value| value.to_str().expect("text").to_lowercase());
        let wanted = recorded.headers.get(name).map(|value| value.to_lowercase());
        assert_eq!(found, wanted, "{name} of {recording}");
    }
    answer.text().await.expect("a body")
}

/// Same status, headers and JSON shape; for failures also the same words, but for what `vary` names.
async fn same_json(request: RequestBuilder, recording: &str) -> Value {
    let recorded = Recorded::read(recording).json();
    let found: Value = serde_json::from_str(&same(request, recording).await).expect("JSON");
    assert_eq!(shape(&found), shape(&recorded), "{recording}: {found}");
    found
}

/// As [`same_json`], and word for word.
async fn same_words(request: RequestBuilder, recording: &str) {
    let recorded = Recorded::read(recording).json();
    assert_eq!(same_json(request, recording).await, recorded, "{recording}");
}

#[actix_rt::test]
async fn the_server_s_own_answers() {
    let (simulator, client) = (start(fast()), Client::new());
    let get = |path: &str| client.get(format!("{}{path}", simulator.url));
    let post = |path: &str, body: Value| client.post(format!("{}{path}", simulator.url)).json(&body);
    same(get("/healthz"), "01-healthz.txt").await;
    same(get("/readyz"), "02-readyz.txt").await;
    same_json(get("/v1/models"), "03-models.txt").await;
    same_json(get("/version"), "05-version.txt").await;
    same_words(get("/backend/monitor?model=whisper-1"), "07-backend-monitor-notloaded.txt").await;
    same_words(get("/backend/monitor"), "08-backend-monitor-nomodel.txt").await;
    same_words(get("/v1/nope"), "65-err-404.txt").await;
    same_words(post("/backend/load", json!({ "model": "tts-1" })), "63-backend-load.txt").await;
    same_json(get("/system"), "17-system-warm.txt").await;
    same_json(get("/backend/monitor?model=tts-1"), "16-backend-monitor-loaded.txt").await;
    same_words(post("/backend/shutdown", json!({ "model": "tts-1" })), "61-shutdown.txt").await;
    same_words(post("/backend/shutdown", json!({ "model": "tts-1" })), "62-err-shutdown-notloaded.txt").await;
    simulator.stop().await;
}

#[actix_rt::test]
async fn transcriptions() {
    let (simulator, client) = (start(fast()), Client::new());
    let post = |form| client.post(format!("{}/v1/audio/transcriptions", simulator.url)).multipart(form);
    let plain = || form(speech(), "whisper-1");
    same_json(post(plain()), "10-transcribe-cold.txt").await;
    same_json(post(plain().text("response_format", "json")), "11-transcribe-warm-json.txt").await;
    let verbose = plain().text("response_format", "verbose_json").text("timestamp_granularities[]", "word");
    same_json(post(verbose), "12-transcribe-verbose-words.txt").await;
    same_words(post(plain().text("response_format", "text")), "13-transcribe-text.txt").await;
    for (format, recording, sign) in [
        ("srt", "13-transcribe-srt.txt", "00:00:00,"),
        ("vtt", "13-transcribe-vtt.txt", "WEBVTT\n\n00:00:00."),
        ("lrc", "13-transcribe-lrc.txt", "[re:LocalAI]\n\n[00:00:0"),
    ] {
        assert!(Recorded::read(recording).body.contains(sign));
        let found = same(post(plain().text("response_format", format)), recording).await;
        assert!(found.contains(sign), "{format}: {found}");
    }
    let streamed = same(post(plain().text("stream", "true")), "14-transcribe-stream-sse.txt").await;
    let recorded = messages(&Recorded::read("14-transcribe-stream-sse.txt").body);
    let streamed = messages(&streamed);
    assert_eq!(shape(&streamed[0]), shape(&recorded[0]));
    assert_eq!(shape(&streamed[streamed.len() - 1]), shape(&recorded[recorded.len() - 1]));
    same_json(client.get(format!("{}/v1/models", simulator.url)), "03-models.txt").await;
    simulator.stop().await;
}

#[actix_rt::test]
async fn failed_transcriptions() {
    let (simulator, client) = (start(fast()), Client::new());
    let url = format!("{}/v1/audio/transcriptions", simulator.url);
    let post = |form| client.post(&url).multipart(form);
    let garbage = || b"this is no sound at all".to_vec();
    same_words(post(form(speech(), "nope")), "20-err-unknown-model.txt").await;
    let words = same_json(post(form(garbage(), "whisper-1")), "21-err-garbage.txt").await;
    assert!(words["error"]["message"].as_str().is_some_and(|words| words.contains("code = InvalidArgument")));
    same_json(post(form(Vec::new(), "whisper-1")), "22-err-empty-file.txt").await;
    let no_file = reqwest::multipart::Form::new().text("model", "whisper-1");
    same_words(post(no_file), "23-err-no-file.txt").await;
    same_words(post(form(speech(), "whisper-1").text("response_format", "xml")), "24-err-bad-format.txt").await;
    let streamed = same(post(form(garbage(), "whisper-1").text("stream", "true")), "25-err-garbage-stream.txt").await;
    let recorded = messages(&Recorded::read("25-err-garbage-stream.txt").body);
    assert_eq!(shape(&messages(&streamed)[0]), shape(&recorded[0]));
    same_words(client.post(&url).json(&json!({ "model": "whisper-1" })), "27-err-json-body.txt").await;
    same_json(post(form(speech(), "x-broken")), "28-err-load-fails.txt").await;
    same_json(post(form(speech(), "x-broken")), "29-err-load-cooldown.txt").await;
    let translations = client.post(format!("{}/v1/audio/translations", simulator.url));
    same_words(translations.multipart(form(speech(), "whisper-1")), "30-err-translations-404.txt").await;
    same_words(client.request(Method::GET, &url), "32-err-wrong-method.txt").await;
    let diarization = client.post(format!("{}/v1/audio/diarization", simulator.url));
    same_words(diarization.multipart(form(speech(), "whisper-1")), "57-err-unimplemented-diarization.txt").await;
    simulator.stop().await;
}

#[actix_rt::test]
async fn speech_vad_chat_and_what_no_model_did() {
    let (simulator, client) = (start(fast()), Client::new());
    let post = |path: &str, body: Value| client.post(format!("{}{path}", simulator.url)).json(&body);
    let spoken =
        same(post("/v1/audio/speech", json!({ "model": "tts-1", "input": "hello" })), "40-speech-cold.txt").await;
    assert!(spoken.starts_with("RIFF"));
    let streamed = json!({ "model": "tts-1", "input": "hello", "stream": true });
    same(post("/v1/audio/speech", streamed), "43-speech-stream.txt").await;
    same_words(post("/v1/audio/speech", json!({ "model": "tts-1", "input": "" })), "44-err-speech-empty.txt").await;
    same_words(post("/v1/audio/speech", json!({ "model": "nope", "input": "x" })), "45-err-speech-unknown.txt").await;
    let cut = client.post(format!("{}/v1/audio/speech", simulator.url)).body("{\"model\":");
    same_words(cut.header("content-type", "application/json"), "46-err-bad-json.txt").await;
    let voice: Vec<f32> = (0..32_000).map(|at| if at < 16_000 { 0.3 } else { 0.0 }).collect();
    same_json(post("/vad", json!({ "model": "vad", "audio": voice })), "50-vad.txt").await;
    let messages_in = json!([{ "role": "user", "content": "The cat sat. The dog barked at the cat all night." }]);
    let chat = json!({ "model": "lab-chat", "messages": messages_in });
    same_json(post("/v1/chat/completions", chat.clone()), "51-chat.txt").await;
    let mut stream = chat;
    stream["stream"] = json!(true);
    stream["stream_options"] = json!({ "include_usage": true });
    let streamed = messages(&same(post("/v1/chat/completions", stream), "52-chat-stream-sse.txt").await);
    let recorded = messages(&Recorded::read("52-chat-stream-sse.txt").body);
    for (found, wanted) in [(0, 0), (1, 1)] {
        assert_eq!(shape(&streamed[found]), shape(&recorded[wanted]));
    }
    for from_end in [1, 2] {
        assert_eq!(shape(&streamed[streamed.len() - from_end]), shape(&recorded[recorded.len() - from_end]));
    }
    let unknown = json!({ "model": "nope", "messages": [] });
    same_words(post("/v1/chat/completions", unknown), "53-err-chat-unknown.txt").await;
    let image = json!({ "model": "tts-1", "prompt": "x" });
    same_words(post("/v1/images/generations", image), "56-err-image-unimplemented.txt").await;
    simulator.stop().await;
}

#[actix_rt::test]
async fn limits_and_keys() {
    let settings = SimulatorSettings {
        upload_bytes_max: 100_000,
        api_key: Some("sk-lab".to_owned()),
        ..SimulatorSettings { speed: 1.0, ..fast() }
    };
    let (simulator, client) = (start(settings), Client::new());
    let models = || client.get(format!("{}/v1/models", simulator.url));
    same(client.get(format!("{}/readyz", simulator.url)), "02-readyz.txt").await;
    let refused = same_json(models(), "73-auth.txt").await;
    assert_eq!(refused["error"]["code"], 401);
    assert_eq!(models().bearer_auth("bad").send().await.expect("an answer").status(), 401);
    assert_eq!(models().bearer_auth("sk-lab").send().await.expect("an answer").status(), 200);
    assert_eq!(models().header("x-api-key", "sk-lab").send().await.expect("an answer").status(), 200);
    let big = client.post(format!("{}/v1/audio/transcriptions", simulator.url)).bearer_auth("sk-lab");
    same_words(big.multipart(form(speech(), "whisper-1")), "31-err-upload-limit-413.txt").await;
    let chat = |stream: bool| {
        let words = json!([{ "role": "user", "content": "One two three. Four five six." }]);
        let body = json!({ "model": "x-chat-limited", "messages": words, "stream": stream });
        client.post(format!("{}/v1/chat/completions", simulator.url)).bearer_auth("sk-lab").json(&body)
    };
    // The first one loads the model for two seconds; the second one is refused meanwhile.
    let first = actix_rt::spawn(chat(false).send());
    crate::behaviour::wait_until(|| simulator.counters().models["x-chat-limited"].in_flight == 1).await;
    let second = chat(false).send().await.expect("an answer");
    assert_eq!(second.status(), 503);
    assert_eq!(second.headers()["retry-after"], "3");
    let words: Value = second.json().await.expect("JSON");
    assert_eq!(words["error"]["type"], "admission_rejected");
    assert_eq!(shape(&words), ["/error/message: text", "/error/type: text"], "as in 79-limits-chat.txt");
    assert_eq!(first.await.expect("no panic").expect("an answer").status(), 200);
    simulator.stop().await;
}
