//! Bodies and answers pass as they are.

use load_tests::localai_sim::settings::SimulatorSettings;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

use crate::cluster::{Cluster, fast, form, simulator, speech, wait_until};

/// What differs between two answers to the same request: ids and times.
fn without_ids(mut answer: Value) -> Value {
    if let Value::Object(fields) = &mut answer {
        for name in ["id", "created"] {
            fields.remove(name);
        }
    }
    answer
}

#[actix_rt::test]
async fn json_calls_get_what_the_backend_says() -> anyhow::Result<()> {
    let backend = simulator(fast())?;
    let cluster = Cluster::start(&[&backend], &[]).await?;
    let calls = [
        (
            "/v1/chat/completions",
            json!({ "model": "lab-chat", "messages": [{ "role": "user", "content": "The cat sat. The dog barked." }] }),
        ),
        ("/v1/embeddings", json!({ "model": "embed-1", "input": ["one text", "another"] })),
        ("/v1/images/generations", json!({ "model": "image-1", "prompt": "a cat", "response_format": "b64_json" })),
        ("/vad", json!({ "model": "vad", "audio": vec![0.25; 16_000] })),
    ];
    for (path, body) in calls {
        let direct: Value =
            cluster.http.post(format!("{}{path}", backend.url)).json(&body).send().await?.json().await?;
        let answer = cluster.post(path, &body).await?;
        assert_eq!(answer.status(), 200, "{path}");
        assert_eq!(answer.headers()["x-relay-backend"], backend.url.as_str());
        assert!(answer.headers().contains_key("x-relay-job-id") && answer.headers().contains_key("traceparent"));
        assert_eq!(without_ids(answer.json().await?), without_ids(direct), "{path}");
    }
    cluster.stop().await;
    backend.stop().await;
    Ok(())
}

#[actix_rt::test]
async fn media_passes_both_ways() -> anyhow::Result<()> {
    let backend = simulator(fast())?;
    // Every body that is not tiny goes through a file.
    let cluster = Cluster::start(&[&backend], &[("RELAY__OPENAI__MEMORY_BYTES_MAX", "1000")]).await?;
    let asked = json!({ "model": "tts-1", "input": "on monday" });
    let spoken = cluster.post("/v1/audio/speech", &asked).await?;
    assert_eq!(spoken.headers()[CONTENT_TYPE], "audio/wav");
    assert_eq!(spoken.bytes().await?, load_tests::localai_sim::audio::spoken("on monday", false));
    for fields in [&[][..], &[("response_format", "verbose_json")]] {
        let path = "/v1/audio/transcriptions";
        let send = async |url: String| {
            cluster.http.post(url).multipart(form(speech(), "whisper-1", fields)).send().await?.bytes().await
        };
        let direct = send(format!("{}{path}", backend.url)).await?;
        assert_eq!(send(cluster.url(path)).await?, direct);
        assert!(direct.len() > 20, "{direct:?}");
    }
    cluster.stop().await;
    backend.stop().await;
    Ok(())
}

#[actix_rt::test]
async fn streams_pass_message_by_message() -> anyhow::Result<()> {
    let backend = simulator(fast())?;
    let cluster = Cluster::start(&[&backend], &[]).await?;
    let body = json!({ "model": "lab-chat", "stream": true, "messages": [{ "role": "user", "content": "The cat sat. The dog barked." }] });
    let answer = cluster.post("/v1/chat/completions", &body).await?;
    assert_eq!(answer.headers()[CONTENT_TYPE], "text/event-stream");
    let text = answer.text().await?;
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    let pieces: String = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok())
        .filter_map(|message| message.pointer("/choices/0/delta/content")?.as_str().map(str::to_owned))
        .collect();
    assert_eq!(pieces, "Summary: The dog barked.");
    let sent = form(speech(), "whisper-1", &[("stream", "true")]);
    let transcript =
        cluster.http.post(cluster.url("/v1/audio/transcriptions")).multipart(sent).send().await?.text().await?;
    assert!(transcript.contains("transcript.text.done"), "{transcript}");
    cluster.stop().await;
    backend.stop().await;
    Ok(())
}

#[actix_rt::test]
async fn the_models_are_those_of_all_backends() -> anyhow::Result<()> {
    let (one, two) = (simulator(fast())?, simulator(SimulatorSettings::transcriber(std::time::Duration::ZERO))?);
    let cluster = Cluster::start(&[&one, &two], &[]).await?;
    let ids = cluster.models().await?;
    assert_eq!(ids.iter().filter(|id| *id == "whisper-1").count(), 1, "{ids:?}");
    assert!(ids.iter().any(|id| id == "lab-chat") && ids.is_sorted());
    let shown: Value = cluster.http.get(cluster.url("/v1/models/lab-chat")).send().await?.json().await?;
    assert_eq!(shown["id"], "lab-chat");
    assert_eq!(cluster.http.get(cluster.url("/v1/models/nope")).send().await?.status(), 404);
    cluster.stop().await;
    one.stop().await;
    two.stop().await;
    Ok(())
}

#[actix_rt::test]
async fn a_client_that_goes_away_ends_its_request_at_the_backend() -> anyhow::Result<()> {
    let backend = simulator(SimulatorSettings::transcriber(std::time::Duration::from_secs(60)))?;
    let cluster = Cluster::start(&[&backend], &[]).await?;
    let sent = cluster.http.post(cluster.url("/v1/audio/transcriptions")).multipart(form(speech(), "whisper-1", &[]));
    let call = actix_rt::spawn(sent.send());
    let counters = || backend.counters().models["whisper-1"].clone();
    wait_until(|| counters().in_flight == 1).await?;
    call.abort();
    wait_until(|| counters().in_flight == 0).await?;
    assert_eq!(counters().cancelled, 1);
    cluster.stop().await;
    backend.stop().await;
    Ok(())
}
