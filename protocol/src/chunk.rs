//! Live streams: a named sequence of chunks with one publisher and many subscribers.

use serde::{Deserialize, Serialize};

/// A publisher's chunk; the payload is the media. The same frame goes on to every subscriber.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkV1 {
    /// Number of the stream on this connection, from [`PublishingV1`] or [`SubscribedV1`].
    pub stream: u32,
    /// Track within the stream.
    pub track: u16,
    /// Group within the track; a decoder can begin at the first chunk of a group.
    pub group: u64,
    /// Number within the track, rising by one.
    pub seq: u64,
    /// Microseconds since the stream began, by the media's clock.
    pub at_us: u64,
    /// When the publisher sent it, in microseconds since the Unix epoch by its clock.
    pub sent_at_us: u64,
}

/// What a track carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackV1 {
    /// Number of the track.
    pub track: u16,
    /// Media type, for example `audio/ogg; codecs=opus`.
    pub media_type: String,
}

/// A publisher asks to publish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishV1 {
    /// Number of the request, chosen by the client.
    pub request: u64,
    /// Name of the stream.
    pub stream: String,
    /// One life of the publisher: the same one resumes its numbering, a new one continues after a discontinuity.
    pub incarnation: u64,
    /// What it will send.
    pub tracks: Vec<TrackV1>,
    /// W3C trace context.
    pub traceparent: Option<String>,
}

/// The node takes the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishingV1 {
    /// Number of the request.
    pub request: u64,
    /// Number of the stream on this connection.
    pub stream: u32,
    /// Incarnation of the stream's home; a higher one fences a lower.
    pub home_incarnation: u64,
    /// For each track, the next seq to send.
    pub next: Vec<(u16, u64)>,
    /// Nodes that hold a copy before a chunk is acknowledged.
    pub copies: u8,
}

/// Everything up to here is held by as many nodes as promised; the publisher may forget it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkAckV1 {
    /// Number of the stream on this connection.
    pub stream: u32,
    /// Track.
    pub track: u16,
    /// One after the last acknowledged seq.
    pub next: u64,
}

/// Where a subscriber begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromV1 {
    /// The newest group.
    Latest,
    /// The oldest group that is still held.
    Start,
    /// This seq of each track.
    Seq(u64),
}

/// A subscriber asks for a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscribeV1 {
    /// Number of the request, chosen by the client.
    pub request: u64,
    /// Name of the stream.
    pub stream: String,
    /// Where to begin.
    pub from: FromV1,
    /// Cut off rather than skip when too slow.
    pub lossless: bool,
    /// W3C trace context.
    pub traceparent: Option<String>,
}

/// The subscription began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscribedV1 {
    /// Number of the request.
    pub request: u64,
    /// Number of the stream on this connection.
    pub stream: u32,
    /// Incarnation of the publisher.
    pub incarnation: u64,
    /// What the stream carries.
    pub tracks: Vec<TrackV1>,
    /// For each track, the seq of the first chunk to come.
    pub next: Vec<(u16, u64)>,
}

/// The subscriber was too slow, or joined too late: these chunks of a track do not come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissedV1 {
    /// Number of the stream on this connection.
    pub stream: u32,
    /// Track.
    pub track: u16,
    /// First seq that was missed.
    pub from: u64,
    /// One after the last seq that was missed.
    pub to: u64,
}

/// A new life of the publisher continues the stream: decoders start anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiscontinuityV1 {
    /// Number of the stream on this connection.
    pub stream: u32,
    /// Incarnation of the publisher from here on.
    pub incarnation: u64,
    /// For each track, the seq of the first chunk of the new life.
    pub next: Vec<(u16, u64)>,
}

/// The end mark: the publisher is done, or was lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamEndV1 {
    /// Number of the stream on this connection.
    pub stream: u32,
    /// Incarnation of the publisher that ended.
    pub incarnation: u64,
    /// Why: `ended` or `publisher_lost`.
    pub reason: String,
    /// For each track, one after its last seq.
    pub next: Vec<(u16, u64)>,
}
