//! Why the store did not do what it was asked.

use relay_log::port::LogError;
use relay_protocol::{ErrorCode, JobError};

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// It cannot be read or written now.
    #[error("the object store cannot be used: {0}")]
    Unavailable(#[from] object_store::Error),
    /// A file of it, or of the node's cache, cannot be read or written.
    #[error("the object store cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// Its settings cannot be used: only another start helps.
    #[error("setting `{key}`: {problem}")]
    Setting {
        /// The whole key, with dots.
        key: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The object is not what its claim says.
    #[error("object {path} does not match its claim: {reason}")]
    Mismatch {
        /// Where it lies.
        path: String,
        /// How it differs.
        reason: String,
    },
    /// More bytes than allowed.
    #[error("{bytes} bytes are over the limit of {limit}")]
    TooLarge {
        /// Bytes that came.
        bytes: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// An upload in too many pieces.
    #[error("the upload has {0} pieces already: begin it anew and send larger ones")]
    TooManyParts(usize),
    /// An upload's bytes do not begin where the stored ones end.
    #[error("byte {next} of the upload comes next, not {found}")]
    WrongOffset {
        /// The byte that comes next.
        next: u64,
        /// The byte that came, or the end that was said.
        found: u64,
    },
    /// There is no such upload.
    #[error("there is no upload {0}")]
    UnknownUpload(String),
    /// An upload that was removed, or is about to be.
    #[error("the upload {0} is not there any more: upload again")]
    Gone(String),
    /// The tenant's inputs take all the room that it has.
    #[error("the tenant's inputs have {bytes} bytes in the object store, it may have {limit}")]
    QuotaExceeded {
        /// Bytes stored, as far as this node has counted.
        bytes: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// The node's store is not the one that the cluster uses.
    #[error(
        "the object store {place} is another one than the cluster's (its identity is {found}, the cluster's {expected}): {advice}"
    )]
    OtherStore {
        /// This node's store.
        place: String,
        /// What to do about it.
        advice: &'static str,
        /// Its identity.
        found: String,
        /// The cluster's.
        expected: String,
    },
    /// The cluster's word on the store cannot be read or written.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl StoreError {
    /// The error as clients see it; what limits refuse is counted.
    pub fn to_job_error(&self) -> JobError {
        let code = match self {
            Self::Mismatch { .. } => ErrorCode::DigestMismatch,
            Self::TooLarge { .. } => ErrorCode::TooLarge,
            Self::TooManyParts(_) => ErrorCode::InvalidField,
            Self::WrongOffset { .. } => ErrorCode::WrongOffset,
            Self::UnknownUpload(_) | Self::Gone(_) => ErrorCode::UnknownUpload,
            Self::QuotaExceeded { .. } => ErrorCode::QuotaExceeded,
            Self::Unavailable(object_store::Error::NotFound { .. }) => ErrorCode::InputUnavailable,
            _ => ErrorCode::StoreUnavailable,
        };
        metrics::counter!("relay_store_refused_total", "code" => code.as_str()).increment(1);
        JobError::new(code, self.to_string())
    }

    /// Whether trying again with the same settings cannot help.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::OtherStore { .. } | Self::Setting { .. })
    }

    /// Whether the object, or a part of it, is not there.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Unavailable(object_store::Error::NotFound { .. }))
    }

    pub(super) fn mismatch(path: &str, reason: impl Into<String>) -> Self {
        Self::Mismatch { path: path.to_owned(), reason: reason.into() }
    }
}

/// The error of a file that is not there, as the store says it.
pub(super) fn file_error(path: &str, error: std::io::Error) -> StoreError {
    if error.kind() == std::io::ErrorKind::NotFound {
        return object_store::Error::NotFound { path: path.to_owned(), source: error.into() }.into();
    }
    error.into()
}
