//! MP4 (ISO 14496-12): every top-level box whole, and the edit list of the sound track.
//!
//! AAC encoders put about 20-45 ms of priming before the sound and padding behind it; the edit list says what of it is
//! to be heard. The demuxer does not apply it, so it is read here.

use super::{Shape, Trim, Walk};
use crate::backend::builtin::error::MediaError;

/// Boxes walked, over all levels; real files have some dozens, fragmented ones some thousands.
const BOXES_MAX: usize = 1_000_000;

/// One box: its type, and where its body begins and ends.
struct Box4 {
    kind: [u8; 4],
    body: u64,
    end: u64,
}

/// Walks the top-level boxes, and into the movie box.
pub(super) fn walk(walk: &mut Walk<'_>) -> Result<Shape, MediaError> {
    let mut shape = Shape::default();
    let mut movie = None;
    let (mut media_bytes, mut boxes) = (0, 0);
    while walk.left() > 0 {
        boxes += 1;
        let at = walk.at;
        let Some(found) = next_box(walk)? else {
            shape.cut = Some(format!("the MP4 box at byte {at} is incomplete"));
            break;
        };
        if found.end > walk.bytes {
            let missing = found.end - walk.bytes;
            shape.cut =
                Some(format!("the MP4 box {:?} needs {missing} bytes more", found.kind.escape_ascii().to_string()));
            break;
        }
        match &found.kind {
            b"moov" => movie = Some((found.body, found.end)),
            b"mdat" => media_bytes += found.end - found.body,
            _ => {}
        }
        if boxes > BOXES_MAX {
            return Err(MediaError::corrupt("the MP4 has more boxes than any real file"));
        }
        walk.go(found.end)?;
    }
    match movie {
        Some((from, to)) => shape.trim = sound_edit(walk, from, to)?,
        None if shape.cut.is_none() => return Err(MediaError::corrupt("the MP4 has no movie box (moov)")),
        None => {}
    }
    shape.audio_bytes = Some(media_bytes);
    Ok(shape)
}

/// Reads the box header here; `None` when it is incomplete. A box of size 0 reaches to the end.
fn next_box(walk: &mut Walk<'_>) -> Result<Option<Box4>, MediaError> {
    let at = walk.at;
    let Some([s0, s1, s2, s3, kind @ ..]) = walk.take::<8>()? else { return Ok(None) };
    let size = match u32::from_be_bytes([s0, s1, s2, s3]) {
        0 => walk.bytes - at,
        1 => match walk.take()? {
            Some(size) => u64::from_be_bytes(size),
            None => return Ok(None),
        },
        size => u64::from(size),
    };
    let body = walk.at;
    let end = at.saturating_add(size);
    if end < body {
        return Err(MediaError::corrupt(format!("the MP4 box at byte {at} is smaller than its own header")));
    }
    Ok(Some(Box4 { kind, body, end }))
}

/// Finds the child `kind` in the box body from `from` to `to`, starting at the `nth` of them.
fn child(walk: &mut Walk<'_>, from: u64, to: u64, kind: [u8; 4], nth: usize) -> Result<Option<Box4>, MediaError> {
    walk.go(from)?;
    let mut left = nth;
    for _ in 0..BOXES_MAX {
        if walk.at.saturating_add(8) > to {
            break;
        }
        let Some(found) = next_box(walk)? else { break };
        if found.end > to {
            break;
        }
        if found.kind == kind {
            if left == 0 {
                return Ok(Some(found));
            }
            left -= 1;
        }
        walk.go(found.end)?;
    }
    Ok(None)
}

/// The edit of the first sound track, if it is one plain piece.
fn sound_edit(walk: &mut Walk<'_>, from: u64, to: u64) -> Result<Option<Trim>, MediaError> {
    let Some(movie_scale) = timescale(walk, from, to, *b"mvhd")? else { return Ok(None) };
    for nth in 0..64 {
        let Some(track) = child(walk, from, to, *b"trak", nth)? else { return Ok(None) };
        let Some(media) = child(walk, track.body, track.end, *b"mdia", 0)? else { continue };
        if !is_sound(walk, &media)? {
            continue;
        }
        let Some(scale) = timescale(walk, media.body, media.end, *b"mdhd")? else { return Ok(None) };
        let Some(edits) = child(walk, track.body, track.end, *b"edts", 0)? else { return Ok(None) };
        let Some(list) = child(walk, edits.body, edits.end, *b"elst", 0)? else { return Ok(None) };
        return edit(walk, &list, scale, movie_scale);
    }
    Ok(None)
}

fn is_sound(walk: &mut Walk<'_>, media: &Box4) -> Result<bool, MediaError> {
    let Some(handler) = child(walk, media.body, media.end, *b"hdlr", 0)? else { return Ok(false) };
    walk.go(handler.body + 8)?;
    Ok(walk.take()? == Some(*b"soun"))
}

/// The time scale in a `mvhd` or `mdhd` box, per second.
fn timescale(walk: &mut Walk<'_>, from: u64, to: u64, kind: [u8; 4]) -> Result<Option<u32>, MediaError> {
    let Some(header) = child(walk, from, to, kind, 0)? else { return Ok(None) };
    walk.go(header.body)?;
    let Some([version, ..]) = walk.take::<4>()? else { return Ok(None) };
    walk.go(header.body + if version == 1 { 20 } else { 12 })?;
    Ok(walk.take()?.map(u32::from_be_bytes).filter(|&scale| scale > 0))
}

/// The one edit of `list`; lists of several pieces are left alone (the whole track is heard then).
fn edit(walk: &mut Walk<'_>, list: &Box4, scale: u32, movie_scale: u32) -> Result<Option<Trim>, MediaError> {
    walk.go(list.body)?;
    let Some([version, _, _, _, c0, c1, c2, c3]) = walk.take()? else { return Ok(None) };
    if u32::from_be_bytes([c0, c1, c2, c3]) != 1 {
        return Ok(None);
    }
    let (length, start) = if version == 1 {
        match (walk.take()?, walk.take()?) {
            (Some(length), Some(start)) => (u64::from_be_bytes(length), i64::from_be_bytes(start)),
            _ => return Ok(None),
        }
    } else {
        match (walk.take()?, walk.take()?) {
            (Some(length), Some(start)) => {
                (u64::from(u32::from_be_bytes(length)), i64::from(i32::from_be_bytes(start)))
            }
            _ => return Ok(None),
        }
    };
    let Ok(skip) = u64::try_from(start) else { return Ok(None) };
    let keep = u128::from(length) * u128::from(scale) / u128::from(movie_scale);
    let keep = u64::try_from(keep).ok().filter(|&keep| keep > 0);
    Ok(Some(Trim { skip, keep, per_second: scale }))
}
