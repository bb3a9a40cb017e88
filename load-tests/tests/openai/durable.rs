//! Calls over the log: the same answers, the same refusals in words, and one job for one key.

use load_tests::localai_sim::settings::SimulatorSettings;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

use crate::cluster::{Cluster, fast, form, simulator, speech, wait_until};

const DURABLE: &str = "x-relay-durable";
const KEY: &str = "Idempotency-Key";
const JOB: &str = "x-relay-job-id";

impl Cluster {
    fn durable(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.post(self.url(path)).header(DURABLE, "true")
    }
}

/// What two answers to the same request have in common.
fn without_ids(mut answer: Value) -> Value {
    for name in ["id", "created"] {
        answer.as_object_mut().and_then(|fields| fields.remove(name));
    }
    // A stream of a transcript, which jobs read, says nothing of tokens.
    for segment in answer["segments"].as_array_mut().into_iter().flatten() {
        segment.as_object_mut().and_then(|fields| fields.remove("tokens"));
    }
    answer
}

#[actix_rt::test]
async fn json_calls_are_answered_as_the_backend_answers_them() -> anyhow::Result<()> {
    let backend = simulator(fast())?;
    let cluster = Cluster::start(&[&backend], &[]).await?;
    // A second of sound, then one of silence: an answer that says where it ends.
    let heard = |at: u32| if at < 16_000 { (f64::from(at) * 0.3).sin() * 0.5 } else { 0.0 };
    let spoken: Vec<f64> = (0..32_000).map(heard).collect();
    let long = "The cat sat. ".repeat(30_000);
    let said = |text: &str| json!([{ "role": "user", "content": text }]);
    let calls = [
        ("/v1/chat/completions", json!({ "model": "lab-chat", "messages": said("The cat sat. The dog barked.") })),
        // Too large for a record: it goes through the object store.
        ("/v1/chat/completions", json!({ "model": "lab-chat", "messages": said(&long) })),
        ("/v1/embeddings", json!({ "model": "embed-1", "input": ["one text", "another"] })),
        // A result that is too large for an event.
        ("/v1/embeddings", json!({ "model": "embed-1", "input": vec!["text"; 700] })),
        ("/v1/images/generations", json!({ "model": "image-1", "prompt": "a cat", "response_format": "b64_json" })),
        ("/vad", json!({ "model": "vad", "audio": spoken })),
    ];
    for (path, body) in calls {
        let direct: Value =
            cluster.http.post(format!("{}{path}", backend.url)).json(&body).send().await?.json().await?;
        let answer = cluster.durable(path).json(&body).send().await?;
        let (status, job) = (answer.status(), answer.headers().get(JOB).cloned());
        let text = answer.text().await?;
        assert_eq!(status, 200, "{path}: {text}");
        assert_eq!(without_ids(serde_json::from_str(&text)?), without_ids(direct), "{path}");
        let job = job.expect("the job's id");
        let shown = cluster.http.get(cluster.url(&format!("/v1/jobs/{}", job.to_str()?))).send().await?;
        assert_eq!(shown.json::<Value>().await?["state"], "completed", "it is a job as any other");
    }
    cluster.stop().await;
    backend.stop().await;
    Ok(())
}

#[actix_rt::test]
async fn media_passes_both_ways_through_the_store() -> anyhow::Result<()> {
    let backend = simulator(fast())?;
    let cluster = Cluster::start(&[&backend], &[("RELAY__INPUTS__INLINE_BYTES_MAX", "1000")]).await?;
    let asked = json!({ "model": "tts-1", "input": "on monday" });
    let spoken = cluster.durable("/v1/audio/speech").json(&asked).send().await?;
    assert_eq!(spoken.headers()[CONTENT_TYPE], "audio/wav");
    assert_eq!(spoken.headers()["x-relay-backend"], backend.url.as_str());
    assert_eq!(spoken.bytes().await?, load_tests::localai_sim::audio::spoken("on monday", false));
    let brief = [("response_format", "json")];
    let words = [("response_format", "verbose_json"), ("timestamp_granularities[]", "word")];
    for fields in [&[][..], &brief, &words] {
        let path = "/v1/audio/transcriptions";
        let sent = || form(speech(), "whisper-1", fields);
        let direct = cluster.http.post(format!("{}{path}", backend.url)).multipart(sent()).send().await?;
        let answer = cluster.durable(path).multipart(sent()).send().await?;
        assert_eq!(answer.status(), 200, "{fields:?}");
        assert_eq!(without_ids(answer.json().await?), without_ids(direct.json().await?), "{fields:?}");
    }
    cluster.stop().await;
    backend.stop().await;
    Ok(())
}

