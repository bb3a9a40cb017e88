//! A small peer that speaks the session protocol as a node does, after a plan.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use relay_protocol::event::{EventKind, JobStatus, Place, TERMINAL_N};
use relay_protocol::hello::{ErrorV1, GoodbyeV1, HelloV1, MovedV1, PingV1, PongV1, WelcomeV1};
use relay_protocol::session::{
    AcceptedV1, CancelOutcomeV1, CancelReplyV1, CancelV1, EventV1, FetchChunkV1, FetchV1, ResumeV1, ResumedV1,
    StatusReplyV1, StatusV1, SubmitInputV1, SubmitV1, UploadAckV1, UploadBeginV2, UploadChunkV1, UploadDoneV1,
    UploadEndV1, WatchV1,
};
use relay_protocol::{ErrorCode, Event, Frame, JobError, JobId, Message as _, SessionId, UploadId, frame};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// Window of the peer's uploads: less than two chunks, so that the client has to wait for acknowledgements.
const WINDOW_BYTES: u64 = 300_000;

/// What the peer does.
#[derive(Clone)]
pub(crate) struct Plan {
    /// Refuses every submit.
    pub(crate) refuse: Option<ErrorCode>,
    /// How jobs end; `None`: they do not.
    pub(crate) end: Option<EventKind>,
    /// Result of completed jobs.
    pub(crate) result: Value,
    /// Progress events of a job.
    pub(crate) progress: u32,
    /// Media of completed jobs.
    pub(crate) media: Vec<u8>,
    /// Largest inline input.
    pub(crate) inline_bytes_max: u32,
    /// The first connection is cut at this.
    pub(crate) cut: Option<Cut>,
    /// JSON answers to plain HTTP requests, by path; others get 404.
    pub(crate) http: Vec<(&'static str, Value)>,
    /// Says goodbye with this code instead of a welcome.
    pub(crate) turn_away: Option<ErrorCode>,
    /// Sends the first session to another URL after this many events.
    pub(crate) moved: Option<(usize, String)>,
    /// How many sessions, from the first on, get nothing after their welcome.
    pub(crate) silent_sessions: usize,
    /// When a client has to ping.
    pub(crate) ping_interval_ms: u32,
}

/// Where the first connection is cut.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Cut {
    /// When a submit comes; it is not taken.
    BeforeTaking,
    /// When a submit comes; it is taken, but the receipt does not get out.
    AfterTaking,
    /// After this many events were sent.
    AfterEvents(usize),
    /// After this many chunks of an upload came.
    InUpload(usize),
    /// Before the submit of an upload is answered.
    AtUploadedSubmit,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            refuse: None,
            end: Some(EventKind::Completed),
            result: json!({ "text": "hello world" }),
            progress: 3,
            media: Vec::new(),
            inline_bytes_max: 65_536,
            cut: None,
            http: Vec::new(),
            turn_away: None,
            moved: None,
            silent_sessions: 0,
            ping_interval_ms: 1_000,
        }
    }
}

/// What the peer has seen.
#[derive(Default)]
pub(crate) struct Seen {
    /// Submits that it took, by job.
    pub(crate) jobs: HashMap<JobId, (SubmitV1, Bytes)>,
    /// Every submit that came.
    pub(crate) submits: Vec<JobId>,
    /// Sessions.
    pub(crate) sessions: usize,
    /// Bytes of uploads; they outlive connections.
    pub(crate) uploads: HashMap<UploadId, Vec<u8>>,
    /// Chunks of uploads.
    pub(crate) upload_chunks: usize,
    /// Jobs of each resume.
    pub(crate) resumes: Vec<Vec<(JobId, u64)>>,
    /// Name of the client's software.
    pub(crate) client: String,
    /// Pings that were answered.
    pub(crate) pings: usize,
    /// Codes of the goodbyes.
    pub(crate) goodbyes: Vec<String>,
}

/// A running peer; it ends with the test's runtime.
pub(crate) struct Peer {
    /// Its URL.
    pub(crate) url: String,
    /// What it has seen.
    pub(crate) seen: Arc<Mutex<Seen>>,
}

