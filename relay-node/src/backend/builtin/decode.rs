//! Audio of any supported container as a run of interleaved samples, never more than a packet of it in memory.

use symphonia::core::audio::{Channels, GenericAudioBufferRef};
use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::common::Limit;
use symphonia::core::errors::Error as DecoderError;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, Track, TrackType};
use symphonia::core::io::{MediaSourceStream, MediaSourceStreamOptions};
use symphonia::core::meta::MetadataOptions;

use super::codecs;
use super::error::MediaError;
use super::limits::Limits;
use super::progress::Throttle;
use super::shape::{self, Shape, Trim};
use super::sniff::{AUDIO, Container};
use super::source::{Failure, Source};

/// Packets in a row that may decode to nothing, before the file is taken for damaged.
const SILENT_PACKETS_MAX: u32 = 4_096;
/// How much less than stated may come out of a lossy codec before the sound counts as cut off, in frames: encoders count
/// priming and the last block in different ways. Of a lossless one, all must come out.
const LOSSY_SHORTFALL_MAX: u64 = 8_192;

/// An audio file, opened: its demuxer, and the track that tasks work on.
pub(super) struct Opened {
    pub(super) container: Container,
    pub(super) shape: Shape,
    pub(super) format: Box<dyn FormatReader>,
    pub(super) track: Track,
    pub(super) params: AudioCodecParameters,
    pub(super) bytes: u64,
    failure: Failure,
}

/// What the decoded samples are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spec {
    /// Frames per second.
    pub(super) rate: u32,
    /// Samples per frame.
    pub(super) channels: usize,
    /// Where the channels belong.
    pub(super) layout: Channels,
}

/// Opens the audio file, whole or cut off (see [`Shape::cut`]).
///
/// # Errors
/// [`MediaError::Unsupported`] when there is no sound track in it; [`MediaError::Corrupt`], [`MediaError::Truncated`],
/// [`MediaError::Unreadable`].
pub(super) fn open(container: Container, mut source: Source) -> Result<Opened, MediaError> {
    let shape = shape::of(container, &mut source)?;
    let bytes = source.bytes;
    let (media, failure) = source.into_media()?;
    let stream = MediaSourceStream::new(media, MediaSourceStreamOptions::default());
    let tags = MetadataOptions::default()
        .limit_tag_bytes(Limit::Maximum(64 * 1024))
        .limit_visual_bytes(Limit::Maximum(4 * 1024 * 1024));
    let opened = symphonia::default::get_probe().probe(&Hint::new(), stream, FormatOptions::default(), tags);
    let format = match opened {
        Ok(format) => format,
        Err(error) => return Err(why(error, &failure, shape.cut.as_deref())),
    };
    if codecs::container_of(format.format_info().format) != Some(container) {
        return Err(MediaError::corrupt(format!("it begins as {}, and does not go on so", container.name())));
    }
    let track = format.first_track_known_codec(TrackType::Audio).or_else(|| format.first_track(TrackType::Audio));
    let Some((track, params)) = track.and_then(|track| Some((track.clone(), audio_params(track)?.clone()))) else {
        return Err(MediaError::Unsupported {
            found: format!("{} without a sound track", container.name()),
            accepted: AUDIO,
        });
    };
    Ok(Opened { container, shape, format, track, params, bytes, failure })
}

/// The parameters of a sound track.
pub(super) fn audio_params(track: &Track) -> Option<&AudioCodecParameters> {
    match &track.codec_params {
        Some(CodecParameters::Audio(params)) => Some(params),
        _ => None,
    }
}

