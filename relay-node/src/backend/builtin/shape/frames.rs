//! MP3 and ADTS: a row of frames, each with its own length and no count anywhere that can be relied on.

use super::{Shape, Walk};
use crate::backend::builtin::error::MediaError;

/// One frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::backend::builtin) struct Frame {
    /// Length, header included.
    bytes: u64,
    /// Samples per channel.
    samples: u64,
}

/// A format made of frames.
pub(in crate::backend::builtin) trait Framing {
    /// Reads a frame's header; `None` if this is none.
    fn frame(head: [u8; 6]) -> Option<Frame>;
}

/// MPEG-1, -2 and -2.5 audio, layers I to III (ISO 11172-3, 13818-3).
pub(in crate::backend::builtin) struct Mpeg;
/// AAC frames as in a broadcast (ISO 13818-7, ADTS).
pub(in crate::backend::builtin) struct Adts;

const ID3V1_BYTES: u64 = 128;
const KBIT_V1: [[u16; 15]; 3] = [
    [0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
    [0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
    [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
];
const KBIT_V2_L1: [u16; 15] = [0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256];
const KBIT_V2_L23: [u16; 15] = [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160];

impl Framing for Mpeg {
    fn frame([a, b, c, ..]: [u8; 6]) -> Option<Frame> {
        let version = (b >> 3) & 3; // 0: 2.5, 2: 2, 3: 1
        let layer = 4 - ((b >> 1) & 3);
        if a != 0xFF || b & 0xE0 != 0xE0 || version == 1 || layer == 4 {
            return None;
        }
        let table = match (version, layer) {
            (3, layer) => &KBIT_V1[usize::from(layer - 1)],
            (_, 1) => &KBIT_V2_L1,
            _ => &KBIT_V2_L23,
        };
        let bits = u64::from(*table.get(usize::from(c >> 4)).filter(|&&kbit| kbit > 0)?) * 1000;
        let base: u64 = *[44_100, 48_000, 32_000].get(usize::from((c >> 2) & 3))?;
        let rate = match version {
            3 => base,
            2 => base / 2,
            _ => base / 4,
        };
        let padding = u64::from((c >> 1) & 1);
        let samples = match (layer, version) {
            (1, _) => 384,
            (3, version) if version != 3 => 576,
            _ => 1152,
        };
        let bytes = if layer == 1 { (12 * bits / rate + padding) * 4 } else { samples / 8 * bits / rate + padding };
        Some(Frame { bytes, samples })
    }
}

impl Framing for Adts {
    fn frame([a, b, c, d, e, f]: [u8; 6]) -> Option<Frame> {
        let bytes = u64::from(d & 3) << 11 | u64::from(e) << 3 | u64::from(f >> 5);
        let head = if b & 1 == 0 { 9 } else { 7 };
        let known_rate = (c >> 2) & 15 < 13;
        (a == 0xFF && b & 0xF6 == 0xF0 && known_rate && bytes > head).then_some(Frame { bytes, samples: 1024 })
    }
}

/// Whether `head` begins with a frame, and a second one where the first ends (unless `head` ends before).
pub(in crate::backend::builtin) fn starts_with<F: Framing>(head: &[u8]) -> bool {
    let frame_at = |at: usize| head.get(at..).and_then(|rest| rest.first_chunk()).map(|&head| F::frame(head));
    match frame_at(0) {
        Some(Some(first)) => frame_at(first.bytes as usize).is_none_or(|second| second.is_some()),
        _ => false,
    }
}

/// The layer of the MPEG frame that `head` begins with.
pub(in crate::backend::builtin) fn mpeg_layer(head: &[u8]) -> Option<u8> {
    head.get(1).map(|b| 4 - ((b >> 1) & 3))
}

/// Length of the ID3v2 tag that `head` begins with, header included.
pub(in crate::backend::builtin) fn id3v2_bytes(head: &[u8]) -> Option<u64> {
    let &[b'I', b'D', b'3', major, _, flags, s0, s1, s2, s3] = head.first_chunk()? else { return None };
    if major == 0xFF || [s0, s1, s2, s3].iter().any(|byte| byte & 0x80 != 0) {
        return None;
    }
    let body = [s0, s1, s2, s3].iter().fold(0, |size, &byte| size << 7 | u64::from(byte));
    let footer = if flags & 0x10 == 0 { 0 } else { 10 };
    Some(10 + body + footer)
}

/// What walking found.
#[derive(Default)]
struct Row {
    frames: u64,
    samples: u64,
    bytes: u64,
    cut: Option<String>,
}

/// Walks MP3 frames; the `Xing`/`Info` or `VBRI` header in the first one, if any, says how many there should be.
pub(super) fn walk_mp3(walk: &mut Walk<'_>) -> Result<Shape, MediaError> {
    let stated = first_frame(walk)?.and_then(|first| stated_frames(&first));
    walk.go(0)?;
    let mut row = walk_frames::<Mpeg>(walk, "MP3")?;
    if let (Some(stated), None) = (stated.flatten(), &row.cut) {
        // The frame with the header is not counted in it by most encoders, and counted by some.
        let there = row.frames.saturating_sub(1);
        if there < stated.saturating_sub(1) {
            row.cut = Some(format!("the MP3 header promises {stated} frames, {there} are there"));
        }
    }
    Ok(Shape {
        cut: row.cut,
        frames: Some(row.samples),
        length_is_stated: stated.is_some(),
        audio_bytes: Some(row.bytes),
        trim: None,
    })
}

/// Walks ADTS frames.
pub(super) fn walk_adts(walk: &mut Walk<'_>) -> Result<Shape, MediaError> {
    let row = walk_frames::<Adts>(walk, "AAC")?;
    Ok(Shape { cut: row.cut, frames: Some(row.samples), audio_bytes: Some(row.bytes), ..Shape::default() })
}

fn walk_frames<F: Framing>(walk: &mut Walk<'_>, name: &str) -> Result<Row, MediaError> {
    let mut row = Row::default();
    while walk.left() > 0 {
        let at = walk.at;
        let mut head = [0; 10];
        let length = head.len().min(usize::try_from(walk.left()).unwrap_or(usize::MAX));
        walk.fill(&mut head[..length])?;
        let head = &head[..length];
        let next = match head.first_chunk().and_then(|&head| F::frame(head)) {
            Some(frame) => {
                let end = at + frame.bytes;
                if end > walk.bytes {
                    row.cut = Some(format!("the last {name} frame needs {} bytes more", end - walk.bytes));
                    return Ok(row);
                }
                row.frames += 1;
                row.samples += frame.samples;
                row.bytes += frame.bytes;
                end
            }
            None => match tag_bytes(head, walk.bytes - at) {
                Some(tag) if at.saturating_add(tag) > walk.bytes => {
                    row.cut = Some("a tag of the file is incomplete".to_owned());
                    return Ok(row);
                }
                Some(tag) => at + tag,
                None if is_part_of_header(head) => {
                    row.cut = Some(format!("the last {name} frame is incomplete"));
                    return Ok(row);
                }
                None => {
                    return Err(MediaError::corrupt(format!(
                        "at byte {at} a frame of {name} should begin, and does not"
                    )));
                }
            },
        };
        walk.go(next)?;
    }
    if row.frames == 0 && row.cut.is_none() {
        row.cut = Some(format!("there is no {name} frame behind the tags"));
    }
    Ok(row)
}

/// Fewer bytes than a header has, and they may be the start of one.
fn is_part_of_header(head: &[u8]) -> bool {
    head.len() < 6 && head.first() == Some(&0xFF)
}

/// Length of the tag (or padding) that `head` begins with; `left` is what remains of the file.
fn tag_bytes(head: &[u8], left: u64) -> Option<u64> {
    if let Some(tag) = id3v2_bytes(head) {
        return Some(tag);
    }
    if head.starts_with(b"TAG") && left <= ID3V1_BYTES {
        return Some(ID3V1_BYTES);
    }
    // APE and Lyrics3 tags say their length at their own end; both come last, with an ID3v1 tag at most behind them.
    if head.starts_with(b"APETAGEX") || head.starts_with(b"LYRICSBEG") {
        return Some(left);
    }
    // Padding behind a tag or at the end.
    Some(zeros(head)).filter(|&zeros| zeros > 0)
}

fn zeros(head: &[u8]) -> u64 {
    head.iter().take_while(|&&byte| byte == 0).count() as u64
}

/// The start of the first frame, for the header that may be in it.
fn first_frame(walk: &mut Walk<'_>) -> Result<Option<Vec<u8>>, MediaError> {
    let mut at = 0;
    loop {
        walk.go(at)?;
        let Some(head) = walk.take::<10>()? else { return Ok(None) };
        match id3v2_bytes(&head) {
            Some(tag) => at += tag,
            None if head[0] == 0 => at += zeros(&head),
            None => break,
        }
    }
    walk.go(at)?;
    let length = usize::try_from(walk.left()).unwrap_or(usize::MAX).min(192);
    let mut first = vec![0; length];
    walk.fill(&mut first)?;
    Ok(Some(first))
}

/// The number of frames that the first frame states: `Some(None)` if it has such a header without the number.
fn stated_frames(first: &[u8]) -> Option<Option<u64>> {
    let at = |offset: usize, magic: &[u8]| first.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    let number = |offset: usize| {
        first.get(offset..).and_then(|rest| rest.first_chunk()).map(|&bytes| u64::from(u32::from_be_bytes(bytes)))
    };
    if at(36, b"VBRI") {
        return Some(number(36 + 14));
    }
    // Behind the side information, whose length depends on version and channels.
    let xing = [13, 21, 36].into_iter().find(|&offset| at(offset, b"Xing") || at(offset, b"Info"))?;
    let has_number = number(xing + 4).is_some_and(|flags| flags & 1 == 1);
    Some(has_number.then(|| number(xing + 8)).flatten())
}
