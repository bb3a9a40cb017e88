//! What a file is, told by its header and structure; nothing is decoded.

use serde_json::{Map, Value, json};
use symphonia::core::codecs::CodecParameters;
use symphonia::core::formats::Track;
use symphonia::core::meta::{RawValue, StandardTag, Tag};

use super::codecs;
use super::decode::{self, Opened, audio_params};
use super::error::MediaError;
use super::limits::Limits;
use super::sniff::{self, Container, Kind};
use super::source::Source;
use super::{BuiltinTask, Output, rounded, thumbnail, wrong_kind};

/// Tags given at most, and characters of one tag.
const TAGS_MAX: usize = 64;
const TAG_CHARS_MAX: usize = 512;
/// Tracks listed at most.
const TRACKS_MAX: usize = 64;

/// Looks at the file.
pub(super) fn run(mut source: Source, limits: &Limits) -> Result<Output, MediaError> {
    let bytes = source.bytes;
    let mut result = match sniff::kind_of(&mut source, sniff::ANY)? {
        Kind::Audio(container) => audio(decode::open(container, source)?),
        Kind::Image(kind) => {
            let header = thumbnail::header(kind, source, limits)?;
            json!({
                "kind": "image",
                "format": kind.name(),
                "width": header.width,
                "height": header.height,
                "bits_per_pixel": header.color.bits_per_pixel(),
                "alpha": header.color.has_alpha(),
            })
        }
        kind @ Kind::Other(_) => return Err(wrong_kind(BuiltinTask::Probe, kind, sniff::ANY)),
    };
    result["bytes"] = json!(bytes);
    Ok(Output { result, media: None })
}

fn audio(mut opened: Opened) -> Value {
    let params = &opened.params;
    let duration = duration(&opened);
    let coded = opened.shape.audio_bytes.filter(|_| opened.container != Container::Mp4 || is_alone(&opened));
    let bits = coded.unwrap_or(opened.bytes) as f64 * 8.0;
    let bit_rate =
        duration.filter(|&seconds| seconds > 0.0 && opened.shape.cut.is_none()).map(|seconds| bits / seconds);
    let tracks: Vec<Value> = opened.format.tracks().iter().take(TRACKS_MAX).map(track).collect();
    json!({
        "kind": "audio",
        "container": opened.container.name(),
        "codec": codecs::name_of(params),
        "duration_s": duration.map(|seconds| rounded(seconds, 3)),
        "channels": params.channels.as_ref().map(|channels| channels.count()),
        "sample_rate": params.sample_rate,
        "bits_per_sample": params.bits_per_sample,
        "bit_rate": bit_rate.map(|rate| rate.round() as u64),
        "truncated": opened.shape.cut.is_some(),
        "tracks": tracks,
        "tags": tags(&mut opened),
    })
}

fn is_alone(opened: &Opened) -> bool {
    opened.format.tracks().len() == 1
}

/// The part that is to be heard, in seconds: what the header states, else what the structure counts.
fn duration(opened: &Opened) -> Option<f64> {
    let rate = f64::from(opened.params.sample_rate.filter(|&rate| rate > 0)?);
    if let Some(keep) = opened.shape.trim.and_then(|trim| Some(trim.keep? as f64 / f64::from(trim.per_second))) {
        return Some(keep);
    }
    match opened.shape.frames {
        Some(frames) if !opened.shape.length_is_stated => Some(frames as f64 / rate),
        _ => track_seconds(&opened.track),
    }
}

fn track_seconds(track: &Track) -> Option<f64> {
    if let (Some(frames), Some(rate)) = (track.num_frames, audio_params(track).and_then(|params| params.sample_rate)) {
        return Some(frames as f64 / f64::from(rate));
    }
    Some(track.time_base?.calc_duration(track.duration?)?.as_secs_f64())
}

fn track(track: &Track) -> Value {
    let kind = match &track.codec_params {
        Some(CodecParameters::Audio(_)) => "audio",
        Some(CodecParameters::Video(_)) => "video",
        Some(CodecParameters::Subtitle(_)) => "subtitle",
        _ => "other",
    };
    let params = audio_params(track);
    json!({
        "id": track.id,
        "kind": kind,
        "codec": params.map(codecs::name_of),
        "channels": params.and_then(|params| Some(params.channels.as_ref()?.count())),
        "sample_rate": params.and_then(|params| params.sample_rate),
        "language": track.language,
    })
}

/// The tags as text, by the names that most people know them by; of several with one name, the first.
fn tags(opened: &mut Opened) -> Value {
    let mut found = Map::new();
    let mut metadata = opened.format.metadata();
    loop {
        if let Some(revision) = metadata.current() {
            let of_tracks = revision.per_track.iter().flat_map(|track| &track.metadata.tags);
            for tag in revision.media.tags.iter().chain(of_tracks) {
                let Some((name, text)) = named(tag).filter(|_| found.len() < TAGS_MAX) else { continue };
                found.entry(name).or_insert_with(|| Value::from(text));
            }
        }
        if metadata.pop().is_none() {
            return Value::Object(found);
        }
    }
}

fn named(tag: &Tag) -> Option<(String, String)> {
    let text = match &tag.raw.value {
        RawValue::String(text) => text.to_string(),
        RawValue::StringList(texts) => texts.join("; "),
        RawValue::UnsignedInt(number) => number.to_string(),
        RawValue::SignedInt(number) => number.to_string(),
        _ => return None,
    };
    let name = match &tag.std {
        Some(StandardTag::TrackTitle(_)) => "title".to_owned(),
        Some(StandardTag::Artist(_)) => "artist".to_owned(),
        Some(StandardTag::Album(_)) => "album".to_owned(),
        Some(StandardTag::AlbumArtist(_)) => "album_artist".to_owned(),
        Some(StandardTag::Composer(_)) => "composer".to_owned(),
        Some(StandardTag::Genre(_)) => "genre".to_owned(),
        Some(StandardTag::Comment(_)) => "comment".to_owned(),
        Some(StandardTag::TrackNumber(_)) => "track_number".to_owned(),
        Some(StandardTag::RecordingDate(_) | StandardTag::ReleaseDate(_)) => "date".to_owned(),
        Some(StandardTag::Encoder(_) | StandardTag::EncoderSettings(_)) => "encoder".to_owned(),
        _ => tag.raw.key.to_lowercase(),
    };
    let short = |text: String| text.chars().filter(|&sign| sign != '\0').take(TAG_CHARS_MAX).collect::<String>();
    Some((short(name), short(text)))
}
