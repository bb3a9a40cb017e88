//! Backends that DNS names lead to, and backends that are drained: whole relays, a name server on loopback, simulated
//! LocalAI servers on several loopback addresses.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "discovery/world.rs"]
mod world;

#[path = "discovery/drained.rs"]
mod drained;
#[path = "discovery/moves.rs"]
mod moves;
#[path = "discovery/name_server.rs"]
mod name_server;
#[path = "discovery/tls.rs"]
mod tls;
