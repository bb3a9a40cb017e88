//! A relay beside servers that answer their probes and are broken otherwise: over real sockets, from job to result.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use client_cli::{Client, ClientSettings, JobInput, JobRequest};
use load_tests::localai_sim::Simulator;
use load_tests::localai_sim::settings::SimulatorSettings;
use serde_json::{Value, json};
use standalone::{Options, Standalone};

const PATIENCE: Duration = Duration::from_secs(30);
const SSE: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

/// A server whose probes say that it has `models(n)` at the n-th, and whose work is `work`.
struct Liar {
    url: String,
    asked: Arc<AtomicU32>,
}

impl Liar {
    fn start(
        models: impl Fn(u32) -> &'static str + Send + Sync + 'static,
        work: impl Fn(&mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (asked, count) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let shared = Arc::new((models, work, asked.clone(), count));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, shared) = (stream.unwrap(), shared.clone());
                std::thread::spawn(move || {
                    let (models, work, asked, count) = &*shared;
                    let mut head = [0; 65_536];
                    let length = stream.read(&mut head).unwrap_or(0);
                    if head[..length].starts_with(b"GET /v1/models") {
                        let list = json!({ "data": [{ "id": models(count.fetch_add(1, Ordering::SeqCst)) }] });
                        return answer(&mut stream, &list.to_string());
                    }
                    if head[..length].starts_with(b"GET ") {
                        return answer(&mut stream, "");
                    }
                    asked.fetch_add(1, Ordering::SeqCst);
                    work(&mut stream)
                });
            }
        });
        Self { url, asked }
    }
}

fn answer(stream: &mut TcpStream, body: &str) -> std::io::Result<()> {
    let length = body.len();
    write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// What a transcription gets of a server that is well.
fn transcript(stream: &mut TcpStream) -> std::io::Result<()> {
    let done = "data: {\"type\":\"transcript.text.done\",\"text\":\"well\"}\n\n";
    // The whole request is read, or closing would reset the connection.
    stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    while stream.read(&mut [0; 65_536]).is_ok_and(|length| length > 0) {}
    write!(stream, "{SSE}{:x}\r\n{done}\r\n0\r\n\r\n", done.len())
}

struct Relay {
    relay: Standalone,
    client: Client,
    _folder: tempfile::TempDir,
}

impl Relay {
    /// A relay that knows that all these backends are healthy.
    async fn start(backends: Vec<String>, env: &[(&str, &str)]) -> Self {
        relay_runtime::tls::install_provider();
        let folder = tempfile::tempdir().unwrap();
        let quick = [("RELAY__BACKENDS__PROBE_INTERVAL_MS", "200"), ("RELAY__RETRY__DELAY_MS", "1")];
        let env = quick.iter().chain(env).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let options = Options { backends: backends.clone(), env, ..Options::new(folder.path()) };
        let relay = Standalone::start(options).await.unwrap();
        let client =
            Client::connect(ClientSettings { servers: relay.url(), ..ClientSettings::default() }).await.unwrap();
        let well = async {
            while relay.nodes[0].state.pool.models().is_empty()
                || relay.nodes[0].state.pool.usage().len() <= backends.len()
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, well).await.expect("healthy backends");
        Self { relay, client, _folder: folder }
    }

    /// The last event of a transcription; `number` makes it another than before.
    async fn transcribe(&self, number: u32) -> Value {
        let mut sound = speech();
        sound.extend_from_slice(&number.to_le_bytes());
        let request = JobRequest::new("transcribe", JobInput::Bytes(sound.into()));
        let request = JobRequest { model: Some("whisper-1".to_owned()), ..request };
        let mut job = self.client.submit(request).await.unwrap();
        let mut last = Value::Null;
        while let Some(event) = tokio::time::timeout(PATIENCE, job.next_event()).await.expect("in time").unwrap() {
            last = serde_json::from_slice(&event.json).unwrap();
        }
        last
    }

    /// A call of the OpenAI-compatible API: status, `Retry-After`, body.
    async fn call(&self, model: &str) -> (u16, Option<String>, Value) {
        let part = reqwest::multipart::Part::bytes(speech()).file_name("speech.wav");
        let form = reqwest::multipart::Form::new().part("file", part).text("model", model.to_owned());
        let url = format!("{}/v1/audio/transcriptions", self.relay.url());
        let answer = reqwest::Client::new().post(url).multipart(form).send().await.unwrap();
        let retry_after = answer.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
        (answer.status().as_u16(), retry_after, answer.json().await.unwrap())
    }

    async fn stop(self) {
        self.client.close().await;
        self.relay.stop().await;
    }
}

fn speech() -> Vec<u8> {
    std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/audio/speech.wav")).unwrap()
}

#[actix_rt::test]
async fn jobs_beside_a_broken_server_are_done_by_another() {
    type Work = fn(&mut TcpStream) -> std::io::Result<()>;
    let broken: [(&str, Work); 5] = [
        ("nonsense", |stream| stream.write_all(b"\x16\x03\x01\x00\xff nonsense\r\n")),
        ("endless headers", |stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
            while stream.write_all(b"X-More: and more\r\n").is_ok() {}
            Ok(())
        }),
        ("a chunk that is cut", |stream| write!(stream, "{SSE}100\r\ndata: {{\"type\"")),
        ("another content type", |stream| answer(stream, "<html>")),
        ("a byte now and then", |stream| {
            write!(stream, "{SSE}")?;
            while stream.write_all(b"1\r\nx\r\n").is_ok() {
                std::thread::sleep(Duration::from_millis(100));
            }
            Ok(())
        }),
    ];
    for (what, work) in broken {
        let liar = Liar::start(|_| "whisper-1", work);
        let good = Simulator::start(SimulatorSettings::transcriber(Duration::from_millis(300))).unwrap();
        let env = [("RELAY__LOCALAI__SILENCE_TIMEOUT_MS", "1000")];
        let relay = Relay::start(vec![liar.url.clone(), format!("{};slots=4", good.url)], &env).await;
        let jobs = (0..4).map(|number| relay.transcribe(number));
        for last in futures_util::future::join_all(jobs).await {
            assert_eq!(last["event"], "completed", "{what}: {last:#}");
        }
        assert!(liar.asked.load(Ordering::SeqCst) > 0, "{what}: nothing was tried there");
        relay.stop().await;
        good.stop().await;
    }
}

