//! What a connection sends, sends again and delivers: a state machine without I/O, clock or randomness.
//!
//! Submits are kept until they are answered and sent again with the same job id after a lost connection; watched jobs are
//! resumed after the last event that was delivered; a job's events are delivered by rising seq only.

use std::collections::HashMap;

use bytes::Bytes;
use relay_protocol::event::is_news;
use relay_protocol::hello::{ErrorV1, GoodbyeV1, MovedV1, PingV1, PongV1};
use relay_protocol::session::{
    AcceptedV1, CancelOutcomeV1, CancelReplyV1, CancelV1, EventV1, FetchChunkV1, FetchV1, NoticeV1, ResumeV1,
    ResumedV1, StatusReplyV1, StatusV1, SubmitInputV1, SubmitV1, UnwatchV1, UploadAckV1, UploadBeginV2, UploadChunkV1,
    UploadDoneV1, UploadEndV1, WatchV1,
};
use relay_protocol::{DecodeError, ErrorCode, Frame, JobError, JobId, Message, frame};

use crate::job::ClientEvent;

mod notices;

/// Seq of every job's first event, `accepted`.
pub(crate) const ACCEPTED_SEQ: u64 = 1;

/// What the shell has to do.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Write a frame.
    Send(Bytes),
    /// A submit was accepted; `json` is its event.
    Accepted { request: u64, submitted: JobId, job_id: JobId, json: Bytes },
    /// Hand an event to the job's handle.
    Deliver(ClientEvent),
    /// The job's handle gets no more events.
    JobFailed { job_id: JobId, error: JobError },
    /// Something is to be said of a job whose events go on.
    Told { job_id: JobId, error: JobError },
    /// The node has no room for the job's watch now: [`Core::retry`] after this many milliseconds.
    Retry { job_id: JobId, after_ms: u32 },
    /// A state as JSON.
    Status { request: u64, json: Bytes },
    /// What became of a cancel.
    Cancelled { request: u64, outcome: CancelOutcomeV1 },
    /// The node has an upload's bytes up to `next` and takes `window` more.
    UploadAck { upload: u64, next: u64, window: u64 },
    /// The upload is stored.
    UploadDone { upload: u64 },
    /// A part of fetched media, in order. Once the last one is handed over, the request is to be forgotten.
    Fetched { request: u64, total: u64, last: bool, bytes: Bytes },
    /// A request was refused.
    Failed { request: u64, error: JobError },
    /// An upload, or a submit of one, fell with its connection: begin it again.
    Lost { request: u64 },
    /// Connect again.
    Reconnect { reason: String },
    /// Connect to another node.
    Moved { url: String },
    /// Connecting again is of no use.
    Fatal(JobError),
}

/// Effects in the order in which they have to happen.
pub(crate) type Effects = Vec<Effect>;

enum Request {
    Submit {
        submit: Box<SubmitV1>,
        payload: Bytes,
        again: bool,
    },
    Watch(JobId),
    Status(JobId),
    Cancel(JobId),
    Fetch {
        job_id: JobId,
        offset: u64,
    },
    Upload,
    /// Jobs of it that have not ended.
    Resume(usize),
}

/// A job whose events are wanted.
struct Watched {
    /// Last seq that was delivered.
    last_seq: u64,
    /// The submit or watch that no answer came for.
    open: Option<u64>,
    /// The resume that it is part of.
    resume: Option<u64>,
    /// A resume was sent and not answered: what comes is of the watch before it and may have gaps.
    resuming: bool,
    /// Its handle is full: what comes is dropped until it asks again.
    paused: bool,
}

impl Watched {
    fn new(last_seq: u64, request: u64) -> Self {
        Self { last_seq, open: Some(request), resume: None, resuming: false, paused: false }
    }
}

/// The state of all requests and jobs of one client.
#[derive(Default)]
pub(crate) struct Core {
    last_request: u64,
    requests: HashMap<u64, Request>,
    jobs: HashMap<JobId, Watched>,
    /// Whether there is a session now.
    online: bool,
    /// Of the newest welcome.
    resume_token: String,
}

