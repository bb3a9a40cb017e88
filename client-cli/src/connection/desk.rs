//! Who waits for what: carries the core's effects to handles and requests.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use relay_protocol::session::CancelOutcomeV1;
use relay_protocol::{DecodeError, Frame, JobId};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::{SendTimeoutError, TrySendError};

use super::Gone;
use super::command::{Answer, Command, FetchedPart, Fetcher, Listener, Receipt, Submitted, UploadSignal};
use super::core::{Core, Effect, Effects};
use crate::error::ClientError;
use crate::job::ClientEvent;

/// How long the connection waits for a writer of fetched media that takes nothing.
const FETCH_WAIT_MAX: Duration = Duration::from_secs(1);

/// Somebody who waits for a request's answer.
enum Waiter {
    Submit { answer: Answer<Submitted>, job_id: JobId },
    Status(Answer<Bytes>),
    Cancel(Answer<CancelOutcomeV1>),
    Fetch(Fetcher),
    Upload(mpsc::Sender<UploadSignal>),
}

/// What a step asks of the connection.
#[derive(Default)]
pub(super) struct Turn {
    /// Frames to write.
    pub(super) out: Vec<Bytes>,
    /// Jobs to ask for again after a while.
    pub(super) retries: Vec<(JobId, Duration)>,
    /// The connection ends.
    pub(super) gone: Option<Gone>,
}

impl Turn {
    /// The connection is broken.
    pub(super) fn lost(&mut self, reason: impl std::fmt::Display) {
        self.gone = Some(Gone::Lost(reason.to_string()));
    }
}

/// The core and everybody who waits.
#[derive(Default)]
pub(super) struct Desk {
    core: Core,
    effects: Effects,
    waiters: HashMap<u64, Waiter>,
    listeners: HashMap<JobId, Listener>,
}

impl Desk {
    pub(super) fn connected(&mut self, resume_token: String, now_us: u64) -> Turn {
        let mut turn = Turn::default();
        self.core.connected(resume_token, now_us, &mut self.effects);
        self.carry_out(&mut turn);
        turn
    }

    pub(super) fn lost(&mut self) {
        self.core.lost(&mut self.effects);
        // Nothing can be sent any more: the core asks for nothing.
        self.carry_out(&mut Turn::default());
    }

    /// Asks again for a job that the node had no room for.
    pub(super) fn retry(&mut self, job_id: JobId, turn: &mut Turn) {
        self.core.retry(job_id, &mut self.effects);
        self.carry_out(turn);
    }

    pub(super) async fn on_frame(&mut self, frame: &Frame, now_us: u64, turn: &mut Turn) -> Result<(), DecodeError> {
        self.core.on_frame(frame, now_us, &mut self.effects)?;
        if let Some(Effect::Fetched { request, total, last, bytes }) =
            self.effects.pop_if(|effect| matches!(effect, Effect::Fetched { .. }))
        {
            self.on_fetched(FetchedPart { request, total, last, bytes }).await;
        }
        self.carry_out(turn);
        Ok(())
    }

    /// Waits a moment for the writer of fetched media: the node is slowed down to its pace. A writer that stands still must not
    /// hold up everybody else on the connection, who may be what it waits for.
    async fn on_fetched(&mut self, part: FetchedPart) {
        let FetchedPart { request, last, .. } = part;
        let bytes = part.bytes.len();
        let Some(Waiter::Fetch(Fetcher { parts, lagging })) = self.waiters.get(&request) else {
            return self.core.forget(request);
        };
        let sent = match parts.send_timeout(Ok(part), FETCH_WAIT_MAX).await {
            Err(SendTimeoutError::Timeout(part)) => {
                // The flag first, as for events.
                lagging.store(true, Ordering::SeqCst);
                parts.try_send(part)
            }
            Err(SendTimeoutError::Closed(part)) => Err(TrySendError::Closed(part)),
            Ok(()) => Ok(()),
        };
        match sent {
            Ok(()) if !last => {}
            Err(TrySendError::Full(_)) => self.core.unfetch(request, bytes),
            Ok(()) | Err(TrySendError::Closed(_)) => {
                self.core.forget(request);
                self.waiters.remove(&request);
            }
        }
    }

