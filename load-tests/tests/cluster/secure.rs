//! A cluster on a broker that takes only clients over TLS that prove who they are (SASL_SSL, SCRAM-SHA-512).

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use load_tests::broker::{Broker, SaslSsl, repository};

use crate::processes::{PATIENCE, Process, binary, coordinator_command, node_command};
use crate::{kinds, lines};

/// Writes settings for `broker` with this password and CA; returns their file.
fn settings(folder: &Path, name: &str, password: &str, ca: Option<&Path>) -> anyhow::Result<std::path::PathBuf> {
    let ca = ca.map(|ca| format!("\"ssl.ca.location\" = {:?}\n", ca.display().to_string())).unwrap_or_default();
    let file = folder.join(name);
    std::fs::write(
        &file,
        format!(
            "[kafka.extra]\n\"security.protocol\" = \"SASL_SSL\"\n\"sasl.mechanism\" = \"SCRAM-SHA-512\"\n\
             \"sasl.username\" = \"relay\"\n\"sasl.password\" = {password:?}\n{ca}"
        ),
    )?;
    Ok(file)
}

/// Runs a process that must end by itself with an error; returns what it says.
fn refused(mut command: Command) -> anyhow::Result<String> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let began = Instant::now();
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if began.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(50)),
            None => {
                child.kill()?;
                child.wait()?;
                let mut words = String::new();
                child.stderr.take().context("no stderr")?.read_to_string(&mut words)?;
                anyhow::bail!("it goes on instead of ending with an error: {words}");
            }
        }
    };
    let mut words = String::new();
    child.stderr.take().context("no stderr")?.read_to_string(&mut words)?;
    ensure!(!status.success(), "it must fail: {words}");
    Ok(words)
}

fn commands(broker: &SaslSsl, folder: &Path, settings: &Path) -> anyhow::Result<[Command; 2]> {
    let mut node = node_command("node-1", &broker.address, &folder.join("objects"))?;
    let mut coordinator = coordinator_command(&broker.address, "127.0.0.1:0")?;
    for command in [&mut node, &mut coordinator] {
        command.arg("--config").arg(settings);
    }
    Ok([coordinator, node])
}

#[test]
fn jobs_are_done_over_tls_and_a_wrong_password_or_certificate_ends_the_start() -> anyhow::Result<()> {
    relay_runtime::tls::install_provider();
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    let (_broker, secure) = Broker::start_sasl_ssl(&folder.join("kafka"))?;

    let right = settings(folder, "right.toml", &secure.password, Some(&secure.ca))?;
    let [mut coordinator, mut node] = commands(&secure, folder, &right)?;
    let coordinator = Process::start(&mut coordinator)?;
    let node = Process::start(node.env("RELAY__COORDINATOR__URL", &coordinator.url))?;
    let submit = Command::new(binary("client-cli")?)
        .args(["--server", &node.url, "submit", "--task", "vad", "--json"])
        .arg(repository().join("fixtures/audio/speech.wav"))
        .output()?;
    assert!(submit.status.success(), "{}", String::from_utf8_lossy(&submit.stderr));
    assert_eq!(kinds(&lines(&submit.stdout)?), ["accepted", "started", "completed"]);

    let cases = [
        ("password", settings(folder, "password.toml", "not-it", Some(&secure.ca))?, "sasl.password"),
        ("certificate", settings(folder, "certificate.toml", &secure.password, None)?, "ssl.ca.location"),
    ];
    let mut waiting = Vec::new();
    for (case, file, says) in cases {
        for command in commands(&secure, folder, &file)? {
            waiting.push((case, says, std::thread::spawn(move || refused(command))));
        }
    }
    for (case, says, end) in waiting {
        let words = end.join().expect("the thread ends").with_context(|| case.to_owned())?;
        let error = words.lines().find(|line| line.starts_with("Error:")).unwrap_or_default();
        assert!(error.contains(&secure.address) && error.contains(says), "{case}: {words}");
        assert!(
            !words.contains(&secure.password) && !words.contains("not-it"),
            "{case}: no password is shown: {words}"
        );
    }
    // Who was let in goes on meanwhile.
    assert!(reqwest::blocking::get(format!("{}/readyz", node.url))?.status().is_success());
    Ok(())
}