#[actix_rt::test]
async fn a_job_does_not_spend_its_attempts_at_a_server_that_fails_at_once_while_a_good_one_is_busy() {
    const FAILED: &str = r#"{"error":{"code":500,"message":"rpc error: broken","type":""}}"#;
    let fails = |stream: &mut TcpStream| {
        write!(stream, "HTTP/1.1 500 No\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{FAILED}", FAILED.len())
    };
    let liar = Liar::start(|_| "whisper-1", fails);
    let good = Simulator::start(SimulatorSettings::transcriber(Duration::from_secs(2))).unwrap();
    // It is never ejected: what keeps jobs away from it is that it failed them.
    let env = [("RELAY__BREAKER__FAILURES", "1000")];
    let relay = Relay::start(vec![liar.url.clone(), format!("{};slots=1", good.url)], &env).await;
    for last in futures_util::future::join_all((0..4).map(|number| relay.transcribe(number))).await {
        assert_eq!(last["event"], "completed", "{last:#}");
    }
    let asked = liar.asked.load(Ordering::SeqCst);
    assert!((1..=4).contains(&asked), "{asked} attempts there, one of each job at most");
    relay.stop().await;
    good.stop().await;
}

#[actix_rt::test]
async fn jobs_wait_where_a_list_of_models_changes_with_every_probe() {
    let liar = Liar::start(|probe| if probe.is_multiple_of(3) { "other" } else { "whisper-1" }, transcript);
    let relay = Relay::start(vec![liar.url.clone()], &[]).await;
    let seen = async {
        while !relay.relay.nodes[0].state.pool.models().iter().any(|model| model == "whisper-1") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.expect("the model is listed now and then");
    for number in 0..6 {
        let last = relay.transcribe(number).await;
        assert_eq!((&last["event"], &last["result"]["text"]), (&"completed".into(), &"well".into()), "{last:#}");
    }
    relay.stop().await;
}

#[actix_rt::test]
async fn a_model_of_nobody_is_404_and_one_of_ejected_backends_503() {
    let liar = Liar::start(|_| "whisper-1", |stream| stream.write_all(b"nonsense\r\n"));
    let env = [("RELAY__BREAKER__EJECTION_MS", "30000")];
    let relay = Relay::start(vec![liar.url.clone()], &env).await;
    let (status, _, body) = relay.call("nope").await;
    assert_eq!((status, &body["error"]["code"]), (404, &"unknown_model".into()), "{body}");
    assert!(body["error"]["message"].as_str().unwrap().contains("there are: whisper-1"), "{body}");
    let (status, ..) = relay.call("whisper-1").await;
    assert_eq!(status, 502, "its attempts fail, which ejects it");
    let (status, retry_after, body) = relay.call("whisper-1").await;
    assert_eq!((status, &body["error"]["code"]), (503, &"backend_busy".into()), "{body}");
    let seconds: u64 = retry_after.expect("Retry-After").parse().unwrap();
    assert!((10..=31).contains(&seconds), "when it is back: {seconds}");
    relay.stop().await;
}
