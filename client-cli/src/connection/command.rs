//! What the client asks of the task that owns the connection, and what it gets back.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use relay_protocol::JobId;
use relay_protocol::session::{CancelOutcomeV1, SubmitV1, UploadBeginV2, UploadChunkV1, UploadEndV1};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use crate::error::ClientError;
use crate::job::ClientEvent;

/// Answer to a request: one value or the error instead of it.
pub(crate) type Answer<T> = oneshot::Sender<Result<T, ClientError>>;

/// A durable job.
pub(crate) struct Receipt {
    /// Its id; another than submitted if the idempotency key names an earlier job.
    pub(crate) job_id: JobId,
    /// Its `accepted` event.
    pub(crate) json: Bytes,
}

/// What became of a submit.
pub(crate) enum Submitted {
    /// It is durable.
    Accepted(Receipt),
    /// The connection went: begin the upload again and submit the same job again.
    UploadLost,
}

/// The connection's end of a job's handle.
pub(crate) struct Listener {
    /// Way to the handle.
    pub(crate) events: mpsc::Sender<ClientEvent>,
    /// What both ends see.
    pub(crate) shared: Arc<JobShared>,
    /// Counts the job as in flight until it ends.
    pub(crate) _permit: OwnedSemaphorePermit,
}

/// What a job's handle and the connection both see.
#[derive(Default)]
pub(crate) struct JobShared {
    /// The handle was full and events were dropped: it asks for them once it is empty.
    pub(crate) lagging: AtomicBool,
    /// Why no more events come, if not because of the terminal one.
    pub(crate) failed: OnceLock<ClientError>,
}

/// What happens to an upload.
pub(crate) enum UploadSignal {
    /// Its number, first of all.
    Begun(u64),
    /// The node has everything up to `next` and takes `window` bytes beyond.
    Ack { next: u64, window: u64 },
    /// Stored.
    Done,
    /// Refused.
    Failed(ClientError),
    /// The connection went.
    Lost,
}

/// The connection's end of a fetch.
pub(crate) struct Fetcher {
    /// Way to whoever writes the media.
    pub(crate) parts: mpsc::Sender<Result<FetchedPart, ClientError>>,
    /// The writer was too slow and parts were dropped: it asks for them once it has written the others.
    pub(crate) lagging: Arc<AtomicBool>,
}

/// A part of fetched media.
pub(crate) struct FetchedPart {
    /// Number of the fetch.
    pub(crate) request: u64,
    /// Size in all.
    pub(crate) total: u64,
    /// Whether it is the last.
    pub(crate) last: bool,
    /// The bytes.
    pub(crate) bytes: Bytes,
}

/// A request to the connection's task.
pub(crate) enum Command {
    /// Submit a job.
    Submit { submit: Box<SubmitV1>, payload: Bytes, again: bool, listener: Option<Listener>, answer: Answer<Submitted> },
    /// Watch a job.
    Watch { job_id: JobId, after_seq: u64, listener: Listener },
    /// The handle is gone.
    Unwatch { job_id: JobId },
    /// The handle has room again.
    Rewatch { job_id: JobId, after_seq: u64 },
    /// A job's state as JSON.
    Status { job_id: JobId, answer: Answer<Bytes> },
    /// Cancel a job.
    Cancel { job_id: JobId, answer: Answer<CancelOutcomeV1> },
    /// Fetch a job's media.
    Fetch { job_id: JobId, fetcher: Fetcher },
    /// The writer of a fetch has room again.
    Refetch { request: u64 },
    /// Begin an upload.
    UploadBegin { begin: UploadBeginV2, signals: mpsc::Sender<UploadSignal> },
    /// A part of an upload.
    UploadChunk { chunk: UploadChunkV1, payload: Bytes },
    /// End an upload.
    UploadEnd { end: UploadEndV1 },
    /// Say goodbye and end.
    Close { done: oneshot::Sender<()> },
}
