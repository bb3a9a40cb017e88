//! Recorded answers as bytes to send.

use std::path::PathBuf;

fn bytes(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures/localai").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The recorded status line, the headers that matter, and the body of the `number`th answer (from 0) in a file.
pub(crate) fn answer(name: &str, number: usize) -> Vec<u8> {
    let text = String::from_utf8(bytes(name)).expect("text").replace('\r', "");
    let recorded = text.split("HTTP/1.1 ").nth(number + 1).expect("an answer");
    let (head, rest) = recorded.split_once("\n\n").expect("a head");
    let body = rest.split("\n# ").next().and_then(|rest| rest.split("\n## ").next()).unwrap_or_default().trim();
    with_body(head, if body.starts_with("data: ") { format!("{body}\n\n") } else { body.to_owned() }.as_bytes())
}

/// The recorded head of a file with a body of the test's own, where the recording left the bytes out.
pub(crate) fn answer_with(name: &str, body: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(bytes(name)).expect("text").replace('\r', "");
    let recorded = text.split("HTTP/1.1 ").nth(1).expect("an answer");
    with_body(recorded.split_once("\n\n").expect("a head").0, body)
}

/// A body that was recorded without its head (files 76 and 78), under status 500.
pub(crate) fn bare(name: &str, sign: &str) -> Vec<u8> {
    let text = String::from_utf8(bytes(name)).expect("text");
    let body = text.lines().find(|line| line.starts_with('{') && line.contains(sign)).expect("a body");
    with_body("500 Internal Server Error\nContent-Type: application/json", body.as_bytes())
}

fn with_body(head: &str, body: &[u8]) -> Vec<u8> {
    let mut lines = head.lines();
    let mut message = format!("HTTP/1.1 {}\r\n", lines.next().expect("a status"));
    for line in lines {
        let name = line.split(':').next().unwrap_or_default().to_lowercase();
        if !["content-length", "transfer-encoding", "connection"].contains(&name.as_str()) {
            message.push_str(&format!("{line}\r\n"));
        }
    }
    message.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    [message.as_bytes(), body].concat()
}