/// An error of the decoders in our words. `cut` explains it when the file is known to be cut off.
fn why(error: DecoderError, failure: &Failure, cut: Option<&str>) -> MediaError {
    if let Some(error) = failure.take() {
        return MediaError::Unreadable(error);
    }
    if let Some(cut) = cut {
        return MediaError::truncated(cut);
    }
    match error {
        DecoderError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            MediaError::truncated("it ends where more must come")
        }
        DecoderError::IoError(error) => MediaError::corrupt(error.to_string()),
        DecoderError::DecodeError(reason) | DecoderError::LimitError(reason) => MediaError::corrupt(reason),
        DecoderError::Unsupported(what) => MediaError::Unsupported { found: what.to_owned(), accepted: AUDIO },
        DecoderError::ResetRequired => {
            MediaError::Unsupported { found: "a file of several streams in a row".to_owned(), accepted: AUDIO }
        }
        error => MediaError::corrupt(error.to_string()),
    }
}

impl Opened {
    /// Makes the decoder ready and decodes the first sound, so that its rate and channels are known for sure.
    ///
    /// # Errors
    /// [`MediaError::Truncated`] when the structure says that something is missing; [`MediaError::Unsupported`] names
    /// the codec; [`MediaError::TooLarge`], [`MediaError::TooLong`] before any work, when the header already says so.
    pub(super) fn decoder(self, limits: &Limits) -> Result<Decoder, MediaError> {
        if let Some(cut) = self.shape.cut {
            return Err(MediaError::truncated(cut));
        }
        if let (Some(rate), Some(channels)) = (self.params.sample_rate, &self.params.channels) {
            check(rate, channels.count(), limits)?;
        }
        let stated = stated_frames(&self.track, &self.params).filter(|_| self.shape.length_is_stated);
        // Without a header that states the length, the demuxer's guess would be trimmed to.
        let options =
            AudioDecoderOptions::default().gapless(self.container != Container::Mp3 || self.shape.length_is_stated);
        let decoder = symphonia::default::get_codecs().make_audio_decoder(&self.params, &options);
        let decoder = decoder.map_err(|error| match error {
            DecoderError::Unsupported(_) => MediaError::Unsupported {
                found: format!("{} in {}", codecs::name_of(&self.params), self.container.name()),
                accepted: AUDIO,
            },
            error => why(error, &self.failure, None),
        })?;
        let mut decoder = Decoder {
            packets: Packets {
                format: self.format,
                track_id: self.track.id,
                bytes: self.bytes,
                read: 0,
                failure: self.failure,
                length_is_stated: self.shape.length_is_stated,
            },
            decoder,
            spec: Spec { rate: 0, channels: 0, layout: Channels::None },
            buffer: Vec::new(),
            frames: 0,
            walked: self.shape.frames.filter(|_| self.container != Container::Wav && !self.shape.length_is_stated),
            stated,
            slack: if matches!(self.container, Container::Wav | Container::Flac) { 0 } else { LOSSY_SHORTFALL_MAX },
            trim: None,
            frames_max: 0,
            seconds_max: limits.audio_duration_max_s,
        };
        decoder.prime(self.shape.trim, limits)?;
        Ok(decoder)
    }
}

/// How many frames the header says, in the rate that is decoded.
fn stated_frames(track: &Track, params: &AudioCodecParameters) -> Option<u64> {
    match track.num_frames {
        Some(frames) => Some(frames),
        None => {
            let seconds = track.time_base?.calc_duration(track.duration?)?.as_secs_f64();
            Some((seconds * f64::from(params.sample_rate?)) as u64)
        }
    }
}

fn check(rate: u32, channels: usize, limits: &Limits) -> Result<(), MediaError> {
    if channels == 0 {
        return Err(MediaError::corrupt("the sound track has no channels"));
    }
    if channels > limits.audio_channels_max as usize {
        return Err(MediaError::TooLarge {
            what: format!("audio of {channels} channels"),
            limit: "audio_channels_max",
            max: u64::from(limits.audio_channels_max),
            advice: "mix it down",
        });
    }
    if rate > limits.audio_sample_rate_max_hz {
        return Err(MediaError::TooLarge {
            what: format!("a sample rate of {rate} Hz"),
            limit: "audio_sample_rate_max_hz",
            max: u64::from(limits.audio_sample_rate_max_hz),
            advice: "resample it",
        });
    }
    if rate < limits.audio_sample_rate_min_hz {
        let least = limits.audio_sample_rate_min_hz;
        return Err(MediaError::Unsupported {
            found: format!("a sample rate of {rate} Hz, below audio_sample_rate_min_hz = {least},"),
            accepted: AUDIO,
        });
    }
    Ok(())
}

