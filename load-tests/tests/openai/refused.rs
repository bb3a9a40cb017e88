//! Calls that get an error: the backend's own words, or the relay's in the same shape.

use std::time::Duration;

use load_tests::localai_sim::settings::SimulatorSettings;
use serde_json::Value;

use crate::cluster::{Cluster, fast, form, simulator, speech, wait_until};

#[actix_rt::test]
async fn what_the_relay_refuses_has_the_shape_that_clients_read() -> anyhow::Result<()> {
    let backend = simulator(fast())?;
    let env = [("RELAY__OPENAI__BODY_BYTES_MAX", "20000")];
    let cluster = Cluster::start(&[&backend], &env).await?;
    let chat = "/v1/chat/completions";
    let cases = [
        (chat, "{\"model\":\"nope\"}".to_owned(), 404, "unknown_model"),
        (chat, "no JSON".to_owned(), 400, "bad_request"),
        (chat, "{\"model\":7}".to_owned(), 400, "bad_request"),
        (chat, format!("{{\"model\":\"lab-chat\",\"x\":\"{}\"}}", "x".repeat(20_000)), 413, "too_large"),
        ("/vad", "{\"audio\":[]}".to_owned(), 400, "invalid_field"),
    ];
    for (path, body, status, code) in cases {
        let sent = cluster.http.post(cluster.url(path)).header("content-type", "application/json").body(body);
        let answer = sent.send().await?;
        assert_eq!(answer.status(), status, "{code}");
        let error: Value = answer.json().await?;
        assert_eq!(error["error"]["code"], code, "{error}");
        assert!(error["error"]["message"].as_str().is_some_and(|text| !text.is_empty()));
        assert!(error["error"]["type"].is_string() && error["error"]["param"].is_null());
    }
    let broken = cluster.http.post(cluster.url("/v1/audio/transcriptions"));
    let broken = broken.header("content-type", "multipart/form-data; boundary=x").body("no form").send().await?;
    assert_eq!(broken.status(), 400);
    assert_eq!(cluster.http.get(cluster.url(chat)).send().await?.status(), 405);
    cluster.stop().await;
    backend.stop().await;
    Ok(())
}

#[actix_rt::test]
async fn a_backend_s_own_refusal_passes_as_it_is_and_is_not_repeated() -> anyhow::Result<()> {
    let backend = simulator(fast())?;
    let cluster = Cluster::start(&[&backend], &[]).await?;
    let send = async |base: &str| {
        let sent = form(b"no sound at all".to_vec(), "whisper-1", &[]);
        cluster.http.post(format!("{base}/v1/audio/transcriptions")).multipart(sent).send().await
    };
    let direct = send(&backend.url).await?;
    let answer = send(&cluster.relay.url()).await?;
    assert_eq!(answer.status(), direct.status());
    assert_eq!(answer.bytes().await?, direct.bytes().await?);
    assert_eq!(backend.counters().models["whisper-1"].requests, 2, "one of each");
    cluster.stop().await;
    backend.stop().await;
    Ok(())
}

#[actix_rt::test]
async fn when_all_are_busy_a_call_waits_and_then_says_when_to_come_again() -> anyhow::Result<()> {
    let backend = simulator(SimulatorSettings::transcriber(Duration::from_secs(5)))?;
    let env = [("RELAY__OPENAI__WAIT_TIMEOUT_MS", "300"), ("RELAY__OPENAI__WAITING_MAX", "2")];
    let cluster = Cluster::of_urls(vec![format!("{};slots=1", backend.url)], &env).await?;
    let call = || {
        let sent = form(speech(), "whisper-1", &[]);
        cluster.http.post(cluster.url("/v1/audio/transcriptions")).multipart(sent).send()
    };
    let first = actix_rt::spawn(call());
    wait_until(|| backend.counters().models["whisper-1"].in_flight == 1).await?;
    let (second, third) = tokio::join!(call(), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        call().await
    });
    let (second, third) = (second?, third?);
    assert_eq!((second.status().as_u16(), third.status().as_u16()), (503, 429));
    for answer in [second, third] {
        assert!(answer.headers().contains_key("retry-after"));
    }
    assert_eq!(first.await??.status(), 200, "whoever had the slot keeps it");
    cluster.stop().await;
    backend.stop().await;
    Ok(())
}
