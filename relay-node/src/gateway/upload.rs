//! Uploads of one session: chunks in order, a window beyond the last acknowledged byte, size and digest at the end. Those
//! that the client gave an id go on over any connection.

use std::collections::HashMap;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use relay_protocol::limits::UPLOAD_WINDOW_BYTES;
use relay_protocol::session::{UploadAckV1, UploadBeginV1, UploadBeginV2, UploadChunkV1, UploadEndV1};
use relay_protocol::{ErrorCode, Input, JobError, StoredObject};

use super::{form, submit};
use crate::job::claim_check::{Named, ObjectWriter, PartWriter, StoreError, UploadEnd, UploadLimits, UploadName};
use crate::state::NodeState;

/// Uploads that a session may have, begun or finished and not used yet.
pub const UPLOADS_MAX: usize = 64;

/// The uploads of one session.
#[derive(Default)]
pub struct Uploads(HashMap<u64, Upload>);

enum Upload {
    /// It ends with the connection.
    Running {
        writer: Box<ObjectWriter>,
        named: Named,
    },
    /// Another connection may go on with it.
    Resumable {
        writer: Box<PartWriter>,
        named: Named,
    },
    /// It is put together beside the session.
    Finishing,
    Done(StoredObject),
}

/// What the end of an upload leads to.
pub enum Ended {
    /// It is stored.
    Stored,
    /// It is put together by this, which takes as long as the store takes to copy it; then [`Uploads::finished`].
    Finishing(LocalBoxFuture<'static, Result<StoredObject, JobError>>),
}

impl Uploads {
    /// Begins an upload that lives as long as the connection.
    ///
    /// # Errors
    /// [`ErrorCode::TooLarge`], [`ErrorCode::TooManyRequests`], [`ErrorCode::QuotaExceeded`],
    /// [`ErrorCode::StoreUnavailable`].
    pub async fn begin(
        &mut self,
        node: &NodeState,
        tenant: &str,
        begin: UploadBeginV1,
    ) -> Result<UploadAckV1, JobError> {
        self.room_for(node, begin.bytes)?;
        let named = named(begin.name, begin.media_type);
        let writer = Box::new(form::writer(node, tenant).await?);
        self.0.insert(begin.request, Upload::Running { writer, named });
        Ok(UploadAckV1 { upload: begin.request, next: 0, window: UPLOAD_WINDOW_BYTES })
    }

    /// Begins an upload that outlives the connection, or goes on with it.
    ///
    /// # Errors
    /// As [`Uploads::begin`].
    pub async fn resume(
        &mut self,
        node: &NodeState,
        tenant: &str,
        begin: UploadBeginV2,
    ) -> Result<UploadAckV1, JobError> {
        self.room_for(node, begin.bytes)?;
        let name = UploadName { tenant: tenant.to_owned(), id: begin.upload_id };
        let writer = node.online()?.claims.upload(name, limits(node), begin.bytes).await;
        let writer = writer.map_err(|error| error.to_job_error())?;
        let next = writer.next();
        let named = named(begin.name, begin.media_type);
        self.0.insert(begin.request, Upload::Resumable { writer: Box::new(writer), named });
        Ok(UploadAckV1 { upload: begin.request, next, window: UPLOAD_WINDOW_BYTES })
    }

    fn room_for(&self, node: &NodeState, bytes: Option<u64>) -> Result<(), JobError> {
        let limit = node.settings.inputs.upload_bytes_max;
        if let Some(bytes) = bytes.filter(|bytes| *bytes > limit) {
            let message = format!("an upload of {bytes} bytes is over the limit of {limit}");
            return Err(JobError::new(ErrorCode::TooLarge, message));
        }
        if self.0.len() >= UPLOADS_MAX {
            let message = format!("a session may have {UPLOADS_MAX} uploads that no job uses yet");
            return Err(JobError::new(ErrorCode::TooManyRequests, message));
        }
        Ok(())
    }

