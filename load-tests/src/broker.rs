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

/// How to reach a broker over TLS.
pub struct SaslSsl {
    /// `host:port`.
    pub address: String,
    /// The CA of its certificate, as PEM.
    pub ca: PathBuf,
    /// Password of the user `relay` (SCRAM-SHA-512).
    pub password: String,
}

impl Broker {
    /// As [`Self::start`], with one more listener that takes only clients over TLS that prove who they are.
    ///
    /// # Errors
    /// As [`start`].
    pub fn start_sasl_ssl(folder: &Path) -> anyhow::Result<(Self, SaslSsl)> {
        let [bootstrap, address] = started(folder, &["--sasl-ssl"], ["KAFKA_BOOTSTRAP=", "KAFKA_SASL_SSL="])?;
        let tls = folder.join("tls");
        let password = std::fs::read_to_string(tls.join("password"))?.trim().to_owned();
        Ok((Self { bootstrap, folder: folder.to_owned() }, SaslSsl { address, ca: tls.join("ca.pem"), password }))
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
    let [bootstrap] = started(folder, &[], ["KAFKA_BOOTSTRAP="])?;
    Ok(bootstrap)
}

/// Starts the broker of `folder`; returns what it prints after each prefix.
fn started<const N: usize>(folder: &Path, options: &[&str], prefixes: [&str; N]) -> anyhow::Result<[String; N]> {
    let started = script(&["start"], folder).args(options).output().context("running kafka.sh")?;
    let reason = || format!("the broker does not start: {}", String::from_utf8_lossy(&started.stderr));
    ensure!(started.status.success(), reason());
    let output = String::from_utf8_lossy(&started.stdout);
    let after = |prefix| output.lines().find_map(|line| line.strip_prefix(prefix)).map(str::to_owned);
    let found: Vec<_> = prefixes.into_iter().filter_map(after).collect();
    found.try_into().ok().with_context(reason)
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
