//! What kind of media a source is, told by its first bytes alone: names and declared types lie.

use super::error::MediaError;
use super::shape::frames;
use super::source::Source;

/// What audio tasks read.
pub(super) const AUDIO: &str = "WAV, FLAC, MP3, Ogg Vorbis, or AAC in M4A/MP4 or ADTS";
/// What image tasks read.
pub(super) const IMAGE: &str = "PNG, JPEG or WebP";
/// What `probe` reads.
pub(super) const ANY: &str = "audio (WAV, FLAC, MP3, Ogg Vorbis, AAC in M4A/MP4 or ADTS) or an image (PNG, JPEG, WebP)";

/// Bytes looked at.
const HEAD_BYTES: usize = 16 * 1024;

/// A kind of media.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Audio(Container),
    Image(ImageKind),
    /// Known by sight, read by no task; the text names it.
    Other(&'static str),
}

/// A container of audio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Container {
    Wav,
    Flac,
    Mp3,
    Ogg,
    Mp4,
    Adts,
}

impl Container {
    /// Its short name in results.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Wav => "wav",
            Self::Flac => "flac",
            Self::Mp3 => "mp3",
            Self::Ogg => "ogg",
            Self::Mp4 => "mp4",
            Self::Adts => "adts",
        }
    }
}

/// A format of still images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ImageKind {
    Png,
    Jpeg,
    WebP,
}

impl ImageKind {
    /// Its short name in results.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpeg",
            Self::WebP => "webp",
        }
    }
}

/// Tells what `source` is.
///
/// # Errors
/// [`MediaError::Empty`], [`MediaError::NotMedia`] (with `accepted` as the advice), [`MediaError::Unreadable`].
pub(super) fn kind_of(source: &mut Source, accepted: &'static str) -> Result<Kind, MediaError> {
    if source.bytes == 0 {
        return Err(MediaError::Empty);
    }
    let head = source.peek(0, HEAD_BYTES)?;
    let found = match frames::id3v2_bytes(&head) {
        // Behind an ID3v2 tag: usually MP3, but FLAC and AAC are found with one too.
        Some(tag) => {
            let behind = source.peek(tag, HEAD_BYTES)?;
            known_by_magic(&behind).or_else(|| framed(&behind)).or(Some(Kind::Audio(Container::Mp3)))
        }
        None => known_by_magic(&head).or_else(|| framed(&head)),
    };
    found.ok_or_else(|| MediaError::NotMedia { input: source.label(), accepted })
}

fn framed(head: &[u8]) -> Option<Kind> {
    if frames::starts_with::<frames::Mpeg>(head) {
        return Some(match frames::mpeg_layer(head) {
            Some(3) => Kind::Audio(Container::Mp3),
            _ => Kind::Other("MPEG audio layer I or II"),
        });
    }
    frames::starts_with::<frames::Adts>(head).then_some(Kind::Audio(Container::Adts))
}

fn known_by_magic(head: &[u8]) -> Option<Kind> {
    let at = |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    if at(0, b"RIFF") {
        return riff(head.get(8..12)?);
    }
    if at(4, b"ftyp") {
        return Some(iso_brand(head.get(8..12).unwrap_or_default()));
    }
    const MAGIC: &[(&[u8], Kind)] = &[
        (b"fLaC", Kind::Audio(Container::Flac)),
        (b"OggS", Kind::Audio(Container::Ogg)),
        (b"\x89PNG\r\n\x1a\n", Kind::Image(ImageKind::Png)),
        (b"\xff\xd8\xff", Kind::Image(ImageKind::Jpeg)),
        (b"\x1a\x45\xdf\xa3", Kind::Other("Matroska or WebM")),
        (b"RF64", Kind::Other("WAV with 64-bit sizes (RF64)")),
        (b"BW64", Kind::Other("WAV with 64-bit sizes (BW64)")),
        (b"RIFX", Kind::Other("big-endian WAV (RIFX)")),
        (b"riff\x2e\x91\xcf\x11", Kind::Other("Sony Wave64")),
        (b"FORM", Kind::Other("AIFF")),
        (b"caff", Kind::Other("Apple CAF")),
        (b".snd", Kind::Other("Sun AU")),
        (b"#!AMR", Kind::Other("AMR")),
        (b"wvpk", Kind::Other("WavPack")),
        (b"MAC ", Kind::Other("Monkey's Audio")),
        (b"MThd", Kind::Other("MIDI")),
        (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", Kind::Other("ASF (WMA or WMV)")),
        (b"FLV\x01", Kind::Other("Flash video")),
        (b"\x00\x00\x01\xba", Kind::Other("MPEG programme stream")),
        (b"\x0b\x77", Kind::Other("AC-3")),
        (b"GIF87a", Kind::Other("GIF")),
        (b"GIF89a", Kind::Other("GIF")),
        (b"II*\x00", Kind::Other("TIFF")),
        (b"MM\x00*", Kind::Other("TIFF")),
        (b"BM", Kind::Other("BMP")),
        (b"\x00\x00\x01\x00", Kind::Other("Windows icon")),
        (b"\xff\x0a", Kind::Other("JPEG XL")),
        (b"%PDF-", Kind::Other("PDF")),
    ];
    let bmp_is_text = at(0, b"BM") && head.get(6..10) != Some(&[0; 4]);
    let icon_is_junk = at(0, b"\x00\x00\x01\x00") && (head.get(4) == Some(&0) || head.get(5) != Some(&0));
    if bmp_is_text || icon_is_junk {
        return None;
    }
    MAGIC.iter().find(|(magic, _)| at(0, magic)).map(|&(_, kind)| kind)
}

fn riff(form: &[u8]) -> Option<Kind> {
    match form {
        b"WAVE" => Some(Kind::Audio(Container::Wav)),
        b"WEBP" => Some(Kind::Image(ImageKind::WebP)),
        b"AVI " => Some(Kind::Other("AVI")),
        _ => None,
    }
}

fn iso_brand(brand: &[u8]) -> Kind {
    match brand {
        b"avif" | b"avis" => Kind::Other("AVIF"),
        b"heic" | b"heix" | b"hevc" | b"mif1" | b"msf1" => Kind::Other("HEIF"),
        b"crx " => Kind::Other("Canon raw image"),
        _ => Kind::Audio(Container::Mp4),
    }
}
