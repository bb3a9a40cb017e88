//! Backends that fail: calls are tried elsewhere until their answer has begun.

use std::time::Duration;

use load_tests::localai_sim::settings::{Kind, ModelSettings, SimulatorSettings};
use serde_json::{Value, json};

use crate::cluster::{Cluster, fast, form, simulator, speech, wait_until};

fn chat(model: &str, stream: bool) -> Value {
    json!({ "model": model, "stream": stream, "messages": [{ "role": "user", "content": "The cat sat. The dog barked." }] })
}

#[actix_rt::test]
async fn no_client_sees_that_a_model_s_worker_was_killed() -> anyhow::Result<()> {
    let transcriber = |work_ms| simulator(SimulatorSettings::transcriber(Duration::from_millis(work_ms)));
    // The faster one is preferred once both are known.
    let (victim, other) = (transcriber(20)?, transcriber(80)?);
    let cluster = Cluster::start(&[&victim, &other], &[]).await?;
    let call = async || {
        let sent = form(speech(), "whisper-1", &[]);
        cluster.http.post(cluster.url("/v1/audio/transcriptions")).multipart(sent).send().await
    };
    futures_util::future::try_join_all((0..4).map(|_| call())).await?;
    assert_eq!(call().await?.headers()["x-relay-backend"], victim.url.as_str());
    // Instant failures for half a minute, while it calls itself ready.
    assert!(victim.kill("whisper-1"));
    for _ in 0..20 {
        let answer = call().await?;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["x-relay-backend"], other.url.as_str());
    }
    let failed = victim.counters().models["whisper-1"].failed;
    assert!((1..=3).contains(&failed), "it was tried {failed} times, and after three failures it gets nothing");
    cluster.stop().await;
    victim.stop().await;
    other.stop().await;
    Ok(())
}

#[actix_rt::test]
async fn a_stream_that_begins_with_an_error_is_tried_elsewhere() -> anyhow::Result<()> {
    let limited = |admitted_max| SimulatorSettings {
        models: vec![ModelSettings {
            load: Duration::ZERO,
            base_s: 0.3,
            admitted_max,
            ..ModelSettings::new("lab-chat", Kind::Chat)
        }],
        ..SimulatorSettings::default()
    };
    // The first server lets one request in at a time and says so inside a stream; the relay takes it for free.
    let (one, other) = (simulator(limited(1))?, simulator(limited(0))?);
    let cluster = Cluster::start(&[&one, &other], &[]).await?;
    let body = chat("lab-chat", true);
    let calls = (0..6).map(|_| async {
        cluster.post("/v1/chat/completions", &body).await?.text().await.map_err(anyhow::Error::from)
    });
    for text in futures_util::future::try_join_all(calls).await? {
        assert!(text.contains("\"finish_reason\":\"stop\"") && !text.contains("error"), "{text}");
    }
    assert!(one.counters().models["lab-chat"].failed > 0, "it refused some");
    cluster.stop().await;
    one.stop().await;
    other.stop().await;
    Ok(())
}

#[actix_rt::test]
async fn a_stream_that_breaks_off_says_so_and_does_not_begin_anew() -> anyhow::Result<()> {
    let slow = || SimulatorSettings {
        models: vec![ModelSettings {
            load: Duration::ZERO,
            per_unit_s: 0.5,
            ..ModelSettings::new("lab-chat", Kind::Chat)
        }],
        ..SimulatorSettings::default()
    };
    let (one, other) = (simulator(slow())?, simulator(slow())?);
    let cluster = Cluster::start(&[&one, &other], &[]).await?;
    let mut answer = cluster.post("/v1/chat/completions", &chat("lab-chat", true)).await?;
    let victim = if answer.headers()["x-relay-backend"] == one.url.as_str() { &one } else { &other };
    let mut text = answer.chunk().await?.map(|first| first.to_vec()).unwrap_or_default();
    wait_until(|| victim.kill("lab-chat")).await?;
    while let Some(more) = answer.chunk().await? {
        text.extend_from_slice(&more);
    }
    let text = String::from_utf8(text)?;
    assert!(text.contains("\"error\"") && text.ends_with("data: [DONE]\n\n"), "{text}");
    assert_eq!(text.matches("\"role\":\"assistant\"").count().max(1), 1, "nothing is repeated: {text}");
    cluster.stop().await;
    one.stop().await;
    other.stop().await;
    Ok(())
}

#[actix_rt::test]
async fn a_backend_that_is_gone_costs_no_client_an_error() -> anyhow::Result<()> {
    let (one, other) = (simulator(fast())?, simulator(fast())?);
    let cluster = Cluster::start(&[&one, &other], &[]).await?;
    one.stop().await;
    for _ in 0..10 {
        let answer = cluster.post("/v1/chat/completions", &chat("lab-chat", false)).await?;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["x-relay-backend"], other.url.as_str());
    }
    cluster.stop().await;
    other.stop().await;
    Ok(())
}

#[actix_rt::test]
async fn a_call_waits_for_a_busy_backend_rather_than_ask_a_dead_one_again() -> anyhow::Result<()> {
    let work = || SimulatorSettings::transcriber(Duration::from_secs(2));
    let (one, two) = (simulator(work())?, simulator(work())?);
    let urls = vec![format!("{};slots=1", one.url), format!("{};slots=1", two.url)];
    let cluster = Cluster::of_urls(urls, &[]).await?;
    let call = async || {
        let sent = form(speech(), "whisper-1", &[]);
        cluster.http.post(cluster.url("/v1/audio/transcriptions")).multipart(sent).send().await
    };
    let served = call().await?.headers()["x-relay-backend"].to_str()?.to_owned();
    let victim = if served == one.url { &one } else { &two };
    assert!(victim.kill("whisper-1"));
    // All of them fail at the dead one in no time, and the other one does one after the other.
    let (first, second, third) = tokio::join!(call(), call(), call());
    for answer in [first?, second?, third?] {
        assert_eq!(answer.status(), 200);
        assert_ne!(answer.headers()["x-relay-backend"], victim.url.as_str());
    }
    cluster.stop().await;
    one.stop().await;
    two.stop().await;
    Ok(())
}
