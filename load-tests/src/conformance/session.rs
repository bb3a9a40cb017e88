//! A node's session protocol, driven frame by frame as a reference client does.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use relay_protocol::hello::{CAPABILITY_JOBS, ErrorV1, GoodbyeV1, HelloV1, PingV1, PongV1, WelcomeV1};
use relay_protocol::session::{AcceptedV1, EventV1, SubmitInputV1, SubmitV1};
use relay_protocol::{Event, Frame, JobId, Message, frame};
use relay_runtime::clock::{Clock as _, SystemClock};
use reqwest::Url;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message as WsMessage;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::http::{TASK, in_order};
use super::report::Report;
use super::sound::tone;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A kind of message that there is not.
const UNKNOWN_KIND: u16 = 0x7fff;

/// Checks the session protocol at `url`.
pub async fn check(url: &Url, token: Option<&str>, report: &mut Report) {
    let node = Node { url, token };
    report.expect(
        "session.welcome",
        "hello_v1 is answered by welcome_v1 with version 1 and jobs",
        node.welcome().await,
    );
    report.expect("session.ping", "ping_v1 is answered by pong_v1 with its nonce", node.ping().await);
    let expected = "submit_v1: accepted_v1 with its event, then event_v1 with rising seq, one terminal event";
    report.expect("session.submit", expected, node.submit().await);
    report.expect("session.unknown_kind", "a frame of an unknown kind is skipped", node.unknown_kind().await);
    let expected =
        "an unknown task is answered by error_v1 unknown_task with the request's number; the session goes on";
    report.expect("session.unknown_task", expected, node.unknown_task().await);
    let hello = |version| frame::encode(&HelloV1 { version_min: version, version_max: version, ..node.hello() }, b"");
    let ping = frame::encode(&PingV1 { nonce: 1, sent_at_us: 1 }, b"");
    let refusals = [
        (
            "session.bad_frame",
            "bytes that are no frame",
            Ok(Bytes::from_static(b"GET / HTTP/1.1\r\n\r\n")),
            "bad_frame",
        ),
        ("session.no_common_version", "a client of protocol 255 only", hello(255), "no_common_version"),
        ("session.hello_expected", "another message before hello", ping, "hello_expected"),
    ];
    for (name, what, bytes, code) in refusals {
        let found = match bytes {
            Ok(bytes) => node.refuses(WsMessage::Binary(bytes), code).await,
            Err(error) => Err(error.into()),
        };
        report.expect(name, &format!("{what}: error_v1 {code}, goodbye_v1 {code}, and the end"), found);
    }
    let text = node.refuses(WsMessage::Text("{}".into()), "text_message").await;
    let expected = "a text message: error_v1 text_message, goodbye_v1 text_message, and the end";
    report.expect("session.text_message", expected, text);
}

struct Node<'a> {
    url: &'a Url,
    token: Option<&'a str>,
}

