//! A session of the test's own, frame by frame, for uploads that break off.

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use relay_protocol::hello::{CAPABILITY_JOBS, CAPABILITY_UPLOAD, ErrorV1, HelloV1, PingV1, WelcomeV1};
use relay_protocol::limits::TRANSFER_CHUNK_BYTES;
use relay_protocol::session::{
    AcceptedV1, EventV1, SubmitInputV1, SubmitV1, UploadAckV1, UploadBeginV2, UploadChunkV1, UploadDoneV1, UploadEndV1,
};
use relay_protocol::{Event, Frame, JobId, Message, UploadId, frame};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as WsMessage;

use crate::cluster::PATIENCE;
use crate::submit::submit_of;

/// A session with one node.
pub(crate) struct Wire {
    socket: WebSocketStream<TcpStream>,
    welcome: WelcomeV1,
}

impl Wire {
    /// Opens a session on the node at `address` (`HOST:PORT`).
    pub(crate) async fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.expect("the node takes connections");
        let upgrade = tokio_tungstenite::client_async(format!("ws://{address}/v1/connect"), stream);
        let (mut socket, _) = timeout(PATIENCE, upgrade).await.expect("an upgrade in time").expect("an upgrade");
        let hello = HelloV1 {
            version_min: 1,
            version_max: 1,
            capabilities: vec![CAPABILITY_JOBS.to_owned(), CAPABILITY_UPLOAD.to_owned()],
            client: "store-test/1".to_owned(),
            token: None,
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

    /// Begins an upload, or goes on with it; the byte that comes next.
    pub(crate) async fn begin(&mut self, request: u64, upload_id: UploadId) -> u64 {
        let begin = UploadBeginV2 {
            request,
            upload_id,
            bytes: None,
            name: "tone.wav".to_owned(),
            media_type: "audio/wav".to_owned(),
        };
        self.say(&begin, b"").await;
        let ack = self.expect::<UploadAckV1>().await.0;
        assert_eq!(ack.upload, request);
        ack.next
    }

    /// Sends the bytes of `media` from `first` to `end`, each chunk acknowledged.
    pub(crate) async fn send(&mut self, upload: u64, media: &[u8], first: usize, end: usize) {
        let mut offset = first as u64;
        for payload in media[first..end].chunks(TRANSFER_CHUNK_BYTES) {
            self.say(&UploadChunkV1 { upload, offset }, payload).await;
            offset += payload.len() as u64;
            assert_eq!(self.expect::<UploadAckV1>().await.0.next, offset);
        }
    }

    /// Sends one chunk that must be refused; the code.
    pub(crate) async fn refused_chunk(&mut self, upload: u64, offset: u64) -> ErrorV1 {
        self.say(&UploadChunkV1 { upload, offset }, b"somewhere else").await;
        self.error(upload).await
    }

    /// Ends an upload well.
    pub(crate) async fn end(&mut self, upload: u64, media: &[u8]) {
        self.say(&end_of(upload, media), b"").await;
        assert_eq!(self.expect::<UploadDoneV1>().await.0.upload, upload);
    }

    /// The refusal of a request.
    pub(crate) async fn error(&mut self, request: u64) -> ErrorV1 {
        let error = self.expect::<ErrorV1>().await.0;
        assert_eq!(error.request, request, "{error:?}");
        error
    }

    /// Submits a job that works on an upload, and waits for its last event.
    pub(crate) async fn submit_upload(&mut self, request: u64, upload: u64) -> Event {
        let job_id = JobId::new(0, self.welcome.reply_partition, request);
        let submit = SubmitV1 { input: SubmitInputV1::Upload(upload), ..submit_of(request, job_id, "loudness") };
        self.say(&submit, b"").await;
        assert_eq!(self.expect::<AcceptedV1>().await.0.job_id, job_id);
        loop {
            let (head, payload) = self.expect::<EventV1>().await;
            if head.terminal {
                return serde_json::from_slice(&payload).expect("an event");
            }
        }
    }

    /// Ends the TCP connection without a word: no goodbye, no close.
    pub(crate) fn break_off(self) {
        let stream = self.socket.into_inner();
        // A reset at once, as after a crash.
        stream.set_zero_linger().expect("the socket takes options");
    }
}

/// The end of an upload, with the right digest.
pub(crate) fn end_of(upload: u64, media: &[u8]) -> UploadEndV1 {
    UploadEndV1 { upload, bytes: media.len() as u64, sha256: Sha256::digest(media).into() }
}

/// The next frame but the node's own pings.
async fn next(socket: &mut WebSocketStream<TcpStream>) -> Frame {
    loop {
        match timeout(PATIENCE, socket.next()).await.expect("the node answers in time") {
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
