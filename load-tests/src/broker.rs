//! A real Kafka broker for one bench or test, ended with it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

/// Top of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A broker with a folder of its own.
pub struct Broker {
    /// `host:port`.
    pub bootstrap: String,
    folder: PathBuf,
}

impl Broker {
    /// Starts a broker whose data lies in `folder`.
    ///
    /// # Errors
    /// As [`start`].
    pub fn start(folder: &Path) -> anyhow::Result<Self> {
        Ok(Self { bootstrap: start(folder)?, folder: folder.to_owned() })
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Err(error) = kill(&self.folder) {
            eprintln!("the broker was not stopped: {error}");
        }
    }
}

/// Starts the broker whose data lies in `folder`, on the ports that it had before; returns its `host:port`.
///
/// # Errors
/// It does not start: Java or the jars are missing and cannot be installed.
pub fn start(folder: &Path) -> anyhow::Result<String> {
    let started = script(&["start"], folder).output().context("running kafka.sh")?;
    let reason = || format!("the broker does not start: {}", String::from_utf8_lossy(&started.stderr));
    ensure!(started.status.success(), reason());
    let output = String::from_utf8_lossy(&started.stdout);
    let bootstrap = output.lines().find_map(|line| line.strip_prefix("KAFKA_BOOTSTRAP=")).with_context(reason)?;
    Ok(bootstrap.to_owned())
}

/// Ends the broker of `folder` as a crash would; its data and its ports stay.
///
/// # Errors
/// The script cannot be run.
pub fn kill(folder: &Path) -> anyhow::Result<()> {
    script(&["stop", "--kill"], folder).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    Ok(())
}

fn script(arguments: &[&str], folder: &Path) -> Command {
    let mut command = Command::new(repository().join("deploy/kafka-dev/kafka.sh"));
    command.args(arguments).arg("--dir").arg(folder);
    command
}
