//! A WebSocket without a socket: the node's own handler is called, and the bytes that a connection would carry go through memory.

use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use actix_web::http::header;
use actix_web::test::TestRequest;
use actix_web::{FromRequest, web};
use bytes::{Buf, Bytes, BytesMut};
use relay_node::gateway::connect;
use relay_protocol::{Frame, Message, frame};
use tokio::sync::mpsc;

use super::node::Node;

/// Messages that may be under way to a node.
const UNDERWAY_MAX: usize = 256;
/// A connection that is not made in this time is given up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A client's end of a connection.
pub(super) struct Socket {
    out: mpsc::Sender<Bytes>,
    body: Pin<Box<BoxBody>>,
    unread: BytesMut,
}

impl Socket {
    /// Connects to a node; `None` if it does not let us.
    pub(super) async fn connect(node: &Rc<Node>) -> Option<Self> {
        let state = node.state()?;
        let authenticator = node.authenticator.clone();
        let (out, mut input) = mpsc::channel::<Bytes>(UNDERWAY_MAX);
        let asked = node.ask(async move {
            let request = TestRequest::get()
                .uri("/v1/connect")
                .insert_header((header::CONNECTION, "upgrade"))
                .insert_header((header::UPGRADE, "websocket"))
                .insert_header((header::SEC_WEBSOCKET_VERSION, "13"))
                .insert_header((header::SEC_WEBSOCKET_KEY, "AAAAAAAAAAAAAAAAAAAAAA=="))
                .to_http_request();
            let bytes =
                futures_util::stream::poll_fn(move |cx| input.poll_recv(cx).map(|got| got.map(Ok::<_, PayloadError>)));
            let mut payload =
                Payload::Stream { payload: Box::pin(bytes) as Pin<Box<dyn futures_util::Stream<Item = _>>> };
            let payload = web::Payload::from_request(&request, &mut payload).await.ok()?;
            let (state, authenticator) = (web::Data::from(state), web::Data::from(authenticator));
            let response = connect::connect(request, payload, state, authenticator).await.ok()?;
            Some(response.into_body())
        });
        let body = tokio::time::timeout(CONNECT_TIMEOUT, asked).await.ok()???;
        Some(Self { out, body: Box::pin(body), unread: BytesMut::new() })
    }

    /// Sends one message; `None` if the connection is gone.
    pub(super) async fn send<M: Message>(&self, message: &M, payload: &[u8]) -> Option<()> {
        let frame = frame::encode(message, payload).ok()?;
        self.out.send(wrapped(&frame)).await.ok()
    }

    /// The next message; `None` if the connection is gone. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some((kind, bytes)) = self.unwrapped() {
                match kind {
                    BINARY => return frame::split(bytes).ok(),
                    CLOSE => return None,
                    _ => continue,
                }
            }
            let more = std::future::poll_fn(|cx| self.body.as_mut().poll_next(cx)).await?.ok()?;
            self.unread.extend_from_slice(&more);
        }
    }

    /// Takes a whole WebSocket frame out of what was read.
    fn unwrapped(&mut self) -> Option<(u8, Bytes)> {
        let (first, second) = (*self.unread.first()?, *self.unread.get(1)?);
        let (head, length) = match second & 0x7f {
            126 => (4, usize::from(u16::from_be_bytes(self.unread.get(2..4)?.try_into().ok()?))),
            127 => (10, u64::from_be_bytes(self.unread.get(2..10)?.try_into().ok()?) as usize),
            short => (2, usize::from(short)),
        };
        if self.unread.len() < head + length {
            return None;
        }
        self.unread.advance(head);
        Some((first & 0x0f, self.unread.split_to(length).freeze()))
    }
}

/// Kind of a WebSocket frame: one binary message.
const BINARY: u8 = 2;
/// Kind of a WebSocket frame: the end.
const CLOSE: u8 = 8;

/// A binary message of a client, masked with zeros.
fn wrapped(message: &[u8]) -> Bytes {
    let mut frame = vec![0x80 | BINARY];
    match message.len() {
        short @ 0..126 => frame.push(0x80 | short as u8),
        middle @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((middle as u16).to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(message);
    frame.into()
}
