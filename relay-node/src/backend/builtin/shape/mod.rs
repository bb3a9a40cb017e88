//! The outline of an audio file: whether all of it is there, told by walking its structure without decoding.
//!
//! Decoders take the end of the data for the end of the sound. A task must not: a file cut off in an upload would give
//! a result that looks right and is short. So each container's own promise about its length is checked first.

pub(super) mod frames;
mod mp4;
mod ogg;
mod wav;

use std::io::{self, BufReader, Read, SeekFrom};

use super::error::MediaError;
use super::sniff::Container;
use super::source::{ReadSeek, Source};

/// What the structure of an audio file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Shape {
    /// What is missing at the end, if something is.
    pub(super) cut: Option<String>,
    /// Decoded frames (samples per channel), encoder delay and padding included, where the structure gives them exactly.
    pub(super) frames: Option<u64>,
    /// The header states how many frames to play, so what the decoder reports as length is exact.
    pub(super) length_is_stated: bool,
    /// Bytes of coded audio, without headers and tags, where known.
    pub(super) audio_bytes: Option<u64>,
    /// What to leave out at both ends, where the decoder does not do it.
    pub(super) trim: Option<Trim>,
}

/// The part of the decoded frames that is to be heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trim {
    /// Frames to drop first, in units of `per_second`.
    pub(super) skip: u64,
    /// Length to keep after them, in units of `per_second`; `None`: all.
    pub(super) keep: Option<u64>,
    /// The unit.
    pub(super) per_second: u32,
}

/// Walks through `source` by the rules of `container`.
///
/// # Errors
/// [`MediaError::Corrupt`] when the structure is broken, [`MediaError::Unreadable`]. A file that is merely cut off is
/// not an error here: see [`Shape::cut`].
pub(super) fn of(container: Container, source: &mut Source) -> Result<Shape, MediaError> {
    let mut walk = Walk::new(&mut *source.file, source.bytes)?;
    match container {
        Container::Wav => wav::walk(&mut walk),
        // The stream's own header counts the samples; decoding compares.
        Container::Flac => Ok(Shape { length_is_stated: true, ..Shape::default() }),
        Container::Mp3 => frames::walk_mp3(&mut walk),
        Container::Ogg => ogg::walk(&mut walk),
        Container::Mp4 => mp4::walk(&mut walk),
        Container::Adts => frames::walk_adts(&mut walk),
    }
}

/// A reader that knows where it is and how much there is.
struct Walk<'a> {
    file: BufReader<&'a mut dyn ReadSeek>,
    at: u64,
    bytes: u64,
}

impl<'a> Walk<'a> {
    fn new(file: &'a mut dyn ReadSeek, bytes: u64) -> Result<Self, MediaError> {
        file.seek(SeekFrom::Start(0)).map_err(MediaError::Unreadable)?;
        Ok(Self { file: BufReader::with_capacity(64 * 1024, file), at: 0, bytes })
    }

    /// Bytes from here to the end.
    fn left(&self) -> u64 {
        self.bytes.saturating_sub(self.at)
    }

    /// Fills `into`; `false` when the source ends first.
    fn fill(&mut self, into: &mut [u8]) -> Result<bool, MediaError> {
        if self.left() < into.len() as u64 {
            return Ok(false);
        }
        match self.file.read_exact(into) {
            Ok(()) => {
                self.at += into.len() as u64;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(MediaError::Unreadable(error)),
        }
    }

    /// The next `N` bytes, or `None` when fewer are left.
    fn take<const N: usize>(&mut self) -> Result<Option<[u8; N]>, MediaError> {
        let mut bytes = [0; N];
        Ok(self.fill(&mut bytes)?.then_some(bytes))
    }

    /// Goes to `to`, at most to the end; buffered bytes are kept where they can be.
    fn go(&mut self, to: u64) -> Result<(), MediaError> {
        let to = to.min(self.bytes);
        let by = to as i64 - self.at as i64;
        self.file.seek_relative(by).map_err(MediaError::Unreadable)?;
        self.at = to;
        Ok(())
    }
}
