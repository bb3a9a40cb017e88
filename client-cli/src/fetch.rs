//! Brings the media that a completed job made.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use relay_protocol::JobId;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::connection::{Command, FetchedPart, Fetcher};
use crate::error::ClientError;
use crate::queue::{self, Look};

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
    let lagging = Arc::new(AtomicBool::new(false));
    let fetcher = Fetcher { parts: sender, lagging: lagging.clone() };
    commands.send(Command::Fetch { job_id, fetcher }).await.map_err(|_| ClientError::Closed)?;
    let (mut bytes, mut number) = (0, 0);
    loop {
        let part = match queue::look(&mut parts, &lagging).await {
            Look::Item(part) => part?,
            Look::Lagging => {
                queue::ask_again(commands, &lagging, Command::Refetch { request: number }).await;
                continue;
            }
            Look::Closed => break,
        };
        let FetchedPart { request, total, last, bytes: part } = part;
        number = request;
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