#[actix_rt::test]
async fn what_a_job_cannot_carry_is_refused_and_leaves_nothing() -> anyhow::Result<()> {
    let backend = simulator(fast())?;
    let cluster = Cluster::start(&[&backend], &[]).await?;
    let messages = json!([{ "role": "user", "content": "hello" }]);
    let chat = "/v1/chat/completions";
    let cases = [
        (json!({ "model": "lab-chat", "messages": messages, "stream": true }), 400, "invalid_field", "stream"),
        (json!({ "model": "lab-chat", "messages": messages, "tools": [] }), 400, "invalid_field", "tools"),
        (
            json!({ "model": "lab-chat", "messages": messages, "temperature": 9 }),
            400,
            "invalid_parameter",
            "temperature",
        ),
        (json!({ "model": "nope", "messages": messages }), 404, "unknown_model", "nope"),
    ];
    for (body, status, code, named) in cases {
        let answer = cluster.durable(chat).json(&body).send().await?;
        assert_eq!(answer.status(), status, "{code}");
        let error: Value = answer.json().await?;
        assert_eq!(error["error"]["code"], code, "{error}");
        assert!(error["error"]["message"].as_str().is_some_and(|text| text.contains(named)), "{error}");
    }
    let unclear = cluster.http.post(cluster.url(chat)).header(DURABLE, "yes").json(&json!({ "model": "lab-chat" }));
    assert_eq!(unclear.send().await?.status(), 400, "it is not silently ignored");
    let path = "/v1/audio/transcriptions";
    let stream = cluster.durable(path).multipart(form(speech(), "whisper-1", &[("stream", "true")])).send().await?;
    assert_eq!(stream.status(), 400);
    // The backend refuses the sound: for ever, and in the relay's shape.
    let noise = cluster.durable(path).multipart(form(b"no sound at all".to_vec(), "whisper-1", &[])).send().await?;
    assert_eq!((noise.status().as_u16(), noise.headers().contains_key(JOB)), (422, true));
    assert_eq!(noise.json::<Value>().await?["error"]["code"], "backend_rejected");
    cluster.stop().await;
    backend.stop().await;
    Ok(())
}

#[actix_rt::test]
async fn a_client_that_goes_away_finds_its_answer_by_its_key() -> anyhow::Result<()> {
    let backend = simulator(SimulatorSettings::transcriber(std::time::Duration::from_secs(1)))?;
    let cluster = Cluster::start(&[&backend], &[]).await?;
    let counters = || backend.counters().models["whisper-1"].clone();
    let call = |key: &str, fields: &[(&'static str, &str)]| {
        let sent = form(speech(), "whisper-1", fields);
        cluster.durable("/v1/audio/transcriptions").header(KEY, key).multipart(sent)
    };
    let gone = actix_rt::spawn(call("talk-1", &[]).send());
    wait_until(|| counters().in_flight == 1).await?;
    gone.abort();
    let (one, other) = tokio::join!(call("talk-1", &[]).send(), call("talk-1", &[]).send());
    let (one, other) = (one?, other?);
    assert_eq!((one.status(), other.status()), (reqwest::StatusCode::OK, reqwest::StatusCode::OK));
    assert_eq!(one.headers()[JOB], other.headers()[JOB], "the job that did the work");
    assert_eq!(one.bytes().await?, other.bytes().await?);
    assert_eq!((counters().requests, counters().cancelled), (1, 0), "it was done once, and not broken off");
    let reused = call("talk-1", &[("language", "de")]).send().await?;
    assert_eq!(reused.status(), 409);
    assert_eq!(reused.json::<Value>().await?["error"]["code"], "idempotency_key_reused");
    cluster.stop().await;
    backend.stop().await;
    Ok(())
}

#[actix_rt::test]
async fn a_connection_waits_so_long_and_no_longer() -> anyhow::Result<()> {
    let backend = simulator(SimulatorSettings::transcriber(std::time::Duration::from_secs(2)))?;
    let cluster = Cluster::start(&[&backend], &[("RELAY__OPENAI__DURABLE_TIMEOUT_MS", "300")]).await?;
    let call = || {
        let sent = form(speech(), "whisper-1", &[]);
        cluster.durable("/v1/audio/transcriptions").header(KEY, "talk-2").multipart(sent).send()
    };
    let first = call().await?;
    assert_eq!((first.status().as_u16(), first.headers().contains_key("retry-after")), (504, true));
    let job = first.headers()[JOB].clone();
    assert_eq!(first.json::<Value>().await?["error"]["code"], "still_running");
    let answer = loop {
        let again = call().await?;
        if again.status() == 200 {
            break again;
        }
    };
    assert_eq!((&answer.headers()[JOB], backend.counters().models["whisper-1"].requests), (&job, 1));
    cluster.stop().await;
    backend.stop().await;
    Ok(())
}

#[actix_rt::test]
async fn only_so_many_connections_wait() -> anyhow::Result<()> {
    let backend = simulator(SimulatorSettings::transcriber(std::time::Duration::from_secs(4)))?;
    let cluster = Cluster::start(&[&backend], &[("RELAY__OPENAI__DURABLE_MAX", "1")]).await?;
    let call = || {
        let sent = form(speech(), "whisper-1", &[]);
        cluster.durable("/v1/audio/transcriptions").header(KEY, "talk-3").multipart(sent).send()
    };
    let first = actix_rt::spawn(call());
    wait_until(|| backend.counters().models["whisper-1"].in_flight == 1).await?;
    let second = call().await?;
    assert_eq!((second.status().as_u16(), second.headers().contains_key("retry-after")), (429, true));
    assert_eq!(first.await??.status(), 200, "whoever waits goes on");
    cluster.stop().await;
    backend.stop().await;
    Ok(())
}
