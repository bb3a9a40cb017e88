//! A backend whose calls end when, and how, the test says: for jobs that run.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt;
use relay_node::backend::{Backend, BackendError, Call, Output, Update, Updates};
use relay_protocol::{ErrorCode, JobId};
use serde_json::json;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::cluster::PATIENCE;

/// Hands its calls to the test.
pub(crate) struct Stage {
    calls: mpsc::UnboundedSender<Running>,
}

/// The calls that came, in their order.
pub(crate) struct Calls(Mutex<mpsc::UnboundedReceiver<Running>>);

/// A call that waits for the test's word.
pub(crate) struct Running {
    /// Which job.
    pub(crate) job_id: JobId,
    /// Fires when the caller drops the call.
    pub(crate) dropped: CancellationToken,
    updates: Updates,
    end: oneshot::Sender<Result<Output, BackendError>>,
}

impl Stage {
    /// A stage, and where its calls come out.
    pub(crate) fn new() -> (Arc<Self>, Calls) {
        let (calls, came) = mpsc::unbounded_channel();
        (Arc::new(Self { calls }), Calls(Mutex::new(came)))
    }
}

#[async_trait]
impl Backend for Stage {
    fn name(&self) -> &str {
        "builtin"
    }

    async fn call(&self, call: Call, updates: Updates) -> Result<Output, BackendError> {
        let (end, ended) = oneshot::channel();
        let dropped = CancellationToken::new();
        let _tells: DropGuard = dropped.clone().drop_guard();
        let let_go = || BackendError::Failed("the test let go of the call".to_owned());
        self.calls.send(Running { job_id: call.job_id, dropped, updates, end }).map_err(|_| let_go())?;
        ended.await.unwrap_or_else(|_| Err(let_go()))
    }
}

impl Calls {
    /// The next call.
    pub(crate) async fn next(&self) -> Running {
        let next = async { self.0.lock().await.recv().await };
        timeout(PATIENCE, next).await.expect("a call comes in time").expect("the stage lives")
    }

    /// The next call, if one waits.
    pub(crate) async fn try_next(&self) -> Option<Running> {
        self.0.lock().await.recv().now_or_never().flatten()
    }

    /// No call waits.
    pub(crate) async fn is_empty(&self) -> bool {
        self.0.lock().await.is_empty()
    }
}

impl Running {
    /// Says how far it is.
    pub(crate) async fn progress(&self, fraction: f32) {
        self.updates.send(Update::Progress(fraction)).await.expect("the caller listens");
    }

    /// Says a piece of the result.
    pub(crate) async fn partial(&self, piece: &str) {
        self.updates.send(Update::Partial(json!({ "text": piece }))).await.expect("the caller listens");
    }

    /// Ends well.
    pub(crate) fn complete(self) {
        self.end(Ok(Output { result: json!({ "text": "done" }), media: None }));
    }

    /// Ends in a failure that may pass.
    pub(crate) fn fail(self) {
        self.end(Err(BackendError::Failed("the test says so".to_owned())));
    }

    /// Ends in a refusal that lasts.
    pub(crate) fn reject(self) {
        self.end(Err(BackendError::Rejected { code: ErrorCode::CorruptMedia, reason: "the test says so".to_owned() }));
    }

    /// Waits until the caller has dropped the call.
    pub(crate) async fn wait_dropped(&self) {
        timeout(PATIENCE, self.dropped.cancelled()).await.expect("the call is dropped in time");
    }

    fn end(self, end: Result<Output, BackendError>) {
        assert!(self.end.send(end).is_ok(), "the caller had dropped the call already");
    }
}
