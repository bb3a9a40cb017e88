//! Why the SDK did not do what it was asked.

use std::io;
use std::sync::Arc;

use relay_protocol::{JobError, JobId};

/// Why a request of the SDK failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No server could be reached within the time-out. A job that was accepted goes on without the client.
    #[error("no connection: {reason}")]
    NoConnection {
        /// What the last try met.
        reason: String,
    },
    /// The node, or a rule that every node has, refuses the request.
    #[error(transparent)]
    Rejected(#[from] JobError),
    /// An input or output of the caller failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: Arc<io::Error>,
    },
    /// This client watches the job already: use that handle.
    #[error("job {0} is watched by this client already")]
    AlreadyWatched(JobId),
    /// A setting or a server's URL cannot be used.
    #[error("{0}")]
    Settings(String),
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

impl ClientError {
    /// An I/O error while doing `what`.
    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io { what: what.into(), source: Arc::new(source) }
    }
}
