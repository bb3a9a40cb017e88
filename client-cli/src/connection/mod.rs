//! The task that owns the connection: bytes in and out, time, and connecting again. [`core`] decides, this moves bytes.

mod command;
mod core;
#[cfg(test)]
mod core_test;
mod desk;
mod dial;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{FutureExt, Sink, SinkExt, StreamExt};
use relay_protocol::hello::{GoodbyeV1, PingV1, WelcomeV1};
use relay_protocol::{JobId, frame};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::unconstrained;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use self::desk::{Desk, Turn};
use self::dial::{Dialled, Socket};
use crate::clock::{jittered, now_us, random_u64};
use crate::error::ClientError;
use crate::settings::{ClientSettings, server_url};

pub(crate) use command::{
    Answer, Command, FetchedPart, Fetcher, JobShared, Listener, Receipt, Submitted, UploadSignal,
};
pub(crate) use core::ACCEPTED_SEQ;

/// Requests that may wait for the connection's task.
const COMMANDS_MAX: usize = 256;
/// Messages or requests handled before the socket's other direction is looked at.
const BATCH_MAX: usize = 256;
/// Frames that may wait for the socket before no more requests are taken.
const OUT_FRAMES_MAX: usize = 512;
/// A connection that lasted this long was a good one: the next loss starts with the shortest delay.
const GOOD_AFTER: Duration = Duration::from_secs(5);
/// How long a goodbye may take.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// What the newest welcome said.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    /// Partition for new job ids.
    pub(crate) reply_partition: u32,
    /// Largest input inside a submit, in bytes.
    pub(crate) inline_bytes_max: usize,
    /// Largest upload, in bytes.
    pub(crate) upload_bytes_max: u64,
    /// Name of the node.
    pub(crate) node: String,
}

impl Facts {
    fn of(welcome: &WelcomeV1) -> Self {
        Self {
            reply_partition: welcome.reply_partition,
            inline_bytes_max: welcome.inline_bytes_max as usize,
            upload_bytes_max: welcome.upload_bytes_max,
            node: welcome.node.clone(),
        }
    }
}

/// Why a connection is no more.
enum Gone {
    /// Connect again.
    Lost(String),
    /// Connect to another node.
    Moved(String),
    /// The client has no use for it any more.
    Closed(Option<oneshot::Sender<()>>),
    /// Connecting again is of no use.
    Fatal(ClientError),
}

/// How a connection ended.
struct Served {
    gone: Gone,
    /// Whether the node said anything on it, after its welcome.
    heard: bool,
}

/// Opens the first connection and starts the task.
///
/// # Errors
/// [`ClientError::NoConnection`], [`ClientError::Rejected`], [`ClientError::Settings`].
pub(crate) async fn start(
    settings: ClientSettings,
) -> Result<(mpsc::Sender<Command>, watch::Receiver<Facts>), ClientError> {
    let dialled = dial::dial(&settings, None, settings.connect_timeout).await?;
    let (facts, known) = watch::channel(Facts::of(&dialled.welcome));
    let (sender, commands) = mpsc::channel(COMMANDS_MAX);
    tokio::spawn(Link { settings, commands, facts, desk: Desk::default() }.run(dialled));
    Ok((sender, known))
}

struct Link {
    settings: ClientSettings,
    commands: mpsc::Receiver<Command>,
    facts: watch::Sender<Facts>,
    desk: Desk,
}

