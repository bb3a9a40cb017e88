//! A server that sends one answer, byte for byte, and keeps what it was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

/// What was asked.
pub(crate) struct Asked {
    pub(crate) line: String,
    /// Headers, names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// The value of a text field of a form.
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        let text = String::from_utf8_lossy(&self.body).into_owned();
        let part = text.split_once(&format!("name=\"{name}\""))?.1;
        Some(part.split_once("\r\n\r\n")?.1.split_once("\r\n--")?.0.to_owned())
    }
}

/// The server.
pub(crate) struct Replay {
    pub(crate) url: String,
    asked: JoinHandle<std::io::Result<Asked>>,
}

impl Replay {
    /// Sends `answer` to the first request; then closes, or keeps silent when `hold` is set until the peer closes.
    pub(crate) fn start(answer: Vec<u8>, hold: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let asked = std::thread::spawn(move || serve(listener.accept()?.0, &answer, hold));
        Self { url, asked }
    }

    pub(crate) fn asked(self) -> Asked {
        self.asked.join().expect("no panic").expect("a whole request")
    }
}

fn serve(stream: TcpStream, answer: &[u8], hold: bool) -> std::io::Result<Asked> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    let (mut line, mut headers) = (String::new(), Vec::new());
    reader.read_line(&mut line)?;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim_end().split_once(": ") else { break };
        headers.push((name.to_lowercase(), value.to_owned()));
    }
    let mut asked = Asked { line, headers, body: Vec::new() };
    if asked.header("transfer-encoding") == Some("chunked") {
        asked.body = chunked(&mut reader)?;
    } else {
        let length = asked.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        asked.body = vec![0; length];
        reader.read_exact(&mut asked.body)?;
    }
    writer.write_all(answer)?;
    if hold {
        reader.read_to_end(&mut Vec::new())?;
    }
    Ok(asked)
}

fn chunked(reader: &mut impl BufRead) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut size = String::new();
        reader.read_line(&mut size)?;
        let size = usize::from_str_radix(size.trim(), 16).map_err(std::io::Error::other)?;
        let mut chunk = vec![0; size + 2];
        reader.read_exact(&mut chunk)?;
        if size == 0 {
            return Ok(body);
        }
        body.extend_from_slice(&chunk[..size]);
    }
}
