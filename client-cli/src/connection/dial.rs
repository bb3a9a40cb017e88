//! From a list of servers to a session: placement, WebSocket, hello, welcome.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use relay_protocol::cluster::Placement;
use relay_protocol::hello::{
    CAPABILITY_JOBS, CAPABILITY_UPLOAD, ErrorV1, GoodbyeV1, HelloV1, VERSION_MAX, VERSION_MIN, WelcomeV1,
};
use relay_protocol::limits::FRAME_BYTES_MAX;
use relay_protocol::{ErrorCode, JobError, Message as _, frame};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::header::AUTHORIZATION;
use tokio_tungstenite::tungstenite::http::{HeaderValue, Response};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_tls_with_config};
use url::Url;

use crate::clock::{jittered, now_us};
use crate::error::ClientError;
use crate::settings::{ClientSettings, http_url, server_url, ws_url};
use crate::tls::Trust;

/// A client's WebSocket.
pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Name of this software in `hello`.
const CLIENT: &str = concat!("client-cli/", env!("CARGO_PKG_VERSION"));

/// A session that was welcomed.
pub(crate) struct Dialled {
    pub(crate) socket: Socket,
    pub(crate) welcome: WelcomeV1,
}

/// Why one server gave no session.
enum DialError {
    /// It never will: a wrong token, no common version.
    Refused(JobError),
    /// Another try may help.
    Failed(String),
}

/// Opens `named` as it is; else tries the servers one after the other, until one welcomes the client or `give_up_after` has passed.
///
/// # Errors
/// [`ClientError::NoConnection`], or [`ClientError::Rejected`] if trying again is of no use.
pub(crate) async fn dial(
    settings: &ClientSettings,
    named: Option<Url>,
    give_up_after: Duration,
) -> Result<Dialled, ClientError> {
    let trust = Trust::of(settings)?;
    let servers = settings.server_urls()?;
    let mut last = format!("{} did not answer within {} ms", settings.servers, give_up_after.as_millis());
    let tries = async {
        if let Some(server) = &named {
            // It was chosen for this client: it is not asked where to go.
            match open(settings, &trust, server).await {
                Ok(dialled) => return Ok(dialled),
                Err(DialError::Refused(error)) => return Err(ClientError::Rejected(error)),
                Err(DialError::Failed(reason)) => tracing::debug!(%server, reason, "the named node gave no session"),
            }
        }
        let mut delay = settings.retry_delay_min;
        loop {
            for server in &servers {
                match one(settings, &trust, server).await {
                    Ok(dialled) => return Ok(dialled),
                    Err(DialError::Refused(error)) => return Err(ClientError::Rejected(error)),
                    Err(DialError::Failed(reason)) => {
                        tracing::debug!(%server, reason, "no session");
                        last = format!("{server}: {reason}");
                    }
                }
            }
            tokio::time::sleep(jittered(delay)).await;
            delay = (delay * 2).min(settings.retry_delay_max);
        }
    };
    match tokio::time::timeout(give_up_after, tries).await {
        Ok(outcome) => outcome,
        Err(_) => Err(ClientError::NoConnection { reason: last }),
    }
}

async fn one(settings: &ClientSettings, trust: &Trust, server: &Url) -> Result<Dialled, DialError> {
    if let Some(placed) = placement(settings, trust, server).await.filter(|placed| placed != server) {
        match open(settings, trust, &placed).await {
            // The coordinator may know an address that this client cannot reach.
            Err(DialError::Failed(reason)) => tracing::debug!(%placed, reason, "the named node gave no session"),
            other => return other,
        }
    }
    open(settings, trust, server).await
}

/// The node that the server names; `None`: use the server itself.
async fn placement(settings: &ClientSettings, trust: &Trust, server: &Url) -> Option<Url> {
    if !settings.placement {
        return None;
    }
    let client = trust.http().ok()?.timeout(settings.placement_timeout).build().ok()?;
    let mut request = client.get(http_url(server, "/v1/placement"));
    if let Some(token) = &settings.token {
        request = request.bearer_auth(token);
    }
    let answer = request.send().await.ok()?;
    if answer.status() != reqwest::StatusCode::OK {
        return None;
    }
    let placement: Placement = serde_json::from_slice(&answer.bytes().await.ok()?).ok()?;
    server_url(&placement.url).ok()
}

