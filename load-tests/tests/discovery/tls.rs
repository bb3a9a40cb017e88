//! A connection to an address is held to the name that led there: its certificate, by the probes and by the nodes' requests.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use load_tests::localai_sim::Simulator;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio_rustls::TlsAcceptor;

use crate::name_server::NameServer;
use crate::world::{PATIENCE, is_healthy, simulators};

/// A server over TLS in front of `simulator`, for whoever asks for `name`, and the file of the authority to trust.
async fn terminate(simulator: &Simulator, name: &str, folder: &Path) -> (u16, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "test authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let file = folder.join("ca.pem");
    std::fs::write(&file, authority.pem()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let behind = simulator.url.trim_start_matches("http://").to_owned();
    let (acceptor, wanted) = (TlsAcceptor::from(Arc::new(config)), name.to_owned());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, behind, wanted) = (acceptor.clone(), behind.clone(), wanted.clone());
            tokio::spawn(async move {
                let Ok(mut outside) = acceptor.accept(stream).await else { return };
                // The name is asked for, not the address.
                if outside.get_ref().1.server_name() != Some(wanted.as_str()) {
                    return;
                }
                let mut inside = TcpStream::connect(behind).await.unwrap();
                _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
            });
        }
    });
    (port, file.to_str().unwrap().to_owned())
}

/// `standalone` as a process of its own, since what it trusts is a matter of its environment; and its URL.
async fn relay(folder: &Path, trusted: &str, dns: &str, names: &NameServer) -> (Child, String) {
    let binary = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("standalone");
    let mut child = Command::new(&binary)
        .args(["--listen", "127.0.0.1:0", "--data-dir", folder.to_str().unwrap()])
        .env_clear()
        .env("SSL_CERT_FILE", trusted)
        .env("RELAY__TELEMETRY__LOG_LEVEL", "error")
        .env("RELAY__BACKENDS__DNS", dns)
        .env("RELAY__BACKENDS__DNS_SERVERS", names.address.to_string())
        .env("RELAY__BACKENDS__DNS_INTERVAL_MS", "50")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}; `cargo build --workspace --bins` makes it", binary.display()));
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
    (child, line.strip_prefix("ready ").unwrap().to_owned())
}

async fn backends(url: &str) -> Vec<Value> {
    let answer: Value = reqwest::get(format!("{url}/v1/backends")).await.unwrap().json().await.unwrap();
    answer["backends"].as_array().cloned().unwrap_or_default()
}

#[actix_rt::test]
async fn a_certificate_must_be_of_the_name_that_led_to_the_address() {
    let folder = tempfile::tempdir().unwrap();
    let (_, simulators) = simulators(&["127.0.0.1"], Duration::from_millis(1));
    let (port, trusted) = terminate(&simulators[0], "ai.test", folder.path()).await;
    let names = NameServer::start(&["127.0.0.1"]).await;
    for (name, is_right) in [("ai.test", true), ("other.test", false)] {
        let dns = format!("https://{name}.:{port}");
        let (mut child, url) = relay(&folder.path().join(name), &trusted, &dns, &names).await;
        let address = format!("https://127.0.0.1:{port}");
        let done = |list: &[Value]| {
            let reason = list.first().and_then(|backend| backend["reason"].as_str()).unwrap_or_default().to_owned();
            if is_right { is_healthy(list, &address) } else { reason.contains("certificate") }
        };
        let mut last = Vec::new();
        let asked = async {
            while !done(&last) {
                tokio::time::sleep(Duration::from_millis(20)).await;
                last = backends(&url).await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, asked).await.is_ok(), "{name}: {last:#?}");
        assert_eq!(last[0]["via"], format!("https://{name}:{port}"));
        if is_right {
            let sound = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/audio/speech.wav")).unwrap();
            let part = reqwest::multipart::Part::bytes(sound).file_name("speech.wav");
            let form = reqwest::multipart::Form::new().part("file", part).text("model", "whisper-1");
            let answer = reqwest::Client::new().post(format!("{url}/v1/audio/transcriptions")).multipart(form);
            let answer = answer.send().await.unwrap();
            assert_eq!(answer.status(), 200, "{:?}", answer.text().await);
            assert_eq!(
                simulators[0].counters().models["whisper-1"].requests,
                1,
                "a node asked the address by its name"
            );
        }
        child.kill().await.unwrap();
    }
}