    pub(super) fn on_command(&mut self, command: Command, now_us: u64, turn: &mut Turn) {
        match command {
            Command::Submit { submit, payload, again, listener, answer } => {
                let job_id = submit.job_id;
                if self.core.watches(&job_id) {
                    return drop(answer.send(Err(ClientError::AlreadyWatched(job_id))));
                }
                if let Some(listener) = listener {
                    self.listeners.insert(job_id, listener);
                }
                let request = self.core.submit(*submit, payload, again, &mut self.effects);
                self.waiters.insert(request, Waiter::Submit { answer, job_id });
            }
            Command::Watch { job_id, after_seq, listener } => {
                if self.core.watches(&job_id) {
                    return fail(&listener, ClientError::AlreadyWatched(job_id));
                }
                self.listeners.insert(job_id, listener);
                self.core.watch(job_id, after_seq, &mut self.effects);
            }
            Command::Unwatch { job_id } => self.unwatch(job_id),
            Command::Rewatch { job_id, after_seq } => self.core.rewatch(job_id, after_seq, &mut self.effects),
            Command::Status { job_id, answer } => {
                let request = self.core.status(job_id, &mut self.effects);
                self.waiters.insert(request, Waiter::Status(answer));
            }
            Command::Cancel { job_id, answer } => {
                let request = self.core.cancel(job_id, now_us, &mut self.effects);
                self.waiters.insert(request, Waiter::Cancel(answer));
            }
            Command::Refetch { request } => self.core.refetch(request, &mut self.effects),
            Command::Fetch { job_id, fetcher } => {
                let request = self.core.fetch(job_id, &mut self.effects);
                self.waiters.insert(request, Waiter::Fetch(fetcher));
            }
            Command::UploadBegin { begin, signals } => {
                let upload = self.core.upload_begin(begin, &mut self.effects);
                let waiter = Waiter::Upload(signals);
                signal(&waiter, UploadSignal::Begun(upload));
                self.waiters.insert(upload, waiter);
            }
            Command::UploadChunk { chunk, payload } => self.core.upload_chunk(&chunk, &payload, &mut self.effects),
            Command::UploadEnd { end } => self.core.upload_end(&end, &mut self.effects),
            Command::Close { done } => turn.gone = Some(Gone::Closed(Some(done))),
        }
        self.carry_out(turn);
    }

    /// Tells everybody who waits that nothing will come.
    pub(super) fn end(&mut self, error: &ClientError) {
        for (_, waiter) in self.waiters.drain() {
            refuse_waiter(waiter, error);
        }
        for (_, listener) in self.listeners.drain() {
            fail(&listener, error.clone());
        }
    }

    fn unwatch(&mut self, job_id: JobId) {
        self.listeners.remove(&job_id);
        self.core.unwatch(job_id, &mut self.effects);
    }

    fn carry_out(&mut self, turn: &mut Turn) {
        while !self.effects.is_empty() {
            // Effects of an effect (a handle that is gone is unwatched) come behind it.
            for effect in std::mem::take(&mut self.effects) {
                self.one(effect, turn);
            }
        }
    }

    fn one(&mut self, effect: Effect, turn: &mut Turn) {
        match effect {
            Effect::Send(frame) => turn.out.push(frame),
            Effect::Deliver(event) => self.deliver(event),
            Effect::Accepted { request, submitted, job_id, json } => self.accepted(request, submitted, job_id, json),
            Effect::JobFailed { job_id, error } => {
                if let Some(listener) = self.listeners.remove(&job_id) {
                    fail(&listener, ClientError::Rejected(error));
                }
            }
            // A job whose receipt is on its way is no news.
            Effect::Told { job_id, error } => tracing::info!(%job_id, %error, "the node says of a job"),
            Effect::Retry { job_id, after_ms } => {
                turn.retries.push((job_id, Duration::from_millis(after_ms.into())));
            }
            Effect::Status { request, json } => {
                if let Some(Waiter::Status(answer)) = self.waiters.remove(&request) {
                    drop(answer.send(Ok(json)));
                }
            }
            Effect::Cancelled { request, outcome } => {
                if let Some(Waiter::Cancel(answer)) = self.waiters.remove(&request) {
                    drop(answer.send(Ok(outcome)));
                }
            }
            Effect::UploadAck { upload, next, window } => self.signal(upload, UploadSignal::Ack { next, window }),
            Effect::UploadDone { upload } => {
                self.signal(upload, UploadSignal::Done);
                self.waiters.remove(&upload);
            }
            Effect::Fetched { .. } => {}
            Effect::Failed { request, error } => {
                let Some(waiter) = self.waiters.remove(&request) else { return };
                if let Waiter::Submit { job_id, .. } = &waiter {
                    self.listeners.remove(job_id);
                }
                refuse_waiter(waiter, &ClientError::Rejected(error));
            }
            Effect::Lost { request } => match self.waiters.remove(&request) {
                Some(Waiter::Submit { answer, job_id }) => {
                    self.listeners.remove(&job_id);
                    drop(answer.send(Ok(Submitted::UploadLost)));
                }
                Some(waiter) => signal(&waiter, UploadSignal::Lost),
                None => {}
            },
            Effect::Reconnect { reason } => turn.lost(reason),
            Effect::Moved { url } => turn.gone = Some(Gone::Moved(url)),
            Effect::Fatal(error) => turn.gone = Some(Gone::Fatal(ClientError::Rejected(error))),
        }
    }

