//! A session of the test's own, frame by frame: it can break off where a good client never would.

#[path = "../support/submit.rs"]
mod submit;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use relay_protocol::hello::{CAPABILITY_JOBS, ErrorV1, HelloV1, PingV1, PongV1, WelcomeV1};
use relay_protocol::session::{AcceptedV1, CancelReplyV1, EventV1, SubmitV1};
use relay_protocol::{Event, Frame, JobId, Message, frame};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as WsMessage;

use crate::cluster::PATIENCE;

/// Pings in which nothing else may come.
const SILENT_PINGS: u64 = 5;
/// Time between two of them, in which a wrong event would come.
const SILENCE: Duration = Duration::from_millis(50);

/// A session with one node.
pub(crate) struct Wire {
    socket: WebSocketStream<TcpStream>,
    /// How the node welcomed it.
    pub(crate) welcome: WelcomeV1,
}

/// An id for a job whose events lie in the reply partition of this session.
pub(crate) fn new_id(wire: &Wire, random: u64) -> JobId {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    JobId::new(now, wire.welcome.reply_partition, random)
}

impl Wire {
    /// Opens a session on the node at `address` (`HOST:PORT`).
    pub(crate) async fn open(address: &str, token: Option<&str>) -> Self {
        let stream = TcpStream::connect(address).await.expect("the node takes connections");
        let upgrade = tokio_tungstenite::client_async(format!("ws://{address}/v1/connect"), stream);
        let (mut socket, _) = timeout(PATIENCE, upgrade).await.expect("an upgrade in time").expect("an upgrade");
        let hello = HelloV1 {
            version_min: 1,
            version_max: 1,
            capabilities: vec![CAPABILITY_JOBS.to_owned()],
            client: "jobs-test/1".to_owned(),
            token: token.map(str::to_owned),
            sent_at_us: 1,
        };
        socket.send(WsMessage::Binary(frame::encode(&hello, b"").unwrap())).await.expect("hello is sent");
        let welcome = next(&mut socket).await.head().expect("a welcome");
        Self { socket, welcome }
    }

    /// Sends one frame.
    pub(crate) async fn say<M: Message>(&mut self, message: &M, payload: &[u8]) {
        let frame = frame::encode(message, payload).expect("the message fits a frame");
        self.socket.send(WsMessage::Binary(frame)).await.expect("the message is sent");
    }

    /// The next frame, which must be an `M`, and its payload.
    pub(crate) async fn expect<M: Message>(&mut self) -> (M, Bytes) {
        let frame = next(&mut self.socket).await;
        if frame.kind == ErrorV1::KIND && M::KIND != ErrorV1::KIND {
            panic!("{} was expected, not {:?}", M::NAME, frame.head::<ErrorV1>());
        }
        assert_eq!(frame.kind, M::KIND, "{} was expected", M::NAME);
        (frame.head().expect("a whole head"), frame.payload)
    }

    /// Submits a job with a small input and returns its receipt.
    pub(crate) async fn submit(&mut self, submit: SubmitV1) -> AcceptedV1 {
        self.say(&submit, b"sound").await;
        self.expect().await.0
    }

    /// The next frame, whatever it is.
    #[allow(dead_code, reason = "the tests of resumes read them")]
    pub(crate) async fn frame(&mut self) -> Frame {
        next(&mut self.socket).await
    }

    /// The next event.
    pub(crate) async fn event(&mut self) -> Event {
        let (head, payload) = self.expect::<EventV1>().await;
        let event: Event = serde_json::from_slice(&payload).expect("an event");
        assert_eq!((head.job_id, head.seq), (event.job_id, event.seq));
        assert_eq!(head.terminal, event.event.is_terminal());
        event
    }

    /// The next event; `None` if the answer to a cancel comes first.
    pub(crate) async fn event_or_answer(&mut self) -> Option<Event> {
        let frame = next(&mut self.socket).await;
        match frame.kind {
            EventV1::KIND => Some(serde_json::from_slice(&frame.payload).expect("an event")),
            CancelReplyV1::KIND => None,
            kind => panic!("an event was expected, not kind {kind:#06x}: {:?}", frame.head::<ErrorV1>()),
        }
    }

    /// The node refuses the resume, or takes it (`None`).
    pub(crate) async fn answer_of_resume(&mut self) -> Option<ErrorV1> {
        let frame = next(&mut self.socket).await;
        (frame.kind == ErrorV1::KIND).then(|| frame.head().expect("an error"))
    }

    /// Nothing comes before the answer to a ping, nor after it.
    pub(crate) async fn expect_silence(&mut self) {
        for nonce in 0..SILENT_PINGS {
            self.say(&PingV1 { nonce, sent_at_us: 1 }, b"").await;
            assert_eq!(self.expect::<PongV1>().await.0.nonce, nonce);
            tokio::time::sleep(SILENCE).await;
        }
    }

    /// Ends the TCP connection without a word: no goodbye, no close.
    pub(crate) fn break_off(self) {
        let stream = self.socket.into_inner();
        // A reset at once, as after a crash.
        stream.set_zero_linger().expect("the socket takes options");
    }
}

/// The next frame but the node's own pings.
async fn next(socket: &mut WebSocketStream<TcpStream>) -> Frame {
    loop {
        let message = timeout(PATIENCE, socket.next()).await.expect("the node answers in time");
        match message {
            Some(Ok(WsMessage::Binary(bytes))) => {
                let frame = frame::split(bytes).expect("the node sends whole frames");
                if frame.kind != PingV1::KIND {
                    return frame;
                }
            }
            other => panic!("a frame was expected, not {other:?}"),
        }
    }
}

/// A submit of a job with a small input in the payload.
pub(crate) fn submit_of(request: u64, job_id: JobId) -> SubmitV1 {
    submit::submit_of(request, job_id, "vad")
}
