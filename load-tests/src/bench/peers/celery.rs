//! Celery on Redis: a worker process that acknowledges late, and a submitter process of Celery's own client, which does a
//! job for each line that it reads.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use async_trait::async_trait;

use super::waiting::Waiting;
use super::{Server, installed};
use crate::bench::jobs::Queue;
use crate::broker::repository;

pub(super) struct Celery {
    lines: Mutex<ChildStdin>,
    waiting: Waiting,
    processes: [Child; 2],
    _server: Server,
}

impl Drop for Celery {
    fn drop(&mut self) {
        for process in &mut self.processes {
            drop(process.kill());
            drop(process.wait());
        }
    }
}

impl Celery {
    pub(super) fn start(folder: &Path, bytes: usize) -> anyhow::Result<Self> {
        let server = Server::redis(folder)?;
        let run = |program: &str| {
            let mut command = Command::new(installed(program));
            command
                .env("BENCH_REDIS", format!("redis://127.0.0.1:{}/0", server.port))
                .env("BENCH_BYTES", bytes.to_string())
                .current_dir(repository().join("load-tests/peers"));
            command
        };
        let worker = run("celery/bin/celery")
            .args(["-A", "celery_peer", "worker", "--concurrency", "2", "--pool", "prefork", "--loglevel", "ERROR"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("Celery does not start; scripts/bench-peers.sh installs it")?;
        let mut submitter = run("celery/bin/python")
            .arg("celery_peer.py")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("Celery's submitter does not start")?;
        let lines = submitter.stdin.take().context("no standard input")?;
        let output = BufReader::new(submitter.stdout.take().context("no standard output")?);
        let waiting = Waiting::default();
        let came = waiting.clone();
        std::thread::spawn(move || {
            for number in output.lines().map_while(Result::ok).filter_map(|line| line.parse().ok()) {
                came.came(number);
            }
        });
        Ok(Self { lines: Mutex::new(lines), waiting, processes: [worker, submitter], _server: server })
    }
}

#[async_trait]
impl Queue for Celery {
    async fn job(&self, number: u64) -> anyhow::Result<()> {
        let result = self.waiting.expect(number);
        writeln!(self.lines.lock().unwrap_or_else(PoisonError::into_inner), "{number}")?;
        result.wait().await
    }
}
