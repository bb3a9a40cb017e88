//! Uploads of one session: chunks in order, a window beyond the last acknowledged byte, size and digest at the end.

use std::collections::HashMap;

use bytes::Bytes;
use relay_protocol::limits::UPLOAD_WINDOW_BYTES;
use relay_protocol::session::{UploadAckV1, UploadBeginV1, UploadChunkV1, UploadEndV1};
use relay_protocol::{ErrorCode, Input, JobError, StoredObject};

use super::{form, submit};
use crate::job::claim_check::{Named, ObjectWriter};
use crate::state::NodeState;

/// Uploads that a session may have, begun or finished and not used yet.
pub const UPLOADS_MAX: usize = 64;

/// The uploads of one session.
#[derive(Default)]
pub struct Uploads(HashMap<u64, Upload>);

enum Upload {
    Running { writer: Box<ObjectWriter>, named: Named },
    Done(StoredObject),
}

impl Uploads {
    /// Begins an upload.
    ///
    /// # Errors
    /// [`ErrorCode::TooLarge`], [`ErrorCode::TooManyRequests`], [`ErrorCode::StoreUnavailable`].
    pub async fn begin(
        &mut self,
        node: &NodeState,
        tenant: &str,
        begin: UploadBeginV1,
    ) -> Result<UploadAckV1, JobError> {
        let limit = node.settings.inputs.upload_bytes_max;
        if let Some(bytes) = begin.bytes.filter(|bytes| *bytes > limit) {
            let message = format!("an upload of {bytes} bytes is over the limit of {limit}");
            return Err(JobError::new(ErrorCode::TooLarge, message));
        }
        if self.0.len() >= UPLOADS_MAX {
            let message = format!("a session may have {UPLOADS_MAX} uploads that no job uses yet");
            return Err(JobError::new(ErrorCode::TooManyRequests, message));
        }
        let named = |text: String| (!text.is_empty()).then_some(text);
        let named = Named { name: named(begin.name), media_type: named(begin.media_type) };
        let writer = Box::new(form::writer(node, tenant).await?);
        self.0.insert(begin.request, Upload::Running { writer, named });
        Ok(UploadAckV1 { upload: begin.request, next: 0, window: UPLOAD_WINDOW_BYTES })
    }

    /// Adds a chunk. One that was written before is acknowledged again.
    ///
    /// # Errors
    /// [`ErrorCode::UnknownUpload`], [`ErrorCode::BadRequest`] for a gap, [`ErrorCode::TooLarge`],
    /// [`ErrorCode::StoreUnavailable`]; the upload is given up.
    pub async fn chunk(&mut self, chunk: &UploadChunkV1, payload: Bytes) -> Result<UploadAckV1, JobError> {
        let Some(Upload::Running { writer, .. }) = self.0.get_mut(&chunk.upload) else {
            return Err(unknown(chunk.upload));
        };
        let written = if chunk.offset > writer.bytes() {
            let message = format!("byte {} comes next, not {}", writer.bytes(), chunk.offset);
            Err(JobError::new(ErrorCode::BadRequest, message))
        } else {
            let known = (writer.bytes() - chunk.offset).min(payload.len() as u64) as usize;
            writer.write(payload.slice(known..)).await.map_err(|error| error.to_job_error())
        };
        let next = writer.bytes();
        match written {
            Ok(()) => Ok(UploadAckV1 { upload: chunk.upload, next, window: UPLOAD_WINDOW_BYTES }),
            Err(error) => {
                self.give_up(chunk.upload).await;
                Err(error)
            }
        }
    }

    /// Checks size and digest and stores the upload.
    ///
    /// # Errors
    /// [`ErrorCode::UnknownUpload`], [`ErrorCode::DigestMismatch`], [`ErrorCode::StoreUnavailable`]; the upload is given up.
    pub async fn end(&mut self, end: &UploadEndV1) -> Result<(), JobError> {
        let Some(Upload::Running { writer, .. }) = self.0.get(&end.upload) else { return Err(unknown(end.upload)) };
        let (bytes, sha256) = (writer.bytes(), writer.sha256());
        let wrong = match () {
            () if bytes == 0 => Some(JobError::new(ErrorCode::EmptyMedia, "the upload is empty")),
            () if bytes != end.bytes => {
                let message = format!("{bytes} bytes came instead of {}: upload again", end.bytes);
                Some(JobError::new(ErrorCode::DigestMismatch, message))
            }
            () if sha256 != end.sha256 => {
                Some(JobError::new(ErrorCode::DigestMismatch, "the bytes were damaged on the way: upload again"))
            }
            () => None,
        };
        if let Some(error) = wrong {
            self.give_up(end.upload).await;
            return Err(error);
        }
        if let Some(Upload::Running { writer, named }) = self.0.remove(&end.upload) {
            let object = writer.finish(named).await.map_err(|error| error.to_job_error())?;
            self.0.insert(end.upload, Upload::Done(object));
        }
        Ok(())
    }

    /// The finished upload as a job's input.
    ///
    /// # Errors
    /// [`ErrorCode::UnknownUpload`].
    pub fn use_up(&mut self, upload: u64) -> Result<Input, JobError> {
        match self.0.remove(&upload) {
            Some(Upload::Done(object)) => Ok(Input::Object(object)),
            Some(running) => {
                self.0.insert(upload, running);
                Err(JobError::new(ErrorCode::UnknownUpload, format!("upload {upload} is not finished")))
            }
            None => Err(unknown(upload)),
        }
    }

    /// Gives up what is not finished, and removes what no job has used.
    pub async fn abort_all(&mut self, node: &NodeState) {
        for upload in self.0.drain().map(|(_, upload)| upload) {
            match upload {
                Upload::Running { writer, .. } => writer.abort().await,
                Upload::Done(object) => submit::discard(node, &Input::Object(object)).await,
            }
        }
    }

    async fn give_up(&mut self, upload: u64) {
        if let Some(Upload::Running { writer, .. }) = self.0.remove(&upload) {
            writer.abort().await;
        }
    }
}

fn unknown(upload: u64) -> JobError {
    JobError::new(ErrorCode::UnknownUpload, format!("there is no upload {upload} under way in this session"))
}
