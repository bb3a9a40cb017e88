//! Probes of servers that are no LocalAI: each ends in time, with a reason that names what came.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use coordinator::backends::{BackendEntry, ProbeError, Prober};
use relay_runtime::random::{Random, SeededRandom};

const TIMEOUT_MS: u64 = 500;

/// A server that answers each request by `answer`.
fn server(answer: impl Fn(&mut TcpStream) -> std::io::Result<()> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            _ = stream.read(&mut [0; 65_536]);
            _ = answer(&mut stream);
        }
    });
    url
}

async fn probe(url: &str) -> ProbeError {
    relay_runtime::tls::install_provider();
    let prober = Prober::new(Duration::from_millis(TIMEOUT_MS)).unwrap();
    let entry = BackendEntry { url: url.into(), via: None, slots: 1, api_key_file: None };
    let reach = prober.reach(&entry).unwrap();
    let probed = prober.probe(&entry, &reach);
    let within = Duration::from_millis(2 * TIMEOUT_MS + 2_000);
    tokio::time::timeout(within, probed).await.expect("it ends in time").unwrap_err()
}

#[actix_web::test]
async fn what_is_no_http_is_unreachable_with_the_reason() {
    let random = SeededRandom::new(7);
    let noise: Vec<u8> = (0..4_096).map(|_| random.next_u64() as u8).collect();
    for nonsense in [noise, b"SSH-2.0-OpenSSH_9\r\n".to_vec(), b"HTTP/1.1 200 OK\r\nContent-Le".to_vec(), Vec::new()] {
        let error = probe(&server(move |stream| stream.write_all(&nonsense))).await;
        assert!(matches!(&error, ProbeError::Unreachable { reason, .. } if !reason.is_empty()), "{error:?}");
    }
}

#[actix_web::test]
async fn endless_heads_and_bodies_end() {
    let heads = server(|stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
        while stream.write_all(b"X-More: and more\r\n").is_ok() {}
        Ok(())
    });
    let error = probe(&heads).await;
    assert!(matches!(error, ProbeError::Unreachable { .. }), "{error:?}");
    // Small parts for ever: over in time, and never more than the limit in memory.
    let bodies = server(|stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        while stream.write_all(b"4\r\n    \r\n").is_ok() {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    });
    let error = probe(&bodies).await;
    assert!(matches!(error, ProbeError::TimedOut { path: "/v1/models", .. }), "{error:?}");
}

#[actix_web::test]
async fn a_list_that_is_cut_or_no_list_is_invalid() {
    for (head, body) in [
        ("Transfer-Encoding: chunked", "20\r\n{\"data\":[{\"id\""),
        ("Content-Length: 900", "{\"data\":[]}"),
        ("Content-Type: text/html\r\nContent-Length: 6", "<html>"),
        ("Content-Length: 18", "{\"data\":[{\"id\":7}]}"),
    ] {
        let url = server(move |stream| write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n{head}\r\n\r\n{body}"));
        let error = probe(&url).await;
        assert!(matches!(error, ProbeError::Invalid(_)), "{body}: {error:?}");
    }
}
