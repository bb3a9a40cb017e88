//! Limits of one tenant: calls at a time and in a time, jobs in a time.

use std::time::Duration;

use load_tests::localai_sim::settings::SimulatorSettings;
use reqwest::Response;
use serde_json::{Value, json};

use crate::cluster::{Cluster, fast, form, simulator, speech, wait_until};

/// What a refused caller is told: status, code, seconds to wait.
async fn told(answer: Response) -> anyhow::Result<(u16, String, u64)> {
    let wait = answer.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
    let status = answer.status().as_u16();
    let error: Value = answer.json().await?;
    Ok((status, error["error"]["code"].as_str().unwrap_or_default().to_owned(), wait.unwrap_or_default()))
}

#[actix_rt::test]
async fn a_tenant_has_so_many_calls_at_a_time_durable_ones_too() -> anyhow::Result<()> {
    let backend = simulator(SimulatorSettings::transcriber(Duration::from_secs(4)))?;
    let env =
        [("RELAY__TENANTS__CALLS_MAX", "1"), ("RELAY__TENANTS__OVERRIDES", "other;calls_max=9,default;calls_max=2")];
    let cluster = Cluster::start(&[&backend], &env).await?;
    let call = |durable: &str| {
        let sent = form(speech(), "whisper-1", &[]);
        let call = cluster.http.post(cluster.url("/v1/audio/transcriptions")).header("x-relay-durable", durable);
        call.multipart(sent).send()
    };
    let (direct, durable) = (actix_rt::spawn(call("false")), actix_rt::spawn(call("true")));
    wait_until(|| backend.counters().models["whisper-1"].in_flight == 2).await?;
    assert_eq!(told(call("false").await?).await?, (429, "too_many_requests".to_owned(), 1));
    assert_eq!(told(call("true").await?).await?, (429, "too_many_requests".to_owned(), 1));
    let (direct, durable) = (direct.await??, durable.await??);
    assert_eq!((direct.status().as_u16(), durable.status().as_u16()), (200, 200), "whoever was let in is served");
    direct.bytes().await?;
    assert_eq!(call("false").await?.status(), 200, "and makes room");
    cluster.stop().await;
    backend.stop().await;
    Ok(())
}

#[actix_rt::test]
async fn a_tenant_has_so_many_calls_and_jobs_in_a_time() -> anyhow::Result<()> {
    let backend = simulator(fast())?;
    let limits = "default;calls_per_s=0.1;calls_burst=2;jobs_per_s=0.05;jobs_burst=3";
    let cluster = Cluster::start(&[&backend], &[("RELAY__TENANTS__OVERRIDES", limits)]).await?;
    let chat = json!({ "model": "lab-chat", "messages": [{ "role": "user", "content": "Hello." }] });
    for _ in 0..2 {
        assert_eq!(cluster.post("/v1/chat/completions", &chat).await?.status(), 200);
    }
    let (status, code, wait) = told(cluster.post("/v1/chat/completions", &chat).await?).await?;
    assert_eq!((status, code.as_str()), (429, "too_many_requests"));
    assert!((1..=10).contains(&wait), "one in ten seconds: {wait}");
    let job = json!({ "task": "chat", "model": "lab-chat", "input": { "text": "Hello." } });
    for _ in 0..3 {
        assert_eq!(cluster.post("/v1/jobs", &job).await?.status(), 202);
    }
    let (status, code, wait) = told(cluster.post("/v1/jobs", &job).await?).await?;
    assert_eq!((status, code.as_str()), (429, "too_many_requests"));
    assert!((1..=20).contains(&wait), "one in twenty seconds: {wait}");
    let figures = cluster.http.get(cluster.url("/metrics")).send().await?.text().await?;
    for what in ["calls", "jobs"] {
        let line = format!("relay_tenant_refused_total{{what=\"{what}\",limit=\"rate\"}} 1");
        assert!(figures.contains(&line), "{line} is missing");
    }
    cluster.stop().await;
    backend.stop().await;
    Ok(())
}
