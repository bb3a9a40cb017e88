//! Uploads that outlive their connection. Each part is an object of its own, named by its first byte and never replaced,
//! so that any node can tell what is there and go on; folder and S3 do the same. At the end the parts are read once,
//! checked against size and digest, and written as one object.

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload, WriteMultipart};
use relay_protocol::{StoredObject, UploadId};
use sha2::{Digest, Sha256};

use super::chain::{Part, Piece, chain};
use super::error::StoreError;
use super::writer::MULTIPART_BYTES;
use super::{ClaimCheck, Named, claim, paths};

/// Bytes that are gathered before they are stored as a part; what a killed node loses of an upload.
pub const PART_BYTES: usize = 4 * 1024 * 1024;
/// Uploads that one node puts together at a time; others wait.
pub(super) const FINISHES_MAX: usize = 4;
/// Times that a part is stored again because another node stored one there meanwhile.
const CONFLICTS_MAX: usize = 8;

/// An upload of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadName {
    /// Whose.
    pub tenant: String,
    /// Made by the client.
    pub id: UploadId,
}

/// Bounds of an upload.
#[derive(Debug, Clone, Copy)]
pub struct UploadLimits {
    /// Bytes in all.
    pub bytes_max: u64,
    /// Parts that it may lie in.
    pub parts_max: usize,
}

/// What is stored of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadState {
    /// The byte that comes next.
    pub next: u64,
    /// It is finished; `next` is its size.
    pub complete: bool,
    /// Parts that it lies in.
    pub parts: usize,
}

/// What the client says of an upload at its end.
#[derive(Debug, Clone)]
pub struct UploadEnd {
    /// Size in all.
    pub bytes: u64,
    /// SHA-256 of all bytes.
    pub sha256: [u8; 32],
    /// Name and media type.
    pub named: Named,
}

/// Takes an upload's bytes on this node. Dropped, it stores what it has gathered.
pub struct PartWriter {
    claims: ClaimCheck,
    name: UploadName,
    limits: UploadLimits,
    state: UploadState,
    gathered: Vec<Bytes>,
    gathered_bytes: usize,
}

