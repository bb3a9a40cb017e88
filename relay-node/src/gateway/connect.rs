//! From a TCP connection to a session: WebSocket, hello in time, identity, version.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use actix_web::http::header;
use actix_web::{FromRequest, HttpRequest, HttpResponse, web};
use actix_ws::{AggregatedMessage, ProtocolError};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::LocalBoxStream;
use relay_protocol::hello::{self, ErrorV1, GoodbyeV1, HelloV1, WelcomeV1};
use relay_protocol::limits::{FRAME_BYTES_MAX, TRANSFER_CHUNK_BYTES};
use relay_protocol::{ErrorCode, JobError, Message, SessionId, frame};
use relay_runtime::auth::{Authenticator, Identity};
use relay_runtime::http_error::ApiError;

use super::answer::api_error;
use super::resume_token::ResumeToken;
use super::session::{self, Opened};
use crate::state::NodeState;

/// Capabilities of this node's sessions.
const CAPABILITIES: [&str; 2] = [hello::CAPABILITY_JOBS, hello::CAPABILITY_UPLOAD];
/// Room of a WebSocket frame beside the largest protocol frame.
const WS_BYTES_MAX: usize = FRAME_BYTES_MAX + TRANSFER_CHUNK_BYTES;
/// Bytes that may come without making a whole message: the largest one, and what is read together with its end.
const UNREAD_BYTES_MAX: usize = 2 * WS_BYTES_MAX;

/// A WebSocket's messages.
pub(super) type Messages = LocalBoxStream<'static, Result<AggregatedMessage, ProtocolError>>;

/// `GET /v1/connect`.
///
/// # Errors
/// No WebSocket request, or a wrong token in the header.
pub async fn connect(
    request: HttpRequest,
    body: web::Payload,
    node: web::Data<NodeState>,
    auth: web::Data<Authenticator>,
) -> Result<HttpResponse, ApiError> {
    node.open().map_err(|error| api_error(&error))?;
    let header = request.headers().contains_key(header::AUTHORIZATION);
    let early = if header { Some(relay_runtime::http_auth::authenticate(&request)?) } else { None };
    let unread = Rc::new(Cell::new(0));
    let body = bounded(&request, body, unread.clone()).await?;
    let (response, socket, stream) = actix_ws::handle(&request, body)
        .map_err(|error| ApiError::new(ErrorCode::BadRequest, format!("a WebSocket is needed: {error}")))?;
    let stream = stream.max_frame_size(WS_BYTES_MAX).aggregate_continuations().max_continuation_size(WS_BYTES_MAX);
    let stream = stream.inspect(move |_| unread.set(0)).boxed_local();
    let node = node.into_inner();
    actix_web::rt::spawn(async move {
        if let Some(opened) = open(&node, &auth, early, socket, stream).await {
            session::run(node, opened).await;
        }
    });
    Ok(response)
}

/// `body`, broken off once [`UNREAD_BYTES_MAX`] bytes came without a whole message. actix-ws collects a message of any size
/// and looks at its limit when all of it is there, so that a peer could fill the memory.
async fn bounded(request: &HttpRequest, body: web::Payload, unread: Rc<Cell<usize>>) -> Result<web::Payload, ApiError> {
    // A connection that breaks is the end after whatever came whole before it, a goodbye for one.
    let body = body.take_while(|piece| std::future::ready(piece.is_ok())).map(move |piece| {
        let piece = piece?;
        unread.set(unread.get() + piece.len());
        if unread.get() > UNREAD_BYTES_MAX { Err(PayloadError::Overflow) } else { Ok(piece) }
    });
    let body = web::Payload::from_request(request, &mut Payload::Stream { payload: body.boxed_local() }).await;
    body.map_err(|error| ApiError::internal(&error))
}

/// The session, once hello was said; otherwise the connection was told why and closed.
async fn open(
    node: &NodeState,
    auth: &Authenticator,
    early: Option<Identity>,
    mut socket: actix_ws::Session,
    mut stream: Messages,
) -> Option<Opened> {
    let handshake = node.handshakes.begin();
    let timeout = Duration::from_millis(node.settings.gateway.hello_timeout_ms);
    let first = tokio::select! {
        biased;
        first = first_frame(&mut socket, &mut stream) => first,
        () = tokio::time::sleep(timeout) => Err(Some(expected(format!("no hello came within {} ms", timeout.as_millis())))),
        () = handshake.evicted.cancelled() => {
            Err(Some(JobError::new(ErrorCode::TooManyHandshakes, "too many connections have not said hello: try again")))
        }
    };
    drop(handshake);
    let began = began(node).await;
    let welcomed = first.and_then(|hello| welcome(node, auth, early, hello, began).map_err(Some));
    match welcomed {
        Ok((identity, welcome)) => {
            let frame = frame::encode(&welcome, b"").ok()?;
            socket.binary(frame).await.ok()?;
            Some(Opened { identity, session_id: welcome.session_id, socket, stream })
        }
        Err(Some(error)) => {
            metrics::counter!("relay_handshakes_refused_total", "code" => error.code.clone()).increment(1);
            if let Some(online) = node.online.get() {
                let nobody = crate::audit::Actor { tenant: "", subject: "" };
                online.audit.denied(nobody, "session.open", &error.code);
            }
            refuse(socket, &error).await;
            None
        }
        Err(None) => None,
    }
}

