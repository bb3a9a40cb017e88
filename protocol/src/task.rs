//! What a job does, and which parameters each task knows.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::param::{Param, ParamKind};

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// Speech to text, on LocalAI.
    Transcribe,
    /// Speech to English text, on LocalAI.
    Translate,
    /// Text to speech, on LocalAI.
    Speak,
    /// Chat completion, on LocalAI.
    Chat,
    /// Text to image, on LocalAI.
    Image,
    /// Text to vectors, on LocalAI.
    Embed,
    /// Speech segments; built in, or on LocalAI when a model is named.
    Vad,
    /// Container, codec, duration and the like; built in.
    Probe,
    /// Loudness after EBU R128; built in.
    Loudness,
    /// Peaks and a picture of them; built in.
    Waveform,
    /// A small version of an image; built in.
    Thumbnail,
}

/// Where a task can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// Only on a LocalAI backend.
    LocalAi,
    /// Only in the node itself.
    BuiltIn,
    /// In the node itself, or on LocalAI when the job names a model.
    Either,
}

/// Every task.
pub const TASKS: &[Task] = &[
    Task::Transcribe,
    Task::Translate,
    Task::Speak,
    Task::Chat,
    Task::Image,
    Task::Embed,
    Task::Vad,
    Task::Probe,
    Task::Loudness,
    Task::Waveform,
    Task::Thumbnail,
];

const fn param(name: &'static str, kind: ParamKind) -> Param {
    Param { name, kind }
}

/// Largest whole number that LocalAI passes on to its models (32 bits, signed).
const LOCALAI_COUNT_MAX: u64 = 0x7fff_ffff;
/// Largest width and height of a picture that is asked for, in pixels.
const SIDE_MAX: u64 = 4_096;

const SPEECH_TO_TEXT: &[Param] = &[
    param("language", ParamKind::Text),
    param("prompt", ParamKind::Text),
    param("temperature", ParamKind::Number(0.0, 1.0)),
    param("diarize", ParamKind::Flag),
    param("words", ParamKind::Flag),
];
const SPEAK: &[Param] = &[
    param("voice", ParamKind::Text),
    param("language", ParamKind::Text),
    // LocalAI makes WAV of any other word, without a word.
    param("format", ParamKind::Choice(&["wav", "mp3", "opus", "aac", "flac"])),
    param("speed", ParamKind::Number(0.25, 4.0)),
];
const CHAT: &[Param] = &[
    param("system", ParamKind::Text),
    param("temperature", ParamKind::Number(0.0, 2.0)),
    param("top_p", ParamKind::Number(0.0, 1.0)),
    param("max_tokens", ParamKind::Count(1, LOCALAI_COUNT_MAX)),
    param("seed", ParamKind::Count(0, LOCALAI_COUNT_MAX)),
    param("stop", ParamKind::Json),
    param("response_format", ParamKind::Json),
];
const IMAGE: &[Param] = &[
    param("size", ParamKind::Size(16, SIDE_MAX)),
    param("n", ParamKind::Count(1, 10)),
    param("step", ParamKind::Count(1, 1_000)),
    param("seed", ParamKind::Count(0, LOCALAI_COUNT_MAX)),
];
const VAD: &[Param] = &[
    param("threshold", ParamKind::Number(0.01, 0.99)),
    param("min_speech_ms", ParamKind::Count(0, 60_000)),
    param("min_silence_ms", ParamKind::Count(0, 60_000)),
    param("pad_ms", ParamKind::Count(0, 10_000)),
];
const WAVEFORM: &[Param] = &[
    param("points", ParamKind::Count(1, 10_000)),
    param("width", ParamKind::Count(16, SIDE_MAX)),
    param("height", ParamKind::Count(16, 2_048)),
];
const THUMBNAIL: &[Param] = &[
    param("width", ParamKind::Count(1, SIDE_MAX)),
    param("height", ParamKind::Count(1, SIDE_MAX)),
    param("format", ParamKind::Choice(&["png", "jpeg", "jpg"])),
];

impl Task {
    /// Its name on the wire and in the CLI.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Transcribe => "transcribe",
            Self::Translate => "translate",
            Self::Speak => "speak",
            Self::Chat => "chat",
            Self::Image => "image",
            Self::Embed => "embed",
            Self::Vad => "vad",
            Self::Probe => "probe",
            Self::Loudness => "loudness",
            Self::Waveform => "waveform",
            Self::Thumbnail => "thumbnail",
        }
    }

    /// Where it can run.
    pub const fn engine(self) -> Engine {
        match self {
            Self::Transcribe | Self::Translate | Self::Speak | Self::Chat | Self::Image | Self::Embed => {
                Engine::LocalAi
            }
            Self::Vad => Engine::Either,
            Self::Probe | Self::Loudness | Self::Waveform | Self::Thumbnail => Engine::BuiltIn,
        }
    }

    /// The parameters that it knows, and what each takes: the one list, for every way in and for the tasks themselves.
    pub const fn params(self) -> &'static [Param] {
        match self {
            Self::Transcribe | Self::Translate => SPEECH_TO_TEXT,
            Self::Speak => SPEAK,
            Self::Chat => CHAT,
            Self::Image => IMAGE,
            Self::Vad => VAD,
            Self::Waveform => WAVEFORM,
            Self::Thumbnail => THUMBNAIL,
            Self::Embed | Self::Probe | Self::Loudness => &[],
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// There is no such task.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown task {name:?}; known are: {}", names())]
pub struct UnknownTask {
    /// The name that is none.
    pub name: String,
}

fn names() -> String {
    TASKS.iter().map(|task| task.name()).collect::<Vec<_>>().join(", ")
}

impl FromStr for Task {
    type Err = UnknownTask;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        TASKS.iter().copied().find(|task| task.name() == text).ok_or_else(|| UnknownTask { name: text.to_owned() })
    }
}