impl Node<'_> {
    fn hello(&self) -> HelloV1 {
        HelloV1 {
            version_min: 1,
            version_max: 1,
            capabilities: vec![CAPABILITY_JOBS.to_owned()],
            client: concat!("conformance/", env!("CARGO_PKG_VERSION")).to_owned(),
            token: self.token.map(str::to_owned),
            sent_at_us: 1,
        }
    }

    async fn connect(&self) -> anyhow::Result<Wire> {
        let base = self.url.as_str().trim_end_matches('/');
        let address = format!("{}/v1/connect", base.replacen("http", "ws", 1));
        let upgrade = connect_async(address.into_client_request()?);
        let (socket, _) =
            timeout(PATIENCE, upgrade).await.context("no answer to the upgrade")?.context("no WebSocket")?;
        Ok(Wire { socket })
    }

    async fn open(&self) -> anyhow::Result<(Wire, WelcomeV1)> {
        let mut wire = self.connect().await?;
        wire.say(&self.hello(), b"").await?;
        let (welcome, _) = wire.expect().await?;
        Ok((wire, welcome))
    }

    async fn welcome(&self) -> anyhow::Result<()> {
        let (_, welcome) = self.open().await?;
        ensure!(welcome.version == 1, "version {}", welcome.version);
        ensure!(welcome.capabilities.iter().any(|name| name == CAPABILITY_JOBS), "{:?}", welcome.capabilities);
        Ok(())
    }

    async fn ping(&self) -> anyhow::Result<()> {
        self.open().await?.0.ping(4_711).await
    }

    async fn submit(&self) -> anyhow::Result<()> {
        let (mut wire, welcome) = self.open().await?;
        let job_id = JobId::new(SystemClock.now_ms(), welcome.reply_partition, rand::random());
        wire.say(&submit_of(job_id, TASK), &tone()?).await?;
        let (accepted, receipt) = wire.expect::<AcceptedV1>().await?;
        ensure!((accepted.request, accepted.job_id) == (1, job_id), "{accepted:?}");
        let receipt: Event = serde_json::from_slice(&receipt).context("the payload of accepted_v1 is no event")?;
        let mut events = vec![receipt];
        while !events.last().is_some_and(|event| event.event.is_terminal()) {
            let (head, payload) = wire.expect::<EventV1>().await?;
            let event: Event = serde_json::from_slice(&payload).context("the payload is no event")?;
            let said = (head.job_id, head.seq, head.terminal);
            ensure!(said == (event.job_id, event.seq, event.event.is_terminal()), "{head:?} beside {event:?}");
            events.push(event);
        }
        in_order(&events, job_id)
    }

    async fn unknown_kind(&self) -> anyhow::Result<()> {
        let (mut wire, _) = self.open().await?;
        let mut bytes = frame::MAGIC.to_le_bytes().to_vec();
        bytes.extend_from_slice(&UNKNOWN_KIND.to_le_bytes());
        bytes.extend_from_slice(&[1, 0, 4, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(&[0xff; 4]);
        wire.send(WsMessage::Binary(bytes.into())).await?;
        wire.ping(1).await
    }

    async fn unknown_task(&self) -> anyhow::Result<()> {
        let (mut wire, welcome) = self.open().await?;
        let job_id = JobId::new(SystemClock.now_ms(), welcome.reply_partition, rand::random());
        wire.say(&submit_of(job_id, "sing"), b"la").await?;
        let (error, _) = wire.expect::<ErrorV1>().await?;
        ensure!((error.request, error.code.as_str()) == (1, "unknown_task"), "{error:?}");
        wire.ping(1).await
    }

    /// Says `first` on a new connection; the node must refuse it with `code` and end.
    async fn refuses(&self, first: WsMessage, code: &str) -> anyhow::Result<()> {
        let mut wire = self.connect().await?;
        wire.send(first).await?;
        let (error, _) = wire.expect::<ErrorV1>().await?;
        ensure!(error.code == code, "{error:?}");
        let (goodbye, _) = wire.expect::<GoodbyeV1>().await?;
        ensure!(goodbye.code == code, "{goodbye:?}");
        match timeout(PATIENCE, wire.socket.next()).await.context("the connection stays open")? {
            None | Some(Ok(WsMessage::Close(_)) | Err(_)) => Ok(()),
            Some(Ok(other)) => bail!("after goodbye came {other:?}"),
        }
    }
}

fn submit_of(job_id: JobId, task: &str) -> SubmitV1 {
    SubmitV1 {
        request: 1,
        job_id,
        lane: relay_protocol::topics::DEFAULT_LANE.to_owned(),
        task: task.to_owned(),
        model: String::new(),
        params: String::new(),
        input: SubmitInputV1::Inline,
        name: "tone.wav".to_owned(),
        media_type: String::new(),
        priority: 1,
        idempotency_key: None,
        deadline_ms: None,
        not_before_ms: None,
        traceparent: None,
        sent_at_us: 1,
        watch: true,
    }
}

struct Wire {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Wire {
    async fn send(&mut self, message: WsMessage) -> anyhow::Result<()> {
        self.socket.send(message).await.context("the connection broke off")
    }

    async fn say<M: Message>(&mut self, message: &M, payload: &[u8]) -> anyhow::Result<()> {
        self.send(WsMessage::Binary(frame::encode(message, payload)?)).await
    }

    /// The next frame but pings, which must be an `M`, and its payload.
    async fn expect<M: Message>(&mut self) -> anyhow::Result<(M, Bytes)> {
        let frame = self.frame().await.with_context(|| format!("{} was expected", M::NAME))?;
        if frame.kind == ErrorV1::KIND && M::KIND != ErrorV1::KIND {
            bail!("{} was expected, not {:?}", M::NAME, frame.head::<ErrorV1>());
        }
        let head = frame.head().with_context(|| format!("{} was expected", M::NAME))?;
        Ok((head, frame.payload))
    }

    async fn frame(&mut self) -> anyhow::Result<Frame> {
        loop {
            match timeout(PATIENCE, self.socket.next()).await.context("no answer")? {
                Some(Ok(WsMessage::Binary(bytes))) => {
                    let frame = frame::split(bytes)?;
                    if frame.kind != PingV1::KIND {
                        return Ok(frame);
                    }
                }
                Some(Ok(WsMessage::Ping(_) | WsMessage::Pong(_))) => {}
                other => bail!("a frame was expected, not {other:?}"),
            }
        }
    }

    async fn ping(&mut self, nonce: u64) -> anyhow::Result<()> {
        self.say(&PingV1 { nonce, sent_at_us: 1 }, b"").await?;
        let (pong, _) = self.expect::<PongV1>().await?;
        ensure!(pong.nonce == nonce, "nonce {} instead of {nonce}", pong.nonce);
        Ok(())
    }
}