    fn accepted(&mut self, request: u64, submitted: JobId, job_id: JobId, json: Bytes) {
        if job_id != submitted
            && let Some(listener) = self.listeners.remove(&submitted)
            && let Some(replaced) = self.listeners.insert(job_id, listener)
        {
            fail(&replaced, ClientError::AlreadyWatched(job_id));
        }
        if let Some(Waiter::Submit { answer, .. }) = self.waiters.remove(&request)
            && answer.send(Ok(Submitted::Accepted(Receipt { job_id, json }))).is_err()
        {
            self.unwatch(job_id);
        }
    }

    fn deliver(&mut self, event: ClientEvent) {
        let (job_id, terminal) = (event.job_id, event.terminal);
        let Some(listener) = self.listeners.get(&job_id) else { return };
        let sent = match listener.events.try_send(event) {
            Err(TrySendError::Full(event)) => {
                // The flag first, then a second try: a handle that emptied its queue in between sees the flag or the event.
                listener.shared.lagging.store(true, Ordering::SeqCst);
                listener.events.try_send(event)
            }
            sent => sent,
        };
        match sent {
            Ok(()) if terminal => {
                self.listeners.remove(&job_id);
                self.core.end_job(&job_id);
            }
            Ok(()) => {}
            Err(TrySendError::Full(_)) => self.core.pause(&job_id),
            Err(TrySendError::Closed(_)) => self.unwatch(job_id),
        }
    }

    fn signal(&mut self, upload: u64, what: UploadSignal) {
        if let Some(waiter) = self.waiters.get(&upload) {
            signal(waiter, what);
        }
    }
}

/// Tells an upload; one that does not listen has ended.
fn signal(waiter: &Waiter, what: UploadSignal) {
    if let Waiter::Upload(signals) = waiter {
        drop(signals.try_send(what));
    }
}

fn fail(listener: &Listener, error: ClientError) {
    // Only the first reason counts.
    drop(listener.shared.failed.set(error));
}

fn refuse_waiter(waiter: Waiter, error: &ClientError) {
    match waiter {
        Waiter::Submit { answer, .. } => drop(answer.send(Err(error.clone()))),
        Waiter::Status(answer) => drop(answer.send(Err(error.clone()))),
        Waiter::Cancel(answer) => drop(answer.send(Err(error.clone()))),
        Waiter::Fetch(fetcher) => drop(fetcher.parts.try_send(Err(error.clone()))),
        Waiter::Upload(signals) => drop(signals.try_send(UploadSignal::Failed(error.clone()))),
    }
}

/// Refuses a request that came too late.
pub(super) fn refuse(command: Command, error: &ClientError) {
    let waiter = match command {
        Command::Submit { answer, submit, .. } => Waiter::Submit { answer, job_id: submit.job_id },
        Command::Watch { listener, .. } => return fail(&listener, error.clone()),
        Command::Status { answer, .. } => Waiter::Status(answer),
        Command::Cancel { answer, .. } => Waiter::Cancel(answer),
        Command::Fetch { fetcher, .. } => Waiter::Fetch(fetcher),
        Command::UploadBegin { signals, .. } => Waiter::Upload(signals),
        Command::Close { done } => {
            // Whoever asked may have gone.
            _ = done.send(());
            return;
        }
        Command::Unwatch { .. }
        | Command::Rewatch { .. }
        | Command::Refetch { .. }
        | Command::UploadChunk { .. }
        | Command::UploadEnd { .. } => {
            return;
        }
    };
    refuse_waiter(waiter, error);
}
