//! A backend that holds every request until it is told to answer: a plain HTTP server with the answers of LocalAI that the
//! tests need (readiness, one model, one embedding).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// In the input of embeddings that are never answered, whatever the backend is told.
pub(crate) const NEVER: &str = "nobody survives this";
/// Longest wait for a request.
const PATIENCE: Duration = Duration::from_secs(40);

pub(crate) struct SlowBackend {
    pub(crate) url: String,
    requests: Arc<AtomicUsize>,
    answers: Arc<AtomicBool>,
    failures: Arc<AtomicUsize>,
    held: Arc<Held>,
}

/// Embeddings that are never answered, and others beside them.
#[derive(Default)]
struct Held {
    came: AtomicUsize,
    others: AtomicUsize,
}

impl SlowBackend {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}", listener.local_addr()?);
        let (requests, answers) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let failures = Arc::new(AtomicUsize::new(0));
        let held = Arc::new(Held::default());
        let shared = (requests.clone(), answers.clone(), failures.clone(), held.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (requests, answers, failures, held) = shared.clone();
                std::thread::spawn(move || serve(stream, &requests, &answers, &failures, &held));
            }
        });
        Ok(Self { url, requests, answers, failures, held })
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

    /// Waits until `count` embeddings came that are never answered; others that are being worked on then.
    pub(crate) fn wait_for_held(&self, count: usize) -> anyhow::Result<usize> {
        let began = Instant::now();
        while self.held.came.load(Ordering::SeqCst) < count {
            anyhow::ensure!(began.elapsed() < PATIENCE, "it did not come");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(self.held.others.load(Ordering::SeqCst))
    }

    /// Embeddings that came and are never answered.
    pub(crate) fn held(&self) -> usize {
        self.held.came.load(Ordering::SeqCst)
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
fn serve(
    stream: TcpStream,
    requests: &AtomicUsize,
    answers: &AtomicBool,
    failures: &AtomicUsize,
    held: &Held,
) -> Option<()> {
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
        let mut input = vec![0; length];
        reader.read_exact(&mut input).ok()?;
        let mut status = "200 OK";
        let body = if first.contains("/v1/models") {
            r#"{"object":"list","data":[{"id":"m","object":"model"}]}"#
        } else if first.contains("/v1/embeddings") {
            requests.fetch_add(1, Ordering::SeqCst);
            if String::from_utf8_lossy(&input).contains(NEVER) {
                held.came.fetch_add(1, Ordering::SeqCst);
                // Until its caller is gone.
                reader.read_exact(&mut [0]).ok()?;
                return None;
            }
            held.others.fetch_add(1, Ordering::SeqCst);
            while !answers.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
            if failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                status = "500 Internal Server Error";
            }
            held.others.fetch_sub(1, Ordering::SeqCst);
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
