//! The relay in front of simulated LocalAI servers: each task from submit to result, failures that are tried elsewhere,
//! slots that are never exceeded.

use std::sync::Arc;
use std::time::Duration;

use client_cli::{Client, ClientSettings, JobInput, JobRequest};
use load_tests::localai_sim::settings::SimulatorSettings;
use load_tests::localai_sim::{Simulator, words_of};
use relay_protocol::JobId;
use serde_json::{Value, json};
use standalone::{Options, Standalone};
use tempfile::TempDir;

/// Longest wait for anything that should happen.
const PATIENCE: Duration = Duration::from_secs(30);

struct Cluster {
    relay: Standalone,
    client: Client,
    _folder: TempDir,
}

impl Cluster {
    /// A relay in front of these backends, once it knows their models.
    async fn start(backends: Vec<String>, env: &[(&str, &str)]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let relay = Standalone::start(Options { backends, env, ..Options::new(folder.path()) }).await?;
        let client = Client::connect(ClientSettings { servers: relay.url(), ..ClientSettings::default() }).await?;
        Ok(Self { relay, client, _folder: folder })
    }

    /// All events of a job.
    async fn run(&self, job: JobRequest) -> anyhow::Result<Vec<Value>> {
        self.run_and(job, async |_, _| Ok(())).await
    }

    /// All events of a job; once it has started, `then` gets its id and that event.
    async fn run_and(
        &self,
        job: JobRequest,
        then: impl AsyncFn(JobId, &Value) -> anyhow::Result<()>,
    ) -> anyhow::Result<Vec<Value>> {
        let mut handle = self.client.submit(job).await?;
        let mut events: Vec<Value> = Vec::new();
        while let Some(event) = tokio::time::timeout(PATIENCE, handle.next_event()).await?? {
            events.push(serde_json::from_slice(&event.json)?);
            if kinds(&events) == ["started"] {
                then(handle.job_id(), &events[0]).await?;
            }
        }
        Ok(events)
    }

    async fn stop(self) {
        self.client.close().await;
        self.relay.stop().await;
    }
}

fn fast() -> SimulatorSettings {
    SimulatorSettings { speed: 1_000.0, ..SimulatorSettings::default() }
}

fn simulator(settings: SimulatorSettings) -> anyhow::Result<Simulator> {
    relay_runtime::tls::install_provider();
    Simulator::start(settings)
}

fn speech() -> Vec<u8> {
    std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/audio/speech.wav")).expect("the fixture")
}

fn job(task: &str, model: &str, input: impl Into<Vec<u8>>) -> JobRequest {
    let input = JobInput::Bytes(input.into().into());
    JobRequest { model: Some(model.to_owned()), ..JobRequest::new(task, input) }
}

/// Looks again and again until `reached` says yes.
async fn wait_until(reached: impl Fn() -> bool) -> anyhow::Result<()> {
    let wait = async {
        while !reached() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    Ok(tokio::time::timeout(PATIENCE, wait).await?)
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["event"].as_str()).collect()
}

fn last(events: &[Value]) -> &Value {
    events.last().expect("an event")
}

#[actix_rt::test]
async fn every_task_that_runs_on_localai() -> anyhow::Result<()> {
    let backend = simulator(fast())?;
    let cluster = Cluster::start(vec![backend.url.clone()], &[]).await?;
    let events = cluster.run(job("transcribe", "whisper-1", speech())).await?;
    assert_eq!(events[0]["backend"], backend.url);
    let partials: String = events.iter().filter_map(|event| event["partial"]["delta"].as_str()).collect();
    assert_eq!(last(&events)["result"]["text"], partials, "{events:#?}");
    assert_eq!(last(&events)["result"]["segments"][0]["text"], words_of(&speech(), 0, 6), "the file came whole");
    let events = cluster.run(job("translate", "whisper-1", speech())).await?;
    assert_eq!(last(&events)["event"], "completed");
    let events = cluster.run(job("chat", "lab-chat", "The cat sat. The dog barked.")).await?;
    assert_eq!(last(&events)["result"]["text"], "Summary: The dog barked.");
    assert!(kinds(&events).contains(&"partial"));
    let events = cluster.run(job("speak", "tts-1", "on monday")).await?;
    let spoken = load_tests::localai_sim::audio::spoken("on monday", false);
    assert_eq!(last(&events)["result"]["media"]["bytes"], spoken.len());
    let events = cluster.run(job("vad", "vad", speech())).await?;
    assert_eq!(events[0]["backend"], backend.url, "a named model means LocalAI");
    assert!(last(&events)["result"]["segments"].as_array().is_some_and(|segments| !segments.is_empty()));
    let events = cluster.run(job("embed", "embed-1", "one text")).await?;
    assert_eq!(last(&events)["result"]["embeddings"][0].as_array().map(Vec::len), Some(64));
    let events = cluster.run(job("image", "image-1", "a cat")).await?;
    assert_eq!(last(&events)["result"]["media"]["media_type"], "image/png");
    cluster.stop().await;
    backend.stop().await;
    Ok(())
}

