//! What a job does, and which parameters each task knows.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

/// One parameter of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Param {
    /// Its name.
    pub name: &'static str,
    /// What its value must be.
    pub kind: ParamKind,
}

/// What a parameter's value must be. Text that reads as the wanted kind is taken too (`client-cli --param k=v` sends text).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParamKind {
    /// A string.
    Text,
    /// A number.
    Number,
    /// A whole number, not negative.
    Count,
    /// True or false.
    Flag,
    /// Any JSON value.
    Json,
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

const SPEECH_TO_TEXT: &[Param] = &[
    param("language", ParamKind::Text),
    param("prompt", ParamKind::Text),
    param("temperature", ParamKind::Number),
    param("diarize", ParamKind::Flag),
    param("words", ParamKind::Flag),
];
const SPEAK: &[Param] = &[
    param("voice", ParamKind::Text),
    param("language", ParamKind::Text),
    param("format", ParamKind::Text),
    param("speed", ParamKind::Number),
];
const CHAT: &[Param] = &[
    param("system", ParamKind::Text),
    param("temperature", ParamKind::Number),
    param("top_p", ParamKind::Number),
    param("max_tokens", ParamKind::Count),
    param("seed", ParamKind::Count),
    param("stop", ParamKind::Json),
    param("response_format", ParamKind::Json),
];
const IMAGE: &[Param] = &[
    param("size", ParamKind::Text),
    param("n", ParamKind::Count),
    param("step", ParamKind::Count),
    param("seed", ParamKind::Count),
];
const VAD: &[Param] = &[
    param("threshold", ParamKind::Number),
    param("min_speech_ms", ParamKind::Count),
    param("min_silence_ms", ParamKind::Count),
    param("pad_ms", ParamKind::Count),
];
const WAVEFORM: &[Param] =
    &[param("points", ParamKind::Count), param("width", ParamKind::Count), param("height", ParamKind::Count)];
const THUMBNAIL: &[Param] =
    &[param("width", ParamKind::Count), param("height", ParamKind::Count), param("format", ParamKind::Text)];

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

    /// The parameters that it knows.
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