/// The packets of one track.
struct Packets {
    format: Box<dyn FormatReader>,
    track_id: u32,
    bytes: u64,
    read: u64,
    failure: Failure,
    length_is_stated: bool,
}

impl Packets {
    fn next(&mut self) -> Result<Option<symphonia::core::packet::Packet>, MediaError> {
        loop {
            match self.format.next_packet() {
                Ok(Some(packet)) => {
                    self.read += packet.data.len() as u64;
                    if packet.track_id == self.track_id {
                        return Ok(Some(packet));
                    }
                }
                Ok(None) => return Ok(None),
                // A WAV of unstated length ends where the file ends.
                Err(DecoderError::IoError(error))
                    if error.kind() == std::io::ErrorKind::UnexpectedEof && !self.length_is_stated =>
                {
                    return self.failure.take().map_or(Ok(None), |error| Err(MediaError::Unreadable(error)));
                }
                Err(error) => return Err(why(error, &self.failure, None)),
            }
        }
    }
}

/// Decodes a sound track from its start to its end.
pub(super) struct Decoder {
    packets: Packets,
    decoder: Box<dyn AudioDecoder>,
    pub(super) spec: Spec,
    /// The latest samples, interleaved.
    buffer: Vec<f32>,
    /// Frames decoded so far, before trimming.
    frames: u64,
    /// Frames that walking through the file counted.
    walked: Option<u64>,
    /// Frames that the header states.
    stated: Option<u64>,
    /// Frames that may be missing.
    slack: u64,
    trim: Option<Window>,
    frames_max: u64,
    seconds_max: u32,
}

/// The frames that are to be heard.
#[derive(Debug, Clone, Copy)]
struct Window {
    from: u64,
    to: u64,
}

impl Window {
    fn of(trim: Trim, rate: u32) -> Self {
        let frames = |units: u64| {
            let frames = u128::from(units) * u128::from(rate) / u128::from(trim.per_second.max(1));
            u64::try_from(frames).unwrap_or(u64::MAX)
        };
        let from = frames(trim.skip);
        Self { from, to: trim.keep.map_or(u64::MAX, |keep| from.saturating_add(frames(keep))) }
    }
}

impl Decoder {
    fn prime(&mut self, trim: Option<Trim>, limits: &Limits) -> Result<(), MediaError> {
        if !self.fill()? {
            let empty = self.stated.is_none_or(|stated| stated == 0);
            return Err(if empty { MediaError::Empty } else { MediaError::truncated("there is no sound in it") });
        }
        check(self.spec.rate, self.spec.channels, limits)?;
        self.trim = trim.map(|trim| Window::of(trim, self.spec.rate));
        self.frames_max = u64::from(limits.audio_duration_max_s) * u64::from(self.spec.rate);
        if self.stated.is_some_and(|stated| stated > self.frames_max) {
            return Err(MediaError::TooLong { max_s: self.seconds_max });
        }
        Ok(())
    }

