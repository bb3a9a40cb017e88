//! Where things lie in the store. Tenants are written in hex: one path segment each, whatever their names hold.

use relay_protocol::UploadId;

/// Folder of inputs.
pub(super) const UPLOADS: &str = "uploads";
/// Folder of uploads that are not finished.
pub(super) const PARTS: &str = "parts";
/// Folder of the marks of inputs that a job has named.
pub(super) const USED: &str = "used";
/// Folder of results.
pub(super) const RESULTS: &str = "results";
/// Object that holds the store's identity.
pub(super) const IDENTITY: &str = "store-id";
/// Begin of the names of inputs whose ids clients made.
const NAMED_PREFIX: &str = "c-";

/// Folder of a tenant's inputs.
pub(super) fn uploads(tenant: &str) -> String {
    format!("{UPLOADS}/{}", hex::encode(tenant))
}

/// Folder of a tenant's unfinished uploads.
pub(super) fn parts(tenant: &str) -> String {
    format!("{PARTS}/{}", hex::encode(tenant))
}

/// A finished upload.
pub(super) fn named_upload(tenant: &str, id: UploadId) -> String {
    format!("{}/{NAMED_PREFIX}{id}", uploads(tenant))
}

/// Whether a client made the input's id, so that several jobs may name it.
pub(super) fn is_named(upload: &str) -> bool {
    upload.rsplit('/').next().is_some_and(|name| name.starts_with(NAMED_PREFIX))
}

/// Folder of an upload's parts.
pub(super) fn upload_parts(tenant: &str, id: UploadId) -> String {
    format!("{}/{id}", parts(tenant))
}

/// A part, by its first byte.
pub(super) fn part(folder: &str, offset: u64) -> String {
    format!("{folder}/{offset:016x}")
}

/// The first byte of a part, from its path.
pub(super) fn offset_of(part: &str) -> Option<u64> {
    u64::from_str_radix(part.rsplit('/').next()?, 16).ok()
}

/// The mark of an input that a job has named; `None` if it is no input.
pub(super) fn used(upload: &str) -> Option<String> {
    upload.strip_prefix(UPLOADS).map(|rest| format!("{USED}{rest}"))
}