impl Core {
    fn number(&mut self) -> u64 {
        self.last_request += 1;
        self.last_request
    }

    /// Whether `job_id` is submitted or watched.
    pub(crate) fn watches(&self, job_id: &JobId) -> bool {
        self.jobs.contains_key(job_id)
    }

    /// Submits; `again` if an earlier connection may have taken the same job already.
    pub(crate) fn submit(&mut self, mut submit: SubmitV1, payload: Bytes, again: bool, out: &mut Effects) -> u64 {
        let request = self.number();
        submit.request = request;
        if submit.watch {
            self.jobs.insert(submit.job_id, Watched::new(0, request));
        }
        self.requests.insert(request, Request::Submit { submit: Box::new(submit), payload, again });
        self.send(request, 0, out);
        request
    }

    /// Watches a job from its first event after `after_seq` on.
    pub(crate) fn watch(&mut self, job_id: JobId, after_seq: u64, out: &mut Effects) -> u64 {
        let request = self.number();
        self.jobs.insert(job_id, Watched::new(after_seq, request));
        self.requests.insert(request, Request::Watch(job_id));
        self.send(request, 0, out);
        request
    }

    /// Asks for a job's state.
    pub(crate) fn status(&mut self, job_id: JobId, out: &mut Effects) -> u64 {
        self.request(Request::Status(job_id), 0, out)
    }

    /// Asks to cancel a job.
    pub(crate) fn cancel(&mut self, job_id: JobId, now_us: u64, out: &mut Effects) -> u64 {
        self.request(Request::Cancel(job_id), now_us, out)
    }

    /// Fetches a job's media.
    pub(crate) fn fetch(&mut self, job_id: JobId, out: &mut Effects) -> u64 {
        self.request(Request::Fetch { job_id, offset: 0 }, 0, out)
    }

    /// The part of a fetch that came last finds no room: it, and what follows it, is dropped until [`Core::refetch`].
    pub(crate) fn unfetch(&mut self, request: u64, part_bytes: usize) {
        if let Some(Request::Fetch { offset, .. }) = self.requests.get_mut(&request) {
            *offset -= part_bytes as u64;
        }
    }

    /// Asks again for what was dropped of a fetch.
    pub(crate) fn refetch(&mut self, request: u64, out: &mut Effects) {
        self.send(request, 0, out);
    }

    fn request(&mut self, request: Request, now_us: u64, out: &mut Effects) -> u64 {
        let number = self.number();
        self.requests.insert(number, request);
        self.send(number, now_us, out);
        number
    }

    /// Begins an upload; the shell gives the head without its number.
    pub(crate) fn upload_begin(&mut self, mut begin: UploadBeginV2, out: &mut Effects) -> u64 {
        let upload = self.number();
        begin.request = upload;
        if !self.online {
            out.push(Effect::Lost { request: upload });
            return upload;
        }
        self.requests.insert(upload, Request::Upload);
        self.put(upload, &begin, b"", out);
        upload
    }

    /// Sends a part of an upload, unless its connection is gone.
    pub(crate) fn upload_chunk(&mut self, chunk: &UploadChunkV1, payload: &[u8], out: &mut Effects) {
        if self.requests.contains_key(&chunk.upload) {
            self.put(chunk.upload, chunk, payload, out);
        }
    }

    /// Ends an upload, unless its connection is gone.
    pub(crate) fn upload_end(&mut self, end: &UploadEndV1, out: &mut Effects) {
        if self.requests.contains_key(&end.upload) {
            self.put(end.upload, end, b"", out);
        }
    }

    /// Forgets a request that nobody waits for any more.
    pub(crate) fn forget(&mut self, request: u64) {
        self.requests.remove(&request);
    }