async fn open(settings: &ClientSettings, trust: &Trust, server: &Url) -> Result<Dialled, DialError> {
    match tokio::time::timeout(settings.attempt_timeout, handshake(settings, trust, server)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(DialError::Failed(format!("no welcome within {} ms", settings.attempt_timeout.as_millis()))),
    }
}

async fn handshake(settings: &ClientSettings, trust: &Trust, server: &Url) -> Result<Dialled, DialError> {
    let failed = |error: &dyn std::fmt::Display| DialError::Failed(error.to_string());
    let mut request = ws_url(server, "/v1/connect").into_client_request().map_err(|error| failed(&error))?;
    if let Some(token) = &settings.token {
        let header = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| {
            DialError::Refused(JobError::new(ErrorCode::Unauthenticated, "the token has characters that no token has"))
        })?;
        request.headers_mut().insert(AUTHORIZATION, header);
    }
    let config =
        WebSocketConfig::default().max_message_size(Some(FRAME_BYTES_MAX)).max_frame_size(Some(FRAME_BYTES_MAX));
    let connected = connect_async_tls_with_config(request, Some(config), true, trust.connector()).await;
    let (mut socket, _) = connected.map_err(|error| match error {
        WsError::Http(answer) => refused(&answer),
        error => failed(&error),
    })?;
    let hello = HelloV1 {
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
        capabilities: vec![CAPABILITY_JOBS.to_owned(), CAPABILITY_UPLOAD.to_owned()],
        client: CLIENT.to_owned(),
        token: None,
        sent_at_us: now_us(),
    };
    let hello = frame::encode(&hello, b"").map_err(|error| failed(&error))?;
    socket.send(Message::Binary(hello)).await.map_err(|error| failed(&error))?;
    let welcome = welcome(&mut socket).await?;
    Ok(Dialled { socket, welcome })
}

/// What an HTTP answer instead of the upgrade means.
fn refused(answer: &Response<Option<Vec<u8>>>) -> DialError {
    let status = answer.status();
    let body = answer.body().as_deref().unwrap_or_default();
    let told = serde_json::from_slice::<serde_json::Value>(body)
        .ok()
        .and_then(|mut body| serde_json::from_value::<JobError>(body.get_mut("error")?.take()).ok());
    match (status.as_u16(), told) {
        (401 | 403, Some(error)) => DialError::Refused(error),
        (401 | 403, None) => DialError::Refused(JobError::new(
            ErrorCode::Unauthenticated,
            format!("the server answers {status}: set a valid token"),
        )),
        (_, Some(error)) => DialError::Failed(error.to_string()),
        (_, None) => DialError::Failed(format!("the server answers {status} instead of opening a session")),
    }
}

async fn welcome(socket: &mut Socket) -> Result<WelcomeV1, DialError> {
    let failed = |error: &dyn std::fmt::Display| DialError::Failed(error.to_string());
    loop {
        let bytes: Bytes = match socket.next().await {
            Some(Ok(Message::Binary(bytes))) => bytes,
            Some(Ok(Message::Close(_))) | None => {
                return Err(DialError::Failed("closed before the welcome".to_owned()));
            }
            Some(Ok(_)) => continue,
            Some(Err(error)) => return Err(failed(&error)),
        };
        let frame = frame::split(bytes).map_err(|error| failed(&error))?;
        match frame.kind {
            WelcomeV1::KIND => return frame.head().map_err(|error| failed(&error)),
            ErrorV1::KIND => {
                let ErrorV1 { code, message, retryable, .. } = frame.head().map_err(|error| failed(&error))?;
                // A slow start is no reason to give up.
                let again = retryable || code == ErrorCode::HelloExpected.as_str();
                let error = JobError { code, message, retryable };
                return Err(if again { DialError::Failed(error.to_string()) } else { DialError::Refused(error) });
            }
            GoodbyeV1::KIND => {
                let goodbye: GoodbyeV1 = frame.head().map_err(|error| failed(&error))?;
                return Err(DialError::Failed(format!("{}: {}", goodbye.code, goodbye.message)));
            }
            _ => {}
        }
    }
}