impl Peer {
    /// Starts a peer on a free port.
    pub(crate) async fn start(plan: Plan) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Seen::default()));
        let state = seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (plan, seen) = (plan.clone(), state.clone());
                tokio::spawn(async move {
                    let path = path_of(&stream).await;
                    if path != "/v1/connect" {
                        return answer(stream, plan.http.iter().find(|(known, _)| *known == path)).await;
                    }
                    if let Ok(socket) = tokio_tungstenite::accept_async(stream).await {
                        let session = Session { plan, seen, socket, uploads: HashMap::new(), events: 0, number: 0 };
                        session.run().await;
                    }
                });
            }
        });
        Self { url, seen }
    }
}

/// The path that a connection asks for, without taking anything from it.
async fn path_of(stream: &TcpStream) -> String {
    let mut head = [0; 512];
    loop {
        let read = stream.peek(&mut head).await.unwrap_or_default();
        let text = String::from_utf8_lossy(&head[..read]);
        if read == 0 || text.contains('\n') {
            return text.split(' ').nth(1).unwrap_or_default().to_owned();
        }
    }
}

async fn answer(mut stream: TcpStream, known: Option<&(&'static str, Value)>) {
    let (status, body) = match known {
        Some((_, body)) => ("200 OK", body.to_string()),
        None => ("404 Not Found", json!({ "error": JobError::new(ErrorCode::NotFound, "no coordinator") }).to_string()),
    };
    let length = body.len();
    let text = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    // The request is read, else the close would reset the connection before the answer is read.
    let mut request = [0; 4_096];
    _ = stream.read(&mut request).await;
    _ = stream.write_all(text.as_bytes()).await;
    _ = stream.shutdown().await;
}

struct Session {
    plan: Plan,
    seen: Arc<Mutex<Seen>>,
    socket: WebSocketStream<TcpStream>,
    /// Uploads by their numbers on this connection.
    uploads: HashMap<u64, UploadId>,
    events: usize,
    /// Which of the peer's sessions it is, from 1 on.
    number: usize,
}

/// The connection is to be cut.
struct Snip;

impl Session {
    async fn run(mut self) {
        while let Some(Ok(message)) = self.socket.next().await {
            let Message::Binary(bytes) = message else { continue };
            let frame = frame::split(bytes).unwrap();
            if self.on_frame(&frame).await.is_err() {
                return;
            }
        }
    }

    /// Whether this session hears the client and says nothing.
    fn is_silent(&self) -> bool {
        self.number <= self.plan.silent_sessions
    }

    fn cut_at(&self, cut: Cut) -> Result<(), Snip> {
        if self.number == 1 && self.plan.cut == Some(cut) { Err(Snip) } else { Ok(()) }
    }

    async fn send<M: relay_protocol::Message>(&mut self, message: &M, payload: &[u8]) -> Result<(), Snip> {
        let frame = frame::encode(message, payload).unwrap();
        self.socket.send(Message::Binary(frame)).await.map_err(|_| Snip)
    }

    async fn on_frame(&mut self, frame: &Frame) -> Result<(), Snip> {
        match frame.kind {
            HelloV1::KIND => self.hello(frame.head().unwrap()).await,
            GoodbyeV1::KIND => {
                self.seen.lock().unwrap().goodbyes.push(frame.head::<GoodbyeV1>().unwrap().code);
                Ok(())
            }
            _ if self.is_silent() => Ok(()),
            PingV1::KIND => {
                let PingV1 { nonce, sent_at_us } = frame.head().unwrap();
                self.seen.lock().unwrap().pings += 1;
                self.send(&PongV1 { nonce, ping_sent_at_us: sent_at_us, sent_at_us }, b"").await
            }
            SubmitV1::KIND => self.submit(frame.head().unwrap(), frame.payload.clone()).await,
            WatchV1::KIND => self.watch(frame.head().unwrap()).await,
            ResumeV1::KIND => self.resume(frame.head().unwrap()).await,
            StatusV1::KIND => self.status(frame.head().unwrap()).await,
            CancelV1::KIND => {
                let CancelV1 { request, job_id, .. } = frame.head().unwrap();
                self.send(&CancelReplyV1 { request, job_id, outcome: CancelOutcomeV1::Requested }, b"").await
            }
            FetchV1::KIND => self.fetch(frame.head().unwrap()).await,
            UploadBeginV2::KIND => {
                let UploadBeginV2 { request: upload, upload_id, .. } = frame.head().unwrap();
                self.uploads.insert(upload, upload_id);
                let next = self.seen.lock().unwrap().uploads.entry(upload_id).or_default().len() as u64;
                self.send(&UploadAckV1 { upload, next, window: WINDOW_BYTES }, b"").await
            }
            UploadChunkV1::KIND => self.chunk(frame.head().unwrap(), &frame.payload).await,
            UploadEndV1::KIND => {
                let UploadEndV1 { upload, bytes, sha256 } = frame.head().unwrap();
                let media = self.seen.lock().unwrap().uploads[&self.uploads[&upload]].clone();
                assert_eq!(media.len() as u64, bytes);
                assert_eq!(<[u8; 32]>::from(Sha256::digest(&media)), sha256);
                self.send(&UploadDoneV1 { upload }, b"").await
            }
            _ => Ok(()),
        }
    }

    async fn hello(&mut self, hello: HelloV1) -> Result<(), Snip> {
        let sessions = {
            let mut seen = self.seen.lock().unwrap();
            seen.sessions += 1;
            seen.client = hello.client;
            seen.sessions
        };
        self.number = sessions;
        if let Some(code) = self.plan.turn_away {
            self.error(0, code).await?;
            let code = code.as_str().to_owned();
            return self.send(&GoodbyeV1 { code, message: "go away".to_owned() }, b"").await;
        }
        let welcome = WelcomeV1 {
            version: 1,
            capabilities: hello.capabilities,
            session_id: SessionId::new(sessions as u128),
            resume_token: format!("token-{sessions}"),
            reply_partition: 7,
            node: "peer".to_owned(),
            inline_bytes_max: self.plan.inline_bytes_max,
            upload_bytes_max: 1 << 30,
            ping_interval_ms: self.plan.ping_interval_ms,
            sent_at_us: 0,
        };
        self.send(&welcome, b"").await
    }

    async fn error(&mut self, request: u64, code: ErrorCode) -> Result<(), Snip> {
        let JobError { code, message, retryable } = JobError::new(code, "the peer says no");
        self.send(&ErrorV1 { request, code, message, retryable, retry_after_ms: None }, b"").await
    }

    async fn submit(&mut self, submit: SubmitV1, payload: Bytes) -> Result<(), Snip> {
        let (request, job_id, watch) = (submit.request, submit.job_id, submit.watch);
        self.seen.lock().unwrap().submits.push(job_id);
        if let Some(code) = self.plan.refuse {
            return self.error(request, code).await;
        }
        self.cut_at(Cut::BeforeTaking)?;
        let media = match submit.input {
            SubmitInputV1::Upload(upload) => {
                Bytes::from(self.seen.lock().unwrap().uploads[&self.uploads[&upload]].clone())
            }
            _ => payload,
        };
        if matches!(submit.input, SubmitInputV1::Upload(_)) {
            self.cut_at(Cut::AtUploadedSubmit)?;
        }
        let known = self.seen.lock().unwrap().jobs.insert(job_id, (submit, media)).is_some();
        self.cut_at(Cut::AfterTaking)?;
        let accepted = event_json(&accepted(job_id));
        self.send(&AcceptedV1 { request, job_id, at_ms: 1 }, &accepted).await?;
        // As a node: a new job's events come from now on; those of an earlier submit are for a resume.
        if watch && !known { self.events_after(job_id, 1).await } else { Ok(()) }
    }

    async fn events_after(&mut self, job_id: JobId, after_seq: u64) -> Result<(), Snip> {
        for event in events(&self.plan, job_id).into_iter().filter(|event| event.seq > after_seq) {
            self.cut_at(Cut::AfterEvents(self.events))?;
            let head = EventV1 { job_id, seq: event.seq, terminal: event.event.is_terminal(), sent_at_us: 0 };
            self.send(&head, &event_json(&event)).await?;
            self.events += 1;
            if let Some((_, url)) =
                self.plan.moved.clone().filter(|(after, _)| self.number == 1 && self.events == *after)
            {
                self.send(&MovedV1 { url, reason: "balance".to_owned() }, b"").await?;
            }
        }
        Ok(())
    }

    async fn watch(&mut self, watch: WatchV1) -> Result<(), Snip> {
        if !self.seen.lock().unwrap().jobs.contains_key(&watch.job_id) {
            return self.error(watch.request, ErrorCode::UnknownJob).await;
        }
        self.events_after(watch.job_id, watch.after_seq).await
    }

    async fn resume(&mut self, resume: ResumeV1) -> Result<(), Snip> {
        self.seen.lock().unwrap().resumes.push(resume.jobs.clone());
        self.send(&ResumedV1 { request: resume.request, jobs: resume.jobs.len() as u32 }, b"").await?;
        for (job_id, after_seq) in resume.jobs {
            // One event too early on purpose: the client must not show it again.
            self.events_after(job_id, after_seq.saturating_sub(1)).await?;
        }
        Ok(())
    }

    async fn status(&mut self, status: StatusV1) -> Result<(), Snip> {
        let StatusV1 { request, job_id } = status;
        if !self.seen.lock().unwrap().jobs.contains_key(&job_id) {
            return self.error(request, ErrorCode::UnknownJob).await;
        }
        let last = events(&self.plan, job_id).pop().unwrap();
        let body = serde_json::to_vec(&JobStatus::of(last)).unwrap();
        self.send(&StatusReplyV1 { request, job_id }, &body).await
    }

    async fn fetch(&mut self, fetch: FetchV1) -> Result<(), Snip> {
        let media = self.plan.media.clone();
        let mut offset = fetch.offset as usize;
        for chunk in media[offset..].chunks(100_000) {
            let end = offset + chunk.len();
            let (total, last) = (media.len() as u64, end == media.len());
            let head = FetchChunkV1 { request: fetch.request, offset: offset as u64, total, last };
            self.send(&head, chunk).await?;
            offset = end;
        }
        Ok(())
    }

    async fn chunk(&mut self, chunk: UploadChunkV1, payload: &[u8]) -> Result<(), Snip> {
        let chunks = {
            let mut seen = self.seen.lock().unwrap();
            seen.upload_chunks += 1;
            seen.upload_chunks
        };
        self.cut_at(Cut::InUpload(chunks))?;
        let next = {
            let mut seen = self.seen.lock().unwrap();
            let media = seen.uploads.get_mut(&self.uploads[&chunk.upload]).unwrap();
            assert_eq!(chunk.offset, media.len() as u64, "chunks follow each other");
            media.extend_from_slice(payload);
            media.len() as u64
        };
        self.send(&UploadAckV1 { upload: chunk.upload, next, window: WINDOW_BYTES }, b"").await
    }
}

fn accepted(job_id: JobId) -> Event {
    Event::accepted(job_id, Place { lane: "default".to_owned(), partition: 0, offset: 1, accepted_at: 1 }, None)
}

/// Every event of a job by this plan.
pub(crate) fn events(plan: &Plan, job_id: JobId) -> Vec<Event> {
    let mut events = vec![accepted(job_id), Event::new(job_id, 1, 1, EventKind::Started, 2)];
    for n in 2..2 + plan.progress {
        let fraction = Some(n as f32 / (plan.progress + 2) as f32);
        events.push(Event { fraction, ..Event::new(job_id, 1, n, EventKind::Progress, 3) });
    }
    if let Some(end) = plan.end {
        let mut last = Event::new(job_id, 1, TERMINAL_N, end, 4);
        match end {
            EventKind::Completed => {
                let mut result = plan.result.clone();
                if !plan.media.is_empty() {
                    let sha256 = hex::encode(Sha256::digest(&plan.media));
                    result["media"] = json!({ "path": "media/x", "bytes": plan.media.len(), "sha256": sha256 });
                }
                last.result = Some(result);
            }
            _ => last.error = Some(JobError::new(ErrorCode::BackendRejected, "it ended so")),
        }
        events.push(last);
    }
    events
}

/// As a node writes it.
pub(crate) fn event_json(event: &Event) -> Vec<u8> {
    serde_json::to_vec(event).unwrap()
}
