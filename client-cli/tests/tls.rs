//! The real binary and the SDK over TLS: a private authority, a wrong one, a wrong name.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod peer;

use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client_cli::{Client, ClientError, ClientSettings, JobInput, JobRequest};
use peer::{Peer, Plan};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio_rustls::TlsAcceptor;

const PATIENCE: Duration = Duration::from_secs(30);

/// A certificate authority of a test.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Writes its certificate and returns the path.
    fn file(&self, dir: &Path) -> String {
        let path = dir.join("ca.pem");
        std::fs::write(&path, self.0.pem()).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// A TLS server in front of `peer` that calls itself `name`; returns host and port.
    async fn in_front_of(&self, peer: &Peer, name: &str) -> String {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let behind = peer.url.trim_start_matches("http://").to_owned();
        tokio::spawn(async move {
            let acceptor = TlsAcceptor::from(Arc::new(config));
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, behind) = (acceptor.clone(), behind.clone());
                tokio::spawn(async move {
                    // A client that does not trust this server ends here.
                    let Ok(mut outside) = acceptor.accept(stream).await else { return };
                    let mut inside = TcpStream::connect(behind).await.unwrap();
                    // Either side may end without a close.
                    _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
                });
            }
        });
        address.to_string()
    }
}

async fn run(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_client-cli"));
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    command.env_remove("RELAY_URL").env_remove("RELAY_TOKEN").env_remove("RELAY_CA_FILE").env_remove("RUST_LOG");
    tokio::time::timeout(PATIENCE, command.output()).await.expect("the CLI ends in time").unwrap()
}

fn input(dir: &Path) -> String {
    let path = dir.join("a.wav");
    std::fs::write(&path, b"RIFF").unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_private_authority_is_trusted_by_its_file() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new("ours"));
    let nodes = json!({ "nodes": [] });
    let peer = Peer::start(Plan { http: vec![("/v1/nodes", nodes)], ..Plan::default() }).await;
    let (input, file) = (input(dir.path()), authority.file(dir.path()));
    let address = authority.in_front_of(&peer, "127.0.0.1").await;
    for scheme in ["https", "wss"] {
        let server = format!("{scheme}://{address}");
        let output = run(&["--server", &server, "--ca-file", &file, "submit", &input]).await;
        assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"hello world\n"[..]), "{output:?}");
        let output = run(&["--server", &server, "--ca-file", &file, "nodes", "--json"]).await;
        assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"[]\n"[..]), "{output:?}");
    }
    assert_eq!(peer.seen.lock().unwrap().jobs.len(), 2);
}

#[tokio::test]
async fn the_node_that_is_named_over_tls_is_reached_over_tls() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new("ours"));
    let node = Peer::start(Plan::default()).await;
    let placement =
        json!({ "node": "other", "url": format!("wss://{}", authority.in_front_of(&node, "127.0.0.1").await) });
    let server = Peer::start(Plan { http: vec![("/v1/placement", placement)], ..Plan::default() }).await;
    let servers = format!("https://{}", authority.in_front_of(&server, "127.0.0.1").await);
    let ca_file = Some(authority.file(dir.path()).into());
    let client = Client::connect(ClientSettings { servers, ca_file, ..ClientSettings::default() }).await.unwrap();
    let job = JobRequest::new("probe", JobInput::Bytes(Bytes::from_static(b"RIFF")));
    let mut handle = client.submit(job).await.unwrap();
    let mut last = None;
    while let Some(event) = tokio::time::timeout(PATIENCE, handle.next_event()).await.expect("an event").unwrap() {
        last = Some(event.terminal);
    }
    assert_eq!(last, Some(true));
    assert_eq!((server.seen.lock().unwrap().sessions, node.seen.lock().unwrap().sessions), (0, 1));
}

/// The CLI does not trust the server: nothing is said to it, the token least of all.
async fn assert_refused(peer: &Peer, server: &str, ca_file: Option<&str>, why: &str) {
    let mut args = vec!["--server", server, "--token", "secret", "--connect-timeout", "500ms"];
    args.extend(ca_file.iter().flat_map(|file| ["--ca-file", file]));
    let job = "00000000-0000-7000-8000-000000000007";
    for command in [&["status", "--json", job][..], &["nodes", "--json"][..]] {
        let output = run(&[&args[..], command].concat()).await;
        assert_eq!(output.status.code(), Some(5), "{output:?}");
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(told["error"]["code"], json!("no_connection"));
        let message = told["error"]["message"].as_str().unwrap();
        assert!(message.contains("certificate") && message.contains(why), "{message}");
    }
    assert_eq!(peer.seen.lock().unwrap().sessions, 0);
}

#[tokio::test]
async fn a_server_of_another_authority_or_name_is_refused() {
    let (dir, right) = (tempfile::tempdir().unwrap(), Authority::new("ours"));
    let peer = Peer::start(Plan::default()).await;
    let server = format!("https://{}", right.in_front_of(&peer, "127.0.0.1").await);
    for (name, why) in [("theirs", "UnknownIssuer"), ("ours", "BadSignature")] {
        assert_refused(&peer, &server, Some(&Authority::new(name).file(dir.path())), why).await;
    }
    assert_refused(&peer, &server, None, "UnknownIssuer").await;
    let server = format!("wss://{}", right.in_front_of(&peer, "relay.example").await);
    assert_refused(&peer, &server, Some(&right.file(dir.path())), "not valid for name").await;
}

#[tokio::test]
async fn a_ca_file_without_a_certificate_is_wrong_usage() {
    let dir = tempfile::tempdir().unwrap();
    let (input, missing) = (input(dir.path()), dir.path().join("missing.pem"));
    for file in [input.as_str(), missing.to_str().unwrap()] {
        for command in [&["submit", input.as_str()][..], &["nodes"][..]] {
            let output = run(&[&["--server", "https://127.0.0.1:9", "--ca-file", file], command].concat()).await;
            assert_eq!(output.status.code(), Some(2), "{output:?}");
            assert!(String::from_utf8(output.stderr).unwrap().contains(file), "the file is named");
        }
    }
    let settings = ClientSettings { ca_file: Some(missing), ..ClientSettings::default() };
    assert!(matches!(Client::connect(settings).await, Err(ClientError::Settings(_))));
}