impl ClaimCheck {
    /// What is stored of an upload: nothing, if nobody began it.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn upload_state(&self, name: &UploadName) -> Result<UploadState, StoreError> {
        match self.head(&paths::named_upload(&name.tenant, name.id)).await? {
            Some(object) => Ok(UploadState { next: object.size, complete: true, parts: 0 }),
            None => {
                let parts = self.list_parts(name).await?;
                let count = parts.len();
                Ok(UploadState { next: chain(parts).1, complete: false, parts: count })
            }
        }
    }

    /// Begins an upload, or goes on with it; its bytes are to end at `end`, if that is known.
    ///
    /// # Errors
    /// [`StoreError::QuotaExceeded`]; the store cannot be read.
    pub async fn upload(
        &self,
        name: UploadName,
        limits: UploadLimits,
        end: Option<u64>,
    ) -> Result<PartWriter, StoreError> {
        let state = self.upload_state(&name).await?;
        if !state.complete {
            self.quota().room(&name.tenant, end.unwrap_or_default().saturating_sub(state.next)).await?;
        }
        if state.next > 0 {
            metrics::counter!("relay_uploads_resumed_total").increment(1);
        }
        Ok(PartWriter { claims: self.clone(), name, limits, state, gathered: Vec::new(), gathered_bytes: 0 })
    }

    /// Puts the stored parts of an upload together and returns its claim. Asking again gives the same claim.
    ///
    /// # Errors
    /// [`StoreError::WrongOffset`] if bytes are missing (what is there stays); [`StoreError::Mismatch`] if size or digest
    /// are others (the parts are removed, a finished upload stays); [`StoreError::UnknownUpload`].
    pub async fn finish_upload(&self, name: &UploadName, end: UploadEnd) -> Result<StoredObject, StoreError> {
        let _turn = self.finishes().acquire().await.map_err(std::io::Error::other)?;
        let path = paths::named_upload(&name.tenant, name.id);
        if self.head(&path).await?.is_none() {
            match self.compose(name, &path, &end).await {
                // Another node was faster: it has removed the parts, and the upload is there.
                Err(error) if error.is_not_found() && self.head(&path).await?.is_some() => {}
                Err(error) => return Err(error),
                Ok(()) => return Ok(claim(&path, end.bytes, &end.sha256, end.named)),
            }
        }
        let object = claim(&path, end.bytes, &end.sha256, end.named);
        self.check(&object).await?;
        Ok(object)
    }

    /// Removes an upload that is not finished.
    ///
    /// # Errors
    /// [`StoreError::UnknownUpload`]; the store cannot be written.
    pub async fn abandon_upload(&self, name: &UploadName) -> Result<(), StoreError> {
        let parts = self.list_parts(name).await?;
        if parts.is_empty() {
            return Err(StoreError::UnknownUpload(name.id.to_string()));
        }
        self.remove_parts(name, &parts).await
    }

    async fn list_parts(&self, name: &UploadName) -> Result<Vec<Part>, StoreError> {
        let folder = Path::from(paths::upload_parts(&name.tenant, name.id));
        let mut objects = self.store().list(Some(&folder));
        let mut parts = Vec::new();
        while let Some(object) = objects.try_next().await? {
            if let Some(offset) = paths::offset_of(object.location.as_ref()) {
                parts.push(Part { offset, bytes: object.size });
            }
        }
        Ok(parts)
    }

    async fn compose(&self, name: &UploadName, path: &str, end: &UploadEnd) -> Result<(), StoreError> {
        let parts = self.list_parts(name).await?;
        if parts.is_empty() {
            return Err(StoreError::UnknownUpload(name.id.to_string()));
        }
        let (pieces, stored) = chain(parts.clone());
        if stored < end.bytes {
            return Err(StoreError::WrongOffset { next: stored, found: end.bytes });
        }
        let written = if stored == end.bytes {
            self.write_whole(name, &pieces, path, end).await
        } else {
            Err(StoreError::mismatch(path, format!("{stored} bytes came instead of {}: upload again", end.bytes)))
        };
        if matches!(written, Ok(()) | Err(StoreError::Mismatch { .. }))
            && let Err(error) = self.remove_parts(name, &parts).await
        {
            tracing::warn!(%error, upload_id = %name.id, "parts of an upload that has ended were not removed");
        }
        written
    }

    /// Writes the object; it is not seen before its digest was right.
    async fn write_whole(
        &self,
        name: &UploadName,
        pieces: &[Piece],
        path: &str,
        end: &UploadEnd,
    ) -> Result<(), StoreError> {
        let folder = paths::upload_parts(&name.tenant, name.id);
        let target = Path::from(path);
        let mut digest = Sha256::new();
        if let [piece] = pieces {
            let bytes = self.piece(&folder, piece).await?;
            digest = hashed(digest, bytes.clone()).await?;
            check_digest(path, digest, end)?;
            self.store().put(&target, PutPayload::from_bytes(bytes)).await?;
            return Ok(());
        }
        let upload = self.store().put_multipart(&target).await?;
        let mut whole = WriteMultipart::new_with_chunk_size(upload, MULTIPART_BYTES);
        let copied = async {
            for piece in pieces {
                let bytes = self.piece(&folder, piece).await?;
                digest = hashed(digest, bytes.clone()).await?;
                whole.wait_for_capacity(1).await?;
                whole.put(bytes);
            }
            check_digest(path, digest, end)
        };
        match copied.await {
            Ok(()) => _ = whole.finish().await?,
            Err(error) => {
                if let Err(error) = whole.abort().await {
                    tracing::warn!(%error, path, "an unfinished object could not be removed");
                }
                return Err(error);
            }
        }
        Ok(())
    }

    async fn piece(&self, folder: &str, piece: &Piece) -> Result<Bytes, StoreError> {
        let path = Path::from(paths::part(folder, piece.part.offset));
        let bytes = self.store().get(&path).await?.bytes().await?;
        if bytes.len() as u64 != piece.part.bytes {
            let reason = format!("a part has {} bytes instead of {}: upload again", bytes.len(), piece.part.bytes);
            return Err(StoreError::mismatch(path.as_ref(), reason));
        }
        Ok(bytes.slice(piece.known as usize..))
    }

    async fn remove_parts(&self, name: &UploadName, parts: &[Part]) -> Result<(), StoreError> {
        let folder = paths::upload_parts(&name.tenant, name.id);
        self.delete(parts.iter().map(|part| paths::part(&folder, part.offset)).collect()).await.map(drop)
    }
}

impl PartWriter {
    /// The byte that comes next.
    pub fn next(&self) -> u64 {
        self.state.next + self.gathered_bytes as u64
    }

    /// Whether the upload is finished already.
    pub fn is_complete(&self) -> bool {
        self.state.complete
    }

    /// Which upload it is.
    pub fn name(&self) -> &UploadName {
        &self.name
    }

    /// Adds bytes that begin at `offset`; waits while they are stored.
    ///
    /// # Errors
    /// [`StoreError::WrongOffset`], [`StoreError::TooLarge`], [`StoreError::TooManyParts`],
    /// [`StoreError::QuotaExceeded`], or the store cannot be written. What is stored stays.
    pub async fn write(&mut self, offset: u64, bytes: Bytes) -> Result<(), StoreError> {
        if offset != self.next() || self.state.complete {
            return Err(StoreError::WrongOffset { next: self.next(), found: offset });
        }
        let all = offset.saturating_add(bytes.len() as u64);
        if all > self.limits.bytes_max {
            return Err(StoreError::TooLarge { bytes: all, limit: self.limits.bytes_max });
        }
        self.gathered_bytes += bytes.len();
        self.gathered.push(bytes);
        if self.gathered_bytes >= PART_BYTES { self.flush().await } else { Ok(()) }
    }

