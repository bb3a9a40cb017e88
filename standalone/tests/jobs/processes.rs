//! The real binaries: the relay as a process of its own, and the CLI.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::OnceLock;
use std::time::SystemTime;

use relay_protocol::Event;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::api::Api;
use crate::cluster::PATIENCE;

/// A relay in a process of its own; killed when it is dropped.
pub(crate) struct Relay {
    /// Where clients connect.
    pub(crate) url: String,
    child: Child,
}

impl Relay {
    /// Starts the binary on a data folder and waits until it takes work.
    pub(crate) async fn start(data: &Path, env: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_standalone"));
        command.args(["--listen", "127.0.0.1:0", "--data-dir"]).arg(data).envs(env.iter().copied());
        let log = std::fs::File::options().append(true).create(true).open(data.with_extension("stderr")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(PATIENCE, lines.next_line()).await.expect("the relay starts in time").unwrap();
        let said = || std::fs::read_to_string(data.with_extension("stderr")).unwrap_or_default();
        let line = line.unwrap_or_else(|| panic!("the relay ended: {}", said()));
        let url = line.strip_prefix("ready ").unwrap_or_else(|| panic!("{line:?} is not ready URL")).to_owned();
        Self { url, child }
    }

    /// The HTTP API.
    pub(crate) fn api(&self) -> Api {
        Api::new(self.url.clone(), None)
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) async fn kill_9(mut self) {
        self.child.kill().await.unwrap();
    }

    /// SIGTERM; the process must end by itself, with code 0.
    pub(crate) async fn stop(mut self) {
        signal(self.child.id().expect("the relay runs"), "TERM").await;
        let status = timeout(PATIENCE, self.child.wait()).await.expect("the relay ends in time").unwrap();
        assert_eq!(status.code(), Some(0));
    }
}

/// What a run of the CLI left.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Exit code.
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or_else(|| panic!("{output:?}")),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Standard output, which must be nothing but lines of JSON.
    pub(crate) fn json(&self) -> Vec<Value> {
        assert!(self.stdout.is_empty() || self.stdout.ends_with('\n'), "{self:?}");
        let line = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line:?}: {error}: {self:?}"));
        self.stdout.lines().map(line).collect()
    }

    /// Standard output, which must be nothing but one event a line.
    pub(crate) fn events(&self) -> Vec<Event> {
        let event = |value| serde_json::from_value(value).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        self.json().into_iter().map(event).collect()
    }

    /// The one line of a refusal.
    pub(crate) fn refusal(&self) -> String {
        let [line] = &self.json()[..] else { panic!("not one line: {self:?}") };
        line["error"]["code"].as_str().unwrap_or_else(|| panic!("no refusal: {self:?}")).to_owned()
    }
}

/// The CLI with these arguments.
pub(crate) fn cli(server: &str, args: &[&str]) -> Command {
    let mut command = Command::new(cli_binary());
    command.args(["--server", server]).args(args);
    command.env_remove("RELAY_URL").env_remove("RELAY_TOKEN").env_remove("RUST_LOG");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Runs the CLI to its end.
pub(crate) async fn run(server: &str, args: &[&str]) -> Ran {
    ended(cli(server, args).spawn().unwrap()).await
}

/// Waits for a run of the CLI.
pub(crate) async fn ended(child: Child) -> Ran {
    Ran::of(timeout(PATIENCE, child.wait_with_output()).await.expect("the CLI ends in time").unwrap())
}

/// Sends a signal to a process that the test started.
pub(crate) async fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status().await.unwrap();
    assert!(sent.success(), "kill -{name} {pid}");
}

/// The CLI's binary lies beside the relay's. A test of the whole workspace has built it; a test of this package alone has
/// not, so that it may be missing or old: then it is built here.
fn cli_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let folder = Path::new(env!("CARGO_BIN_EXE_standalone")).parent().unwrap();
        let binary = folder.join("client-cli");
        let built = std::fs::metadata(&binary).and_then(|facts| facts.modified());
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let newest = ["client-cli/src", "protocol/src"].iter().filter_map(|sources| newest(&workspace.join(sources)));
        if built.ok() < newest.max() {
            let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
            let mut build = std::process::Command::new(env!("CARGO"));
            build.args(["build", "--package", "client-cli", "--bin", "client-cli", "--profile", profile]);
            build.arg("--target-dir").arg(folder.parent().unwrap());
            assert!(build.status().unwrap().success(), "client-cli cannot be built");
        }
        binary
    })
}

/// When the newest file below a folder was changed.
fn newest(folder: &Path) -> Option<SystemTime> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.filter_map(|path| if path.is_dir() { newest(&path) } else { path.metadata().unwrap().modified().ok() }).max()
}

/// A file of `fixtures`.
pub(crate) fn fixture(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(path);
    path.to_str().unwrap().to_owned()
}

/// A WAV file (16 kHz, mono, 16 bits) of so many seconds: a second of tone, a second of silence, in turn.
pub(crate) fn wav(seconds: u32) -> Vec<u8> {
    const RATE: u32 = 16_000;
    let bytes = seconds * RATE * 2;
    let mut wav = Vec::with_capacity(44 + bytes as usize);
    wav.extend(b"RIFF");
    wav.extend((36 + bytes).to_le_bytes());
    wav.extend(b"WAVEfmt ");
    wav.extend(16_u32.to_le_bytes());
    wav.extend([1_u16, 1].into_iter().flat_map(u16::to_le_bytes));
    wav.extend([RATE, RATE * 2].into_iter().flat_map(u32::to_le_bytes));
    wav.extend([2_u16, 16].into_iter().flat_map(u16::to_le_bytes));
    wav.extend(b"data");
    wav.extend(bytes.to_le_bytes());
    for sample in 0..seconds * RATE {
        let loud = (sample / RATE).is_multiple_of(2);
        let value = (f64::from(sample) * 440.0 * std::f64::consts::TAU / f64::from(RATE)).sin() * 12_000.0;
        wav.extend(if loud { value as i16 } else { 0 }.to_le_bytes());
    }
    wav
}
