//! Ogg: every page whole and unharmed, none missing, and each stream's last page marked as its end (RFC 3533).

use std::collections::BTreeMap;

use super::{Shape, Walk};
use crate::backend::builtin::error::MediaError;

const HEAD_BYTES: usize = 27;
const LAST_PAGE: u8 = 0x04;
/// Logical streams followed; files have one to three.
const STREAMS_MAX: usize = 64;

/// What has been seen of one logical stream.
struct Stream {
    last_page: u32,
    ended: bool,
}

/// Walks the pages to the end.
pub(super) fn walk(walk: &mut Walk<'_>) -> Result<Shape, MediaError> {
    let mut streams = BTreeMap::new();
    let mut audio_bytes = 0;
    let mut page = Vec::new();
    while walk.left() > 0 {
        let at = walk.at;
        if !read_page(walk, &mut page)? {
            return Ok(cut(format!("the Ogg page at byte {at} is incomplete")));
        }
        let Some(head) = page.first_chunk::<HEAD_BYTES>() else { break };
        audio_bytes += (page.len() - HEAD_BYTES - usize::from(head[26])) as u64;
        follow(&mut streams, head).map_err(|reason| MediaError::corrupt(format!("at byte {at}, {reason}")))?;
    }
    let unfinished = streams.values().any(|stream: &Stream| !stream.ended);
    let cut = unfinished.then(|| "the Ogg stream's last page is missing".to_owned());
    Ok(Shape { cut, length_is_stated: true, audio_bytes: Some(audio_bytes), ..Shape::default() })
}

fn cut(reason: String) -> Shape {
    Shape { cut: Some(reason), length_is_stated: true, ..Shape::default() }
}

/// Reads one page; `false` when the file ends within it.
fn read_page(walk: &mut Walk<'_>, page: &mut Vec<u8>) -> Result<bool, MediaError> {
    let at = walk.at;
    let mut head = [0; HEAD_BYTES];
    if !walk.fill(&mut head)? {
        return Ok(false);
    }
    if !head.starts_with(b"OggS") {
        return Err(MediaError::corrupt(format!("at byte {at} an Ogg page should begin, and does not")));
    }
    let segments = usize::from(head[26]);
    page.clear();
    page.extend_from_slice(&head);
    page.resize(HEAD_BYTES + segments, 0);
    if !walk.fill(&mut page[HEAD_BYTES..])? {
        return Ok(false);
    }
    let body: usize = page[HEAD_BYTES..].iter().map(|&bytes| usize::from(bytes)).sum();
    page.resize(HEAD_BYTES + segments + body, 0);
    if !walk.fill(&mut page[HEAD_BYTES + segments..])? {
        return Ok(false);
    }
    // The sum is made with its own field at zero.
    let stated = u32::from_le_bytes([head[22], head[23], head[24], head[25]]);
    page[22..26].fill(0);
    if sum(page) != stated {
        return Err(MediaError::corrupt(format!("the Ogg page at byte {at} does not match its checksum")));
    }
    Ok(true)
}

/// Notes the page; its number must follow the one before of the same stream.
fn follow(streams: &mut BTreeMap<u32, Stream>, head: &[u8; HEAD_BYTES]) -> Result<(), String> {
    let [_, _, _, _, _, flags, _, _, _, _, _, _, _, _, s0, s1, s2, s3, n0, n1, n2, n3, ..] = *head;
    let (serial, number) = (u32::from_le_bytes([s0, s1, s2, s3]), u32::from_le_bytes([n0, n1, n2, n3]));
    let ended = flags & LAST_PAGE != 0;
    match streams.get_mut(&serial) {
        Some(stream) if number != stream.last_page.wrapping_add(1) => {
            return Err(format!("Ogg page {number} follows page {}", stream.last_page));
        }
        Some(stream) => *stream = Stream { last_page: number, ended },
        None => {
            streams.insert(serial, Stream { last_page: number, ended });
        }
    }
    if streams.len() > STREAMS_MAX { Err(format!("there are more than {STREAMS_MAX} streams")) } else { Ok(()) }
}

const TABLE: [u32; 256] = table();

/// The checksum's polynomial is 0x04C11DB7, highest bit first, start and end value 0.
const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut word = (index as u32) << 24;
        let mut bit = 0;
        while bit < 8 {
            word = if word >> 31 == 0 { word << 1 } else { word << 1 ^ 0x04C1_1DB7 };
            bit += 1;
        }
        table[index] = word;
        index += 1;
    }
    table
}

fn sum(page: &[u8]) -> u32 {
    page.iter().fold(0, |sum, &byte| sum << 8 ^ TABLE[usize::from((sum >> 24) as u8 ^ byte)])
}
