//! Sessions and event streams that go on at another node: a thousand at once, with pasts that are gone, and with nothing left to come.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails here")]

#[allow(dead_code, reason = "shared with the tests of jobs")]
#[path = "jobs/api.rs"]
mod api;
#[allow(dead_code, reason = "shared with the tests of jobs")]
#[path = "jobs/cluster.rs"]
mod cluster;
#[path = "resume/many.rs"]
mod many;
#[allow(dead_code, reason = "shared with the tests of jobs")]
#[path = "jobs/stage.rs"]
mod stage;
#[path = "resume/streams.rs"]
mod streams;
#[path = "resume/told.rs"]
mod told;
#[allow(dead_code, reason = "shared with the tests of jobs")]
#[path = "jobs/wire.rs"]
mod wire;
