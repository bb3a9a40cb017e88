//! Servers that are no LocalAI, or a broken one: real sockets that send nonsense, trickle, never end or end too soon.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use relay_node::backend::BackendError;
use relay_node::backend::localai::LocalAiSettings;
use relay_protocol::{ErrorCode, Task};

use crate::{SETTINGS, call, run};

/// Longest time that any of them may hold a call.
const PATIENCE: Duration = Duration::from_secs(10);
const SSE: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

/// A server that reads the begin of each request, then does as `answer` says until the client is gone.
fn server(answer: impl Fn(&mut TcpStream) -> std::io::Result<()> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            _ = stream.read(&mut [0; 65_536]);
            _ = answer(&mut stream);
        }
    });
    url
}

/// Sends `head`, then `piece` again and again.
fn endless(head: String, piece: &'static [u8], pause: Duration) -> String {
    server(move |stream| {
        stream.write_all(head.as_bytes())?;
        loop {
            stream.write_all(piece)?;
            std::thread::sleep(pause);
        }
    })
}

async fn fails(url: &str, task: Task) -> BackendError {
    let settings = LocalAiSettings { silence_timeout_ms: 500, answer_bytes_max: 1 << 20, ..SETTINGS };
    let began = Instant::now();
    let (outcome, _) = run(url, call(task, "x"), &settings).await;
    assert!(began.elapsed() < PATIENCE, "it held the call for {:?}", began.elapsed());
    outcome.expect_err("no result")
}

#[tokio::test]
async fn what_is_no_http_is_tried_elsewhere() {
    for nonsense in
        [&b"\x16\x03\x01\x00\xff\x00"[..], b"SSH-2.0-OpenSSH_9\r\n", b"HTTP/9.9 abc\r\n\r\n", b"\r\n\r\n\r\n"]
    {
        let url = server(move |stream| stream.write_all(nonsense));
        let error = fails(&url, Task::Transcribe).await;
        assert!(matches!(error, BackendError::Failed(_)), "{error:?}");
    }
}

#[tokio::test]
async fn headers_without_end_are_cut_off() {
    let url = endless("HTTP/1.1 200 OK\r\n".to_owned(), b"X-More: and more and more\r\n", Duration::ZERO);
    let error = fails(&url, Task::Speak).await;
    assert!(matches!(error, BackendError::Failed(_)), "{error:?}");
    let url = endless("HTTP/1.1 200 OK\r\nX-Long: ".to_owned(), &[b'x'; 4_096], Duration::ZERO);
    let error = fails(&url, Task::Speak).await;
    assert!(matches!(error, BackendError::Failed(_)), "{error:?}");
}

#[tokio::test]
async fn a_byte_now_and_then_is_silence() {
    let pause = Duration::from_millis(100);
    let of_body = "HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\nContent-Length: 900000\r\n\r\n";
    for (what, url, task) in [
        ("a head", endless("HTTP/1.1 200 OK\r\nX: ".to_owned(), b"x", pause), Task::Speak),
        ("a body", endless(of_body.to_owned(), b"x", pause), Task::Speak),
        ("a stream", endless(SSE.to_owned(), b"1\r\nx\r\n", pause), Task::Transcribe),
        ("a refusal", endless(of_body.replace("200 OK", "500 No"), b"x", pause), Task::Speak),
    ] {
        let error = fails(&url, task).await;
        assert!(matches!(error, BackendError::Unreachable(_)), "{what}: {error:?}");
    }
}

#[tokio::test]
async fn slow_messages_of_a_stream_are_no_silence() {
    let url = server(|stream| {
        stream.write_all(SSE.as_bytes())?;
        let delta = "data: {\"type\":\"transcript.text.delta\",\"delta\":\"a\"}\n\n";
        for _ in 0..5 {
            write!(stream, "{:x}\r\n{delta}\r\n", delta.len())?;
            std::thread::sleep(Duration::from_millis(300));
        }
        let done = "data: {\"type\":\"transcript.text.done\",\"text\":\"aaaaa\"}\n\n";
        write!(stream, "{:x}\r\n{done}\r\n0\r\n\r\n", done.len())
    });
    let settings = LocalAiSettings { silence_timeout_ms: 1_000, ..SETTINGS };
    let (outcome, updates) = run(&url, call(Task::Transcribe, "x"), &settings).await;
    assert_eq!((outcome.expect("a result").result["text"].as_str(), updates.len()), (Some("aaaaa"), 5));
}

#[tokio::test]
async fn answers_without_end_are_refused_at_the_limit() {
    let body: &'static [u8] = Box::leak([b"1000\r\n".to_vec(), vec![b'x'; 4_096], b"\r\n".to_vec()].concat().into());
    let message = [b"1000\r\ndata: ".to_vec(), vec![b'x'; 4_088], b"\n\n\r\n".to_vec()].concat();
    let events: &'static [u8] = Box::leak(message.into());
    let line = endless(SSE.to_owned(), body, Duration::ZERO);
    let audio = endless(SSE.replace("text/event-stream", "audio/wav"), body, Duration::ZERO);
    let messages = endless(SSE.to_owned(), events, Duration::ZERO);
    for (what, url, task) in
        [("a line", line, Task::Chat), ("a body", audio, Task::Speak), ("messages", messages, Task::Transcribe)]
    {
        let error = fails(&url, task).await;
        let is_refused = matches!(&error, BackendError::Rejected { code: ErrorCode::BackendRejected, .. });
        assert!(is_refused && error.to_string().contains("more than 1048576 bytes"), "{what}: {error:?}");
    }
}

#[tokio::test]
async fn an_end_in_the_middle_is_no_result() {
    let cut = "100\r\ndata: {\"type\":\"transcript.text.delta\"";
    for (what, answer, task) in [
        ("a chunk of a stream", format!("{SSE}{cut}"), Task::Transcribe),
        ("a chunk of a body", format!("{}{cut}", SSE.replace("text/event-stream", "audio/wav")), Task::Speak),
        (
            "a body",
            "HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\nContent-Length: 9\r\n\r\nRIFF".to_owned(),
            Task::Speak,
        ),
        ("a head", "HTTP/1.1 200 OK\r\nContent-Ty".to_owned(), Task::Speak),
        ("a chunk's length", format!("{SSE}zz\r\n"), Task::Chat),
    ] {
        let url = server(move |stream| stream.write_all(answer.as_bytes()));
        let error = fails(&url, task).await;
        assert!(matches!(error, BackendError::Failed(_)), "{what}: {error:?}");
    }
}

#[tokio::test]
async fn another_content_type_is_no_result() {
    let page = "<html>Welcome</html>";
    for (task, content_type) in
        [(Task::Speak, "text/html"), (Task::Transcribe, "text/html"), (Task::Chat, "application/json")]
    {
        let length = page.len();
        let answer =
            format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n{page}");
        let url = server(move |stream| stream.write_all(answer.as_bytes()));
        let error = fails(&url, task).await;
        assert!(matches!(error, BackendError::Failed(_)), "{task}: {error:?}");
    }
}
