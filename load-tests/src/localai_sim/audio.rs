//! Audio in and out: what a transcription, a voice activity and a spoken answer are made of.

use std::io::Cursor;

use relay_node::backend::builtin::{Limits, Source, pcm};
use serde_json::{Value, json};

use super::words_of;

/// Longest segment of a transcription, in seconds.
const SEGMENT_S: f64 = 4.0;
/// Words in each segment.
const SEGMENT_WORDS: usize = 6;
/// Samples per second of spoken answers, as recorded.
const SPEECH_RATE: u32 = 22_050;
/// Seconds of sound for each byte of text.
const SPEECH_S_PER_BYTE: f64 = 0.06;
/// Samples of a frame of the voice activity: 30 ms at 16 kHz.
const VAD_FRAME: usize = 480;
/// Energy (root mean square) from which a frame counts as voice.
const VAD_THRESHOLD: f32 = 0.01;
/// Frames without voice that end a segment.
const VAD_HANGOVER: usize = 10;

/// One segment of a transcription.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// From, in seconds.
    pub start: f64,
    /// To, in seconds.
    pub end: f64,
    /// What was "said": [`words_of`] the file and the segment's number.
    pub text: String,
}

/// Duration of an audio file in seconds; `None` if it cannot be decoded. Blocks.
pub fn duration_s(file: &[u8]) -> Option<f64> {
    if let Ok(wav) = hound::WavReader::new(Cursor::new(file)) {
        let spec = wav.spec();
        let claimed = f64::from(wav.duration()) / f64::from(spec.sample_rate);
        let bytes = f64::from(wav.len()) * f64::from(spec.bits_per_sample) / 8.0;
        // A truncated file is as long as what is left of it, as it is for ffmpeg.
        let there = file.len().saturating_sub(44) as f64;
        return Some(claimed * (there / bytes.max(1.0)).min(1.0));
    }
    let source = Source::from_bytes(bytes::Bytes::copy_from_slice(file));
    let samples = pcm::mono_16k(source, &Limits::default()).ok()?;
    Some(samples.len() as f64 / f64::from(pcm::RATE))
}

/// The segments that stand for the transcription of `file`.
pub fn segments(file: &[u8], duration_s: f64) -> Vec<Segment> {
    let mut segments = Vec::new();
    let mut start = 0.0;
    for part in 0.. {
        if start >= duration_s {
            break;
        }
        let end = (start + SEGMENT_S).min(duration_s);
        segments.push(Segment { start, end, text: words_of(file, part, SEGMENT_WORDS) });
        start = end;
    }
    segments
}

/// All text of a transcription.
pub fn text(segments: &[Segment]) -> String {
    segments.iter().map(|segment| segment.text.as_str()).collect::<Vec<_>>().join(" ")
}

/// The words of a segment, spread evenly over it.
pub(super) fn words(segment: &Segment) -> Vec<Value> {
    let words: Vec<&str> = segment.text.split(' ').collect();
    let step = (segment.end - segment.start) / words.len() as f64;
    let timed = words.iter().zip(0_u32..).map(|(word, at)| {
        let start = segment.start + step * f64::from(at);
        json!({ "start": start, "end": start + step, "text": word })
    });
    timed.collect()
}

/// Voice activity of samples at 16 kHz: `(start, end)` in seconds; an end of 0 is a segment still open.
pub(super) fn voice(samples: &[f32]) -> Vec<(f64, f64)> {
    let second = |frame: usize| (frame * VAD_FRAME) as f64 / f64::from(pcm::RATE);
    let (mut found, mut open, mut quiet) = (Vec::new(), None, 0);
    for (frame, sound) in samples.chunks(VAD_FRAME).enumerate() {
        let energy = (sound.iter().map(|sample| sample * sample).sum::<f32>() / sound.len() as f32).sqrt();
        quiet = if energy >= VAD_THRESHOLD { 0 } else { quiet + 1 };
        match open {
            None if quiet == 0 => open = Some(frame),
            Some(start) if quiet >= VAD_HANGOVER => {
                found.push((second(start), second(frame + 1 - quiet)));
                open = None;
            }
            _ => {}
        }
    }
    found.extend(open.map(|start| (second(start), 0.0)));
    found
}

/// A WAV file that "speaks" the text: a tone for each byte, its pitch from the byte. Streamed files have sizes of
/// 0xFFFFFFFF, as LocalAI's have.
pub fn spoken(text: &str, streamed: bool) -> Vec<u8> {
    let per_byte = (f64::from(SPEECH_RATE) * SPEECH_S_PER_BYTE) as u32;
    let data_bytes = per_byte * 2 * text.len() as u32;
    let mut file = header(if streamed { None } else { Some(data_bytes) });
    for byte in text.bytes() {
        let pitch = 200.0 + 4.0 * f64::from(byte);
        for sample in 0..per_byte {
            let phase = std::f64::consts::TAU * pitch * f64::from(sample) / f64::from(SPEECH_RATE);
            file.extend_from_slice(&((phase.sin() * 8_000.0) as i16).to_le_bytes());
        }
    }
    file
}

/// A WAV header of mono, 16 bits; `None` for a size that is not known yet.
fn header(data_bytes: Option<u32>) -> Vec<u8> {
    let (riff, data) = data_bytes.map_or((u32::MAX, u32::MAX), |bytes| (bytes + 36, bytes));
    let mut file = Vec::with_capacity(44);
    file.extend_from_slice(b"RIFF");
    file.extend_from_slice(&riff.to_le_bytes());
    file.extend_from_slice(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    file.extend_from_slice(&SPEECH_RATE.to_le_bytes());
    file.extend_from_slice(&(SPEECH_RATE * 2).to_le_bytes());
    file.extend_from_slice(b"\x02\0\x10\0data");
    file.extend_from_slice(&data.to_le_bytes());
    file
}
