//! What the tests share: the golden files, and a way to go from a message's name to its type.

#![allow(dead_code, reason = "no test binary uses all of it")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;

/// A file of this package.
pub(crate) fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Every golden file by name, without `.json`.
pub(crate) fn golden_files() -> BTreeMap<String, Value> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(file("golden/v1")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let name = name.strip_suffix(".json").unwrap_or_else(|| panic!("golden/v1/{name} is no JSON file"));
        let text = std::fs::read_to_string(&path).unwrap();
        files.insert(name.to_owned(), serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}")));
    }
    files
}

/// One golden file.
pub(crate) fn golden(name: &str) -> Value {
    golden_files().remove(name).unwrap_or_else(|| panic!("there is no golden/v1/{name}.json"))
}

/// A field of a golden file that holds hex.
pub(crate) fn bytes(vector: &Value, field: &str) -> bytes::Bytes {
    hex::decode(vector[field].as_str().unwrap()).unwrap().into()
}

/// A field of a golden file as a type.
pub(crate) fn read<T: DeserializeOwned>(vector: &Value, field: &str) -> T {
    serde_json::from_value(vector[field].clone()).unwrap_or_else(|e| panic!("{field} of {}: {e}", vector["name"]))
}

/// Runs a generic block with `$message` as the type of the message that `$name` names.
macro_rules! with_message {
    ($name:expr, $message:ident => $body:expr) => {
        $crate::support::with_message!(@ $name, $message => $body;
            "hello_v1" hello::HelloV1, "welcome_v1" hello::WelcomeV1, "ping_v1" hello::PingV1,
            "pong_v1" hello::PongV1, "error_v1" hello::ErrorV1, "goodbye_v1" hello::GoodbyeV1,
            "moved_v1" hello::MovedV1, "submit_v1" session::SubmitV1, "accepted_v1" session::AcceptedV1,
            "event_v1" session::EventV1, "watch_v1" session::WatchV1, "unwatch_v1" session::UnwatchV1,
            "status_v1" session::StatusV1, "status_reply_v1" session::StatusReplyV1,
            "cancel_v1" session::CancelV1, "cancel_reply_v1" session::CancelReplyV1,
            "resume_v1" session::ResumeV1, "resumed_v1" session::ResumedV1, "notice_v1" session::NoticeV1,
            "upload_begin_v1" session::UploadBeginV1, "upload_begin_v2" session::UploadBeginV2, "upload_chunk_v1" session::UploadChunkV1,
            "upload_ack_v1" session::UploadAckV1, "upload_end_v1" session::UploadEndV1,
            "upload_done_v1" session::UploadDoneV1, "fetch_v1" session::FetchV1,
            "fetch_chunk_v1" session::FetchChunkV1, "chunk_v1" chunk::ChunkV1, "publish_v1" chunk::PublishV1,
            "publishing_v1" chunk::PublishingV1, "chunk_ack_v1" chunk::ChunkAckV1,
            "subscribe_v1" chunk::SubscribeV1, "subscribed_v1" chunk::SubscribedV1, "missed_v1" chunk::MissedV1,
            "discontinuity_v1" chunk::DiscontinuityV1, "stream_end_v1" chunk::StreamEndV1, "job_v1" job::JobHeadV1)
    };
    (@ $name:expr, $message:ident => $body:expr; $($text:literal $module:ident::$type:ident),*) => {
        match $name {
            $($text => {
                type $message = relay_protocol::$module::$type;
                $body
            })*
            other => panic!("tests/support/mod.rs does not know the message {other:?}: add it to with_message"),
        }
    };
}
pub(crate) use with_message;