impl Link {
    async fn run(mut self, mut dialled: Dialled) {
        let mut delay = Duration::ZERO;
        // When the last connection on which the node said anything was lost.
        let mut lost_at = None;
        loop {
            let began = Instant::now();
            // Nobody may be listening any more; the facts are still those of the connection.
            self.facts.send_replace(Facts::of(&dialled.welcome));
            let Served { gone, heard } = self.serve(dialled).await;
            self.desk.lost();
            // A node that welcomes a client and says nothing more is as good as none.
            let lost_at = if heard { lost_at.insert(Instant::now()) } else { lost_at.get_or_insert_with(Instant::now) };
            let give_up_after = self.settings.reconnect_timeout.saturating_sub(lost_at.elapsed());
            let preferred = match gone {
                Gone::Closed(done) => {
                    self.end(&ClientError::Closed);
                    // Whoever asked may have gone.
                    _ = done.map(|done| done.send(()));
                    return;
                }
                Gone::Fatal(error) => return self.end(&error),
                Gone::Lost(reason) if give_up_after.is_zero() => {
                    return self.end(&ClientError::NoConnection { reason });
                }
                Gone::Lost(reason) => {
                    tracing::warn!(reason, "the connection is lost: connecting again");
                    None
                }
                Gone::Moved(url) => server_url(&url).ok(),
            };
            // A node that drops every connection at once must not be called in a tight loop.
            delay = if began.elapsed() >= GOOD_AFTER || preferred.is_some() {
                Duration::ZERO
            } else {
                (delay * 2).clamp(self.settings.retry_delay_min, self.settings.retry_delay_max)
            };
            tokio::time::sleep(jittered(delay)).await;
            dialled = match dial::dial(&self.settings, preferred, give_up_after).await {
                Ok(dialled) => dialled,
                Err(error) => return self.end(&error),
            };
        }
    }

    /// Tells everybody who waits that nothing will come.
    fn end(&mut self, error: &ClientError) {
        self.commands.close();
        self.desk.end(error);
        // All of them at once, and no blocking `try_recv`: this thread is not this task's alone.
        while let Some(Some(command)) = unconstrained(self.commands.recv()).now_or_never() {
            desk::refuse(command, error);
        }
    }

    async fn serve(&mut self, dialled: Dialled) -> Served {
        let Dialled { socket, welcome } = dialled;
        let (sink, mut stream) = socket.split();
        let mut out = Out { sink, frames: VecDeque::new(), dirty: false };
        let mut beat = Beat::new(&self.settings, &welcome);
        let mut turn = self.desk.connected(welcome.resume_token, now_us());
        let mut batch = Vec::with_capacity(BATCH_MAX);
        let mut retries = Retries::default();
        loop {
            retries.add(turn.retries.drain(..));
            if !turn.out.is_empty() {
                beat.sent = Instant::now();
                out.frames.extend(turn.out.drain(..));
            }
            if let Some(gone) = turn.gone.take() {
                return Served { gone: out.leave(gone).await, heard: beat.any };
            }
            let room = out.frames.len() < OUT_FRAMES_MAX;
            tokio::select! {
                message = stream.next() => {
                    beat.hear(message.as_ref());
                    self.on_messages(message, &mut stream, &mut turn).await;
                }
                taken = self.commands.recv_many(&mut batch, BATCH_MAX), if room => match taken {
                    0 => turn.gone = Some(Gone::Closed(None)),
                    _ => batch.drain(..).for_each(|command| self.desk.on_command(command, now_us(), &mut turn)),
                },
                written = out.write(), if out.has_work() => {
                    if let Err(error) = written {
                        turn.gone = Some(Gone::Lost(error.to_string()));
                    }
                }
                () = tokio::time::sleep_until(beat.next()) => beat.tick(&mut turn),
                Some(job_id) = retries.next() => self.desk.retry(job_id, &mut turn),
            }
        }
    }

    /// Handles `first` and what else has come already.
    async fn on_messages(
        &mut self,
        first: Option<Result<Message, WsError>>,
        stream: &mut SplitStream<Socket>,
        turn: &mut Turn,
    ) {
        self.on_message(first, turn).await;
        for _ in 1..BATCH_MAX {
            if turn.gone.is_some() {
                return;
            }
            let Some(next) = stream.next().now_or_never() else { return };
            self.on_message(next, turn).await;
        }
    }

    async fn on_message(&mut self, message: Option<Result<Message, WsError>>, turn: &mut Turn) {
        match message {
            Some(Ok(Message::Binary(bytes))) => self.on_frame(bytes, turn).await,
            Some(Ok(Message::Close(_))) | None => turn.lost("the node closed the connection"),
            Some(Ok(_)) => {}
            Some(Err(error)) => turn.lost(error),
        }
    }

