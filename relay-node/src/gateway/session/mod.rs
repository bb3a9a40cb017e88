//! One client's session: its requests in, its answers and events out. One task, which owns the connection.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_ws::AggregatedMessage;
use bytes::Bytes;
use relay_protocol::hello::{ErrorV1, GoodbyeV1, MovedV1, PingV1, PongV1};
use relay_protocol::limits::SESSION_JOBS_MAX;
use relay_protocol::message::KINDS;
use relay_protocol::session::{
    AcceptedV1, CancelV1, FetchV1, ResumeV1, StatusV1, SubmitV1, UnwatchV1, UploadBeginV1, UploadChunkV1, UploadDoneV1,
    UploadEndV1, WatchV1,
};
use relay_protocol::{ErrorCode, Frame, JobError, JobId, Message, SessionId, StoredObject, frame};
use relay_runtime::auth::Identity;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use self::watching::{Begun, Watched};
use super::connect::{self, Messages};
use super::resumption::Notice;
use super::sessions::{SessionEntry, SessionFacts};
use super::submit::Accepted;
use super::upload::Uploads;
use crate::audit::Actor;
use crate::events::feed::{Delivery, Lagging, Sink};
use crate::events::hub::WatchGuard;
use crate::events::order::Order;
use crate::state::NodeState;

mod requests;
mod turns;
mod watching;

use turns::{Came, Turns};

/// Events that may wait for one session's socket: the durable ones of as many jobs as it may watch.
const EVENTS_MAX: usize = 4 * SESSION_JOBS_MAX;
/// Answers of its requests that may wait for one session's socket.
const REPLIES_MAX: usize = 64;

/// Why a session ended whose client went on at another node, in the audit trail.
const MOVED: &str = "moved";
/// Code of the goodbye to a peer of which nothing was heard for too long.
const IDLE: &str = "idle";

/// A connection that said hello.
pub struct Opened {
    /// Who it is.
    pub identity: Identity,
    /// Identity of the session.
    pub session_id: SessionId,
    /// Way out.
    pub socket: actix_ws::Session,
    /// Way in.
    pub stream: Messages,
}

/// What a request's own task answers.
enum Reply {
    Submitted {
        request: u64,
        job_id: JobId,
        /// Number of its watch.
        watch: Option<u64>,
        outcome: Result<Box<(Accepted, Option<WatchGuard>)>, JobError>,
    },
    Watching(Vec<Begun>),
    Nothing {
        job_id: JobId,
        watch: u64,
        notice: Notice,
    },
    Uploaded {
        upload: u64,
        outcome: Result<StoredObject, JobError>,
    },
    Frame(Bytes),
    Failed {
        request: u64,
        error: JobError,
    },
}