    /// Adds a chunk. One that was written before is acknowledged again if the upload lives as long as the connection.
    ///
    /// # Errors
    /// [`ErrorCode::UnknownUpload`], [`ErrorCode::BadRequest`] for a gap, [`ErrorCode::WrongOffset`],
    /// [`ErrorCode::TooLarge`], [`ErrorCode::QuotaExceeded`], [`ErrorCode::StoreUnavailable`]; the upload is given up on
    /// this connection.
    pub async fn chunk(&mut self, chunk: &UploadChunkV1, payload: Bytes) -> Result<UploadAckV1, JobError> {
        let written = match self.0.get_mut(&chunk.upload) {
            Some(Upload::Running { writer, .. }) => append(writer, chunk.offset, payload).await,
            Some(Upload::Resumable { writer, .. }) => match writer.write(chunk.offset, payload).await {
                Ok(()) => Ok(writer.next()),
                Err(error) => Err(error.to_job_error()),
            },
            _ => return Err(unknown(chunk.upload)),
        };
        match written {
            Ok(next) => Ok(UploadAckV1 { upload: chunk.upload, next, window: UPLOAD_WINDOW_BYTES }),
            Err(error) => {
                self.give_up(chunk.upload).await;
                Err(error)
            }
        }
    }

    /// Checks size and digest and stores the upload.
    ///
    /// # Errors
    /// [`ErrorCode::UnknownUpload`], [`ErrorCode::DigestMismatch`], [`ErrorCode::EmptyMedia`],
    /// [`ErrorCode::StoreUnavailable`]; the upload is given up on this connection.
    pub async fn end(&mut self, node: &NodeState, end: &UploadEndV1) -> Result<Ended, JobError> {
        if !matches!(self.0.get(&end.upload), Some(Upload::Resumable { .. })) {
            return self.end_running(end).await.map(|()| Ended::Stored);
        }
        let claims = node.online()?.claims.clone();
        let Some(Upload::Resumable { mut writer, named }) = self.0.insert(end.upload, Upload::Finishing) else {
            return Err(unknown(end.upload));
        };
        let wanted = UploadEnd { bytes: end.bytes, sha256: end.sha256, named };
        Ok(Ended::Finishing(Box::pin(async move {
            if wanted.bytes == 0 {
                return Err(empty());
            }
            let finished = async {
                writer.flush().await?;
                claims.finish_upload(writer.name(), wanted).await
            };
            finished.await.map_err(|error: StoreError| error.to_job_error())
        })))
    }

    /// An upload was put together, or could not be.
    pub fn finished(&mut self, upload: u64, object: Option<StoredObject>) {
        match object {
            Some(object) => _ = self.0.insert(upload, Upload::Done(object)),
            None => _ = self.0.remove(&upload),
        }
    }

    async fn end_running(&mut self, end: &UploadEndV1) -> Result<(), JobError> {
        let Some(Upload::Running { writer, .. }) = self.0.get(&end.upload) else { return Err(unknown(end.upload)) };
        let (bytes, sha256) = (writer.bytes(), writer.sha256());
        let wrong = match () {
            () if bytes == 0 => Some(empty()),
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

    /// The connection ends: gives up what ends with it and is not finished or not used, stores the rest as far as it came.
    pub async fn abort_all(&mut self, node: &NodeState) {
        for upload in self.0.drain().map(|(_, upload)| upload) {
            match upload {
                Upload::Running { writer, .. } => writer.abort().await,
                Upload::Resumable { mut writer, .. } => {
                    if let Err(error) = writer.flush().await {
                        tracing::warn!(%error, upload_id = %writer.name().id, "the end of a cut upload was not stored");
                    }
                }
                Upload::Finishing => {}
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

/// Adds bytes to an object that is written in one go; returns the byte that comes next.
async fn append(writer: &mut ObjectWriter, offset: u64, payload: Bytes) -> Result<u64, JobError> {
    if offset > writer.bytes() {
        let message = format!("byte {} comes next, not {offset}", writer.bytes());
        return Err(JobError::new(ErrorCode::BadRequest, message));
    }
    let known = (writer.bytes() - offset).min(payload.len() as u64) as usize;
    writer.write(payload.slice(known..)).await.map_err(|error| error.to_job_error())?;
    Ok(writer.bytes())
}

/// How large an upload may be.
pub(super) fn limits(node: &NodeState) -> UploadLimits {
    let settings = &node.settings;
    UploadLimits { bytes_max: settings.inputs.upload_bytes_max, parts_max: settings.store.upload_parts_max }
}

fn named(name: String, media_type: String) -> Named {
    let some = |text: String| (!text.is_empty()).then_some(text);
    Named { name: some(name), media_type: some(media_type) }
}

/// The error of an upload without a byte.
pub(super) fn empty() -> JobError {
    JobError::new(ErrorCode::EmptyMedia, "the upload is empty")
}

fn unknown(upload: u64) -> JobError {
    JobError::new(ErrorCode::UnknownUpload, format!("there is no upload {upload} under way in this session"))
}
