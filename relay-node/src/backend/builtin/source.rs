//! What a task reads: bytes that can be read from any position.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use symphonia::core::io::MediaSource;

use super::error::MediaError;

/// Bytes that can be read from any position: a file, a `Cursor` over memory.
pub trait ReadSeek: Read + Seek + Send + Sync {}

impl<T: Read + Seek + Send + Sync> ReadSeek for T {}

/// What a task reads. The content alone decides what it is; name and media type only make messages clearer.
pub struct Source {
    pub(super) file: Box<dyn ReadSeek>,
    pub(super) bytes: u64,
    pub(super) name: Option<String>,
    pub(super) media_type: Option<String>,
}

impl Source {
    /// `file` is read from its start; it has `bytes` bytes.
    pub fn new(file: impl ReadSeek + 'static, bytes: u64) -> Self {
        Self { file: Box::new(file), bytes, name: None, media_type: None }
    }

    /// Media that is already in memory; it is not copied.
    pub fn from_bytes(bytes: Bytes) -> Self {
        let length = bytes.len() as u64;
        Self::new(Cursor::new(bytes), length)
    }

    /// Media in a regular file.
    ///
    /// # Errors
    /// When the length of `file` cannot be asked for.
    pub fn from_file(file: File) -> io::Result<Self> {
        let bytes = file.metadata()?.len();
        Ok(Self::new(file, bytes))
    }

    /// Sets the name that messages call it by.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the media type that it was declared with.
    #[must_use]
    pub fn declared_as(mut self, media_type: impl Into<String>) -> Self {
        self.media_type = Some(media_type.into());
        self
    }

    /// What messages call it: `"a.txt" (text/plain)`.
    pub(super) fn label(&self) -> String {
        let name = self.name.as_ref().map_or_else(|| "the input".to_owned(), |name| format!("{name:?}"));
        match &self.media_type {
            Some(media_type) => format!("{name} ({media_type})"),
            None => name,
        }
    }

    /// Reads up to `length` bytes at `offset`; fewer only at the end.
    pub(super) fn peek(&mut self, offset: u64, length: usize) -> Result<Vec<u8>, MediaError> {
        let mut head = Vec::with_capacity(length);
        self.file.seek(SeekFrom::Start(offset)).map_err(MediaError::Unreadable)?;
        self.file.by_ref().take(length as u64).read_to_end(&mut head).map_err(MediaError::Unreadable)?;
        Ok(head)
    }

    /// Goes back to the start and becomes what the decoders read; `Failure` keeps what the medium itself did wrong.
    pub(super) fn into_media(mut self) -> Result<(Box<dyn MediaSource>, Failure), MediaError> {
        self.file.rewind().map_err(MediaError::Unreadable)?;
        let failure = Failure::default();
        Ok((Box::new(Watched { file: self.file, bytes: self.bytes, failure: failure.clone() }), failure))
    }
}

/// The first real failure of the medium. Decoders report bad content as I/O errors too, so only the reader below them
/// can tell the two apart.
#[derive(Clone, Default)]
pub(super) struct Failure(Arc<Mutex<Option<io::Error>>>);

impl Failure {
    /// Takes it, if there was one.
    pub(super) fn take(&self) -> Option<io::Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn keep<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|error| {
            let copy = io::Error::new(error.kind(), error.to_string());
            self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(copy);
        })
    }
}

struct Watched {
    file: Box<dyn ReadSeek>,
    bytes: u64,
    failure: Failure,
}

impl Read for Watched {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.file.read(into) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            result => self.failure.keep(result),
        }
    }
}

impl Seek for Watched {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        // A hostile header can ask for any position; that is no failure of the medium.
        self.file.seek(to)
    }
}

impl MediaSource for Watched {
    fn is_seekable(&self) -> bool {
        true
    }

    fn byte_len(&self) -> Option<u64> {
        Some(self.bytes)
    }
}
