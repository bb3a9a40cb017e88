//! Inputs that nodes fetch: from where, through which redirects, and how much.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use client_cli::{JobInput, JobRequest};
use relay_node::job::claim_check::Cache;
use relay_node::job::media::MediaBody;
use relay_node::job::url_input::{Names, Networks, UrlInputs, UrlRules};
use relay_protocol::{ErrorCode, JobError};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use crate::cluster::{Cluster, completed, wav};

/// Largest input that is fetched, in bytes.
const BYTES_MAX: u64 = 500_000;
/// Largest input that stays in memory, in bytes.
const MEMORY_BYTES_MAX: usize = 10_000;

/// An HTTP server on loopback; paths say what it answers.
struct Server {
    port: u16,
    requests: Arc<AtomicUsize>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(AtomicUsize::new(0));
        let count = requests.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let count = count.clone();
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    let (mut line, mut head) = (String::new(), String::new());
                    while stream.read_line(&mut line).await.is_ok_and(|read| read > 2) {
                        head += &line;
                        line.clear();
                    }
                    if head.is_empty() {
                        return;
                    }
                    count.fetch_add(1, Ordering::SeqCst);
                    let path = head.split(' ').nth(1).unwrap_or_default();
                    let answer = answer(path, port);
                    // Whoever has read enough goes away.
                    _ = stream.write_all(&answer).await;
                });
            }
        });
        Self { port, requests }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn answer(path: &str, port: u16) -> Vec<u8> {
    let redirect = |to: &str| format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n").into_bytes();
    let ok = |body: &[u8]| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\nContent-Length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    };
    match path {
        "/in/tone.wav" => ok(&wav(10)),
        "/in/short" => ok(b"short"),
        "/in/empty" => ok(b""),
        "/in/long" => ok(&vec![7; BYTES_MAX as usize + 1]),
        "/in/endless" => {
            // No length, and no end before the limit.
            [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".as_slice(), &vec![7; BYTES_MAX as usize + 70_000]].concat()
        }
        "/in/unsized" => [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".as_slice(), &vec![7; 20_000]].concat(),
        "/in/away" => redirect("tone.wav"),
        "/in/outside" => redirect("/secret/key"),
        "/in/name" => redirect(&format!("http://localhost:{port}/in/tone.wav")),
        "/in/address" => redirect("http://169.254.169.254/latest/meta-data"),
        "/in/file" => redirect("file:///etc/passwd"),
        "/in/nowhere" => b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
        "/in/round" => redirect("/in/round"),
        "/in/broken" => b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n".to_vec(),
        _ => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
    }
}

/// Names whose addresses change from one question to the next.
struct Turning {
    answers: Vec<Vec<SocketAddr>>,
    asked: AtomicUsize,
}

#[async_trait]
impl Names for Turning {
    async fn addresses(&self, _: &str, _: u16) -> std::io::Result<Vec<SocketAddr>> {
        let turn = self.asked.fetch_add(1, Ordering::SeqCst);
        Ok(self.answers[turn.min(self.answers.len() - 1)].clone())
    }
}

fn inputs(allowed: &[String], private: &[&str], cache: &tempfile::TempDir) -> UrlInputs {
    relay_runtime::tls::install_provider();
    let private: Vec<String> = private.iter().map(|text| (*text).to_owned()).collect();
    let rules = UrlRules {
        allowed: allowed.to_vec(),
        private: Networks::parse(&private).unwrap(),
        redirects_max: 3,
        bytes_max: BYTES_MAX,
        memory_bytes_max: MEMORY_BYTES_MAX,
        timeout: Duration::from_secs(2),
    };
    UrlInputs::new(rules, Cache::new(cache.path().to_str().unwrap(), "url-test", 1 << 20))
}

fn expect_refused(case: &str, error: &JobError, code: ErrorCode, says: &str) {
    assert_eq!(error.code, code.as_str(), "{case}: {error:?}");
    assert!(error.message.contains(says), "{case}: {error:?}");
}

#[actix_web::test]
async fn loopback_is_refused_until_a_setting_names_it() {
    let (server, cache) = (Server::start().await, tempfile::tempdir().unwrap());
    let url = server.url("/in/tone.wav");
    let allowed = [server.url("/in/"), format!("http://localhost:{}/in/", server.port)];
    let strict = inputs(&allowed, &[], &cache);
    let refused = strict.fetch(&url).await.unwrap_err();
    expect_refused("the address itself", &refused, ErrorCode::UrlNotAllowed, "inputs.url_allow_private");
    let by_name = format!("http://localhost:{}/in/tone.wav", server.port);
    strict.check(&by_name).expect("a name is checked when it is resolved");
    let refused = strict.fetch(&by_name).await.unwrap_err();
    expect_refused("a name", &refused, ErrorCode::UrlNotAllowed, "localhost leads to a private address");
    assert!(!refused.message.contains("127.0.0.1") && !refused.retryable, "{refused:?}");
    assert_eq!(server.requests(), 0, "nothing was connected to");

    for private in ["127.0.0.0/8", "127.0.0.1"] {
        let media = inputs(&allowed, &[private], &cache).fetch(&url).await.expect("it is fetched");
        assert_eq!((media.bytes, media.name.as_deref()), (wav(10).len() as u64, Some("tone.wav")));
    }
    let elsewhere = inputs(&allowed, &["10.0.0.0/8"], &cache);
    expect_refused("another network", &elsewhere.fetch(&url).await.unwrap_err(), ErrorCode::UrlNotAllowed, "private");
}

#[actix_web::test]
async fn a_redirect_leads_only_where_the_list_does() {
    let (server, cache) = (Server::start().await, tempfile::tempdir().unwrap());
    let local = inputs(&[server.url("/in/")], &["127.0.0.1"], &cache);
    let media = local.fetch(&server.url("/in/away")).await.expect("a redirect within the list is followed");
    assert_eq!((media.bytes, media.name.as_deref()), (wav(10).len() as u64, Some("tone.wav")));
    let before = server.requests();
    let cases = [
        ("/in/outside", ErrorCode::UrlNotAllowed, "redirects elsewhere", 1),
        ("/in/address", ErrorCode::UrlNotAllowed, "169.254.169.254", 1),
        ("/in/name", ErrorCode::UrlNotAllowed, "localhost", 1),
        ("/in/file", ErrorCode::UrlNotAllowed, "only http and https", 1),
        ("/in/nowhere", ErrorCode::UrlFailed, "without a place", 1),
        ("/in/round", ErrorCode::UrlFailed, "more than 3 times", 4),
    ];
    let mut expected = before;
    for (path, code, says, requests) in cases {
        let refused = local.fetch(&server.url(path)).await.unwrap_err();
        expect_refused(path, &refused, code, says);
        assert!(!refused.retryable, "{path}: {refused:?}");
        expected += requests;
        assert_eq!(server.requests(), expected, "{path}");
    }

    // Listed, but private behind its name or by itself: a redirect is no way around the check of addresses.
    let allowed = [server.url("/in/"), "http://localhost".to_owned(), "http://169.254.169.254/".to_owned()];
    let listed = [&allowed[..], &[format!("http://localhost:{}/in/", server.port)]].concat();
    let local = inputs(&listed, &["127.0.0.1"], &cache).with_names(Arc::new(Turning {
        answers: vec![vec!["10.0.0.9:80".parse().unwrap()]],
        asked: AtomicUsize::new(0),
    }));
    for (path, host) in [("/in/name", "localhost"), ("/in/address", "169.254.169.254")] {
        let refused = local.fetch(&server.url(path)).await.unwrap_err();
        expect_refused(path, &refused, ErrorCode::UrlNotAllowed, &format!("{host} leads to a private address"));
    }
}

/// A name server that answers a public address to the check and a private one to the connection gets nowhere: it is asked
/// once, and the connection goes to what was checked.
#[actix_web::test]
async fn a_name_that_turns_private_after_the_check_is_not_followed() {
    let (server, cache) = (Server::start().await, tempfile::tempdir().unwrap());
    let loopback: SocketAddr = ([127, 0, 0, 1], server.port).into();
    let allowed = [format!("http://rebinding.test:{}/", server.port)];
    let url = format!("{}in/tone.wav", allowed[0]);
    let names = |answers: Vec<Vec<SocketAddr>>| Arc::new(Turning { answers, asked: AtomicUsize::new(0) });

    // An address of the public Internet on which nobody answers from here.
    let public: SocketAddr = ([192, 31, 196, 1], server.port).into();
    let turning = names(vec![vec![public], vec![loopback]]);
    let failed = inputs(&allowed, &[], &cache).with_names(turning.clone()).fetch(&url).await.unwrap_err();
    assert_eq!(failed.code, ErrorCode::UrlFailed.as_str(), "{failed:?}");
    assert_eq!((turning.asked.load(Ordering::SeqCst), server.requests()), (1, 0));

    // One private address among public ones is enough to refuse.
    let mixed = names(vec![vec![public, loopback]]);
    let refused = inputs(&allowed, &[], &cache).with_names(mixed).fetch(&url).await.unwrap_err();
    expect_refused("mixed", &refused, ErrorCode::UrlNotAllowed, "private address");
    for hidden in ["[::ffff:127.0.0.1]:80", "[64:ff9b::7f00:1]:80", "[::1]:80", "0.0.0.0:80"] {
        let names = names(vec![vec![hidden.parse().unwrap()]]);
        let refused = inputs(&allowed, &[], &cache).with_names(names).fetch(&url).await.unwrap_err();
        expect_refused(hidden, &refused, ErrorCode::UrlNotAllowed, "private address");
    }
    // The same name, allowed to be there, is connected to by the address that was told.
    let fetched = inputs(&allowed, &["127.0.0.1"], &cache).with_names(names(vec![vec![loopback]])).fetch(&url).await;
    assert_eq!(fetched.expect("it is fetched").bytes, wav(10).len() as u64);
    assert_eq!(server.requests(), 1);
}

#[actix_web::test]
async fn what_is_fetched_is_bounded_and_large_inputs_go_to_the_cache() {
    let (server, cache) = (Server::start().await, tempfile::tempdir().unwrap());
    let local = inputs(&[server.url("/in/")], &["127.0.0.1"], &cache);
    let short = local.fetch(&server.url("/in/short")).await.unwrap();
    assert!(matches!(short.body, MediaBody::Memory(ref bytes) if bytes[..] == b"short"[..]));
    for path in ["/in/tone.wav", "/in/unsized"] {
        let media = local.fetch(&server.url(path)).await.unwrap();
        let MediaBody::File(file) = media.body.clone() else { panic!("{path} is in memory") };
        assert_eq!(std::fs::metadata(&file).unwrap().len(), media.bytes, "{path}");
        drop(media);
        assert!(!file.exists(), "{path} stays in the cache");
    }
    let cases = [
        ("/in/long", ErrorCode::TooLarge, "500000", false),
        ("/in/endless", ErrorCode::TooLarge, "500000", false),
        ("/in/empty", ErrorCode::EmptyMedia, "empty", false),
        ("/in/broken", ErrorCode::UrlFailed, "500", true),
        ("/in/gone", ErrorCode::UrlFailed, "404", false),
    ];
    for (path, code, says, retryable) in cases {
        let refused = local.fetch(&server.url(path)).await.unwrap_err();
        expect_refused(path, &refused, code, says);
        assert_eq!(refused.retryable, retryable, "{path}: {refused:?}");
    }
}

/// The whole way: a job whose input a node fetches, and one that its settings refuse.
#[actix_web::test]
async fn a_job_with_a_url() {
    let server = Server::start().await;
    let env = |private: &str| {
        let allow = ("RELAY__INPUTS__URL_ALLOW".to_owned(), server.url("/in/"));
        vec![allow, ("RELAY__INPUTS__URL_ALLOW_PRIVATE".to_owned(), private.to_owned())]
    };
    let job = || JobRequest::new("loudness", JobInput::Url(server.url("/in/tone.wav")));
    let open = Cluster::start(1, env("127.0.0.0/8"), None).await;
    let client = open.client(&open.url(0)).await;
    completed(client.submit(job()).await.expect("the job is accepted")).await;
    client.close().await;
    open.stop().await;

    let closed = Cluster::start(1, env(""), None).await;
    let client = closed.client(&closed.url(0)).await;
    let refused = client.submit(job()).await.map(|handle| handle.job_id()).unwrap_err();
    assert!(refused.to_string().contains("url_not_allowed"), "{refused}");
    assert_eq!(server.requests(), 1);
    client.close().await;
    closed.stop().await;
}
