//! Other durable queues, driven as the relay is: a job is stored before its submitter goes on, its result before the job is
//! acknowledged, and the submitter learns of the result through the same store. Everything is synced to disk.

mod celery;
mod jetstream;
mod redis_streams;
mod waiting;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::ValueEnum;

use super::jobs::Queue;
use crate::broker::repository;

/// Time in which a server must accept connections.
const START_PATIENCE: Duration = Duration::from_secs(20);

/// Which queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    /// Redis streams, `appendfsync always`.
    Redis,
    /// NATS JetStream, `sync_interval: always`.
    Jetstream,
    /// Celery on Redis with `appendfsync always`, acknowledged late.
    Celery,
}

impl Kind {
    /// Name of its folder.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Jetstream => "jetstream",
            Self::Celery => "celery",
        }
    }

    /// Its line in the table.
    pub(super) fn what(self) -> &'static str {
        match self {
            Self::Redis => "Redis streams, fsync always",
            Self::Jetstream => "NATS JetStream, sync always",
            Self::Celery => "Celery + Redis, acks late, fsync",
        }
    }
}

/// Starts a queue with its data in `folder`, and a worker that answers at once; jobs have `bytes` of input.
///
/// # Errors
/// Its server is not installed or does not start.
pub(super) async fn start(kind: Kind, folder: &Path, bytes: usize) -> anyhow::Result<Arc<dyn Queue>> {
    std::fs::create_dir_all(folder)?;
    Ok(match kind {
        Kind::Redis => Arc::new(redis_streams::RedisStreams::start(folder, bytes).await?),
        Kind::Jetstream => Arc::new(jetstream::JetStream::start(folder, bytes).await?),
        Kind::Celery => Arc::new(celery::Celery::start(folder, bytes)?),
    })
}

/// A server of this bench's own, killed when dropped.
struct Server {
    child: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Server {
    /// Starts `command`, which must listen on `port` of 127.0.0.1.
    fn start(command: &mut Command, port: u16) -> anyhow::Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.with_context(|| format!("{name} does not start; scripts/bench-peers.sh installs it"))?;
        let server = Self { child, port };
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if began.elapsed() > START_PATIENCE {
                bail!("{name} does not listen on 127.0.0.1:{port}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    fn redis(folder: &Path) -> anyhow::Result<Self> {
        let port = free_port()?;
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]);
        command.args(["--appendfsync", "always", "--dir"]).arg(folder);
        Self::start(&mut command, port)
    }
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// What scripts/bench-peers.sh installed.
fn installed(path: &str) -> PathBuf {
    let cache = std::env::var_os("RELAY_CACHE").map_or_else(|| repository().join(".cache"), PathBuf::from);
    cache.join("bench-peers").join(path)
}
