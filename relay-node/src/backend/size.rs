//! How much work a request is, before it begins, in units that its kind of work always has. It need not be exact: what a
//! backend takes for a unit is learnt, and only proportions count.

use relay_protocol::Task;
use serde_json::{Map, Value};
use tokio::io::AsyncReadExt as _;

use crate::job::media::{Media, MediaBody};

/// Bytes of a second of sound whose header says nothing of it: 128 kbit/s.
const SOUND_BYTES_PER_S: f64 = 16_000.0;
/// Side of a picture whose request names no size, in pixels.
const PICTURE_SIDE: f64 = 512.0;
/// Bytes of a second of sound that a header may say.
const BYTE_RATES: std::ops::RangeInclusive<u32> = 50..=10_000_000;
/// Bytes of a second of sound that comes as numbers in JSON, at 16 kHz.
const SAMPLES_BYTES_PER_S: f64 = 160_000.0;
/// Largest work that a request may claim.
const UNITS_MAX: f64 = 1e9;
/// Smallest.
const UNITS_MIN: f64 = 1e-3;
/// Bytes of a file that are looked at.
pub const HEAD_BYTES: usize = 64;

/// Of a job.
pub async fn of_job(task: Task, media: &Media, params: &Map<String, Value>) -> f64 {
    match task {
        Task::Image => of_picture(params.get("size").and_then(Value::as_str), params.get("n").and_then(Value::as_u64)),
        Task::Transcribe | Task::Translate | Task::Vad => of_sound(&head(media).await, media.bytes),
        _ => of_text(media.bytes),
    }
}

/// Of sound: its seconds.
pub fn of_sound(head: &[u8], bytes: u64) -> f64 {
    let bytes = bytes as f64;
    let byte_rate = wav_byte_rate(head).filter(|rate| BYTE_RATES.contains(rate)).map_or(SOUND_BYTES_PER_S, f64::from);
    (bytes / byte_rate).max(UNITS_MIN)
}

/// Of sound whose samples are numbers in a JSON text: its seconds, nearly.
pub fn of_samples(bytes: u64) -> f64 {
    (bytes as f64 / SAMPLES_BYTES_PER_S).max(UNITS_MIN)
}

/// Of text: its characters, nearly.
pub fn of_text(bytes: u64) -> f64 {
    bytes.max(1) as f64
}

/// Of pictures: their pixels.
pub fn of_picture(size: Option<&str>, count: Option<u64>) -> f64 {
    let sides = size.and_then(|size| size.split_once('x'));
    let sides = sides.and_then(|(width, height)| Some((width.parse::<u32>().ok()?, height.parse::<u32>().ok()?)));
    let pixels = sides.map_or(PICTURE_SIDE * PICTURE_SIDE, |(width, height)| f64::from(width) * f64::from(height));
    (pixels.max(1.0) * count.unwrap_or(1).max(1) as f64).min(UNITS_MAX)
}

/// Bytes per second of a WAV file whose format comes first, as it does nearly always.
fn wav_byte_rate(head: &[u8]) -> Option<u32> {
    let is_wav = head.starts_with(b"RIFF") && head.get(8..16) == Some(b"WAVEfmt ");
    let rate = head.get(28..32).filter(|_| is_wav)?;
    rate.try_into().ok().map(u32::from_le_bytes)
}

async fn head(media: &Media) -> Vec<u8> {
    match &media.body {
        MediaBody::Memory(bytes) => bytes[..bytes.len().min(HEAD_BYTES)].to_vec(),
        MediaBody::File(path) => {
            let mut head = Vec::with_capacity(HEAD_BYTES);
            if let Ok(file) = tokio::fs::File::open(path).await {
                // A file that cannot be read is found out by who reads it for the work.
                let _ = file.take(HEAD_BYTES as u64).read_to_end(&mut head).await;
            }
            head
        }
    }
}

#[cfg(test)]
#[path = "size_test.rs"]
mod tests;
