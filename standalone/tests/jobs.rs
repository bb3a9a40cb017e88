//! Jobs over a whole cluster: their events, their ends, whose they are, what is written down about them, and what a
//! restart, a `kill -9` or a lost connection leaves of them.
//!
//! Every test has a cluster of its own, in this process or as the real binary, and talks to it from outside.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails here")]

#[path = "jobs/api.rs"]
mod api;
#[path = "jobs/aside.rs"]
mod aside;
#[path = "jobs/audit.rs"]
mod audit;
#[path = "jobs/bad_input.rs"]
mod bad_input;
#[path = "jobs/cancel.rs"]
mod cancel;
#[path = "jobs/cli.rs"]
mod cli;
#[path = "jobs/cluster.rs"]
mod cluster;
#[path = "jobs/crash.rs"]
mod crash;
#[path = "jobs/doubt.rs"]
mod doubt;
#[path = "jobs/doubtful_log.rs"]
mod doubtful_log;
#[path = "jobs/ends.rs"]
mod ends;
#[path = "jobs/events.rs"]
mod events;
#[path = "jobs/exit_codes.rs"]
mod exit_codes;
#[path = "jobs/hand_over.rs"]
mod hand_over;
#[path = "jobs/jwt.rs"]
mod jwt;
#[path = "jobs/lanes.rs"]
mod lanes;
#[path = "jobs/misplaced.rs"]
mod misplaced;
#[path = "jobs/processes.rs"]
mod processes;
#[path = "jobs/restart.rs"]
mod restart;
#[path = "jobs/resume.rs"]
mod resume;
#[path = "jobs/same.rs"]
mod same;
#[path = "jobs/stage.rs"]
mod stage;
#[path = "jobs/tenants.rs"]
mod tenants;
#[path = "jobs/view.rs"]
mod view;
#[path = "jobs/wire.rs"]
mod wire;
