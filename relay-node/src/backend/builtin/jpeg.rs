//! Whether all of a JPEG is there: its decoder paints what is missing grey and says nothing.

use std::io::{BufRead, BufReader, Read, SeekFrom};

use super::error::MediaError;
use super::source::Source;

const START_OF_SCAN: u8 = 0xDA;
const END_OF_IMAGE: u8 = 0xD9;

/// Looks for the end mark behind the first scan. Within a scan the mark cannot be data: every 0xFF there is escaped.
///
/// # Errors
/// [`MediaError::Truncated`] without an end mark, [`MediaError::Unreadable`].
pub(super) fn check_end(source: &mut Source) -> Result<(), MediaError> {
    let missing = || MediaError::truncated("the JPEG has no end mark");
    source.file.seek(SeekFrom::Start(0)).map_err(MediaError::Unreadable)?;
    let mut file = BufReader::with_capacity(64 * 1024, &mut source.file);
    let mut next = || -> Result<Option<u8>, MediaError> {
        file.by_ref().bytes().next().transpose().map_err(MediaError::Unreadable)
    };
    // Segments up to the scan; an embedded preview with its own end mark is skipped as part of one.
    next()?;
    next()?;
    loop {
        let mut mark = next()?;
        // Any number of 0xFF may stand before the mark itself.
        while mark == Some(0xFF) {
            mark = next()?;
        }
        let (Some(mark), Some(high), Some(low)) = (mark, next()?, next()?) else {
            return Err(missing());
        };
        for _ in 2..u16::from_be_bytes([high, low]) {
            if next()?.is_none() {
                return Err(missing());
            }
        }
        if mark == START_OF_SCAN {
            break;
        }
    }
    ends(&mut file, missing)
}

fn ends(file: &mut impl BufRead, missing: impl Fn() -> MediaError) -> Result<(), MediaError> {
    let mut before = 0;
    loop {
        let bytes = file.fill_buf().map_err(MediaError::Unreadable)?;
        if bytes.is_empty() {
            return Err(missing());
        }
        for &byte in bytes {
            if before == 0xFF && byte == END_OF_IMAGE {
                return Ok(());
            }
            before = byte;
        }
        let length = bytes.len();
        file.consume(length);
    }
}
