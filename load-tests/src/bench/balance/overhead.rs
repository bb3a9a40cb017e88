//! What a balancer costs where there is no work: requests to one backend that answers at once.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::super::report::Row;
use super::backend::{Backend, MODEL};
use super::balancers::{Balancer, Kind};

/// Requests that the backend may have at a time, as far as balancers are told.
const SLOTS: usize = 1_024;
/// Connections that are busy while processor time is measured.
const BUSY: usize = 32;
/// For so long nothing is measured, and then for so long.
const WARM_UP: Duration = Duration::from_secs(2);
const MEASURED: Duration = Duration::from_secs(6);
/// Time for the first answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Largest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 65_536;

/// Measures `kind`: how long a request takes alone, and what one costs among many.
pub(super) async fn measure(kind: Kind) -> anyhow::Result<Row> {
    let folder = tempfile::tempdir()?;
    let backend = Backend::start(1.0)?;
    let balancer = Balancer::start(kind, folder.path(), std::slice::from_ref(&backend.url), SLOTS)?;
    let address = balancer.url().strip_prefix("http://").context("no address")?.to_owned();
    wait_until_it_serves(kind, &address).await?;
    drive(kind, &address, 1, WARM_UP).await?;
    let mut alone = drive(kind, &address, 1, MEASURED).await?;
    drive(kind, &address, BUSY, WARM_UP).await?;
    let before = balancer.cpu()?;
    let among_many = drive(kind, &address, BUSY, MEASURED).await?;
    let cpu = balancer.cpu()? - before;
    backend.kill().await;
    alone.sort_unstable();
    let percentile =
        |percent: usize| alone.get(alone.len() * percent / 100).map_or(f64::NAN, |took| took.as_secs_f64() * 1e6);
    let figures = vec![
        ("p50 us".to_owned(), percentile(50)),
        ("p99 us".to_owned(), percentile(99)),
        ("a second".to_owned(), among_many.len() as f64 / MEASURED.as_secs_f64()),
        ("cpu us".to_owned(), cpu.as_secs_f64() * 1e6 / among_many.len().max(1) as f64),
    ];
    eprintln!("no work, {kind:?}: done");
    Ok(Row { what: format!("no work, {kind:?}"), figures })
}

async fn wait_until_it_serves(kind: Kind, address: &str) -> anyhow::Result<()> {
    let began = Instant::now();
    while let Err(error) = drive(kind, address, 1, Duration::ZERO).await {
        ensure!(began.elapsed() < PATIENCE, "{kind:?} serves no request: {error}");
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// How long each request took of `connections` that send one after the other for `time`, one at least.
async fn drive(kind: Kind, address: &str, connections: usize, time: Duration) -> anyhow::Result<Vec<Duration>> {
    let until = Instant::now() + time;
    let mut all = JoinSet::new();
    for _ in 0..connections {
        let (request, address) = (request(kind, address), address.to_owned());
        all.spawn(async move {
            let mut connection = Connection::open(&address).await?;
            let mut took = Vec::new();
            loop {
                let began = Instant::now();
                if !connection.ask(&request).await? {
                    // Servers end connections after so many requests; a client opens another.
                    connection = Connection::open(&address).await?;
                    ensure!(connection.ask(&request).await?, "the connection ended");
                }
                took.push(began.elapsed());
                if Instant::now() >= until {
                    return anyhow::Ok(took);
                }
            }
        });
    }
    let mut took = Vec::new();
    while let Some(of_one) = all.join_next().await {
        took.extend(of_one??);
    }
    Ok(took)
}

fn request(kind: Kind, address: &str) -> Vec<u8> {
    let body = format!(r#"{{"model":"{MODEL}","input":"the same few words each time"}}"#);
    let durable = if kind.is_durable() { "x-relay-durable: true\r\n" } else { "" };
    let length = body.len();
    format!("POST /v1/embeddings HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n{durable}Content-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// One of a client's connections.
struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Connection {
    async fn open(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, answer: Vec::with_capacity(ANSWER_BYTES_MAX) })
    }

    /// Sends a request and reads its answer, of 200, to the end; `false` if the connection ended before.
    async fn ask(&mut self, request: &[u8]) -> anyhow::Result<bool> {
        self.answer.clear();
        if self.stream.write_all(request).await.is_err() {
            return Ok(false);
        }
        while !is_whole(&self.answer) {
            ensure!(self.answer.len() < ANSWER_BYTES_MAX, "the answer does not end");
            if !self.stream.read_buf(&mut self.answer).await.is_ok_and(|bytes| bytes > 0) {
                return Ok(false);
            }
        }
        let status = self.answer.get(9..12).unwrap_or_default();
        ensure!(status == b"200", "an answer of status {}", String::from_utf8_lossy(status));
        Ok(true)
    }
}

/// Whether all of an answer is there, by its `Content-Length` or its last chunk.
fn is_whole(answer: &[u8]) -> bool {
    let Some(head) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return false };
    let text = String::from_utf8_lossy(&answer[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    length.map_or_else(|| answer.ends_with(b"0\r\n\r\n"), |length| answer.len() >= head + 4 + length)
}
