//! Clients that say nothing, or next to nothing: they are closed, and keep nobody out meanwhile.

use std::time::{Duration, Instant};

use relay_protocol::hello::WelcomeV1;
use relay_protocol::session::SubmitV1;
use relay_protocol::{Message, frame};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message as WsMessage;

use crate::cluster::{Cluster, PATIENCE, on_cluster};
use crate::http::expect_says;
use crate::wire::{Wire, frame_of, hello};

/// Connections of the flood.
const FLOOD: usize = 300;
/// Time in which a good client is served beside the flood, on a machine that other tests use too.
const SERVED_MAX: Duration = Duration::from_secs(5);

#[actix_web::test]
async fn a_client_without_hello_is_closed_after_five_seconds() {
    on_cluster(&[], async |cluster| {
        let mut wire = Wire::connect(cluster).await;
        let since = Instant::now();
        let error = wire.expect_end("silent", "hello_expected").await;
        let waited = since.elapsed();
        expect_says("silent", &error.message, &["no hello", "5000 ms"]);
        assert!((4_000..=6_000).contains(&waited.as_millis()), "closed after {waited:?}");
    })
    .await;
}

#[actix_web::test]
async fn neither_pings_nor_a_slow_hello_put_the_deadline_off() {
    on_cluster(&[("RELAY__GATEWAY__HELLO_TIMEOUT_MS", "1000")], async |cluster| {
        let mut pinging = Wire::connect(cluster).await;
        let mut slow = Wire::connect(cluster).await;
        let since = Instant::now();
        // The WebSocket header of a hello, then a byte of it at a time.
        slow.socket.get_mut().write_all(&[0x82, 0x80 | 30, 0, 0, 0, 0]).await.expect("sent");
        let hello = frame::encode(&hello(), b"").expect("a frame");
        for byte in hello.iter().take(16) {
            // The connections may be closed from the tenth on.
            drop(slow.socket.get_mut().write_all(&[*byte]).await);
            drop(futures_util::SinkExt::send(&mut pinging.socket, WsMessage::Ping(vec![1].into())).await);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        expect_end_of_tcp(slow.socket.get_mut()).await;
        loop {
            match pinging.message().await {
                Some(WsMessage::Pong(_)) => {}
                Some(WsMessage::Binary(bytes)) => {
                    let error = frame::split(bytes).expect("a frame").head::<relay_protocol::hello::ErrorV1>();
                    assert_eq!(error.expect("an error").code, "hello_expected");
                    break;
                }
                other => panic!("an error was expected, not {other:?}"),
            }
        }
        assert!(since.elapsed() < Duration::from_secs(6), "{:?}", since.elapsed());
    })
    .await;
}

#[actix_web::test]
async fn the_oldest_silent_connections_make_room() {
    on_cluster(&[("RELAY__GATEWAY__HANDSHAKES_MAX", "10")], async |cluster| {
        let mut wires = Vec::new();
        for _ in 0..15 {
            wires.push(Wire::connect(cluster).await);
        }
        for wire in wires.iter_mut().take(5) {
            let error = wire.expect_end("evicted", "too_many_handshakes").await;
            assert!(error.retryable);
            expect_says("evicted", &error.message, &["have not said hello", "try again"]);
        }
        // The newest is still welcome.
        let newest = wires.last_mut().expect("fifteen connections");
        newest.say(&hello(), b"").await;
        let welcome: WelcomeV1 = newest.expect().await;
        assert_eq!(welcome.version, 1);
        cluster.serves_a_good_client().await;
    })
    .await;
}

#[actix_web::test]
async fn a_session_that_falls_silent_is_told_goodbye() {
    let env = [("RELAY__GATEWAY__IDLE_TIMEOUT_MS", "1000"), ("RELAY__GATEWAY__PING_INTERVAL_MS", "200")];
    on_cluster(&env, async |cluster| {
        let (mut wire, _) = Wire::open(cluster).await;
        // The wire answers no ping of the protocol.
        let goodbye = wire.expect_goodbye("idle", "idle").await;
        expect_says("idle", &goodbye.message, &["nothing was heard", "1000 ms"]);
    })
    .await;
}

/// How a connection of the flood behaves: stopped before or after the WebSocket is open, quite silent or a byte a second.
#[derive(Clone, Copy)]
struct Lazy {
    opened: bool,
    drips: bool,
}

#[actix_web::test]
async fn three_hundred_silent_clients_keep_nobody_out_and_are_closed() {
    on_cluster(&[], async |cluster| {
        let (mut tasks, address) = (JoinSet::new(), cluster.address());
        for number in 0..FLOOD {
            let lazy = Lazy { opened: number % 2 == 0, drips: number % 4 < 2 };
            let stream = if lazy.opened {
                Wire::connect(cluster).await.socket.into_inner()
            } else {
                TcpStream::connect(&address).await.expect("the node takes connections")
            };
            tasks.spawn(stay(lazy, stream));
        }
        let since = Instant::now();
        cluster.serves_a_good_client().await;
        assert!(since.elapsed() < SERVED_MAX, "a good client waited {:?}", since.elapsed());
        expect_served_by_http(cluster).await;
        let ended = std::iter::from_fn(|| tasks.try_join_next()).count();
        assert!(ended < FLOOD / 2, "the flood was over before the good client was served: {ended} were closed");
        while let Some(ended) = timeout(PATIENCE, tasks.join_next()).await.expect("all are closed in time") {
            ended.expect("the node ends the connection");
        }
    })
    .await;
}

async fn expect_served_by_http(cluster: &Cluster) {
    let answer = reqwest::Client::new().get(format!("{}/v1/nodes", cluster.url())).send();
    let answer = timeout(SERVED_MAX, answer).await.expect("an answer in time").expect("an answer");
    assert!(answer.status().is_success());
}

/// Says as little as `lazy` is, until the node ends the connection.
async fn stay(lazy: Lazy, mut stream: TcpStream) {
    let bytes: &[u8] = if lazy.opened {
        &[0x82, 0xfe, 1, 0, 0, 0, 0, 0, b'R', b'M', 1, 0, 1, 0, 0, 0, 0, 0, 0, 0]
    } else {
        b"GET /v1/connect HTTP/1.1\r\n"
    };
    let mut bytes = bytes.iter().filter(|_| lazy.drips);
    let mut second = tokio::time::interval(Duration::from_secs(1));
    let mut answer = [0; 4_096];
    loop {
        tokio::select! {
            read = stream.read(&mut answer) => if matches!(read, Ok(0) | Err(_)) { return },
            _ = second.tick() => if let Some(byte) = bytes.next() {
                // A failure is the end, which the next read tells.
                drop(stream.write_all(&[*byte]).await);
            },
        }
    }
}

/// A form whose file has begun.
const FORM: &str = "--b\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nabc";
const MULTIPART: &str = "multipart/form-data; boundary=b";

/// A submit whose body, long as it says, begins like this.
async fn begin_body(cluster: &Cluster, content_type: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(cluster.address()).await.expect("the node takes connections");
    let head = format!(
        "POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\nContent-Length: 1000000\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    stream
}

/// The node answers 408 with these words and ends the connection.
async fn expect_timeout(stream: &mut TcpStream, says: &str) {
    let mut answer = Vec::new();
    // The end may be a reset: the node does not read the rest of the body.
    let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    drop(read.expect("an answer and the end in time"));
    let text = String::from_utf8_lossy(&answer);
    expect_says(says, &text, &["HTTP/1.1 408", "\"code\":\"request_timeout\"", "\"retryable\":true", says]);
}

/// Sends `bytes` ten times a second until the node answers, or until `max`. Returns whether it answered.
async fn drip(stream: &mut TcpStream, bytes: &[u8], max: Duration) -> bool {
    let (mut tick, mut first) = (tokio::time::interval(Duration::from_millis(100)), [0]);
    let since = Instant::now();
    while since.elapsed() < max {
        tokio::select! {
            biased;
            answered = stream.peek(&mut first) => return answered.is_ok(),
            _ = tick.tick() => {}
        }
        stream.write_all(bytes).await.expect("sent");
    }
    false
}

#[actix_web::test]
async fn a_body_that_stops_is_given_up() {
    on_cluster(&[("RELAY__GATEWAY__BODY_TIMEOUT_MS", "1000")], async |cluster| {
        let since = Instant::now();
        let mut json = begin_body(cluster, "application/json", "{\"task\":").await;
        let mut form = begin_body(cluster, MULTIPART, FORM).await;
        let mut no_form_yet = begin_body(cluster, MULTIPART, "").await;
        expect_timeout(&mut json, "the body did not come within 1000 ms").await;
        expect_timeout(&mut form, "send at least 65536 bytes in each 1000 ms").await;
        expect_timeout(&mut no_form_yet, "send at least 65536 bytes in each 1000 ms").await;
        assert!(since.elapsed() >= Duration::from_millis(900), "{:?}", since.elapsed());
        let metrics = reqwest::get(format!("{}/metrics", cluster.url())).await.expect("an answer");
        let metrics = metrics.text().await.expect("text");
        let counted = "relay_submits_refused_total{code=\"request_timeout\"} ";
        let count = metrics.lines().find_map(|line| line.strip_prefix(counted)).expect(&metrics);
        // Other tests of this process may count too.
        assert!(count.parse::<u64>().expect("a number") >= 3, "{count}");
    })
    .await;
}

/// A byte now and then is no progress, in a file, a field or before the first part; enough bytes in time are.
#[actix_web::test]
async fn a_form_that_trickles_is_given_up_and_a_steady_one_is_not() {
    const TEXT: &str = "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nabc";
    let env = [("RELAY__GATEWAY__BODY_TIMEOUT_MS", "1000"), ("RELAY__GATEWAY__BODY_BYTES_MIN", "100")];
    on_cluster(&env, async |cluster| {
        for begin in [FORM, TEXT, ""] {
            let mut trickle = begin_body(cluster, MULTIPART, begin).await;
            assert!(drip(&mut trickle, b"x", PATIENCE).await, "a trickle after {begin:?} is read for ever");
            expect_timeout(&mut trickle, "send at least 100 bytes in each 1000 ms").await;
        }
        let mut steady = begin_body(cluster, MULTIPART, FORM).await;
        assert!(!drip(&mut steady, &[b'x'; 50], Duration::from_secs(3)).await, "the steady form was given up");
        expect_timeout(&mut steady, "send at least 100 bytes in each 1000 ms").await;
    })
    .await;
}

async fn expect_end_of_tcp(stream: &mut TcpStream) {
    let mut rest = [0; 4_096];
    let end = async { while matches!(stream.read(&mut rest).await, Ok(read) if read > 0) {} };
    timeout(PATIENCE, end).await.expect("the node ends the connection");
}

/// A frame whose rest never comes is no sign of life.
#[actix_web::test]
async fn a_session_with_half_a_frame_is_idle() {
    let env = [("RELAY__GATEWAY__IDLE_TIMEOUT_MS", "1000"), ("RELAY__GATEWAY__PING_INTERVAL_MS", "200")];
    on_cluster(&env, async |cluster| {
        let (mut wire, _) = Wire::open(cluster).await;
        let half = frame_of(SubmitV1::KIND, 1, &[1; 60]);
        let socket = wire.socket.get_mut();
        socket.write_all(&[0x82, 0x80 | 100, 0, 0, 0, 0]).await.expect("sent");
        for byte in half.iter().take(30) {
            // The session ends after about the tenth.
            drop(socket.write_all(&[*byte]).await);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        wire.expect_goodbye("half a frame", "idle").await;
    })
    .await;
}
