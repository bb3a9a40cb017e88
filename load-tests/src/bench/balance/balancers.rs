//! Balancers side by side: the relay with nothing set by hand, HAProxy and nginx as their experts set them.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::ValueEnum;

use super::super::process::{Started, binary, start};
use super::trace::SLOTS;

/// Time in which one must accept connections.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    /// The relay's OpenAI-compatible API, standalone.
    Relay,
    /// HAProxy: `balance first`, `maxconn` as many as the backend's slots, the fastest first.
    Haproxy,
    /// nginx: `least_conn`.
    Nginx,
}

/// One that runs; it ends when dropped.
pub(super) enum Balancer {
    Relay(Started),
    Other(Other),
}

/// Another project's balancer.
pub(super) struct Other {
    child: Child,
    url: String,
}

impl Drop for Other {
    fn drop(&mut self) {
        // One that ended by itself is gone already.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

impl Balancer {
    /// Starts one before these backends, the fastest first.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub(super) fn start(kind: Kind, folder: &Path, backends: &[String]) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        if kind == Kind::Relay {
            return relay(folder, backends).map(Self::Relay);
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let addresses: Vec<&str> = backends.iter().filter_map(|url| url.strip_prefix("http://")).collect();
        let child =
            if kind == Kind::Haproxy { haproxy(folder, port, &addresses)? } else { nginx(folder, port, &addresses)? };
        let other = Other { child, url: format!("http://127.0.0.1:{port}") };
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            ensure!(began.elapsed() < START_PATIENCE, "{kind:?} does not accept connections");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self::Other(other))
    }

    pub(super) fn url(&self) -> &str {
        match self {
            Self::Relay(relay) => &relay.url,
            Self::Other(other) => &other.url,
        }
    }

    /// Processor time that it has taken, with its children.
    ///
    /// # Errors
    /// It is gone.
    pub(super) fn cpu(&self) -> anyhow::Result<Duration> {
        let id = match self {
            Self::Relay(relay) => relay.id(),
            Self::Other(other) => other.child.id(),
        };
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        let ids = children.split_whitespace().filter_map(|child| child.parse().ok()).chain([id]);
        ids.map(cpu_of).sum()
    }
}

fn cpu_of(id: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    let after_name = stat.rsplit_once(')').context("no stat")?.1;
    let ticks = after_name.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    let ticks: u64 = ticks.sum::<Result<u64, _>>()?;
    // A tick is a hundredth of a second on Linux.
    Ok(Duration::from_millis(ticks * 10))
}

fn relay(folder: &Path, backends: &[String]) -> anyhow::Result<Started> {
    let mut command = binary("standalone")?;
    command.arg("--data-dir").arg(folder.join("data")).args(["--listen", "127.0.0.1:0"]);
    for backend in backends {
        command.args(["--backend", &format!("{backend};slots={SLOTS}")]);
    }
    start(&mut command)
}

fn haproxy(folder: &Path, port: u16, backends: &[&str]) -> anyhow::Result<Child> {
    let mut text = format!(
        "global\n  maxconn 4000\n  nbthread 2\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 120s\n  \
         timeout server 120s\n  timeout queue 120s\n  retries 2\n  retry-on all-retryable-errors\n  option redispatch 1\n\
         listen front\n  bind 127.0.0.1:{port}\n  balance first\n  option httpchk GET /readyz\n"
    );
    for (at, backend) in backends.iter().enumerate() {
        writeln!(text, "  server s{at} {backend} maxconn {SLOTS} check inter 500 fall 2 rise 1")?;
    }
    let file = folder.join("haproxy.cfg");
    std::fs::write(&file, text)?;
    spawn(Command::new("haproxy").arg("-f").arg(&file).arg("-db"))
}

fn nginx(folder: &Path, port: u16, backends: &[&str]) -> anyhow::Result<Child> {
    let mut servers = String::new();
    for backend in backends {
        writeln!(servers, "server {backend} max_fails=1 fail_timeout=10s;")?;
    }
    let folder = folder.display();
    let text = format!(
        "daemon off; worker_processes 2; pid {folder}/nginx.pid; error_log {folder}/error.log;\n\
         events {{ worker_connections 4000; }}\nhttp {{\n access_log off; client_body_temp_path {folder}/body; \
         proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n \
         upstream pool {{ zone pool 64k; least_conn; {servers} keepalive 64; }}\n server {{ listen 127.0.0.1:{port}; \
         location / {{ proxy_pass http://pool; proxy_http_version 1.1; proxy_set_header Connection \"\"; \
         proxy_next_upstream error timeout http_500 non_idempotent; proxy_read_timeout 120s; }} }} }}\n"
    );
    let file = Path::new(&folder.to_string()).join("nginx.conf");
    std::fs::write(&file, text)?;
    spawn(Command::new("nginx").arg("-c").arg(&file))
}

fn spawn(command: &mut Command) -> anyhow::Result<Child> {
    let program = command.get_program().to_string_lossy().into_owned();
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("{program} is not installed: apt-get install haproxy nginx-light"))
}
