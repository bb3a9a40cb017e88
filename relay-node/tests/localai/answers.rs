//! What is asked for each task, and what its good answer becomes.

use relay_node::backend::{Output, Update};
use relay_protocol::Task;
use serde_json::{Value, json};

use crate::recorded::{answer, answer_with};
use crate::replay::{Asked, Replay};
use crate::{SETTINGS, call, run, with};

const MONDAY: &str = "the president said that the government will meet again on monday";

async fn good(recorded: Vec<u8>, asked: relay_node::backend::Call) -> (Output, Vec<Update>, Asked) {
    let server = Replay::start(recorded, false);
    let (outcome, updates) = run(&server.url, asked, &SETTINGS).await;
    (outcome.expect("a good answer"), updates, server.asked())
}

fn speech() -> Vec<u8> {
    std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/audio/speech.wav")).expect("the fixture")
}

#[tokio::test]
async fn a_transcription_is_streamed() {
    let params = [("language", json!("en")), ("temperature", json!("0.5")), ("diarize", json!("true"))];
    let mut wanted = with(call(Task::Transcribe, speech()), &params);
    wanted.traceparent = Some("00-0123456789abcdef0123456789abcdef-0123456789abcdef-01".to_owned());
    let (output, updates, asked) = good(answer("14-transcribe-stream-sse.txt", 0), wanted).await;
    assert!(asked.line.starts_with("POST /v1/audio/transcriptions "), "{}", asked.line);
    for (name, value) in
        [("model", "m"), ("stream", "true"), ("language", "en"), ("temperature", "0.5"), ("diarize", "true")]
    {
        assert_eq!(asked.field(name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(asked.field("translate"), None);
    let traceparent = asked.header("traceparent").expect("a trace context");
    assert_eq!(&traceparent[3..35], "0123456789abcdef0123456789abcdef");
    assert_eq!(asked.header("x-correlation-id"), Some("07070707-0707-0707-0707-070707070707"));
    let sound = speech();
    assert!(asked.body.windows(sound.len()).any(|window| window == sound), "the file is sent as it is");
    let deltas = [
        json!({ "delta": MONDAY }),
        json!({ "delta": " the president said that the government we'll meet again on monday" }),
    ];
    assert_eq!(updates, deltas.map(Update::Partial));
    assert_eq!(output.result["segments"][1]["end"], 10.32);
    assert_eq!(output.result["duration"], 12.289_187_431_335_45);
    assert!(output.result.get("type").is_none() && output.media.is_none());
}

#[tokio::test]
async fn a_translation_says_so_in_a_field() {
    let (_, _, asked) = good(answer("14-transcribe-stream-sse.txt", 0), call(Task::Translate, speech())).await;
    assert!(asked.line.starts_with("POST /v1/audio/transcriptions "), "there is no route of its own");
    assert_eq!(asked.field("translate").as_deref(), Some("true"));
}

#[tokio::test]
async fn words_come_with_the_whole_answer() {
    let wanted = with(call(Task::Transcribe, speech()), &[("words", json!(true))]);
    let (output, updates, asked) = good(answer("12-transcribe-verbose-words.txt", 0), wanted).await;
    assert_eq!(asked.field("response_format").as_deref(), Some("verbose_json"));
    assert_eq!(asked.field("timestamp_granularities[]").as_deref(), Some("word"));
    assert_eq!(asked.field("stream"), None, "a stream has no words");
    assert_eq!(output.result["words"][1], json!({ "start": 0.14, "end": 0.92, "text": "president" }));
    assert!(updates.is_empty());
}

#[tokio::test]
async fn a_chat_is_streamed() {
    let messages = json!([{ "role": "user", "content": "The cat sat on the mat." }]).to_string();
    let wanted = with(call(Task::Chat, messages), &[("system", json!("Be brief.")), ("max_tokens", json!("40"))]);
    let (output, updates, asked) = good(answer("52-chat-stream-sse.txt", 0), wanted).await;
    let body = asked.json();
    assert_eq!(body["messages"][0], json!({ "role": "system", "content": "Be brief." }));
    assert_eq!(body["messages"][1]["content"], "The cat sat on the mat.");
    assert_eq!((&body["stream"], &body["max_tokens"], &body["model"]), (&json!(true), &json!(40), &json!("m")));
    let pieces: String = updates
        .iter()
        .filter_map(|update| match update {
            Update::Partial(piece) => piece["delta"].as_str(),
            Update::Progress(_) => None,
        })
        .collect();
    assert_eq!(pieces, "Summary: The cat sat on the mat. The dog barked at the cat all night.");
    assert_eq!(output.result["text"], pieces);
    assert_eq!(output.result["finish_reason"], "stop");
    assert_eq!(output.result["usage"]["total_tokens"], 29);
    assert_eq!(output.result["model"], "lab-chat");
}

#[tokio::test]
async fn plain_text_is_one_message() {
    let (_, _, asked) = good(answer("52-chat-stream-sse.txt", 0), call(Task::Chat, "hello")).await;
    assert_eq!(asked.json()["messages"], json!([{ "role": "user", "content": "hello" }]));
}

#[tokio::test]
async fn speech_becomes_media() {
    let wanted = with(call(Task::Speak, "on monday"), &[("voice", json!("en-us")), ("format", json!("MP3"))]);
    let (output, _, asked) = good(answer_with("42-speech-mp3.txt", b"ID3 sound"), wanted).await;
    let body = asked.json();
    assert_eq!(body, json!({ "input": "on monday", "model": "m", "voice": "en-us", "response_format": "mp3" }));
    let media = output.media.expect("media");
    assert_eq!(
        (media.media_type.as_str(), media.name.as_str(), &media.bytes[..]),
        ("audio/mpeg", "speech.mp3", &b"ID3 sound"[..])
    );
}

#[tokio::test]
async fn voice_activity_gets_samples() {
    let (output, _, asked) = good(answer("50-vad.txt", 0), call(Task::Vad, speech())).await;
    let body = asked.json();
    let samples = body["audio"].as_array().expect("samples");
    let seconds = samples.len() as f64 / 16_000.0;
    assert!((output.result["duration_s"].as_f64().expect("a duration") - seconds).abs() < 1e-9);
    assert!(samples.iter().all(|sample| sample.as_f64().is_some_and(|sample| sample.abs() <= 1.0)));
    assert_eq!(output.result["segments"], json!([{ "start": 0.0, "end": 4.32 }, { "start": 6.15, "end": 10.47 }]));
}

#[tokio::test]
async fn a_voice_that_is_still_heard_at_the_end_ends_with_the_audio() {
    let body = br#"{"segments":[{"start":1.5,"end":0}]}"#;
    let (output, _, _) = good(answer_with("50-vad.txt", body), call(Task::Vad, speech())).await;
    assert_eq!(output.result["segments"], json!([{ "start": 1.5, "end": output.result["duration_s"] }]));
}

/// No model of the recorded server made these: shapes as OpenAI documents them.
#[tokio::test]
async fn embeddings_and_images() {
    let body = json!({
        "object": "list",
        "model": "m",
        "data": [
            { "index": 1, "object": "embedding", "embedding": [0.25] },
            { "index": 0, "object": "embedding", "embedding": [0.5] },
        ],
        "usage": { "prompt_tokens": 2, "total_tokens": 2 },
    });
    let recorded = answer_with("51-chat.txt", body.to_string().as_bytes());
    let (output, _, asked) = good(recorded, call(Task::Embed, r#"["one","two"]"#)).await;
    assert_eq!(asked.json(), json!({ "input": ["one", "two"], "model": "m" }));
    assert_eq!(output.result["embeddings"], json!([[0.5], [0.25]]), "in the order of the texts");
    let body = json!({ "created": 1, "data": [{ "b64_json": "UE5H" }] });
    let recorded = answer_with("51-chat.txt", body.to_string().as_bytes());
    let wanted = with(call(Task::Image, "a cat"), &[("size", json!("64x64"))]);
    let (output, _, asked) = good(recorded, wanted).await;
    let sent: Value = asked.json();
    assert_eq!((&sent["prompt"], &sent["size"]), (&json!("a cat"), &json!("64x64")));
    assert_eq!(&output.media.expect("media").bytes[..], b"PNG");
}