#[actix_rt::test]
async fn what_cannot_be_done_fails_at_once_and_says_why() -> anyhow::Result<()> {
    let backend = simulator(fast())?;
    let cluster = Cluster::start(vec![backend.url.clone()], &[]).await?;
    let events = cluster.run(job("transcribe", "whisper-1", "no sound at all")).await?;
    assert_eq!(kinds(&events), ["started", "failed"], "no second attempt: {events:#?}");
    assert_eq!(last(&events)["error"]["code"], "backend_rejected");
    assert_eq!(last(&events)["error"]["retryable"], false);
    let unknown = cluster.client.submit(job("transcribe", "nope", speech())).await.expect_err("no such model");
    assert!(unknown.to_string().starts_with("unknown_model: "), "{unknown}");
    cluster.stop().await;
    backend.stop().await;
    let alone = Cluster::start(Vec::new(), &[]).await?;
    let refused = alone.client.submit(job("transcribe", "whisper-1", speech())).await.expect_err("no backend");
    assert!(refused.to_string().contains("LocalAI backend"), "{refused}");
    alone.stop().await;
    Ok(())
}

#[actix_rt::test]
async fn a_model_that_does_not_load_uses_up_the_attempts() -> anyhow::Result<()> {
    let env = [("RELAY__RETRY__DELAY_MS", "1"), ("RELAY__RETRY__DELAY_MS_MAX", "2")];
    let mut settings = fast();
    settings.load_cooldown = Duration::from_millis(1);
    let broken = simulator(settings)?;
    let cluster = Cluster::start(vec![broken.url.clone()], &env).await?;
    let events = cluster.run(job("transcribe", "x-broken", speech())).await?;
    assert_eq!(last(&events)["event"], "dead_lettered", "{events:#?}");
    assert_eq!(last(&events)["error"]["code"], "attempts_exhausted");
    assert_eq!(kinds(&events).iter().filter(|kind| **kind == "started").count(), 3);
    cluster.stop().await;
    broken.stop().await;
    Ok(())
}

#[actix_rt::test]
async fn a_killed_worker_s_job_is_done_by_the_other_backend() -> anyhow::Result<()> {
    let (one, other) = (
        simulator(SimulatorSettings::transcriber(Duration::from_secs(2)))?,
        simulator(SimulatorSettings::transcriber(Duration::from_secs(2)))?,
    );
    let env = [("RELAY__RETRY__DELAY_MS", "1")];
    let cluster = Cluster::start(vec![one.url.clone(), other.url.clone()], &env).await?;
    let kill = async |_, started: &Value| {
        let victim = if started["backend"] == one.url { &one } else { &other };
        wait_until(|| victim.kill("whisper-1")).await
    };
    let events = cluster.run_and(job("transcribe", "whisper-1", speech()), kill).await?;
    assert_eq!(last(&events)["event"], "completed", "{events:#?}");
    let backends: Vec<&Value> =
        events.iter().filter(|event| event["event"] == "started").map(|event| &event["backend"]).collect();
    assert_eq!(backends.len(), 2);
    assert_ne!(backends[0], backends[1], "the second attempt goes elsewhere");
    assert!(events.windows(2).all(|pair| pair[0]["seq"].as_u64() < pair[1]["seq"].as_u64()));
    cluster.stop().await;
    one.stop().await;
    other.stop().await;
    Ok(())
}

#[actix_rt::test]
async fn no_backend_gets_more_requests_than_it_has_slots() -> anyhow::Result<()> {
    let (one, two) = (
        simulator(SimulatorSettings::transcriber(Duration::from_millis(20)))?,
        simulator(SimulatorSettings::transcriber(Duration::from_millis(20)))?,
    );
    let backends = vec![format!("{};slots=1", one.url), format!("{};slots=2", two.url)];
    let cluster = Arc::new(Cluster::start(backends, &[]).await?);
    let jobs = (0..40_u32).map(|number| {
        let cluster = cluster.clone();
        async move {
            let mut sound = speech();
            sound.extend_from_slice(&number.to_le_bytes());
            let expected = words_of(&sound, 0, 6);
            let events = cluster.run(job("transcribe", "whisper-1", sound)).await?;
            anyhow::ensure!(last(&events)["event"] == "completed", "{events:#?}");
            anyhow::ensure!(last(&events)["result"]["segments"][0]["text"] == json!(expected), "jobs were mixed up");
            Ok(())
        }
    });
    futures_util::future::try_join_all(jobs).await?;
    let (of_one, of_two) = (one.counters().models["whisper-1"].clone(), two.counters().models["whisper-1"].clone());
    assert_eq!(of_one.completed + of_two.completed, 40);
    assert_eq!(of_one.in_flight_max, 1, "one slot");
    assert_eq!(of_two.in_flight_max, 2, "two slots, both used");
    Arc::into_inner(cluster).expect("no other user").stop().await;
    one.stop().await;
    two.stop().await;
    Ok(())
}

#[actix_rt::test]
async fn a_cancelled_job_frees_its_backend() -> anyhow::Result<()> {
    let backend = simulator(SimulatorSettings::transcriber(Duration::from_secs(60)))?;
    let cluster = Cluster::start(vec![backend.url.clone()], &[]).await?;
    let cancel = async |job_id, _: &Value| Ok(cluster.client.cancel(job_id).await.map(drop)?);
    let events = cluster.run_and(job("transcribe", "whisper-1", speech()), cancel).await?;
    assert_eq!(kinds(&events), ["started", "cancelled"]);
    wait_until(|| backend.counters().models["whisper-1"].in_flight == 0).await?;
    assert_eq!(backend.counters().models["whisper-1"].cancelled, 1);
    cluster.stop().await;
    backend.stop().await;
    Ok(())
}