    /// Decodes until there are samples in the buffer; `false` at the end.
    fn fill(&mut self) -> Result<bool, MediaError> {
        for _ in 0..SILENT_PACKETS_MAX {
            let Some(packet) = self.packets.next()? else { return Ok(false) };
            let seconds = self.frames as f64 / f64::from(self.spec.rate.max(1));
            let decoded = self.decoder.decode(&packet).map_err(|error| match error {
                DecoderError::DecodeError(reason) => MediaError::corrupt(format!("at {seconds:.3} s: {reason}")),
                // Within a packet, running out of bits is damage, not the end of the file.
                DecoderError::IoError(error) => MediaError::corrupt(format!("at {seconds:.3} s: {error}")),
                error => why(error, &self.packets.failure, None),
            })?;
            if decoded.frames() == 0 {
                continue;
            }
            take(&mut self.spec, &mut self.buffer, &decoded)?;
            if self.buffer.iter().any(|sample| !sample.is_finite()) {
                return Err(MediaError::corrupt(format!("at {seconds:.3} s: a sample is not a number")));
            }
            self.frames += (self.buffer.len() / self.spec.channels) as u64;
            return Ok(true);
        }
        Err(MediaError::corrupt("it has many packets and no sound in them"))
    }

    /// Gives every sample to `sink`, interleaved, some thousand frames at a time; returns the number of frames given.
    ///
    /// # Errors
    /// [`MediaError::Truncated`] when less comes out than the header states, [`MediaError::Corrupt`] at the first packet
    /// that does not decode, [`MediaError::TooLong`], [`MediaError::Cancelled`], and what `sink` returns.
    pub(super) fn run(
        mut self,
        progress: &mut Throttle<'_>,
        mut sink: impl FnMut(&[f32]) -> Result<(), MediaError>,
    ) -> Result<u64, MediaError> {
        let mut given = 0;
        loop {
            let channels = self.spec.channels;
            let end = self.frames;
            let start = end - (self.buffer.len() / channels) as u64;
            let Window { from, to } = self.trim.unwrap_or(Window { from: 0, to: u64::MAX });
            let (from, to) = (from.clamp(start, end), to.clamp(start, end));
            if from < to {
                let range = (from - start) as usize * channels..(to - start) as usize * channels;
                sink(&self.buffer[range])?;
                given += to - from;
            }
            if given > self.frames_max {
                return Err(MediaError::TooLong { max_s: self.seconds_max });
            }
            progress.tick(self.packets.read, self.packets.bytes)?;
            if !self.fill()? {
                break;
            }
        }
        self.is_all()?;
        Ok(given)
    }

    /// Compares what came out with what was promised.
    fn is_all(&self) -> Result<(), MediaError> {
        let seconds = |frames: u64| frames as f64 / f64::from(self.spec.rate);
        match (self.stated, self.walked) {
            (Some(stated), _) if self.frames.saturating_add(self.slack.min(stated / 2)) < stated => {
                let (stated, there) = (seconds(stated), seconds(self.frames));
                Err(MediaError::truncated(format!("its header states {stated:.3} s of sound, {there:.3} s are there")))
            }
            (_, Some(walked)) if self.frames.saturating_add(self.slack) < walked => {
                let (walked, there) = (seconds(walked), seconds(self.frames));
                Err(MediaError::corrupt(format!("only {there:.3} s of its {walked:.3} s can be decoded")))
            }
            _ => Ok(()),
        }
    }
}

/// Copies the decoded samples, and learns or checks what they are.
fn take(spec: &mut Spec, buffer: &mut Vec<f32>, decoded: &GenericAudioBufferRef<'_>) -> Result<(), MediaError> {
    let now = decoded.spec();
    if spec.channels == 0 {
        *spec = Spec { rate: now.rate(), channels: now.channels().count(), layout: now.channels().clone() };
        if spec.channels == 0 || spec.rate == 0 {
            return Err(MediaError::corrupt("the sound track has no channels or no sample rate"));
        }
    } else if now.rate() != spec.rate || now.channels().count() != spec.channels {
        return Err(MediaError::Unsupported {
            found: "sound that changes its sample rate or channels on the way".to_owned(),
            accepted: AUDIO,
        });
    }
    decoded.copy_to_vec_interleaved(buffer);
    Ok(())
}
