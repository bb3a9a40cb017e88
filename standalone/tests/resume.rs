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

use std::time::{SystemTime, UNIX_EPOCH};

use relay_protocol::JobId;

use cluster::Cluster;
use stage::{Calls, Stage};
use wire::Wire;

/// Two nodes on one log; the addresses of both.
async fn two_nodes(env: &[(&str, &str)]) -> (Cluster, Calls, [String; 2]) {
    let (stage, calls) = Stage::new();
    let cluster = Cluster::start(env, |options| {
        options.builtin = Some(stage);
        options.nodes = 2;
    });
    let cluster = cluster.await;
    let addresses = [0, 1].map(|node: usize| cluster.standalone.nodes[node].addr.to_string());
    (cluster, calls, addresses)
}

fn new_id(wire: &Wire, random: u64) -> JobId {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    JobId::new(now, wire.welcome.reply_partition, random)
}
