//! Kinds of messages. A number is never given a second meaning; a changed struct is a new version of its kind.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A struct that is the head of one kind of frame, in one version.
pub trait Message: Serialize + DeserializeOwned {
    /// Number of the kind, see [`KINDS`].
    const KIND: u16;
    /// Version of this struct under its kind.
    const VERSION: u8;
    /// Name of the kind and version, as in the golden vectors: `submit_v1`.
    const NAME: &'static str;
}

/// Implements [`Message`] for the structs of this crate and lists them in [`KINDS`].
macro_rules! messages {
    ($($kind:literal $version:literal $name:literal $type:ty;)*) => {
        $(impl Message for $type {
            const KIND: u16 = $kind;
            const VERSION: u8 = $version;
            const NAME: &'static str = $name;
        })*

        /// Every message: kind, version, name.
        pub const KINDS: &[(u16, u8, &str)] = &[$(($kind, $version, $name)),*];
    };
}

use crate::chunk::{
    ChunkAckV1, ChunkV1, DiscontinuityV1, MissedV1, PublishV1, PublishingV1, StreamEndV1, SubscribeV1, SubscribedV1,
};
use crate::hello::{ErrorV1, GoodbyeV1, HelloV1, MovedV1, PingV1, PongV1, WelcomeV1};
use crate::job::JobHeadV1;
use crate::session::{
    AcceptedV1, CancelReplyV1, CancelV1, EventV1, FetchChunkV1, FetchV1, NoticeV1, ResumeV1, ResumedV1, StatusReplyV1,
    StatusV1, SubmitV1, UnwatchV1, UploadAckV1, UploadBeginV1, UploadBeginV2, UploadChunkV1, UploadDoneV1, UploadEndV1,
    WatchV1,
};

messages! {
    0x0001 1 "hello_v1" HelloV1;
    0x0002 1 "welcome_v1" WelcomeV1;
    0x0003 1 "chunk_v1" ChunkV1;
    0x0004 1 "ping_v1" PingV1;
    0x0005 1 "pong_v1" PongV1;
    0x0006 1 "error_v1" ErrorV1;
    0x0007 1 "goodbye_v1" GoodbyeV1;
    0x0008 1 "moved_v1" MovedV1;
    0x0010 1 "submit_v1" SubmitV1;
    0x0011 1 "accepted_v1" AcceptedV1;
    0x0012 1 "event_v1" EventV1;
    0x0013 1 "watch_v1" WatchV1;
    0x0014 1 "unwatch_v1" UnwatchV1;
    0x0015 1 "status_v1" StatusV1;
    0x0016 1 "status_reply_v1" StatusReplyV1;
    0x0017 1 "cancel_v1" CancelV1;
    0x0018 1 "cancel_reply_v1" CancelReplyV1;
    0x0019 1 "resume_v1" ResumeV1;
    0x001a 1 "resumed_v1" ResumedV1;
    0x001b 1 "notice_v1" NoticeV1;
    0x0020 1 "upload_begin_v1" UploadBeginV1;
    0x0020 2 "upload_begin_v2" UploadBeginV2;
    0x0021 1 "upload_chunk_v1" UploadChunkV1;
    0x0022 1 "upload_ack_v1" UploadAckV1;
    0x0023 1 "upload_end_v1" UploadEndV1;
    0x0024 1 "upload_done_v1" UploadDoneV1;
    0x0025 1 "fetch_v1" FetchV1;
    0x0026 1 "fetch_chunk_v1" FetchChunkV1;
    0x0030 1 "publish_v1" PublishV1;
    0x0031 1 "publishing_v1" PublishingV1;
    0x0032 1 "chunk_ack_v1" ChunkAckV1;
    0x0033 1 "subscribe_v1" SubscribeV1;
    0x0034 1 "subscribed_v1" SubscribedV1;
    0x0035 1 "missed_v1" MissedV1;
    0x0036 1 "discontinuity_v1" DiscontinuityV1;
    0x0037 1 "stream_end_v1" StreamEndV1;
    0x0100 1 "job_v1" JobHeadV1;
}