    /// Stores what was gathered.
    ///
    /// # Errors
    /// [`StoreError::TooManyParts`], [`StoreError::QuotaExceeded`], or the store cannot be written; then what was gathered
    /// is gone and has to be sent again.
    pub async fn flush(&mut self) -> Result<(), StoreError> {
        if self.gathered_bytes == 0 {
            return Ok(());
        }
        let (mut rest, gathered, bytes) = self.detach();
        // A task of its own: whoever waits here may be dropped when its client goes away.
        let stored = tokio::spawn(async move {
            let outcome = rest.store_gathered(gathered, bytes).await;
            (rest.state, outcome)
        });
        let (state, outcome) = stored.await.map_err(std::io::Error::other)?;
        self.state = state;
        outcome
    }

    /// What was gathered, and a writer that stores it without this one.
    fn detach(&mut self) -> (Self, Vec<Bytes>, u64) {
        let gathered = std::mem::take(&mut self.gathered);
        let bytes = std::mem::take(&mut self.gathered_bytes) as u64;
        // Empty, so that it ends by itself if the runtime ends before it has stored anything.
        let rest = Self {
            claims: self.claims.clone(),
            name: self.name.clone(),
            limits: self.limits,
            state: self.state,
            gathered: Vec::new(),
            gathered_bytes: 0,
        };
        (rest, gathered, bytes)
    }

    async fn store_gathered(&mut self, mut gathered: Vec<Bytes>, mut left: u64) -> Result<(), StoreError> {
        for _ in 0..CONFLICTS_MAX {
            if left == 0 {
                return Ok(());
            }
            if self.state.parts >= self.limits.parts_max {
                return Err(StoreError::TooManyParts(self.state.parts));
            }
            self.claims.quota().room(&self.name.tenant, left).await?;
            match self.store_part(&gathered).await {
                Ok(()) => {
                    self.claims.quota().added(&self.name.tenant, left);
                    self.state.next += left;
                    self.state.parts += 1;
                    return Ok(());
                }
                // The node that had the upload before stored the same bytes, or some of them.
                Err(object_store::Error::AlreadyExists { .. }) => {
                    let now = self.claims.upload_state(&self.name).await?;
                    let known = now.next.saturating_sub(self.state.next);
                    self.state = now;
                    drop_front(&mut gathered, known.min(left));
                    left = left.saturating_sub(known);
                }
                Err(error) => return Err(error.into()),
            }
        }
        let offset = self.state.next;
        Err(StoreError::WrongOffset { next: offset, found: offset })
    }

    async fn store_part(&self, gathered: &[Bytes]) -> Result<(), object_store::Error> {
        let folder = paths::upload_parts(&self.name.tenant, self.name.id);
        let path = Path::from(paths::part(&folder, self.state.next));
        let payload = PutPayload::from_iter(gathered.iter().cloned());
        self.claims.store().put_opts(&path, payload, PutMode::Create.into()).await.map(drop)
    }
}

impl Drop for PartWriter {
    fn drop(&mut self) {
        if self.gathered_bytes == 0 {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (mut rest, gathered, bytes) = self.detach();
        runtime.spawn(async move {
            if let Err(error) = rest.store_gathered(gathered, bytes).await {
                tracing::debug!(%error, upload_id = %rest.name.id, "the end of a cut upload was not stored");
            }
        });
    }
}

/// Removes so many bytes from the begin.
fn drop_front(gathered: &mut Vec<Bytes>, mut bytes: u64) {
    while let Some(first) = gathered.first_mut().filter(|_| bytes > 0) {
        let cut = bytes.min(first.len() as u64);
        drop(first.split_to(cut as usize));
        bytes -= cut;
        if first.is_empty() {
            gathered.remove(0);
        }
    }
}

/// Hashes beside the node's other work.
async fn hashed(mut digest: Sha256, bytes: Bytes) -> Result<Sha256, StoreError> {
    let hashed = tokio::task::spawn_blocking(move || {
        digest.update(&bytes);
        digest
    });
    hashed.await.map_err(|error| std::io::Error::other(error).into())
}

fn check_digest(path: &str, digest: Sha256, end: &UploadEnd) -> Result<(), StoreError> {
    if <[u8; 32]>::from(digest.finalize()) == end.sha256 {
        return Ok(());
    }
    Err(StoreError::mismatch(path, "the bytes were damaged on the way: upload again"))
}