/// The hello; `Err(None)` if the peer went away.
async fn first_frame(socket: &mut actix_ws::Session, stream: &mut Messages) -> Result<HelloV1, Option<JobError>> {
    loop {
        match stream.next().await {
            Some(Ok(AggregatedMessage::Binary(bytes))) => return hello_of(bytes).map_err(Some),
            Some(Ok(AggregatedMessage::Text(_))) => return Err(Some(text_message())),
            Some(Ok(AggregatedMessage::Ping(bytes))) => socket.pong(&bytes).await.map_err(|_| None)?,
            Some(Ok(AggregatedMessage::Pong(_))) => {}
            Some(Err(error)) => return Err(Some(broken(&error))),
            Some(Ok(AggregatedMessage::Close(_))) | None => return Err(None),
        }
    }
}

fn hello_of(bytes: Bytes) -> Result<HelloV1, JobError> {
    let bad = |error: frame::DecodeError| JobError::new(ErrorCode::BadFrame, error.to_string());
    let frame = frame::split(bytes).map_err(bad)?;
    if (frame.kind, frame.version) != (HelloV1::KIND, HelloV1::VERSION) {
        let (kind, version) = (frame.kind, frame.version);
        return Err(expected(format!("the first message must be hello_v1, not kind {kind:#06x} version {version}")));
    }
    frame.head().map_err(bad)
}

/// How far the events of a session that begins now have been read: its jobs' events come later.
async fn began(node: &NodeState) -> (u64, u64) {
    let Some(online) = node.online.get() else { return (0, 0) };
    online.hub.ends(online.reply_partition).await.unwrap_or_default()
}

fn welcome(
    node: &NodeState,
    auth: &Authenticator,
    early: Option<Identity>,
    hello: HelloV1,
    (durable_from, revocable_from): (u64, u64),
) -> Result<(Identity, WelcomeV1), JobError> {
    let online = node.open()?;
    let (version, capabilities) = hello::negotiate(&hello, &CAPABILITIES)
        .map_err(|error| JobError::new(ErrorCode::NoCommonVersion, error.to_string()))?;
    let identity = match early {
        Some(identity) => identity,
        None => auth
            .authenticate(hello.token.as_deref())
            .map_err(|error| JobError::new(ErrorCode::Unauthenticated, error.to_string()))?,
    };
    let random = u128::from(node.random.next_u64()) << 64 | u128::from(node.random.next_u64());
    let session_id = SessionId::new(random);
    let settings = &node.settings;
    let token = ResumeToken {
        session_id,
        reply_partition: online.reply_partition,
        began_at_ms: node.clock.now_ms(),
        durable_from,
        revocable_from,
    };
    let resume_token = node
        .resume_tokens
        .make(&identity, &token)
        .map_err(|error| JobError::new(ErrorCode::Internal, format!("{error:#}")))?;
    Ok((
        identity,
        WelcomeV1 {
            version,
            capabilities,
            session_id,
            resume_token,
            reply_partition: online.reply_partition,
            node: node.name.clone(),
            inline_bytes_max: settings.inputs.inline_bytes_max as u32,
            upload_bytes_max: settings.inputs.upload_bytes_max,
            ping_interval_ms: settings.gateway.ping_interval_ms as u32,
            sent_at_us: node.now_us(),
        },
    ))
}

/// Says why and goodbye, and closes.
async fn refuse(mut socket: actix_ws::Session, error: &JobError) {
    let told = ErrorV1 {
        request: 0,
        code: error.code.clone(),
        message: error.message.clone(),
        retryable: error.retryable,
        retry_after_ms: None,
    };
    let goodbye = GoodbyeV1 { code: error.code.clone(), message: error.message.clone() };
    for frame in [frame::encode(&told, b""), frame::encode(&goodbye, b"")].into_iter().flatten() {
        if socket.binary(frame).await.is_err() {
            return;
        }
    }
    // A peer that is gone needs no close.
    drop(socket.close(Some(actix_ws::CloseCode::Policy.into())).await);
}

fn expected(message: String) -> JobError {
    JobError::new(ErrorCode::HelloExpected, message)
}

/// The error for bytes that are no WebSocket messages, or too large ones.
pub(super) fn broken(error: &ProtocolError) -> JobError {
    let message = format!("no WebSocket message of at most {WS_BYTES_MAX} bytes: {error}");
    JobError::new(ErrorCode::BadFrame, message)
}

/// The error for a text message.
pub(super) fn text_message() -> JobError {
    JobError::new(ErrorCode::TextMessage, "only binary messages are spoken here, one frame in each")
}
