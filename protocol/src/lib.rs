//! What crosses a wire or a topic of the media relay, and the pure rules about it.
//!
//! No async runtime, no actors, no clock, no I/O: everything here is data and functions of data. The session protocol
//! is bincode in a fixed frame ([`frame`]), records in topics are JSON or the same frames ([`record`]), the HTTP API and
//! the coordinator's API are JSON ([`event`], [`cluster`]).

mod check;
pub mod chunk;
pub mod cluster;
mod codec;
pub mod dead_letter;
pub mod error_code;
pub mod event;
pub mod frame;
pub mod hand_over;
pub mod hello;
pub mod id;
mod identity;
pub mod job;
pub mod limits;
pub mod message;
pub mod param;
pub mod partition;
pub mod record;
pub mod session;
pub mod task;
pub mod time;
pub mod topics;

pub use error_code::ErrorCode;
pub use event::{Event, EventKind, JobError};
pub use frame::{DecodeError, Frame};
pub use id::{JobId, SessionId, UploadId};
pub use job::{Input, Job, Priority, StoredObject};
pub use message::Message;
pub use task::Task;