/// Why a session ends.
enum End {
    /// The peer is gone or said goodbye.
    Gone(&'static str),
    /// Nothing was heard for too long.
    Idle(Duration),
    /// The node ends it because of an error.
    Close(JobError),
}

struct Session {
    node: Arc<NodeState>,
    identity: Arc<Identity>,
    tenant: Arc<str>,
    id: SessionId,
    socket: actix_ws::Session,
    jobs: HashMap<JobId, Watched>,
    uploads: Uploads,
    sink: Sink,
    /// Watches so far.
    watches: u64,
    replies: mpsc::Sender<Reply>,
    entry: SessionEntry,
    heard: Instant,
    /// The client was told to go on elsewhere.
    is_moved: bool,
}

/// Serves the session until it ends.
pub async fn run(node: Arc<NodeState>, opened: Opened) {
    let (sender, events) = mpsc::channel(EVENTS_MAX);
    let (replies, answers) = mpsc::channel(REPLIES_MAX);
    let identity = Arc::new(opened.identity);
    let (moves, moved) = watch::channel(None);
    let entry = node.sessions.open(SessionFacts {
        id: opened.session_id,
        tenant: identity.tenant.clone(),
        subject: identity.subject.clone(),
        opened_at_ms: node.clock.now_ms(),
        jobs: 0.into(),
        bytes: 0.into(),
        moves,
    });
    let mut session = Session {
        tenant: identity.tenant.as_str().into(),
        identity,
        id: opened.session_id,
        socket: opened.socket,
        jobs: HashMap::new(),
        uploads: Uploads::default(),
        sink: Sink { events: sender, lagging: Lagging::default() },
        watches: 0,
        replies,
        entry,
        heard: Instant::now(),
        is_moved: false,
        node,
    };
    session.audit("opened", json!({}));
    let began = Instant::now();
    let end = session.serve(opened.stream, events, answers, moved).await;
    session.close(end, began.elapsed()).await;
}

impl Session {
    async fn serve(
        &mut self,
        mut stream: Messages,
        mut events: mpsc::Receiver<Delivery>,
        mut answers: mpsc::Receiver<Reply>,
        mut moved: watch::Receiver<Option<MovedV1>>,
    ) -> End {
        let gateway = &self.node.settings.gateway;
        let idle = Duration::from_millis(gateway.idle_timeout_ms);
        let mut ping = tokio::time::interval(Duration::from_millis(gateway.ping_interval_ms.max(1)));
        ping.tick().await;
        let draining = self.node.draining.clone();
        let mut turns = Turns::default();
        loop {
            let step = tokio::select! {
                biased;
                () = draining.cancelled() => {
                    Err(End::Close(JobError::new(ErrorCode::Draining, "the node is going down: connect again and resume")))
                }
                _ = ping.tick() => self.on_ping(idle).await,
                Ok(()) = moved.changed() => self.on_moved(&mut moved).await,
                Some(reply) = answers.recv() => self.on_reply(reply).await,
                came = turns.next(&mut stream, &mut events) => match came {
                    Came::Message(message) => self.on_message(message).await,
                    Came::Delivery(first) => self.on_deliveries(first, &mut events).await,
                },
            };
            turns.pass();
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// Tells the client where to go on. The session stays as it is until the client leaves, or the node has to end it.
    async fn on_moved(&mut self, moved: &mut watch::Receiver<Option<MovedV1>>) -> Result<(), End> {
        let moved = moved.borrow_and_update().clone();
        self.is_moved = moved.is_some();
        match moved {
            Some(moved) => self.send(&moved, b"").await,
            None => Ok(()),
        }
    }

    async fn on_message(
        &mut self,
        message: Option<Result<AggregatedMessage, actix_ws::ProtocolError>>,
    ) -> Result<(), End> {
        self.heard = Instant::now();
        match message {
            Some(Ok(AggregatedMessage::Binary(bytes))) => {
                self.entry.count(bytes.len());
                let frame = frame::split(bytes)
                    .map_err(|error| End::Close(JobError::new(ErrorCode::BadFrame, error.to_string())))?;
                self.on_frame(frame).await
            }
            Some(Ok(AggregatedMessage::Text(_))) => Err(End::Close(connect::text_message())),
            Some(Ok(AggregatedMessage::Ping(bytes))) => self.socket.pong(&bytes).await.map_err(|_| End::Gone("lost")),
            Some(Ok(AggregatedMessage::Pong(_))) => Ok(()),
            Some(Ok(AggregatedMessage::Close(_))) => Err(End::Gone("closed")),
            Some(Err(error)) => Err(End::Close(connect::broken(&error))),
            None => Err(End::Gone("lost")),
        }
    }

    async fn on_frame(&mut self, frame: Frame) -> Result<(), End> {
        if !KINDS.iter().any(|(kind, version, _)| (*kind, *version) == (frame.kind, frame.version)) {
            // A later version's: its length is known, so it is passed over.
            return Ok(());
        }
        let result = match frame.kind {
            SubmitV1::KIND => return self.on_submit(head(&frame)?, frame.payload).await,
            WatchV1::KIND => self.watch(head(&frame)?),
            UnwatchV1::KIND => {
                let unwatch: UnwatchV1 = head(&frame)?;
                self.jobs.remove(&unwatch.job_id);
                Ok(())
            }
            ResumeV1::KIND => return self.resume(head(&frame)?).await,
            StatusV1::KIND => self.status(head(&frame)?),
            CancelV1::KIND => self.cancel(head(&frame)?),
            FetchV1::KIND => self.fetch(head(&frame)?),
            UploadBeginV1::KIND | UploadChunkV1::KIND | UploadEndV1::KIND => return self.upload(frame).await,
            PingV1::KIND => {
                let ping: PingV1 = head(&frame)?;
                let sent_at_us = self.node.now_us();
                return self
                    .send(&PongV1 { nonce: ping.nonce, ping_sent_at_us: ping.sent_at_us, sent_at_us }, b"")
                    .await;
            }
            GoodbyeV1::KIND => return Err(End::Gone("goodbye")),
            // Pongs need no answer, and what only nodes say means nothing here.
            _ => Ok(()),
        };
        match result {
            Ok(()) => Ok(()),
            Err((request, error)) => self.fail(request, &error).await,
        }
    }

    async fn on_reply(&mut self, reply: Reply) -> Result<(), End> {
        match reply {
            Reply::Frame(frame) => self.send_frame(frame).await,
            Reply::Failed { request, error } => self.fail(request, &error).await,
            Reply::Uploaded { upload, outcome: Ok(object) } => {
                self.uploads.finished(upload, Some(object));
                self.send(&UploadDoneV1 { upload }, b"").await
            }
            Reply::Uploaded { upload, outcome: Err(error) } => {
                self.uploads.finished(upload, None);
                self.fail(upload, &error).await
            }
            Reply::Watching(begun) => self.on_begun(begun).await,
            Reply::Nothing { job_id, watch, notice } => self.on_nothing(job_id, watch, notice).await,
            Reply::Submitted { request, job_id, watch, outcome: Err(error) } => {
                if self.jobs.get(&job_id).is_some_and(|watched| Some(watched.watch) == watch) {
                    self.jobs.remove(&job_id);
                }
                self.count_refused(&error);
                self.fail(request, &error).await
            }
            Reply::Submitted { request, job_id, watch, outcome: Ok(done) } => {
                let (accepted, guard) = *done;
                let head = AcceptedV1 { request, job_id: accepted.job_id, at_ms: accepted.event.at };
                self.send(&head, &accepted.json).await?;
                let watched = self.jobs.get_mut(&job_id).filter(|watched| Some(watched.watch) == watch);
                let Some(watched) = watched else { return Ok(()) };
                watched.guard = guard;
                watched.order = Order::after(accepted.event.seq);
                for event in watched.held.take().unwrap_or_default() {
                    self.on_event(event).await?;
                }
                Ok(())
            }
        }
    }

    async fn on_ping(&mut self, idle: Duration) -> Result<(), End> {
        if self.heard.elapsed() >= idle {
            return Err(End::Idle(idle));
        }
        let nonce = self.node.random.next_u64();
        self.send(&PingV1 { nonce, sent_at_us: self.node.now_us() }, b"").await
    }

    async fn send<M: Message>(&mut self, message: &M, payload: &[u8]) -> Result<(), End> {
        self.send_frame(encode(message, payload).map_err(End::Close)?).await
    }

    async fn send_frame(&mut self, frame: Bytes) -> Result<(), End> {
        self.entry.count(frame.len());
        let idle = Duration::from_millis(self.node.settings.gateway.idle_timeout_ms);
        match tokio::time::timeout(idle, self.socket.binary(frame)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Gone("lost")),
            Err(_) => Err(End::Gone("too_slow")),
        }
    }

    async fn fail(&mut self, request: u64, error: &JobError) -> Result<(), End> {
        self.fail_later(request, error, None).await
    }

    async fn fail_later(&mut self, request: u64, error: &JobError, retry_after_ms: Option<u32>) -> Result<(), End> {
        let told = ErrorV1 {
            request,
            code: error.code.clone(),
            message: error.message.clone(),
            retryable: error.retryable,
            retry_after_ms,
        };
        self.send(&told, b"").await
    }

    async fn close(mut self, end: End, lasted: Duration) {
        self.uploads.abort_all(&self.node).await;
        let (reason, message) = match &end {
            End::Gone("goodbye") if self.is_moved => (MOVED.to_owned(), None),
            End::Gone(reason) => ((*reason).to_owned(), None),
            End::Idle(idle) => (IDLE.to_owned(), Some(format!("nothing was heard for {} ms", idle.as_millis()))),
            End::Close(error) => (error.code.clone(), Some(error.message.clone())),
        };
        // The peer may be gone already; it is told if it is not.
        if let End::Close(error) = &end {
            drop(self.fail(0, error).await);
        }
        if let Some(message) = message {
            drop(self.send(&GoodbyeV1 { code: reason.clone(), message }, b"").await);
        }
        let bytes = self.entry.facts.bytes.load(Ordering::Relaxed);
        self.audit("closed", json!({ "reason": reason, "duration_ms": lasted.as_millis() as u64, "bytes": bytes }));
        drop(self.socket.close(None).await);
    }

    fn actor(&self) -> Actor<'_> {
        Actor { tenant: &self.identity.tenant, subject: &self.identity.subject }
    }

    fn audit(&self, happened: &str, detail: serde_json::Value) {
        if let Some(online) = self.node.online.get() {
            online.audit.session(happened, self.actor(), self.id, detail);
        }
    }

    fn count_jobs(&self) {
        self.entry.facts.jobs.store(self.jobs.len() as u32, Ordering::Relaxed);
    }
}

fn head<M: Message>(frame: &Frame) -> Result<M, End> {
    frame.head().map_err(|error| End::Close(JobError::new(ErrorCode::BadFrame, error.to_string())))
}

fn encode<M: Message>(message: &M, payload: &[u8]) -> Result<Bytes, JobError> {
    frame::encode(message, payload).map_err(|error| JobError::new(ErrorCode::Internal, error.to_string()))
}
