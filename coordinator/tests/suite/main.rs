//! Tests of the coordinator's parts and of the whole, in one binary.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails here")]

mod backends;
mod bad_probes;
mod binary;
mod drains;
mod election;
mod http_api;
mod kafka;
mod lease_plan;
mod lease_world;
mod leases;
mod moving_backends;
mod placement;
mod registry;
mod settings;
mod support;
mod topics;
mod view;
mod view_http;
mod view_kafka;
mod view_rebuild;
mod view_world;
