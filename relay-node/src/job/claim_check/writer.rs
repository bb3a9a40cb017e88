//! An object that is written in one go: a form's file, or an upload that ends with its connection.

use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStoreExt, WriteMultipart};
use relay_protocol::StoredObject;
use sha2::{Digest, Sha256};

use super::error::StoreError;
use super::quota::Quota;
use super::{ClaimCheck, Named, claim};

/// Bytes of one part of a written object, in flight at a time: one.
pub(super) const MULTIPART_BYTES: usize = 5 * 1024 * 1024;

/// An object that is being written; dropped before [`ObjectWriter::finish`], it never was.
pub struct ObjectWriter {
    path: String,
    parts: WriteMultipart,
    digest: Sha256,
    bytes: u64,
    bytes_max: u64,
    tenant: String,
    /// Bytes that the tenant had left when it began.
    room: u64,
    quota: Arc<Quota>,
}

impl ClaimCheck {
    /// Begins to write an input of at most `bytes_max` bytes for a tenant, part by part.
    ///
    /// # Errors
    /// [`StoreError::QuotaExceeded`], or the store cannot be written.
    pub async fn writer(&self, tenant: &str, path: String, bytes_max: u64) -> Result<ObjectWriter, StoreError> {
        let room = self.quota().room(tenant, 1).await?;
        let upload = self.store().put_multipart(&Path::from(path.as_str())).await?;
        let parts = WriteMultipart::new_with_chunk_size(upload, MULTIPART_BYTES);
        let quota = self.quota().clone();
        Ok(ObjectWriter {
            path,
            parts,
            digest: Sha256::new(),
            bytes: 0,
            bytes_max,
            tenant: tenant.to_owned(),
            room,
            quota,
        })
    }
}

impl ObjectWriter {
    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds bytes; waits while the store is behind.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`], [`StoreError::QuotaExceeded`], or the store cannot be written.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.bytes += bytes.len() as u64;
        if self.bytes > self.bytes_max {
            return Err(StoreError::TooLarge { bytes: self.bytes, limit: self.bytes_max });
        }
        if self.bytes > self.room {
            // Others of the tenant may have stored, or the sweep removed, something meanwhile.
            self.room = self.quota.room(&self.tenant, self.bytes).await?;
        }
        self.parts.wait_for_capacity(1).await?;
        self.digest.update(&bytes);
        self.parts.put(bytes);
        Ok(())
    }

    /// Makes the object visible and returns its claim.
    ///
    /// # Errors
    /// The store cannot be written.
    pub async fn finish(self, named: Named) -> Result<StoredObject, StoreError> {
        self.parts.finish().await?;
        self.quota.added(&self.tenant, self.bytes);
        Ok(claim(&self.path, self.bytes, &self.digest.finalize(), named))
    }

    /// SHA-256 of what was written so far.
    pub fn sha256(&self) -> [u8; 32] {
        self.digest.clone().finalize().into()
    }

    /// Gives the object up.
    pub async fn abort(self) {
        if let Err(error) = self.parts.abort().await {
            tracing::warn!(%error, path = self.path, "an unfinished object could not be removed");
        }
    }
}
