//! A node's gateway under bad input: whatever a client sends, or fails to send, the answer is a stable code and a sentence
//! that says what to do, and the node serves the next client as before.
//!
//! Every test starts a cluster of its own and talks to it over real sockets; at its end a good client submits a job.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "gateway/cluster.rs"]
mod cluster;
#[path = "gateway/forms.rs"]
mod forms;
#[path = "gateway/frames.rs"]
mod frames;
#[path = "gateway/http.rs"]
mod http;
#[path = "gateway/json.rs"]
mod json;
#[path = "gateway/media.rs"]
mod media;
#[path = "gateway/opening.rs"]
mod opening;
#[path = "gateway/paths.rs"]
mod paths;
#[path = "gateway/records.rs"]
mod records;
#[path = "gateway/silent.rs"]
mod silent;
#[path = "support/submit.rs"]
mod submit;
#[path = "gateway/submits.rs"]
mod submits;
#[path = "gateway/wire.rs"]
mod wire;