    async fn on_frame(&mut self, bytes: Bytes, turn: &mut Turn) {
        let handled = match frame::split(bytes) {
            Ok(frame) => self.desk.on_frame(&frame, now_us(), turn).await,
            Err(error) => Err(error),
        };
        if let Err(error) = handled {
            turn.lost(error);
        }
    }
}

/// Frames on their way to the socket.
struct Out {
    sink: SplitSink<Socket, Message>,
    frames: VecDeque<Bytes>,
    /// Written, not flushed.
    dirty: bool,
}

impl Out {
    fn has_work(&self) -> bool {
        self.dirty || !self.frames.is_empty()
    }

    /// Writes all frames, then flushes once. Nothing is lost if it is dropped half-way.
    async fn write(&mut self) -> Result<(), WsError> {
        while !self.frames.is_empty() {
            poll_fn(|context| std::pin::Pin::new(&mut self.sink).poll_ready(context)).await?;
            if let Some(frame) = self.frames.pop_front() {
                self.dirty = true;
                std::pin::Pin::new(&mut self.sink).start_send(Message::Binary(frame))?;
            }
        }
        self.sink.flush().await?;
        self.dirty = false;
        Ok(())
    }

    /// Says goodbye, if the connection can still hear it.
    async fn leave(mut self, gone: Gone) -> Gone {
        if matches!(gone, Gone::Closed(_) | Gone::Moved(_)) {
            let goodbye = GoodbyeV1 { code: "closing".to_owned(), message: "the client is done".to_owned() };
            self.frames.extend(frame::encode(&goodbye, b""));
            let farewell = async {
                self.write().await?;
                self.sink.close().await
            };
            // A node that does not take the goodbye notices the end itself.
            drop(tokio::time::timeout(GOODBYE_TIMEOUT, farewell).await);
        }
        gone
    }
}

/// Jobs to ask for again, and when. They fall with the connection, of which the next asks for all.
#[derive(Default)]
struct Retries(Vec<(Instant, JobId)>);

impl Retries {
    fn add(&mut self, jobs: impl Iterator<Item = (JobId, Duration)>) {
        // Not all clients of a node that died at the same moment.
        self.0.extend(jobs.map(|(job_id, after)| (Instant::now() + after + jittered(after), job_id)));
    }

    /// The first of them, once its time has come. Nothing is lost if it is dropped half-way.
    async fn next(&mut self) -> Option<JobId> {
        let (index, (at, job_id)) = self.0.iter().copied().enumerate().min_by_key(|(_, (at, _))| *at)?;
        tokio::time::sleep_until(at).await;
        self.0.swap_remove(index);
        Some(job_id)
    }
}

/// When to ping, and when to take the node for dead.
struct Beat {
    ping_interval: Duration,
    idle_timeout: Duration,
    heard: Instant,
    sent: Instant,
    /// Whether anything was heard at all.
    any: bool,
}

impl Beat {
    fn new(settings: &ClientSettings, welcome: &WelcomeV1) -> Self {
        let now = Instant::now();
        let ping_interval = Duration::from_millis(u64::from(welcome.ping_interval_ms.max(1)));
        Self { ping_interval, idle_timeout: settings.idle_timeout, heard: now, sent: now, any: false }
    }

    fn hear(&mut self, message: Option<&Result<Message, WsError>>) {
        self.heard = Instant::now();
        self.any |= matches!(message, Some(Ok(Message::Binary(_))));
    }

    fn next(&self) -> Instant {
        (self.sent + self.ping_interval).min(self.heard + self.idle_timeout)
    }

    fn tick(&mut self, turn: &mut Turn) {
        let now = Instant::now();
        if now >= self.heard + self.idle_timeout {
            turn.lost(format!("nothing was heard for {} ms", self.idle_timeout.as_millis()));
        } else if now >= self.sent + self.ping_interval {
            self.sent = now;
            let ping = PingV1 { nonce: random_u64(), sent_at_us: now_us() };
            turn.out.extend(frame::encode(&ping, b""));
        }
    }
}
