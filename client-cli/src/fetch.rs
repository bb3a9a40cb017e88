//! Brings the media that a completed job made.

use relay_protocol::JobId;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::connection::{Command, FetchedPart};
use crate::error::ClientError;

/// Parts of fetched media that may wait for the writer.
const PARTS_MAX: usize = 8;

/// Writes a job's media to `writer` and returns its size.
///
/// # Errors
/// See [`crate::Client::fetch`].
pub(crate) async fn fetch<W: AsyncWrite + Unpin>(
    commands: &mpsc::Sender<Command>,
    job_id: JobId,
    writer: &mut W,
) -> Result<u64, ClientError> {
    let written = |error| ClientError::io("writing the media", error);
    let (sender, mut parts) = mpsc::channel(PARTS_MAX);
    commands.send(Command::Fetch { job_id, parts: sender }).await.map_err(|_| ClientError::Closed)?;
    let mut bytes = 0;
    while let Some(part) = parts.recv().await {
        let FetchedPart { total, last, bytes: part } = part?;
        writer.write_all(&part).await.map_err(written)?;
        bytes += part.len() as u64;
        if last {
            writer.flush().await.map_err(written)?;
            let short =
                || ClientError::io(format!("{bytes} of {total} bytes came"), std::io::ErrorKind::UnexpectedEof.into());
            return if bytes == total { Ok(bytes) } else { Err(short()) };
        }
    }
    Err(ClientError::NoConnection { reason: "the connection went while the media came".to_owned() })
}