    /// The handle of a job is gone.
    pub(crate) fn unwatch(&mut self, job_id: JobId, out: &mut Effects) {
        let Some(watched) = self.end(&job_id) else { return };
        // A submit is kept: the job is wanted even though its events are not.
        if let Some(request) = watched.open
            && let Some(Request::Watch(_)) = self.requests.get(&request)
        {
            self.requests.remove(&request);
        }
        if self.online {
            self.put(0, &UnwatchV1 { job_id }, b"", out);
        }
    }

    /// The handle of a job takes no more for now: its events are dropped until [`Core::rewatch`].
    pub(crate) fn pause(&mut self, job_id: &JobId) {
        if let Some(watched) = self.jobs.get_mut(job_id) {
            watched.paused = true;
        }
    }

    /// The handle has room again and got everything up to `after_seq`.
    pub(crate) fn rewatch(&mut self, job_id: JobId, after_seq: u64, out: &mut Effects) {
        let Some(watched) = self.jobs.get_mut(&job_id) else { return };
        watched.last_seq = after_seq;
        watched.paused = false;
        if let Some(Request::Watch(_)) = watched.open.and_then(|open| self.requests.get(&open)) {
            // What it brought was dropped.
            watched.open.take().and_then(|open| self.requests.remove(&open));
        }
        if self.online && watched.open.is_none() {
            self.resume(vec![(job_id, after_seq)], out);
        }
    }

    /// A welcome came: sends what is not answered, in the order of the requests, then resumes what is watched.
    pub(crate) fn connected(&mut self, resume_token: String, now_us: u64, out: &mut Effects) {
        let before = std::mem::replace(&mut self.resume_token, resume_token);
        self.online = true;
        let mut open: Vec<u64> = self.requests.keys().copied().collect();
        open.sort_unstable();
        for request in open {
            self.send(request, now_us, out);
        }
        let jobs = self.jobs.iter().filter(|(_, watched)| watched.open.is_none() && !watched.paused);
        let jobs: Vec<(JobId, u64)> = jobs.map(|(job_id, watched)| (*job_id, watched.last_seq)).collect();
        if !jobs.is_empty() {
            // Those of the welcome before: its token says where their events lie.
            self.resume_by(before, jobs, out);
        }
    }

    /// The connection is gone: what cannot be sent again is told.
    pub(crate) fn lost(&mut self, out: &mut Effects) {
        self.online = false;
        let mut fallen = Vec::new();
        for (request, kept) in &mut self.requests {
            match kept {
                Request::Submit { submit, .. } if matches!(submit.input, SubmitInputV1::Upload(_)) => {
                    fallen.push((*request, Some(submit.job_id)));
                }
                Request::Submit { again, .. } => *again = true,
                Request::Upload => fallen.push((*request, None)),
                _ => {}
            }
        }
        self.requests.retain(|_, kept| !matches!(kept, Request::Resume(_)));
        for watched in self.jobs.values_mut() {
            watched.resume = None;
            watched.resuming = false;
        }
        for (request, job_id) in fallen {
            self.requests.remove(&request);
            if let Some(job_id) = job_id {
                self.jobs.remove(&job_id);
            }
            out.push(Effect::Lost { request });
        }
    }

