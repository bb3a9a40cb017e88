//! Fixtures, signals made on the spot, and short ways to run a task.

use std::io::Cursor;
use std::path::PathBuf;

use bytes::Bytes;
use relay_node::backend::builtin::{BuiltinTask, Cancelled, Limits, MediaError, Output, Source, run};
use serde_json::{Map, Value};

/// Every audio fixture with the spoken sample, and its container.
pub(crate) const SPEECH: &[(&str, &str)] = &[
    ("speech.wav", "wav"),
    ("speech.flac", "flac"),
    ("speech.mp3", "mp3"),
    ("speech-no-info.mp3", "mp3"),
    ("speech.ogg", "ogg"),
    ("speech.m4a", "mp4"),
    ("speech.aac", "adts"),
];
/// Every image fixture that decodes.
pub(crate) const IMAGES: &[&str] = &["picture.png", "picture.jpg", "picture.webp", "transparent.png", "turned.jpg"];
/// The tasks that decode audio.
pub(crate) const AUDIO_TASKS: &[BuiltinTask] = &[BuiltinTask::Loudness, BuiltinTask::Vad, BuiltinTask::Waveform];

pub(crate) fn path(folder: &str, name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(folder).join(name)
}

pub(crate) fn audio(name: &str) -> Vec<u8> {
    std::fs::read(path("audio", name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

pub(crate) fn image(name: &str) -> Vec<u8> {
    std::fs::read(path("images", name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

pub(crate) fn never(_: f32) -> Result<(), Cancelled> {
    Ok(())
}

/// Runs `task` without parameters.
pub(crate) fn plain(task: BuiltinTask, bytes: impl Into<Bytes>) -> Result<Output, MediaError> {
    run(task, &Map::new(), Source::from_bytes(bytes.into()), &Limits::default(), &mut never)
}

/// Runs `task` with `params`, a JSON object.
pub(crate) fn with(task: BuiltinTask, params: Value, bytes: impl Into<Bytes>) -> Result<Output, MediaError> {
    let Value::Object(params) = params else { panic!("parameters are an object") };
    run(task, &params, Source::from_bytes(bytes.into()), &Limits::default(), &mut never)
}

/// The code that `task` fails with.
pub(crate) fn code(outcome: Result<Output, MediaError>) -> &'static str {
    match outcome {
        Ok(output) => panic!("no error, but {}", output.result),
        Err(error) => error.code(),
    }
}

/// A WAV of float samples, the same in every channel: `sample(frame)`.
pub(crate) fn wav(rate: u32, channels: u16, frames: u32, sample: impl Fn(u32) -> f32) -> Vec<u8> {
    let spec =
        hound::WavSpec { channels, sample_rate: rate, bits_per_sample: 32, sample_format: hound::SampleFormat::Float };
    let mut file = Cursor::new(Vec::new());
    let mut writer = hound::WavWriter::new(&mut file, spec).unwrap();
    for frame in 0..frames {
        (0..channels).for_each(|_| writer.write_sample(sample(frame)).unwrap());
    }
    writer.finalize().unwrap();
    file.into_inner()
}

/// A sine with its peak at `dbfs`.
pub(crate) fn sine(rate: u32, hertz: f32, dbfs: f32) -> impl Fn(u32) -> f32 {
    let peak = 10f32.powf(dbfs / 20.0);
    move |frame| peak * (frame as f32 * hertz / rate as f32 * std::f32::consts::TAU).sin()
}

/// White noise between plus and minus `peak`, the same every time.
pub(crate) fn noise(peak: f32) -> impl Fn(u32) -> f32 {
    move |frame| {
        let mut word = frame.wrapping_mul(0x9E37_79B9) ^ 0x85EB_CA6B;
        for shift in [16, 13, 16] {
            word = (word ^ (word >> shift)).wrapping_mul(0xC2B2_AE35);
        }
        (word as f32 / u32::MAX as f32 * 2.0 - 1.0) * peak
    }
}

/// The number at `key`.
pub(crate) fn number(result: &Value, key: &str) -> f64 {
    result[key].as_f64().unwrap_or_else(|| panic!("{key} is no number in {result}"))
}

pub(crate) fn near(found: f64, wanted: f64, within: f64, what: &str) {
    assert!((found - wanted).abs() <= within, "{what}: {found}, wanted {wanted} ± {within}");
}
