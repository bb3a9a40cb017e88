//! The client's end of `/v1/connect`, one WebSocket message at a time, and below that the bare socket.

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use relay_protocol::hello::{
    CAPABILITY_JOBS, CAPABILITY_UPLOAD, ErrorV1, GoodbyeV1, HelloV1, PingV1, PongV1, WelcomeV1,
};
use relay_protocol::{Frame, Message, frame};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as WsMessage;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::cluster::{Cluster, PATIENCE};

/// A WebSocket to the node.
pub(crate) struct Wire {
    /// The socket; its inner stream is the TCP connection.
    pub(crate) socket: WebSocketStream<TcpStream>,
}

/// A hello as a good client says it.
pub(crate) fn hello() -> HelloV1 {
    HelloV1 {
        version_min: 1,
        version_max: 1,
        capabilities: vec![CAPABILITY_JOBS.to_owned(), CAPABILITY_UPLOAD.to_owned()],
        client: "gateway-test/1".to_owned(),
        token: None,
        sent_at_us: 1,
    }
}

/// A frame of any header and body, its lengths those that are said.
pub(crate) fn raw_frame(magic: &[u8; 2], kind: u16, version: u8, lengths: (u16, u32), body: &[u8]) -> Bytes {
    let mut out = magic.to_vec();
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&[version, 0]);
    out.extend_from_slice(&lengths.0.to_le_bytes());
    out.extend_from_slice(&lengths.1.to_le_bytes());
    out.extend_from_slice(body);
    out.into()
}

/// A whole frame of this kind and version around any head.
pub(crate) fn frame_of(kind: u16, version: u8, head: &[u8]) -> Bytes {
    raw_frame(b"RM", kind, version, (head.len() as u16, 0), head)
}

impl Wire {
    /// A WebSocket on which nothing was said yet.
    pub(crate) async fn connect(cluster: &Cluster) -> Self {
        let address = cluster.address();
        let stream = TcpStream::connect(&address).await.expect("the node takes connections");
        let upgrade = tokio_tungstenite::client_async(format!("ws://{address}/v1/connect"), stream);
        let (socket, _) = timeout(PATIENCE, upgrade).await.expect("an upgrade in time").expect("an upgrade");
        Self { socket }
    }

    /// A session: hello was said and answered.
    pub(crate) async fn open(cluster: &Cluster) -> (Self, WelcomeV1) {
        let mut wire = Self::connect(cluster).await;
        wire.say(&hello(), b"").await;
        let welcome = wire.expect().await;
        (wire, welcome)
    }

    /// Sends one binary message.
    pub(crate) async fn send(&mut self, bytes: Bytes) {
        self.socket.send(WsMessage::Binary(bytes)).await.expect("the message is sent");
    }

    /// Sends one frame.
    pub(crate) async fn say<M: Message>(&mut self, message: &M, payload: &[u8]) {
        self.send(frame::encode(message, payload).expect("the message fits a frame")).await;
    }

    /// The next WebSocket message; `None` once the connection has ended.
    pub(crate) async fn message(&mut self) -> Option<WsMessage> {
        let next = timeout(PATIENCE, self.socket.next()).await.expect("the node answers in time");
        next.and_then(Result::ok)
    }

    /// The next frame but the node's own pings.
    pub(crate) async fn frame(&mut self) -> Frame {
        loop {
            match self.message().await {
                Some(WsMessage::Binary(bytes)) => {
                    let frame = frame::split(bytes).expect("the node sends whole frames");
                    if frame.kind != PingV1::KIND {
                        return frame;
                    }
                }
                other => panic!("a frame was expected, not {other:?}"),
            }
        }
    }

    /// The next frame but pings, which must be an `M`.
    pub(crate) async fn expect<M: Message>(&mut self) -> M {
        let frame = self.frame().await;
        if frame.kind == ErrorV1::KIND && M::KIND != ErrorV1::KIND {
            panic!("{} was expected, not {:?}", M::NAME, frame.head::<ErrorV1>());
        }
        frame.head().unwrap_or_else(|error| panic!("{} was expected: {error}", M::NAME))
    }

    /// The session is alive: a ping comes back.
    pub(crate) async fn expect_alive(&mut self) {
        self.say(&PingV1 { nonce: 4_711, sent_at_us: 1 }, b"").await;
        let pong: PongV1 = self.expect().await;
        assert_eq!(pong.nonce, 4_711);
    }

    /// The node refuses the whole connection: `error`, `goodbye` with the same code, and the end. Returns the error.
    pub(crate) async fn expect_end(&mut self, case: &str, code: &str) -> ErrorV1 {
        let error: ErrorV1 = self.expect().await;
        assert_eq!((error.code.as_str(), error.request), (code, 0), "{case}: {error:?}");
        let goodbye = self.expect_goodbye(case, code).await;
        assert_eq!(goodbye.message, error.message, "{case}");
        error
    }

    /// `goodbye` with this code, a close, and the end of the TCP connection.
    pub(crate) async fn expect_goodbye(&mut self, case: &str, code: &str) -> GoodbyeV1 {
        let goodbye: GoodbyeV1 = self.expect().await;
        assert_eq!(goodbye.code, code, "{case}: {goodbye:?}");
        match self.message().await {
            Some(WsMessage::Close(Some(close))) => assert_ne!(close.code, CloseCode::Error, "{case}: {close:?}"),
            Some(WsMessage::Close(None)) => {}
            other => panic!("{case}: a close was expected, not {other:?}"),
        }
        assert!(self.message().await.is_none(), "{case}: something came after the close");
        goodbye
    }
}
