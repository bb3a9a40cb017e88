//! Tests of `relay-runtime` from outside, in one binary.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod admission;
mod auth;
mod http;
mod jwt;
mod ops;
mod pure;
mod settings;
mod shutdown;
mod supervise;
mod telemetry;

/// Longest wait for something that must happen.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);
