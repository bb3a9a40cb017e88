//! The built-in tasks against known truth, hostile input and their own limits.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod hostile;
mod images;
mod params;
mod speech;
mod support;
mod truth;
mod whole;
