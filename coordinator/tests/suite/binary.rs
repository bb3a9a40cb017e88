//! The binary: its ready line, its exit codes, its signals.

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::support::PATIENCE;

pub(crate) fn coordinator() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coordinator"));
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn signal(child: &Child) {
    let id = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().await.unwrap().success());
}

/// The URL in the ready line.
pub(crate) async fn ready(child: &mut Child) -> String {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = timeout(PATIENCE, lines.next_line()).await.expect("ready in time").unwrap().expect("a line");
    line.strip_prefix("ready ").unwrap_or_else(|| panic!("{line:?}")).to_owned()
}

#[tokio::test]
async fn it_serves_without_a_broker_and_sigterm_ends_it_with_0() {
    let mut child =
        coordinator().env("RELAY__LISTEN", "127.0.0.1:0").env("RELAY__KAFKA__BROKERS", "127.0.0.1:9").spawn().unwrap();
    let url = ready(&mut child).await;
    relay_runtime::tls::install_provider();
    assert_eq!(reqwest::get(format!("{url}/healthz")).await.unwrap().status(), 200);
    assert_eq!(reqwest::get(format!("{url}/readyz")).await.unwrap().status(), 503);
    signal(&child).await;
    let end = timeout(Duration::from_secs(15), child.wait()).await.expect("it ends in time").unwrap();
    assert_eq!(end.code(), Some(0));
}

#[tokio::test]
async fn a_file_is_read_and_the_environment_wins() {
    let mut file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    write!(file, "listen = \"127.0.0.1:1\"\n[kafka]\nbrokers = \"127.0.0.1:9\"\n[http]\nthreads = 1\n").unwrap();
    let mut child = coordinator().arg("--config").arg(file.path()).env("RELAY__LISTEN", "127.0.0.1:0").spawn().unwrap();
    let url = ready(&mut child).await;
    assert!(!url.ends_with(":1"), "{url}");
    signal(&child).await;
    assert_eq!(timeout(Duration::from_secs(15), child.wait()).await.unwrap().unwrap().code(), Some(0));
}

#[tokio::test]
async fn what_cannot_start_says_why_and_prints_nothing_on_standard_output() {
    for (variable, value, words) in [
        ("RELAY__LISTEN", "0.0.0.0:0", "RELAY__AUTH__TOKENS"),
        ("RELAY__KAFKA__BROKRES", "x", "kafka.brokres"),
        ("RELAY__BACKENDS__STATIC", "localhost", "backends.static"),
    ] {
        let output = timeout(PATIENCE, coordinator().env(variable, value).output()).await.expect("it ends").unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(words), "{words} is not in {stderr}");
        assert!(output.stdout.is_empty());
    }
    let version = coordinator().arg("--version").output().await.unwrap();
    assert_eq!(String::from_utf8_lossy(&version.stdout).trim(), format!("coordinator {}", env!("CARGO_PKG_VERSION")));
}
