//! Bodies of calls: a large one takes disk, not memory, and one that comes slowly takes no backend's slot.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use reqwest::blocking::multipart::{Form, Part};

use crate::processes::Cluster;
use crate::slow_backend::SlowBackend;

/// Size of the file that is sent, and how much of it the node may have in memory at most.
const FILE_BYTES: usize = 200 * 1024 * 1024;
const MEMORY_BYTES_MAX: u64 = 48 * 1024 * 1024;
/// Longer than a small call takes on a busy machine, shorter than a slow body may take.
const SOON: Duration = Duration::from_secs(15);
const PATH: &str = "/v1/audio/transcriptions";

fn client(timeout: Duration) -> anyhow::Result<reqwest::blocking::Client> {
    Ok(reqwest::blocking::Client::builder().timeout(timeout).no_proxy().build()?)
}

/// The begin of a form whose rest does not come.
fn slow_upload(url: &str) -> anyhow::Result<TcpStream> {
    let host = url.strip_prefix("http://").context("a plain URL")?;
    let mut stream = TcpStream::connect(host)?;
    let part =
        |name: &str, value: &str| format!("--b\r\nContent-Disposition: form-data; name={name}\r\n\r\n{value}\r\n");
    let body = part("\"model\"", "m") + &part("\"file\"; filename=\"a.wav\"", &"x".repeat(100_000));
    write!(
        stream,
        "POST {PATH} HTTP/1.1\r\nHost: {host}\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 1000000\r\n\r\n{body}"
    )?;
    Ok(stream)
}

#[test]
fn a_body_larger_than_memory_passes_and_a_slow_one_holds_no_slot() -> anyhow::Result<()> {
    relay_runtime::tls::install_provider();
    // It has one slot.
    let backend = SlowBackend::start()?;
    let cluster = Cluster::start_with(1, &[&backend.url], &[], &[("RELAY__OPENAI__BODY_BYTES_MAX", "268435456")])?;
    let node = &cluster.nodes[0];
    let url = format!("{}{PATH}", node.url);
    // The field with the model's name comes last: where the call goes is known when all of it is there.
    let form = |file: Vec<u8>| Form::new().part("file", Part::bytes(file).file_name("a.wav")).text("model", "m");
    let warm = client(Duration::from_secs(60))?.post(&url).multipart(form(vec![7; 1_000])).send()?;
    ensure!(warm.status().is_success(), "{}", warm.text()?);

    let slow = slow_upload(&node.url)?;
    std::thread::sleep(Duration::from_millis(500));
    let began = Instant::now();
    let small = client(SOON)?.post(&url).multipart(form(vec![7; 1_000])).send()?;
    ensure!(small.status().is_success(), "{}", small.text()?);
    println!("a small call took {:?} beside a slow body", began.elapsed());
    drop(slow);

    let before = node.memory_peak_bytes()?;
    let began = Instant::now();
    let large = client(Duration::from_secs(120))?.post(&url).multipart(form(vec![7; FILE_BYTES])).send()?;
    ensure!(large.status().is_success(), "{}", large.text()?);
    let grown = node.memory_peak_bytes()?.saturating_sub(before);
    println!("{FILE_BYTES} bytes passed in {:?}; the node's memory grew by {grown} bytes", began.elapsed());
    ensure!(grown < MEMORY_BYTES_MAX, "the node's memory grew by {grown} bytes");
    Ok(())
}