    /// A frame came. Kinds that are not known are passed over.
    ///
    /// # Errors
    /// A head that does not hold its message; nothing after it can be trusted.
    pub(crate) fn on_frame(&mut self, frame: &Frame, now_us: u64, out: &mut Effects) -> Result<(), DecodeError> {
        match frame.kind {
            EventV1::KIND => self.on_event(frame.head()?, &frame.payload, out),
            AcceptedV1::KIND => self.on_accepted(&frame.head()?, &frame.payload, out),
            StatusReplyV1::KIND => {
                let request = frame.head::<StatusReplyV1>()?.request;
                self.requests.remove(&request);
                out.push(Effect::Status { request, json: frame.payload.clone() });
            }
            CancelReplyV1::KIND => {
                let CancelReplyV1 { request, outcome, .. } = frame.head()?;
                self.requests.remove(&request);
                out.push(Effect::Cancelled { request, outcome });
            }
            UploadAckV1::KIND => {
                let UploadAckV1 { upload, next, window } = frame.head()?;
                out.push(Effect::UploadAck { upload, next, window });
            }
            UploadDoneV1::KIND => {
                let upload = frame.head::<UploadDoneV1>()?.upload;
                self.requests.remove(&upload);
                out.push(Effect::UploadDone { upload });
            }
            NoticeV1::KIND => notices::on_notice(self, frame.head()?, out),
            FetchChunkV1::KIND => self.on_fetched(&frame.head()?, &frame.payload, out),
            PingV1::KIND => {
                let PingV1 { nonce, sent_at_us } = frame.head()?;
                self.put(0, &PongV1 { nonce, ping_sent_at_us: sent_at_us, sent_at_us: now_us }, b"", out);
            }
            ErrorV1::KIND => self.on_error(frame.head()?, out),
            GoodbyeV1::KIND => notices::on_goodbye(frame.head()?, out),
            MovedV1::KIND => out.push(Effect::Moved { url: frame.head::<MovedV1>()?.url }),
            ResumedV1::KIND => {
                let request = frame.head::<ResumedV1>()?.request;
                self.jobs.values_mut().filter(|job| job.resume == Some(request)).for_each(|job| job.resuming = false);
            }
            _ => {}
        }
        Ok(())
    }

    fn on_accepted(&mut self, accepted: &AcceptedV1, json: &Bytes, out: &mut Effects) {
        // A request that is not known was answered before.
        let Some(Request::Submit { submit, again, .. }) = self.requests.remove(&accepted.request) else { return };
        let (submitted, job_id) = (submit.job_id, accepted.job_id);
        out.push(Effect::Accepted { request: accepted.request, submitted, job_id, json: json.clone() });
        let Some(mut watched) = self.jobs.remove(&submitted) else { return };
        watched.open = None;
        watched.last_seq = watched.last_seq.max(ACCEPTED_SEQ);
        let after_seq = watched.last_seq;
        self.jobs.insert(job_id, watched);
        // The node watches a new job from now on, but this one may have events of its first submit, or of another job.
        if again || job_id != submitted {
            self.resume(vec![(job_id, after_seq)], out);
        }
    }

    fn on_event(&mut self, head: EventV1, json: &Bytes, out: &mut Effects) {
        let Some(watched) = self.jobs.get_mut(&head.job_id) else { return };
        if watched.paused || watched.resuming || !is_news(head.seq, head.terminal, watched.last_seq) {
            return;
        }
        watched.last_seq = head.seq;
        if let Some(request) = watched.open
            && matches!(self.requests.get(&request), Some(Request::Watch(_)))
        {
            watched.open = None;
            self.requests.remove(&request);
        }
        let EventV1 { job_id, seq, terminal, .. } = head;
        out.push(Effect::Deliver(ClientEvent { job_id, seq, terminal, json: json.clone() }));
    }

    /// Forgets a job whose terminal event was handed over.
    pub(crate) fn end_job(&mut self, job_id: &JobId) {
        self.end(job_id);
    }

    fn end(&mut self, job_id: &JobId) -> Option<Watched> {
        let watched = self.jobs.remove(job_id)?;
        if let Some(resume) = watched.resume {
            self.leave(resume);
        }
        Some(watched)
    }

