//! Dead letters of a whole cluster on the embedded log: what the real CLI and the HTTP API show of them, and that a
//! redrive makes one job of a letter, whatever fails and whoever asks at the same time.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails here")]

#[allow(dead_code, reason = "shared with the tests of jobs, which use more of it")]
#[path = "jobs/api.rs"]
mod api;
#[path = "dlq/carried.rs"]
mod carried;
#[path = "dlq/cli.rs"]
mod cli;
#[allow(dead_code, reason = "shared with the tests of jobs, which use more of it")]
#[path = "jobs/cluster.rs"]
mod cluster;
#[path = "dlq/cut.rs"]
mod cut;
#[path = "dlq/cut_log.rs"]
mod cut_log;
#[path = "dlq/dead.rs"]
mod dead;
#[path = "dlq/limits.rs"]
mod limits;
#[allow(dead_code, reason = "shared with the tests of jobs, which use more of it")]
#[path = "jobs/processes.rs"]
mod processes;
#[path = "dlq/requests.rs"]
mod requests;
#[path = "dlq/retry.rs"]
mod retry;
#[allow(dead_code, reason = "shared with the tests of jobs, which use more of it")]
#[path = "jobs/stage.rs"]
mod stage;
