//! Signal processing built into the node: real work without a model, a download or a second server.
//!
//! [`run`] is synchronous and uses one thread from start to end; callers put it where blocking is allowed. It touches
//! nothing but its source: no files, no network, no settings. What each task takes and gives is in
//! `docs/builtin-tasks.md`.

mod codecs;
mod decode;
mod error;
mod jpeg;
mod limits;
mod loudness;
mod params;
pub mod pcm;
mod peaks;
mod picture;
mod probe;
mod progress;
mod resample;
mod segments;
mod shape;
mod sniff;
mod source;
mod thumbnail;
mod vad;
mod waveform;

use bytes::Bytes;
use relay_protocol::Task;
use serde_json::{Map, Value};

pub use error::{Cancelled, MediaError};
pub use limits::Limits;
pub use progress::Progress;
pub use source::{ReadSeek, Source};

use params::Params;
use progress::Throttle;
use sniff::{Container, Kind};

/// A task that is built in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BuiltinTask {
    /// What the file is: container, codec, duration, channels, tags; of an image its format and size.
    Probe,
    /// Loudness after EBU R128.
    Loudness,
    /// Where somebody speaks.
    Vad,
    /// Peaks, and a picture of them.
    Waveform,
    /// A small version of an image.
    Thumbnail,
}

impl BuiltinTask {
    /// Every built-in task.
    pub const ALL: &[Self] = &[Self::Probe, Self::Loudness, Self::Vad, Self::Waveform, Self::Thumbnail];

    /// The task that it does.
    pub const fn task(self) -> Task {
        match self {
            Self::Probe => Task::Probe,
            Self::Loudness => Task::Loudness,
            Self::Vad => Task::Vad,
            Self::Waveform => Task::Waveform,
            Self::Thumbnail => Task::Thumbnail,
        }
    }

    /// Its name on the wire and in the CLI.
    pub const fn name(self) -> &'static str {
        self.task().name()
    }

    /// The built-in task that does `task`, if there is one.
    pub fn of(task: Task) -> Option<Self> {
        Self::ALL.iter().copied().find(|builtin| builtin.task() == task)
    }
}

/// What a task gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// The result, a JSON object.
    pub result: Value,
    /// A file that belongs to it.
    pub media: Option<OutputMedia>,
}

/// A file that a task made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputMedia {
    /// Its media type.
    pub media_type: &'static str,
    /// A name for it.
    pub name: String,
    /// Its content.
    pub bytes: Bytes,
}

/// Does `task` on `source`. Blocks for as long as it takes; `progress` hears how far it is and can call it off.
///
/// # Errors
/// See [`MediaError`]. A result is never made from a part of the input: what is cut off or damaged is an error, except
/// for `probe`, which says `truncated` in its result.
pub fn run(
    task: BuiltinTask,
    params: &Map<String, Value>,
    source: Source,
    limits: &Limits,
    progress: &mut dyn Progress,
) -> Result<Output, MediaError> {
    let params = Params::of(task, params)?;
    let mut throttle = Throttle::start(progress)?;
    let output = match task {
        BuiltinTask::Probe => probe::run(source, limits),
        BuiltinTask::Loudness => loudness::run(source, limits, &mut throttle),
        BuiltinTask::Vad => vad::run(&params, source, limits, &mut throttle),
        BuiltinTask::Waveform => waveform::run(&params, source, limits, &mut throttle),
        BuiltinTask::Thumbnail => thumbnail::run(&params, source, limits, &mut throttle),
    }?;
    throttle.at(1.0)?;
    Ok(output)
}

/// Opens `source` for a task that reads audio.
fn open_audio(task: BuiltinTask, mut source: Source) -> Result<decode::Opened, MediaError> {
    match sniff::kind_of(&mut source, sniff::AUDIO)? {
        Kind::Audio(container) => decode::open(container, source),
        kind => Err(wrong_kind(task, kind, sniff::AUDIO)),
    }
}

/// The error for media of a kind that `task` does not read.
fn wrong_kind(task: BuiltinTask, kind: Kind, accepted: &'static str) -> MediaError {
    let found = match kind {
        Kind::Audio(Container::Mp4) => "an MP4 file".to_owned(),
        Kind::Audio(container) => format!("{} audio", container.name()),
        Kind::Image(image) => format!("a {} image", image.name()),
        Kind::Other(name) => name.to_owned(),
    };
    MediaError::Unsupported { found: format!("{found} for {}", task.name()), accepted }
}

/// `value` rounded to `digits` decimals; JSON's null where it is not finite (silence in decibels).
fn rounded(value: f64, digits: i32) -> Value {
    let scale = 10f64.powi(digits);
    let rounded = (value * scale).round() / scale;
    // Not -0.0.
    Value::from(rounded.is_finite().then_some(rounded + 0.0))
}