    fn leave(&mut self, resume: u64) {
        if let Some(Request::Resume(left)) = self.requests.get_mut(&resume) {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.requests.remove(&resume);
            }
        }
    }

    fn on_fetched(&mut self, head: &FetchChunkV1, bytes: &Bytes, out: &mut Effects) {
        let Some(Request::Fetch { offset, .. }) = self.requests.get_mut(&head.request) else { return };
        if head.offset != *offset {
            return;
        }
        *offset += bytes.len() as u64;
        let FetchChunkV1 { request, total, last, .. } = *head;
        out.push(Effect::Fetched { request, total, last, bytes: bytes.clone() });
    }

    fn on_error(&mut self, error: ErrorV1, out: &mut Effects) {
        let ErrorV1 { request, code, message, retryable, retry_after_ms } = error;
        let error = JobError { code, message, retryable };
        if notices::is_watched_in_another_way(self, request, &error, retry_after_ms, out) {
            return;
        }
        match self.requests.remove(&request) {
            Some(Request::Submit { submit, .. }) => {
                self.end(&submit.job_id);
                out.push(Effect::Failed { request, error });
            }
            Some(Request::Watch(job_id)) => {
                self.end(&job_id);
                out.push(Effect::JobFailed { job_id, error });
            }
            Some(Request::Resume(_)) if error.retryable => out.push(Effect::Reconnect { reason: error.to_string() }),
            Some(Request::Resume(_)) => {
                let of_it = self.jobs.iter().filter(|(_, watched)| watched.resume == Some(request));
                let of_it: Vec<JobId> = of_it.map(|(job_id, _)| *job_id).collect();
                for job_id in of_it {
                    self.jobs.remove(&job_id);
                    out.push(Effect::JobFailed { job_id, error: error.clone() });
                }
            }
            Some(Request::Status(_) | Request::Cancel(_) | Request::Fetch { .. } | Request::Upload) => {
                out.push(Effect::Failed { request, error });
            }
            None => tracing::debug!(%error, request, "an error for no open request"),
        }
    }

    /// A node that had no room for the job's watch may have it now.
    pub(crate) fn retry(&mut self, job_id: JobId, out: &mut Effects) {
        notices::retry(self, job_id, out);
    }

    /// Resumes on the connection that has the jobs.
    fn resume(&mut self, jobs: Vec<(JobId, u64)>, out: &mut Effects) {
        self.resume_by(self.resume_token.clone(), jobs, out);
    }

    fn resume_by(&mut self, resume_token: String, jobs: Vec<(JobId, u64)>, out: &mut Effects) {
        let request = self.number();
        for (job_id, _) in &jobs {
            let before = self.jobs.get_mut(job_id).and_then(|watched| {
                watched.resuming = true;
                watched.resume.replace(request)
            });
            if let Some(before) = before {
                self.leave(before);
            }
        }
        self.requests.insert(request, Request::Resume(jobs.len()));
        self.put(request, &ResumeV1 { request, resume_token, jobs }, b"", out);
    }

    /// Sends an open request, if there is a connection.
    fn send(&mut self, request: u64, now_us: u64, out: &mut Effects) {
        if !self.online {
            return;
        }
        let encoded = match self.requests.get(&request) {
            Some(Request::Submit { submit, payload, .. }) => frame::encode(submit.as_ref(), payload),
            Some(Request::Watch(job_id)) => {
                let after_seq = self.jobs.get(job_id).map_or(0, |watched| watched.last_seq);
                frame::encode(&WatchV1 { request, job_id: *job_id, after_seq }, b"")
            }
            Some(Request::Status(job_id)) => frame::encode(&StatusV1 { request, job_id: *job_id }, b""),
            Some(Request::Cancel(job_id)) => {
                frame::encode(&CancelV1 { request, job_id: *job_id, sent_at_us: now_us }, b"")
            }
            Some(Request::Fetch { job_id, offset }) => {
                frame::encode(&FetchV1 { request, job_id: *job_id, offset: *offset }, b"")
            }
            Some(Request::Upload | Request::Resume(_)) | None => return,
        };
        self.push(request, encoded, out);
    }

    fn put<M: Message>(&mut self, request: u64, message: &M, payload: &[u8], out: &mut Effects) {
        self.push(request, frame::encode(message, payload), out);
    }

    fn push(&mut self, request: u64, encoded: Result<Bytes, DecodeError>, out: &mut Effects) {
        match encoded {
            Ok(frame) => out.push(Effect::Send(frame)),
            // Only a request that is too large cannot be encoded.
            Err(error) => {
                let JobError { code, message, retryable } = JobError::new(ErrorCode::TooLarge, error.to_string());
                self.on_error(ErrorV1 { request, code, message, retryable, retry_after_ms: None }, out);
            }
        }
    }
}
