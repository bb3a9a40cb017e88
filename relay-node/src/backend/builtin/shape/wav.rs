//! RIFF/WAVE: the data chunk's size against what is there.

use super::{Shape, Walk};
use crate::backend::builtin::error::MediaError;

/// Sizes from here on are what writers put down that cannot go back to fill the size in: 0xFFFFFFFF, or 0x7FFFF000.
const UNKNOWN_FROM: u32 = 0x7FFF_F000;

/// What the format chunk says.
#[derive(Clone, Copy)]
struct Format {
    block_align: u16,
    is_pcm: bool,
}

/// Walks the chunks up to the audio data.
pub(super) fn walk(walk: &mut Walk<'_>) -> Result<Shape, MediaError> {
    walk.go(12)?;
    let mut format = None;
    loop {
        let Some([a, b, c, d, s0, s1, s2, s3]) = walk.take()? else {
            return Ok(Shape { cut: Some("the WAV ends before its audio begins".to_owned()), ..Shape::default() });
        };
        let size = u32::from_le_bytes([s0, s1, s2, s3]);
        let body = walk.at;
        match &[a, b, c, d] {
            b"data" => return data(walk, size, format),
            b"fmt " => format = read_format(walk)?,
            _ => {}
        }
        walk.go(body.saturating_add(u64::from(size) + u64::from(size % 2)))?;
    }
}

fn read_format(walk: &mut Walk<'_>) -> Result<Option<Format>, MediaError> {
    let Some([t0, t1, c0, c1, _, _, _, _, _, _, _, _, b0, b1, s0, s1]) = walk.take()? else { return Ok(None) };
    let tag = u16::from_le_bytes([t0, t1]);
    let channels = u16::from_le_bytes([c0, c1]);
    let bits = u16::from_le_bytes([s0, s1]);
    // The decoder multiplies these in 16 bits.
    if channels == 0 || u32::from(channels) * u32::from(bits) > u32::from(u16::MAX) {
        return Err(MediaError::corrupt(format!("a WAV of {channels} channels with {bits} bits each cannot be")));
    }
    Ok(Some(Format { block_align: u16::from_le_bytes([b0, b1]), is_pcm: matches!(tag, 1 | 3 | 0xFFFE) }))
}

fn data(walk: &Walk<'_>, size: u32, format: Option<Format>) -> Result<Shape, MediaError> {
    let Some(format) = format else { return Err(MediaError::corrupt("the WAV has no format chunk before its audio")) };
    let there = walk.left();
    let unknown = size >= UNKNOWN_FROM && u64::from(size) > there;
    let promised = if unknown { there } else { u64::from(size) };
    let cut = (promised > there)
        .then(|| format!("the WAV header promises {promised} bytes of audio, {there} are there"))
        .or_else(|| (size == 0 && there > 0).then(|| "the WAV header was never finished (its size is 0)".to_owned()));
    let frames = (format.is_pcm && format.block_align > 0).then(|| promised / u64::from(format.block_align));
    Ok(Shape { cut, frames, length_is_stated: !unknown, audio_bytes: Some(promised.min(there)), trim: None })
}
