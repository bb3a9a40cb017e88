//! The life of a connection: hello, welcome, ping, error, goodbye, moved. And the negotiation of what both ends speak.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::SessionId;

/// What debug output shows of a secret, so that no log holds one.
pub(crate) const HIDDEN: &str = "(hidden)";

/// Lowest protocol version that this build speaks.
pub const VERSION_MIN: u8 = 1;
/// Highest protocol version that this build speaks.
pub const VERSION_MAX: u8 = 1;

/// Capability: jobs are submitted, watched and cancelled.
pub const CAPABILITY_JOBS: &str = "jobs";
/// Capability: inputs larger than the inline limit are uploaded in chunks.
pub const CAPABILITY_UPLOAD: &str = "upload";
/// Capability: live streams are published and subscribed.
pub const CAPABILITY_STREAMS: &str = "streams";

/// A client's first message. Its debug output hides the token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloV1 {
    /// Lowest protocol version that the client speaks.
    pub version_min: u8,
    /// Highest protocol version that the client speaks.
    pub version_max: u8,
    /// Capabilities that the client can use.
    pub capabilities: Vec<String>,
    /// Name and version of the client's software.
    pub client: String,
    /// Bearer token, for clients that cannot set the `Authorization` header (browsers).
    pub token: Option<String>,
    /// When it was sent, in microseconds since the Unix epoch by the client's clock.
    pub sent_at_us: u64,
}

/// The node's answer to a hello. Its debug output hides the resume token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WelcomeV1 {
    /// The version that both speak from now on.
    pub version: u8,
    /// Capabilities that both ends have.
    pub capabilities: Vec<String>,
    /// Identity of the session.
    pub session_id: SessionId,
    /// What a [`crate::session::ResumeV1`] on a later connection gives back.
    pub resume_token: String,
    /// Partition that the client encodes in its job ids.
    pub reply_partition: u32,
    /// Name of the node.
    pub node: String,
    /// Largest input inside a submit, in bytes.
    pub inline_bytes_max: u32,
    /// Largest upload, in bytes.
    pub upload_bytes_max: u64,
    /// Silence after which the client should send a ping, in milliseconds.
    pub ping_interval_ms: u32,
    /// When it was sent, in microseconds since the Unix epoch by the node's clock.
    pub sent_at_us: u64,
}

/// Asks for a pong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PingV1 {
    /// Comes back in the pong.
    pub nonce: u64,
    /// When it was sent, in microseconds since the Unix epoch by the sender's clock.
    pub sent_at_us: u64,
}

/// Answers a ping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PongV1 {
    /// From the ping.
    pub nonce: u64,
    /// From the ping.
    pub ping_sent_at_us: u64,
    /// When the pong was sent, in microseconds since the Unix epoch by the answerer's clock.
    pub sent_at_us: u64,
}

/// Something asked for was refused or failed. The connection stays open unless a goodbye follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorV1 {
    /// The request that failed; 0 if none in particular.
    pub request: u64,
    /// Stable code, see [`crate::ErrorCode`].
    pub code: String,
    /// A sentence that says what to do.
    pub message: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// When to try again at the earliest, in milliseconds.
    pub retry_after_ms: Option<u32>,
}

/// The last message of an end before it closes the connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoodbyeV1 {
    /// Why: a stable code (`closing`, `draining`, `idle`, or an error's code).
    pub code: String,
    /// The same in words.
    pub message: String,
}

/// The session should go on at another node; jobs and streams are resumed there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovedV1 {
    /// URL of the other node.
    pub url: String,
    /// Why, in words.
    pub reason: String,
}

impl fmt::Debug for HelloV1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HelloV1")
            .field("version_min", &self.version_min)
            .field("version_max", &self.version_max)
            .field("capabilities", &self.capabilities)
            .field("client", &self.client)
            .field("token", &self.token.as_ref().map(|_| HIDDEN))
            .field("sent_at_us", &self.sent_at_us)
            .finish()
    }
}

impl fmt::Debug for WelcomeV1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WelcomeV1")
            .field("version", &self.version)
            .field("capabilities", &self.capabilities)
            .field("session_id", &self.session_id)
            .field("resume_token", &HIDDEN)
            .field("reply_partition", &self.reply_partition)
            .field("node", &self.node)
            .field("inline_bytes_max", &self.inline_bytes_max)
            .field("upload_bytes_max", &self.upload_bytes_max)
            .field("ping_interval_ms", &self.ping_interval_ms)
            .field("sent_at_us", &self.sent_at_us)
            .finish()
    }
}

/// Why two ends cannot talk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the client speaks protocol versions {client_min} to {client_max}, this node {VERSION_MIN} to {VERSION_MAX}: {}", advice(*.client_max))]
pub struct NoCommonVersion {
    /// Lowest version of the client.
    pub client_min: u8,
    /// Highest version of the client.
    pub client_max: u8,
}

fn advice(client_max: u8) -> &'static str {
    if client_max < VERSION_MIN { "upgrade the client" } else { "upgrade the relay or use an older client" }
}

/// The highest version that both speak, and the capabilities that both have in the node's order.
///
/// # Errors
/// [`NoCommonVersion`] if the ranges do not overlap (an empty range overlaps nothing).
pub fn negotiate(hello: &HelloV1, ours: &[&str]) -> Result<(u8, Vec<String>), NoCommonVersion> {
    let version = hello.version_max.min(VERSION_MAX);
    if version < hello.version_min.max(VERSION_MIN) {
        return Err(NoCommonVersion { client_min: hello.version_min, client_max: hello.version_max });
    }
    let both = ours.iter().filter(|name| hello.capabilities.iter().any(|theirs| theirs == *name));
    Ok((version, both.map(|name| (*name).to_owned()).collect()))
}
