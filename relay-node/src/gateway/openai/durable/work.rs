//! A durable call as a job: its parameters, what it works on, and what its answer must look like. Pure.

use bytes::Bytes;
use relay_protocol::{JobError, Task};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::fields::{Fields, invalid, refused};
use crate::backend::builtin::pcm;

/// What a call comes to.
#[derive(Debug, PartialEq)]
pub(super) struct Work {
    pub(super) model: Option<String>,
    pub(super) params: Map<String, Value>,
    pub(super) content: Content,
    pub(super) wanted: Wanted,
}

/// What the job works on.
#[derive(Debug, PartialEq)]
pub(super) enum Content {
    Text(String),
    /// Sound, as a WAV file.
    Wav(Bytes),
}

/// What the answer looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Chat,
    /// `is_brief`: without the segments.
    Transcript {
        is_brief: bool,
    },
    Speech,
    /// The vectors as numbers, or as base64 of 32-bit floats.
    Embeddings {
        in_base64: bool,
    },
    Image,
    Vad,
}

/// Why a durable call cannot be streamed.
const NO_STREAM: &str = "its answer is that of a job that may begin anew, and comes whole";

/// The call with these fields.
///
/// # Errors
/// A field that a job cannot carry, or of the wrong kind.
pub(super) fn of_json(task: Task, fields: Map<String, Value>) -> Result<Work, JobError> {
    let mut fields = Fields::new(fields);
    let model = fields.text("model")?;
    fields.only("stream", &[json!(false)], NO_STREAM)?;
    let (params, text, wanted) = match task {
        Task::Chat => chat(&mut fields)?,
        Task::Embed => embeddings(&mut fields)?,
        Task::Image => image(&mut fields)?,
        _ => speech(&mut fields)?,
    };
    fields.done()?;
    Ok(Work { model, params, content: Content::Text(text), wanted })
}

type Said = (Map<String, Value>, String, Wanted);

fn chat(fields: &mut Fields) -> Result<Said, JobError> {
    let messages = match fields.take("messages") {
        Some(Value::Array(messages)) if !messages.is_empty() && messages.iter().all(Value::is_object) => messages,
        _ => return Err(invalid("messages must be a list of messages, at least one".to_owned())),
    };
    fields.only("n", &[json!(1)], "a job keeps one choice")?;
    let same = ["temperature", "top_p", "max_tokens", "seed", "stop", "response_format"].map(|name| (name, name));
    Ok((fields.params(&same), Value::Array(messages).to_string(), Wanted::Chat))
}

fn embeddings(fields: &mut Fields) -> Result<Said, JobError> {
    // Always a list: a single text could read as one.
    let texts = match fields.take("input") {
        Some(Value::String(text)) if !text.is_empty() => vec![Value::String(text)],
        Some(Value::Array(texts)) if !texts.is_empty() && texts.iter().all(Value::is_string) => texts,
        _ => return Err(invalid("input must be a text or a list of texts".to_owned())),
    };
    let in_base64 = match fields.text("encoding_format")?.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => return Err(invalid("encoding_format must be float or base64".to_owned())),
    };
    Ok((Map::new(), Value::Array(texts).to_string(), Wanted::Embeddings { in_base64 }))
}

fn image(fields: &mut Fields) -> Result<Said, JobError> {
    let prompt = needed("prompt", fields.text("prompt")?)?;
    fields.only("n", &[json!(1)], "a job keeps one picture")?;
    if fields.take("response_format") != Some(json!("b64_json")) {
        return Err(refused("response_format", "a stored picture has no URL: ask for b64_json"));
    }
    Ok((fields.params(&["size", "step", "seed"].map(|name| (name, name))), prompt, Wanted::Image))
}

fn speech(fields: &mut Fields) -> Result<Said, JobError> {
    let input = needed("input", fields.text("input")?)?;
    let params = [("voice", "voice"), ("language", "language"), ("response_format", "format"), ("speed", "speed")];
    Ok((fields.params(&params), input, Wanted::Speech))
}

fn needed(name: &str, text: Option<String>) -> Result<String, JobError> {
    text.ok_or_else(|| invalid(format!("{name} must be a text that is not empty")))
}

/// What a form says beside its file.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) model: Option<String>,
    pub(super) params: Map<String, Value>,
    pub(super) wanted: Wanted,
}

/// The fields of a transcription's form but its file, each with all its values.
///
/// # Errors
/// As [`of_json`].
pub(super) fn of_form(fields: Vec<(String, String)>) -> Result<Told, JobError> {
    let (mut words, mut single) = (false, Map::new());
    for (name, value) in fields {
        if name.trim_end_matches("[]") == "timestamp_granularities" {
            match value.as_str() {
                "word" => words = true,
                "segment" => {}
                _ => return Err(invalid("timestamp_granularities[] must be word or segment".to_owned())),
            }
        } else if single.insert(name.clone(), Value::String(value)).is_some() {
            return Err(invalid(format!("the form field {name:?} came twice: send it once")));
        }
    }
    let mut fields = Fields::new(single);
    let model = fields.text("model")?;
    fields.only("stream", &[json!("false")], NO_STREAM)?;
    let is_brief = match fields.text("response_format")?.as_deref() {
        None | Some("verbose_json") => false,
        Some("json") => true,
        Some(_) => return Err(refused("response_format", "a job makes json and verbose_json")),
    };
    let mut params = fields.params(&["language", "prompt", "temperature", "diarize"].map(|name| (name, name)));
    fields.done()?;
    if words {
        params.insert("words".to_owned(), Value::Bool(true));
    }
    Ok(Told { model, params, wanted: Wanted::Transcript { is_brief } })
}

/// Sound whose voices are looked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sound {
    model: String,
    audio: Vec<f32>,
}

impl Sound {
    /// The call as a job: its samples as a WAV file that has the same ones.
    ///
    /// # Errors
    /// There are none, or too many.
    pub(super) fn work(self) -> Result<Work, JobError> {
        if self.audio.is_empty() {
            return Err(invalid("audio must be a list of samples at 16 kHz, at least one".to_owned()));
        }
        let format = hound::SampleFormat::Float;
        let spec = hound::WavSpec { channels: 1, sample_rate: pcm::RATE, bits_per_sample: 32, sample_format: format };
        let mut wav = std::io::Cursor::new(Vec::with_capacity(self.audio.len() * size_of::<f32>()));
        let write = |wav| {
            let mut writer = hound::WavWriter::new(wav, spec)?;
            self.audio.iter().try_for_each(|sample| writer.write_sample(*sample))?;
            writer.finalize()
        };
        write(&mut wav).map_err(|error| invalid(format!("audio cannot be written as sound: {error}")))?;
        let content = Content::Wav(wav.into_inner().into());
        Ok(Work { model: Some(self.model), params: Map::new(), content, wanted: Wanted::Vad })
    }
}

#[cfg(test)]
#[path = "work_test.rs"]
mod tests;
