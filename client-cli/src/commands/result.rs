//! Brings a completed job's result to stdout or a file.

use std::path::Path;

use relay_protocol::event::EventKind;
use relay_protocol::{Event, JobId, StoredObject};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio_util::io::InspectWriter;

use crate::cli::OutArgs;
use crate::client::Client;
use crate::output::{Failure, print_line};

/// Writes the result of a completed job; other jobs have none.
pub(crate) async fn write(client: &Client, last: &Event, out: &OutArgs) -> Result<(), Failure> {
    let Some(result) = last.result.as_ref().filter(|_| last.event == EventKind::Completed) else { return Ok(()) };
    let media = media_of(result);
    match (&out.output, media) {
        (Some(path), Some(media)) => to_file(client, last.job_id, &media, path).await,
        (Some(path), None) => {
            let text = text_of(result) + "\n";
            tokio::fs::write(path, text).await.map_err(|error| cannot_write(path, &error))
        }
        (None, _) if out.json => Ok(()),
        (None, Some(media)) => {
            print_line(text_of(result).as_bytes())?;
            let id = last.job_id;
            eprintln!("the job made {} bytes of media: client-cli fetch {id} --output FILE", media.bytes);
            Ok(())
        }
        (None, None) => Ok(print_line(text_of(result).as_bytes())?),
    }
}

/// Where a result's media lies, if it has any.
pub(crate) fn media_of(result: &Value) -> Option<StoredObject> {
    serde_json::from_value(result.get("media")?.clone()).ok()
}

/// The text of a task that makes text, else the result as JSON.
fn text_of(result: &Value) -> String {
    match result.get("text") {
        Some(Value::String(text)) => text.clone(),
        _ => serde_json::to_string_pretty(result).unwrap_or_else(|_| result.to_string()),
    }
}

/// Fetches media into a file, which appears under its name only whole and undamaged.
pub(crate) async fn to_file(client: &Client, job_id: JobId, media: &StoredObject, path: &Path) -> Result<(), Failure> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = Path::new(&part);
    let file = File::create(part).await.map_err(|error| cannot_write(part, &error))?;
    let fetched = checked(client, job_id, media, file).await;
    if let Err(failure) = fetched {
        // The first failure is the one to tell.
        drop(tokio::fs::remove_file(part).await);
        return Err(failure);
    }
    tokio::fs::rename(part, path).await.map_err(|error| cannot_write(path, &error))
}

/// Fetches media into `writer` and checks its digest.
pub(crate) async fn checked<W: tokio::io::AsyncWrite + Unpin>(
    client: &Client,
    job_id: JobId,
    media: &StoredObject,
    writer: W,
) -> Result<(), Failure> {
    let mut digest = Sha256::new();
    let mut writer = InspectWriter::new(writer, |bytes: &[u8]| digest.update(bytes));
    client.fetch(job_id, &mut writer).await?;
    drop(writer);
    if hex::encode(digest.finalize()) == media.sha256 {
        Ok(())
    } else {
        Err(Failure::Output("the media was damaged on the way: fetch it again".to_owned()))
    }
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Output(format!("{}: {error}", path.display()))
}
