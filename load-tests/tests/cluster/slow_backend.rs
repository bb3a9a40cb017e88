//! A backend that holds every request until it is told to answer: a plain HTTP server with the answers of LocalAI that the
//! tests need (readiness, one model, one embedding).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Longest wait for a request.
const PATIENCE: Duration = Duration::from_secs(40);

pub(crate) struct SlowBackend {
    pub(crate) url: String,
    requests: Arc<AtomicUsize>,
    answers: Arc<AtomicBool>,
    failures: Arc<AtomicUsize>,
}

impl SlowBackend {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}", listener.local_addr()?);
        let (requests, answers) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let failures = Arc::new(AtomicUsize::new(0));
        let shared = (requests.clone(), answers.clone(), failures.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (requests, answers, failures) = shared.clone();
                std::thread::spawn(move || serve(stream, &requests, &answers, &failures));
            }
        });
        Ok(Self { url, requests, answers, failures })
    }

    /// Embeddings that were asked for.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    pub(crate) fn wait_for_requests(&self, count: usize) -> anyhow::Result<()> {
        let began = Instant::now();
        while self.requests.load(Ordering::SeqCst) < count {
            anyhow::ensure!(began.elapsed() < PATIENCE, "no request came");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Fails the next `count` embeddings.
    pub(crate) fn fail(&self, count: usize) {
        self.failures.store(count, Ordering::SeqCst);
    }

    pub(crate) fn answer(&self) {
        self.answers.store(true, Ordering::SeqCst);
    }
}

/// Serves one connection; a peer that is gone ends it.
fn serve(stream: TcpStream, requests: &AtomicUsize, answers: &AtomicBool, failures: &AtomicUsize) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut writer = stream;
    loop {
        let (mut first, mut length) = (String::new(), 0_usize);
        reader.read_line(&mut first).ok().filter(|read| *read > 0)?;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            if line.trim().is_empty() {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
        }
        reader.read_exact(&mut vec![0; length]).ok()?;
        let mut status = "200 OK";
        let body = if first.contains("/v1/models") {
            r#"{"object":"list","data":[{"id":"m","object":"model"}]}"#
        } else if first.contains("/v1/embeddings") {
            requests.fetch_add(1, Ordering::SeqCst);
            while !answers.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
            if failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                status = "500 Internal Server Error";
            }
            r#"{"model":"m","object":"list","data":[{"index":0,"embedding":[0.5,0.25]}],"usage":{"prompt_tokens":1,"total_tokens":1}}"#
        } else {
            "{}"
        };
        let head =
            format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
        writer.write_all(head.as_bytes()).ok()?;
        writer.write_all(body.as_bytes()).ok()?;
    }
}
