//! Sends an input that is too large for a submit: in chunks, within the node's window, with its digest at the end. Over a
//! new connection it goes on where the stored bytes end.

use std::path::Path;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use relay_protocol::limits::TRANSFER_CHUNK_BYTES;
use relay_protocol::session::{UploadBeginV2, UploadChunkV1, UploadEndV1};
use relay_protocol::{ErrorCode, JobError};
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use crate::connection::{Command, UploadSignal};
use crate::error::ClientError;

/// Signals of one upload that may wait.
const SIGNALS_MAX: usize = 64;
/// Largest window that is used, in bytes: each chunk in it is acknowledged by one signal, and none may find no room.
const WINDOW_BYTES_MAX: u64 = (SIGNALS_MAX as u64 / 2) * TRANSFER_CHUNK_BYTES as u64;

/// Told the bytes that the node has and the size in all.
pub(crate) type Progress<'a> = &'a (dyn Fn(u64, u64) + Send + Sync);

/// Where the bytes come from.
pub(crate) enum Source {
    Bytes(Bytes),
    File { file: File, path: String },
}

impl Source {
    /// Opens a file and tells its size.
    ///
    /// # Errors
    /// [`ClientError::Io`].
    pub(crate) async fn open(path: &Path) -> Result<(Self, u64), ClientError> {
        let shown = path.display().to_string();
        let file = File::open(path).await.map_err(|error| ClientError::io(&shown, error))?;
        let facts = file.metadata().await.map_err(|error| ClientError::io(&shown, error))?;
        if facts.is_dir() {
            return Err(ClientError::io(shown, std::io::ErrorKind::IsADirectory.into()));
        }
        Ok((Self::File { file, path: shown }, facts.len()))
    }

    /// The next bytes, at most one chunk; empty at the end.
    pub(crate) async fn chunk(&mut self) -> Result<Bytes, ClientError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.split_to(bytes.len().min(TRANSFER_CHUNK_BYTES))),
            Self::File { file, path } => {
                let mut chunk = BytesMut::with_capacity(TRANSFER_CHUNK_BYTES);
                let mut limited = file.take(TRANSFER_CHUNK_BYTES as u64);
                while limited.read_buf(&mut chunk).await.map_err(|error| ClientError::io(path.as_str(), error))? > 0 {}
                Ok(chunk.freeze())
            }
        }
    }
}

/// What became of an upload.
pub(crate) enum Uploaded {
    /// A submit of this connection may name it by this number.
    Stored(u64),
    /// The connection went: begin again with the same id.
    Lost,
    /// An earlier connection of this upload, which was lost, left bytes that this one did not know of: the same.
    Overtaken(JobError),
}

/// Uploads what the node lacks of `source`, which is at its begin and of which the size is `bytes`.
///
/// # Errors
/// [`ClientError::Rejected`], [`ClientError::Io`], [`ClientError::NoConnection`].
pub(crate) async fn upload(
    commands: &mpsc::Sender<Command>,
    begin: UploadBeginV2,
    source: &mut Source,
    progress: Progress<'_>,
) -> Result<Uploaded, ClientError> {
    let bytes = begin.bytes.unwrap_or_default();
    let (signals, mut inbox) = mpsc::channel(SIGNALS_MAX);
    send(commands, Command::UploadBegin { begin, signals }).await?;
    let mut state = State { upload: 0, stored: None, allowed: 0, progress, bytes };
    let stored = loop {
        if let Step::End(uploaded) = state.on(inbox.recv().await)? {
            return Ok(uploaded);
        }
        if let Some(stored) = state.stored {
            break stored;
        }
    };
    let (mut offset, mut digest) = (0, Sha256::new());
    loop {
        while offset >= state.allowed {
            match state.on(inbox.recv().await)? {
                Step::On => {}
                Step::End(uploaded) => return Ok(uploaded),
            }
        }
        // What has been said meanwhile: a refusal must not wait for the window.
        while let Some(signal) = inbox.recv().now_or_never() {
            if let Step::End(uploaded) = state.on(signal)? {
                return Ok(uploaded);
            }
        }
        let mut payload = source.chunk().await?;
        if payload.is_empty() {
            break;
        }
        digest.update(&payload);
        let first = offset;
        offset += payload.len() as u64;
        // What is stored is read for its digest only.
        let known = stored.saturating_sub(first).min(payload.len() as u64);
        drop(payload.split_to(known as usize));
        if !payload.is_empty() {
            let chunk = UploadChunkV1 { upload: state.upload, offset: first + known };
            send(commands, Command::UploadChunk { chunk, payload }).await?;
        }
    }
    let end = UploadEndV1 { upload: state.upload, bytes: offset, sha256: digest.finalize().into() };
    send(commands, Command::UploadEnd { end }).await?;
    loop {
        if let Step::End(uploaded) = state.on(inbox.recv().await)? {
            return Ok(uploaded);
        }
    }
}

struct State<'a> {
    upload: u64,
    /// Bytes that the node had at the begin, once it has said so.
    stored: Option<u64>,
    /// Bytes that may have been sent.
    allowed: u64,
    progress: Progress<'a>,
    bytes: u64,
}

enum Step {
    On,
    End(Uploaded),
}

impl State<'_> {
    fn on(&mut self, signal: Option<UploadSignal>) -> Result<Step, ClientError> {
        match signal {
            Some(UploadSignal::Begun(upload)) => self.upload = upload,
            Some(UploadSignal::Ack { next, window }) => {
                let window = window.min(WINDOW_BYTES_MAX);
                self.stored.get_or_insert(next);
                // The last chunk may reach over the window by no byte: what is allowed is counted from its first.
                self.allowed = (next + window).saturating_sub(TRANSFER_CHUNK_BYTES as u64 - 1).max(next + 1);
                (self.progress)(next, self.bytes);
            }
            Some(UploadSignal::Done) => return Ok(Step::End(Uploaded::Stored(self.upload))),
            Some(UploadSignal::Failed(ClientError::Rejected(error))) if is_wrong_offset(&error) => {
                return Ok(Step::End(Uploaded::Overtaken(error)));
            }
            Some(UploadSignal::Failed(error)) => return Err(error),
            Some(UploadSignal::Lost) | None => return Ok(Step::End(Uploaded::Lost)),
        }
        Ok(Step::On)
    }
}

/// Whether the node has other bytes of the upload than it had at the begin.
fn is_wrong_offset(error: &JobError) -> bool {
    error.code == ErrorCode::WrongOffset.as_str()
}

async fn send(commands: &mpsc::Sender<Command>, command: Command) -> Result<(), ClientError> {
    commands.send(command).await.map_err(|_| ClientError::Closed)
}
